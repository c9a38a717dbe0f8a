"""Estimates of the memory, disk and time that a checkpoint will take, made before anything is computed. No torch.

Memory is the peak resident size of the worker and what it starts (on CUDA the device's): closed forms of the model's
shape and the settings. The working memory of decompositions and the caches of timed generation are left out. Time is
what the same cells took before on the same machine, else a rough count (`bench.run.work`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.blocks.settings import KEPT_LEAST, KEPT_SHARE, ROWS_BACKWARD, ROWS_FORWARD, WORKING
from bench.data.files import read_json
from bench.method import Target, Traits
from bench.record.provenance import accelerator_memory, fingerprint_of, machine_fingerprint
from bench.record.schema import MeasureRecord
from bench.record.store import Store
from bench.registry import Registry, tasks_named
from bench.run.cells import ArtifactCell, Job, MeasureCell
from bench.run.passes import NOTICE, longest, passes_of
from bench.run.work import BYTES, compress_seconds, measure_seconds, number
from bench.shape import Shape
from bench.task import kind_of_task
from bench.task_accuracy import BEGINNING_BYTES, ChoiceTask, PromptsTask
from bench.task_gold import GoldTask

GB = 10**9

INTERPRETER = 395_000_000
"""Resident size of a worker with torch, transformers and a tokenizer; on CUDA it is a guess of the context's.

It depends on the machine, mostly on code mapped from files: 360 to 430 million were seen.
"""
READING_TEXT = 125_000_000
"""What reading calibration or training text imports and keeps on top of that: 105 to 155 million were seen."""
HIDDEN_KEPT, CHANNELS_KEPT = 10, 4
"""Vectors of each width that a pass keeps for each token and block, measured."""
LOGITS_SCORED, LOGITS_TRAINED = 3, 4
"""Float32 rows of logits for each token, in passes of `bench.blocks.gradients` and in transformers' own. Measured."""
ADAM = 16
"""Bytes of a trained parameter: itself, its gradient and AdamW's two moments, float32."""
BESIDE_WEIGHTS = 20_000
"""Bytes of config.json, the model's code and other files that do not depend on the size."""
SPARE = 1.05
"""What is left free where two models are loaded to measure their speed."""
INDEX = 6
"""Characters of the manifest for each head and channel that is kept."""


@dataclass(frozen=True)
class Estimate:
    """The estimate of one job: bytes of memory at the peak, of the checkpoint on disk, and of the dense weights.

    By key of a cell: `needs` are bytes of memory; `seconds` is the time it took before, None where it was never run on
    this machine; `counted` is that time by count, None where it cannot be counted.
    """

    memory: int
    disk: int
    seconds: Mapping[str, float | None]
    needs: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[str, float | None] = field(default_factory=dict)
    weights: int = 0

    def is_spread(self, device: str) -> bool:
        """Whether one GPU does not hold the weights, so that they lie on all and on the CPU (`bench.model.place`)."""
        return is_spread(self.weights, device)

    def time_of(self, key: str) -> tuple[float | None, str]:
        """Seconds of the cell of `key`, and what they are from: `record`, `count` or nothing."""
        if (seconds := self.seconds[key]) is not None:
            return seconds, "record"
        counted = self.counted.get(key)
        return counted, "" if counted is None else "count"


def estimates_of(
    jobs: Sequence[Job], configs: Mapping[Path, Mapping[str, Any]], registry: Registry, seconds: Mapping[str, float]
) -> dict[str, Estimate]:
    """What each job takes, by the key of its checkpoint.

    Where some of the cells ran here before, the counted times of the others are scaled by the median of how long those
    took for their count.

    Args:
        configs: those of weights that are not here yet; others have a config.json.
        seconds: times of cells, from `past_seconds`.

    Raises:
        DataError: a config.json lacks a width.
    """
    found = {}
    for job in jobs:
        weights = job.artifact.weights
        file = weights / "config.json"
        shape = Shape.of(configs.get(weights) or read_json(file), file)
        found[job.artifact.key] = estimate(job, shape, registry.method(job.artifact.method).cls.traits, seconds)
    pairs = [(takes.seconds[key], count) for takes in found.values() for key, count in takes.counted.items()]
    pace = [taken / count for taken, count in pairs if taken is not None and count]
    return {key: _paced(takes, median(pace)) for key, takes in found.items()} if pace else found


