"""The Python interface: compress a model, evaluate a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.blocks.recoveries import resolve_recovery
from bench.catalogue import ModelRef, resolve
from bench.data.lengths import shortfall
from bench.data.pack import Pack
from bench.data.sources import ensure, fetch
from bench.errors import UsageError
from bench.method import MethodConfig, Target
from bench.paths import offline
from bench.record.schema import Cost, Metric
from bench.registry import load_registry, tasks_named
from bench.run.cells import artifact_ingredients, fingerprinted
from bench.suite import TextSource
from bench.yamlfile import validated

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PASSAGES = TextSource(data="lambada_passages/test", rows=(2000, 5000))
"""Not the passages that `lambada_text` begins with: methods must not learn from what is measured."""


@dataclass(frozen=True)
class Artifact:
    """A compressed checkpoint on disk.

    `kept[layer]` has the kept `heads` and `channels` as indices in the dense model (a dropped layer is missing),
    `sizes` the parameters and bytes by metric name, `achieved` the removed fraction by target basis.
    """

    path: Path
    kept: dict[int, dict[str, list[int]]]
    sizes: dict[str, float]
    achieved: dict[str, float]
    cost: Cost


def compress(
    model: str | Path | PreTrainedModel,
    method: str,
    *,
    config: Mapping[str, Any] | None = None,
    target: Target | Mapping[str, Any] | None = None,
    calibration: str | TextSource | torch.Tensor | None = None,
    recovery: Mapping[str, Any] | None = None,
    out: str | Path,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Artifact:
    """Compress `model` with `method` and save the checkpoint in folder `out`.

    Args:
        model: catalogue id, hub id, folder of a checkpoint, or a transformers model that is loaded already. That one is
            not changed: it is saved once, in its own dtype, into a folder of the cache, from which everything starts.
        method: a registered method's name (`leanboard methods` lists them).
        config: fields of the method's config; the rest keep their defaults.
        target: how much to remove, as a `Target` or its fields; without it the config decides.
        calibration: what the method calibrates and trains on instead of passages of LAMBADA: a text by name
            ("c4/train"; `leanboard data list` has them), a `TextSource` with a column, rows or a sampler of its own, or
            token ids, int64 [N, T].
        recovery: training after the method's own work: {"name": "lora", ...} or {"name": "grouped", ...} with settings.
        out: folder for the checkpoint; it must not hold anything else.
        seed: seed of all that is random.
        device: "cpu", "cuda", or "auto" for the GPU where there is one.
        dtype: "float32", "float16" or "bfloat16": of the weights while compressing, and of the checkpoint.
        tokenizer: that of a loaded model; every other has its own.

    Raises:
        UsageError: an unknown name or field, or a model, text or device that is not available.
        MethodError: the method cannot reach the target, or broke its contract.
    """
    from bench.run.compress import Order, Stages, Texts, build

    out = Path(out)
    if out.exists() and any(out.iterdir()) and not (out / "leanboard.json").exists():
        raise UsageError(f"{out}: the folder is not empty and holds no Leanboard checkpoint; nothing is overwritten")
    entry = load_registry().method(method)
    resolved: MethodConfig = validated(entry.cls.Config, dict(config or {}), f"method {method}: config")
    wanted = None if target is None else validated(Target, target, "target")
    source = _source(calibration)
    device, dtype = _device(device), _dtype(dtype)
    ref = _ref(model, tokenizer)
    after = resolve_recovery(recovery, "recovery")
    reads = ({"calibration", "training"} & entry.cls.traits.needs) | ({"training"} if after else set())
    settings = resolved.model_dump(mode="json")
    text = _identified(source, settings if "calibration" in reads else {}, ref) if reads else None
    texts = Texts(None, source, source) if isinstance(source, TextSource) else Texts(ids=source)
    read = [text if kind in reads else None for kind in ("calibration", "training")]
    ingredients = artifact_ingredients(ref, entry, settings, after, wanted, seed, dtype, *read)
    order = Order(ref.path, entry.cls(resolved), after, wanted, seed, dtype, device, texts, ingredients)
    built = build(order, out, Stages(order.device))
    manifest = built.manifest
    return Artifact(built.path, dict(manifest.kept), dict(manifest.sizes), dict(manifest.achieved), built.cost)


def evaluate(
    path_or_model: str | Path | Artifact | PreTrainedModel,
    task_ids: Sequence[str],
    *,
    limit: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    tokenizer: PreTrainedTokenizerBase | None = None,
    dense: str | Path | None = None,
) -> list[Metric]:
    """Measure tasks on a checkpoint.

    Args:
        path_or_model: what `compress` takes as a model, or what it returned.
        task_ids: task ids, metric ids or group names: `piqa`, `wikitext2@128`, `commonsense7`.
        limit: only the first `limit` items (windows, for perplexity) of each task; it becomes part of the metric ids.
        device, dtype, tokenizer: as for `compress`.
        dense: the model that the checkpoint was made from, by name or folder, for tasks that compare the two
            (`divergence@wikitext2/128`).

    Raises:
        UsageError: an unknown task, or a model, data file or device that is not available; a task needs `dense`.
    """
    from bench.measure import measure
    from bench.measure.subject import Subject

    if limit is not None and limit < 1:
        raise UsageError(f"limit: must be at least 1, not {limit}")
    load_registry()  # the families of plug-ins
    tasks = {task.id: task for name in task_ids for task in tasks_named(name, limit)}.values()
    for task in tasks:
        if task.spec.needs_dense and dense is None:
            raise UsageError(f"dense: task {task.id} needs the model that the checkpoint was made from")
    fetch(sorted({ref for task in tasks for ref in task.data()}), offline=offline())
    device, dtype = _device(device), _dtype(dtype)
    ref = _ref(path_or_model.path if isinstance(path_or_model, Artifact) else path_or_model, tokenizer)
    origin = None if dense is None else _ref(dense, None).path
    subject = Subject(ref.path, dense=origin, dtype=dtype, device=device)
    pack = Pack.default()
    return [metric for task in tasks for metric in measure(task, subject, pack, lambda done, total: None).metrics]


def _ref(model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> ModelRef:
    """The checkpoint to start from; a loaded model is saved into the cache first."""
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise UsageError("tokenizer: goes with a loaded model alone; every other has its own")
        return resolve(model if isinstance(model, str) else str(model.expanduser().absolute()), offline=offline())
    from bench.model.loaded import save_loaded

    return resolve(str(save_loaded(model, tokenizer)), offline=offline())


def _source(calibration: str | TextSource | torch.Tensor | None) -> TextSource | torch.Tensor:
    if isinstance(calibration, str):
        return validated(TextSource, {"data": calibration}, "calibration")
    if calibration is None or isinstance(calibration, TextSource):
        return calibration or PASSAGES
    return _checked(calibration)


def _identified(source: TextSource | torch.Tensor, settings: Mapping[str, Any], ref: ModelRef) -> Any:
    """The text as an ingredient of a key, once it is here and long enough for a method of these settings."""
    if not isinstance(source, TextSource):
        return {"token_ids": _digest(source)}
    for name, reason in ensure([source.data], offline=offline()).items():
        raise UsageError(f"calibration: {name} is not available: {reason}")
    why = shortfall(source, settings, ref.path)
    if why is not None:
        raise UsageError(f"calibration: {source.name}: {why}")
    return fingerprinted(source)


def _device(device: str) -> str:
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device: must be auto, cpu or cuda, not '{device}'")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda is asked for, and torch finds no GPU on this machine")
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(dtype: str | torch.dtype) -> str:
    from bench.model.load import DTYPES

    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"dtype: must be {', '.join(DTYPES)}, not '{dtype}'")
    return name


def _checked(ids: torch.Tensor) -> torch.Tensor:
    import torch

    if not isinstance(ids, torch.Tensor) or ids.dtype != torch.int64 or ids.dim() != 2 or not ids.numel():
        raise UsageError("calibration: must be an int64 tensor [N, T] of token ids, or the name of a text")
    return ids


def _digest(ids: torch.Tensor) -> str:
    return hashlib.sha256(str(tuple(ids.shape)).encode() + ids.cpu().numpy().tobytes()).hexdigest()
