"""Checkpoints of compressed models: saved so that others load them, and checked whenever they are loaded again.

Next to weights, config and tokenizer is `leanboard.json` (`Manifest`): where the model comes from, what is kept of it,
and the logits of a fixed probe, which must come back on every reload. Where a method hands over the adapter that it
merged, that lies in `adapter/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.data.files import replacing
from bench.errors import DataError, LeanboardError
from bench.model import lean
from bench.model.adapter import FOLDER, adapter_of
from bench.model.classes import LEAN_FILE, auto_map
from bench.model.layers import family_of
from bench.model.load import dtype_of, load_folder
from bench.shape import BlockKept, Kept

MANIFEST = "leanboard.json"
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


class Probe(BaseModel):
    """A fixed input and the logits (last position, evenly spaced vocabulary entries) it gave when saved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: list[int]
    entries: list[int]
    logits: list[float]

    @model_validator(mode="after")
    def _same_length(self) -> Probe:
        if len(self.entries) != len(self.logits):
            raise ValueError("entries and logits must be equally long")
        return self


class Manifest(BaseModel):
    """What `leanboard.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    ingredients: dict[str, Any]
    dtype: str
    achieved: dict[str, float]
    sizes: dict[str, float]
    kept: dict[int, dict[str, list[int]]]
    hidden: list[int] | None = None
    probe: Probe

    def as_kept(self) -> Kept:
        """What is kept of the dense model."""
        blocks = {i: BlockKept(tuple(b["heads"]), tuple(b["channels"])) for i, b in self.kept.items()}
        return Kept(blocks, None if self.hidden is None else tuple(self.hidden))


def take_probe(model: PreTrainedModel) -> Probe:
    """Run the fixed probe: 16 token ids, 64 logits at the last position."""
    vocab = model.config.vocab_size
    ids = [(7 * i + 3) % vocab for i in range(16)]
    entries = sorted({i * vocab // 64 for i in range(64)})
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=model.device)).logits[0, -1].float().cpu()
    return Probe(ids=ids, entries=entries, logits=[float(logits[i]) for i in entries])


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    ingredients: Mapping[str, Any],
    achieved: Mapping[str, float],
    kept: Kept,
) -> Manifest:
    """Save `model` into `folder` (made anew; written under another name and renamed, so it is whole or not there).

    Raises:
        LeanboardError: it cannot be written.
    """
    try:
        with replacing(folder) as new:
            new.mkdir()
            if model.config.model_type == family_of(model).lean_type:
                model.config.auto_map = auto_map(family_of(model))
                shutil.copyfile(lean.__file__, new / LEAN_FILE)
            model.save_pretrained(new, max_shard_size="4GB")
            if tokenizer is not None:
                tokenizer.save_pretrained(new)
            if (adapter := adapter_of(model)) is not None:
                adapter.save(new / FOLDER)
            manifest = Manifest(
                ingredients=dict(ingredients),
                dtype=str(model.dtype).removeprefix("torch."),
                achieved=dict(achieved),
                sizes=sizes_of(model, new),
                kept={i: {"heads": list(b.heads), "channels": list(b.channels)} for i, b in kept.blocks.items()},
                hidden=None if kept.hidden is None else list(kept.hidden),
                probe=take_probe(model),
            )
            (new / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    except OSError as error:
        raise LeanboardError(f"{folder}: the checkpoint cannot be written ({error})") from error
    return manifest


def sizes_of(model: PreTrainedModel, folder: Path) -> dict[str, float]:
    """Stored and non-zero parameters (tied ones once) and the bytes of the weight files in `folder`."""
    parameters = list(model.parameters())
    return {
        "params.stored": float(sum(p.numel() for p in parameters)),
        "params.nonzero": float(sum(int(torch.count_nonzero(p)) for p in parameters)),
        "bytes.disk": float(sum(f.stat().st_size for f in folder.glob("*.safetensors"))),
    }


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint; None where there is none (a dense model from elsewhere).

    Raises:
        DataError: it is not such a manifest.
    """
    file = folder / MANIFEST
    if not file.exists():
        return None
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise DataError(f"{file}: {field}: {first['msg']}") from error


def load_checkpoint(
    folder: Path, dtype: str | torch.dtype = "float32", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Load a checkpoint and, where it has a manifest and the dtype is the one it was saved in, check its probe.

    Raises:
        DataError: a file is damaged, or the logits differ from those it was saved with.
    """
    manifest = read_manifest(folder)
    model, tokenizer = load_folder(folder, dtype, device)
    if manifest is not None and manifest.dtype == str(dtype_of(dtype)).removeprefix("torch."):
        _check_probe(model, manifest, folder)
    return model, tokenizer


def _check_probe(model: PreTrainedModel, manifest: Manifest, folder: Path) -> None:
    got = take_probe(model)
    if got.ids != manifest.probe.ids or got.entries != manifest.probe.entries:
        raise DataError(f"{folder / MANIFEST}: probe: made for another vocabulary than the checkpoint's")
    tolerance = TOLERANCE[manifest.dtype]
    worst = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(got.logits, manifest.probe.logits, strict=True))
    if not worst <= tolerance:
        raise DataError(f"{folder}: logits differ by {worst:.2g} from those it was saved with (limit {tolerance:g})")