def estimate(job: Job, shape: Shape, traits: Traits, seconds: Mapping[str, float]) -> Estimate:
    """What `job` takes, where `shape` is the dense model's; `seconds` as in `estimates_of`."""
    cell = job.artifact
    known = {cell.key: _work_of(cell.ingredients)} | {c.key: f"{cell.model} {c.task}" for c in job.cells}
    fixed = INTERPRETER + sum(kind_of_task(kind).imports for kind in {c.kind for c in job.cells})
    if {"calibration", "training"} & set(traits.needs) or cell.recovery:
        fixed += READING_TEXT
    kept = 1 - _removed(cell.target, shape)
    needs = {cell.key: fixed + max(_stages(cell, shape, traits))}
    needs |= {c.key: fixed + _measuring(cell, c, shape) for c in job.cells}
    counted: dict[str, float | None] = {cell.key: compress_seconds(cell, shape, kept, traits)}
    counted |= {c.key: measure_seconds(cell, c, shape, kept) for c in job.cells}
    return Estimate(
        memory=round(max(needs.values())),
        disk=round(_disk(cell, shape)),
        seconds={key: seconds.get(name) for key, name in known.items()},
        needs={key: round(need) for key, need in needs.items()},
        counted=counted,
        weights=BYTES[cell.dtype] * shape.params(),
    )


def is_spread(weights: int, device: str) -> bool:
    """Whether so many bytes of weights are more than one GPU takes."""
    return device == "cuda" and weights > room_of(device) - WORKING


def room_of(device: str) -> float:
    """Bytes of memory that there are: of this machine, or of the GPU (infinite where it does not say)."""
    return psutil.virtual_memory().total if device != "cuda" else accelerator_memory() or float("inf")


def _paced(takes: Estimate, pace: float) -> Estimate:
    counted = {key: None if count is None else count * pace for key, count in takes.counted.items()}
    return replace(takes, counted=counted)


def past_seconds(results: Path, accelerator: str | None) -> dict[str, float]:
    """Median seconds of cells that ended well on this machine: tasks by model, checkpoints by how they are made."""
    here = machine_fingerprint(accelerator)
    found: dict[str, list[float]] = {}
    for record in Store(results).read_all()[0]:
        if record.status == "ok" and fingerprint_of(record.provenance.machine) == here:
            if isinstance(record, MeasureRecord):
                name = f"{record.model} {record.task}"
            else:
                name = _work_of(record.ingredients)
            found.setdefault(name, []).append(record.provenance.seconds)
    return {name: median(values) for name, values in found.items()}


def _stages(cell: ArtifactCell, shape: Shape, traits: Traits) -> Iterator[float]:
    """Bytes of memory, above the worker's own, at each time when making a checkpoint may hold most."""
    dense = BYTES[cell.dtype] * shape.params()
    yield dense + _scoring(cell, shape, traits)
    if "training" in traits.needs:
        yield dense + _training(cell, cell.config, shape)
    if cell.recovery:
        yield dense * (1 - _removed(cell.target, shape)) + _training(cell, cell.recovery, shape)


def _measuring(cell: ArtifactCell, task: MeasureCell, shape: Shape) -> float:
    """Bytes of memory, above the worker's own, that a task takes on the checkpoint.

    Where speed is measured and both models do not fit, they are loaded in turns.
    """
    kind, width = kind_of_task(task.kind), BYTES[cell.dtype]
    dense = width * shape.params()
    models = [dense * (1 - _removed(cell.target, shape)), *[dense] * (kind.models - 1)]
    if kind.in_turn:
        passes = passes_of(cell, task)
        return max(models) + width * shape.hidden * ((passes.tokens if passes else 0) + shape.vocab) + kind.working
    together = kind.processes * INTERPRETER + sum(models) + kind.working + _cached(cell, task, shape)
    if kind.is_timed and INTERPRETER + SPARE * together > room_of(cell.device):
        return INTERPRETER + max(models) + kind.working
    return together


