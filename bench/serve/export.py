"""A checkpoint of the cache as a folder to hand on: weights, code where it needs any, tokenizer and model card."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.checkpoint_files import check_checkpoint
from bench.errors import DataError, UsageError
from bench.model.adapter import FOLDER
from bench.model.checkpoint import TOLERANCE, Manifest, load_checkpoint, read_manifest, save_checkpoint, take_probe
from bench.model.load import dtype_of
from bench.process import last_words
from bench.serve import foreign
from bench.serve.card import write_card
from bench.serve.find import Found
from bench.serve.gguf import write_gguf
from bench.shape import BlockKept, Kept, Shape

Format = Literal["hf", "gguf"]
CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What the attention of vLLM 0.32 and 0.33 takes on a CPU."""


def export(found: Found, to: Path, *, dtype: str | None, form: Format) -> list[str]:
    """Write the checkpoint into the folder `to`, which must be new or empty, and return what is to be said of it.

    A folder for transformers is loaded again in a process that has no Leanboard, and must give the probe's logits.

    Raises:
        UsageError: the folder holds something; the dtype is unknown; a layer's heads are not a multiple of its
            key/value heads; the model has no form in GGUF.
        DataError: the checkpoint is damaged, or what was written gives other logits.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to}: is not empty; nothing is overwritten")
    manifest = read_manifest(found.folder)
    if manifest is None:
        raise DataError(f"{found.folder}: leanboard.json is missing")
    wanted = dtype_of(dtype or manifest.dtype)
    notes = servable(found.folder) if form == "hf" else []
    model, tokenizer = load_checkpoint(found.folder, manifest.dtype)
    model = model.to(wanted)
    if str(model.dtype) != f"torch.{manifest.dtype}":
        notes.append(
            f"cast from {manifest.dtype}, in which it was measured: {_drift(manifest, model):.2g} is the most "
            "by which a logit of the probe moved"
        )
    try:
        if form == "gguf":
            to.mkdir(parents=True, exist_ok=True)
            notes += write_gguf(model, found.folder, to / "model.gguf", found.label)
        else:
            _check(to, _save(found, to, model, tokenizer, manifest))
        write_card(found, to, form, str(wanted).removeprefix("torch."), notes)
    except BaseException:
        shutil.rmtree(to, ignore_errors=True)
        raise
    return notes


def servable(folder: Path) -> list[str]:
    """What is to be said of serving the checkpoint in `folder`.

    Raises:
        UsageError: a layer's heads are not a multiple of its key/value heads: no server shares them evenly.
    """
    config, _ = check_checkpoint(folder)
    shape = Shape.of(config, folder / "config.json")
    notes = []
    if shape.head_dim not in CPU_HEAD_DIMS:
        notes.append(f"vLLM has no attention for heads of {shape.head_dim} dimensions on a CPU")
    if shape.factors:
        notes.append("vLLM serves low-rank factors on one GPU, not split over several")
    return notes


def _save(
    found: Found, to: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, manifest: Manifest
) -> Manifest:
    kept = Kept(
        {i: BlockKept(tuple(block["heads"]), tuple(block["channels"])) for i, block in manifest.kept.items()},
        None if manifest.hidden is None else tuple(manifest.hidden),
    )
    written = save_checkpoint(
        to, model, tokenizer, ingredients=manifest.ingredients, achieved=manifest.achieved, kept=kept
    )
    if (found.folder / FOLDER).is_dir():
        shutil.copytree(found.folder / FOLDER, to / FOLDER)
    return written


def _drift(manifest: Manifest, model: PreTrainedModel) -> float:
    pairs = zip(take_probe(model).logits, manifest.probe.logits, strict=True)
    return max(abs(a - b) for a, b in pairs)


def _check(folder: Path, manifest: Manifest) -> None:
    command = [sys.executable, "-P", foreign.__file__, str(folder.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DataError(f"{folder}: without Leanboard it cannot be loaded ({last_words(done)})")
    worst = json.loads(done.stdout.splitlines()[-1])
    if not worst <= TOLERANCE[manifest.dtype]:
        raise DataError(f"{folder}: without Leanboard its logits differ by {worst:.2g}")
