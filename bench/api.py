"""The Python interface: compress a model, evaluate a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.blocks.recoveries import resolve_recovery
from bench.catalogue import resolve
from bench.data.pack import Pack
from bench.data.sources import fetch
from bench.errors import UsageError
from bench.method import MethodConfig, Target
from bench.paths import offline
from bench.record.schema import Cost, Metric
from bench.registry import load_registry, tasks_named
from bench.run.cells import artifact_ingredients
from bench.suite import TextSource
from bench.yamlfile import validated

if TYPE_CHECKING:
    import torch

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
    model: str | Path,
    method: str,
    *,
    config: Mapping[str, Any] | None = None,
    target: Target | Mapping[str, Any] | None = None,
    calibration: torch.Tensor | None = None,
    recovery: Mapping[str, Any] | None = None,
    out: str | Path,
    seed: int = 0,
) -> Artifact:
    """Compress `model` with `method` and save the checkpoint in folder `out`.

    Args:
        model: catalogue id or folder of a checkpoint.
        method: a registered method's name (`leanboard methods` lists them).
        config: fields of the method's config; the rest keep their defaults.
        target: how much to remove, as a `Target` or its fields; without it the config decides.
        calibration: token ids, int64 [N, T], that the method calibrates and trains on instead of passages of LAMBADA.
        recovery: training after the method's own work: {"name": "lora", ...} or {"name": "grouped", ...} with settings.
        out: folder for the checkpoint; it must not hold anything else.
        seed: seed of all that is random.

    Raises:
        UsageError: an unknown name or field, or a model or text that is not available.
        MethodError: the method cannot reach the target, or broke its contract.
    """
    from bench.run.compress import Order, Stages, Texts, build

    out = Path(out)
    if out.exists() and any(out.iterdir()) and not (out / "leanboard.json").exists():
        raise UsageError(f"{out}: the folder is not empty and holds no Leanboard checkpoint; nothing is overwritten")
    entry = load_registry().method(method)
    resolved: MethodConfig = validated(entry.cls.Config, dict(config or {}), f"method {method}: config")
    wanted = None if target is None else validated(Target, target, "target")
    ref = resolve(str(model), offline=offline())
    after = resolve_recovery(recovery, "recovery")
    reads = ({"calibration", "training"} & entry.cls.traits.needs) | ({"training"} if after else set())
    if calibration is None and reads:
        fetch([PASSAGES.data], offline=offline())
    texts = Texts(ids=_checked(calibration)) if calibration is not None else Texts(None, PASSAGES, PASSAGES)
    text = PASSAGES.model_dump(mode="json") if calibration is None else {"token_ids": _digest(calibration)}
    read = [text if kind in reads else None for kind in ("calibration", "training")]
    settings = resolved.model_dump(mode="json")
    ingredients = artifact_ingredients(ref, entry, settings, after, wanted, seed, "float32", *read)
    order = Order(
        weights=ref.path,
        method=entry.cls(resolved),
        recovery=after,
        target=wanted,
        seed=seed,
        dtype="float32",
        device="cpu",
        texts=texts,
        ingredients=ingredients,
    )
    built = build(order, out, Stages(order.device))
    manifest = built.manifest
    return Artifact(built.path, dict(manifest.kept), dict(manifest.sizes), dict(manifest.achieved), built.cost)


def evaluate(
    path_or_model: str | Path | Artifact, task_ids: Sequence[str], *, limit: int | None = None
) -> list[Metric]:
    """Measure tasks on a checkpoint.

    Args:
        path_or_model: a checkpoint's folder, a catalogue id, or what `compress` returned.
        task_ids: task ids, metric ids or group names: `piqa`, `wikitext2@128`, `commonsense7`.
        limit: only the first `limit` items (windows, for perplexity) of each task; it becomes part of the metric ids.

    Raises:
        UsageError: an unknown task, or a model or data file that is not available.
    """
    from bench.measure import measure
    from bench.measure.subject import Subject

    if limit is not None and limit < 1:
        raise UsageError(f"limit: must be at least 1, not {limit}")
    load_registry()  # the families of plug-ins
    tasks = {task.id: task for name in task_ids for task in tasks_named(name, limit)}.values()
    fetch(sorted({ref for task in tasks for ref in task.spec.data()}), offline=offline())
    where = path_or_model.path if isinstance(path_or_model, Artifact) else path_or_model
    path = resolve(str(where), offline=offline()).path
    subject = Subject(path, dense=None, dtype="float32", device="cpu")
    pack = Pack.default()
    return [metric for task in tasks for metric in measure(task, subject, pack, lambda done, total: None).metrics]


def _checked(ids: torch.Tensor) -> torch.Tensor:
    import torch

    if not isinstance(ids, torch.Tensor) or ids.dtype != torch.int64 or ids.dim() != 2 or not ids.numel():
        raise UsageError("calibration: must be an int64 tensor [N, T] of token ids")
    return ids


def _digest(ids: torch.Tensor) -> str:
    return hashlib.sha256(str(tuple(ids.shape)).encode() + ids.cpu().numpy().tobytes()).hexdigest()