def _cached(cell: ArtifactCell, task: MeasureCell, shape: Shape) -> float:
    """Bytes of keys and values: of a batch that is answered, or of examples that all scored prompts begin with."""
    [found], passes, token = tasks_named(task.task), passes_of(cell, task), shape.cache_bytes(BYTES[cell.dtype])
    if tokens := found.spec.cached[cell.device == "cuda"]:
        return token * tokens
    if passes is None or not isinstance(found.spec, ChoiceTask | GoldTask) or found.protocol.startswith("0shot"):
        return 0.0
    is_rendered = isinstance(found.spec, PromptsTask | GoldTask)
    return min(float(BEGINNING_BYTES), token * (longest(found.data()[0]) if is_rendered else passes.window))


def _scoring(cell: ArtifactCell, shape: Shape, traits: Traits) -> float:
    """Bytes that calibrating takes besides the model: a backward pass keeps each block's input, and one block whole."""
    if "calibration" not in traits.needs:
        return 0.0
    used = {value for value in cell.config.values() if isinstance(value, str)}
    batch = number(cell.config, "calibration_samples", ROWS_BACKWARD)
    if "row_gradients" in traits.needs or "param_second" in used:
        rows = 1
    elif "gradients" in traits.needs:
        rows = min(ROWS_BACKWARD, batch)
    else:
        return min(ROWS_FORWARD, batch) * number(cell.config, "seq_len", 0) * LOGITS_TRAINED * 4 * shape.vocab
    width, n = BYTES[cell.dtype], len(shape.blocks)
    tokens = rows * number(cell.config, "seq_len", 0)
    taken = tokens * (n * width * shape.hidden + _activations(cell, shape, 1, LOGITS_SCORED))
    if "row_gradients" in traits.needs or "param_mix" in used:
        taken += min(max(KEPT_LEAST, KEPT_SHARE * width * shape.params()), 8 * shape.block_params())
    return taken


def _training(cell: ArtifactCell, settings: Mapping[str, Any], shape: Shape) -> float:
    """Bytes that training adapters on every projection takes besides the model.

    On a GPU a block's activations are made again on the way back: the blocks' inputs are held, and one block whole.
    """
    layers, projections = range(len(shape.blocks)), shape.family.projections
    widths = sum(sum(shape.size(layer, projection.name)) for layer in layers for projection in projections)
    trained = number(settings, "r", 8) * widths
    examples = min(number(settings, "micro_batch", 4), number(settings, "batch_size", 64))
    tokens = examples * (number(settings, "max_length", 256) + (NOTICE if settings.get("notice") else 0))
    if cell.device != "cuda":
        return ADAM * trained + tokens * _activations(cell, shape, len(shape.blocks), LOGITS_TRAINED)
    inputs = len(shape.blocks) * BYTES[cell.dtype] * shape.hidden
    return ADAM * trained + tokens * (inputs + _activations(cell, shape, 1, LOGITS_TRAINED))


def _activations(cell: ArtifactCell, shape: Shape, blocks: int, logits: int) -> float:
    """Bytes that a forward pass keeps of each token for the backward pass, for this many blocks and rows of logits."""
    kept = HIDDEN_KEPT * shape.hidden + CHANNELS_KEPT * max(block.channels for block in shape.blocks)
    return blocks * kept * BYTES[cell.dtype] + logits * 4 * shape.vocab


def _disk(cell: ArtifactCell, shape: Shape) -> float:
    """Bytes of the checkpoint with the files of the tokenizer and the manifest."""
    weights = BYTES[cell.dtype] * shape.params() * (1 - _removed(cell.target, shape))
    tokenizer = sum(f.stat().st_size for f in cell.weights.glob("*token*"))
    kept = sum(block.heads + block.channels for block in shape.blocks)
    return weights + tokenizer + INDEX * kept + BESIDE_WEIGHTS


def _removed(target: Target | None, shape: Shape) -> float:
    """The fraction of the parameters to remove; 0 where the method's own settings decide."""
    if target is None or target.basis == "group_ratio":
        return 0.0
    return target.value * (1.0 if target.basis == "params" else shape.block_params() / shape.params())


def _work_of(ingredients: Mapping[str, Any]) -> str:
    """Identifies the work of making a checkpoint, without the target and the seed, which change its time little."""
    work = {name: value for name, value in ingredients.items() if name not in ("target", "seed")}
    return json.dumps(work, sort_keys=True)
