"""The work of a cell, counted, and the time that it takes on a machine, within a factor of two or three. No torch.

Products of a forward pass follow from the shape; a backward pass costs as much again for what moves through the layers,
and once more for the weights' own gradients. Tokens of a text are counted from the size of its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from bench.method import Traits
from bench.record.provenance import accelerator_name
from bench.run.cells import ArtifactCell, MeasureCell
from bench.run.passes import NOTICE, passes_of, size_of
from bench.shape import Shape
from bench.suite import RandomTokens, TextSource

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
RANDOM_ROWS = 4096
"""Examples of random tokens."""
FACTORISING = 40
"""Operations for p·q·min(p, q) of a matrix that is decomposed."""
TRAINED, SCORED = 2, 4
"""Forward passes that training adapters and taking all gradients are worth; the second makes activations again."""
DISK = 0.7e9
"""Bytes a second, to and from the disk."""
START = 5.0
"""Seconds for the start of a worker."""
USED, READ = 0.4, 0.7
"""Shares of a GPU's peak rate and bandwidth that are reached."""
GPUS = {
    "B200": (2250, 8000),
    "H200": (989, 4800),
    "H100": (989, 3350),
    "A100": (312, 1600),
    "L40": (181, 864),
    "RTX 5090": (209, 1790),
    "RTX 4090": (165, 1010),
    "RTX 3090": (71, 936),
    "A6000": (155, 768),
    "A5000": (111, 768),
    "A40": (150, 696),
    "A10": (125, 600),
    "L4": (121, 300),
    "V100": (125, 900),
    "T4": (65, 320),
}
"""10^12 operations a second in 16 bits with sums in 32, and 10^9 bytes a second, by what a GPU's name holds."""
UNKNOWN_GPU = (100, 700)
CORE = (5e10, 5e9)
"""The same of a processor's core, as it is reached: seen with SmolLM2-135M on two cores of an EPYC."""


@dataclass(frozen=True)
class Machine:
    """Operations a second, in the model's dtype and in float32, and bytes a second of memory, as they are reached."""

    rate: float
    rate32: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """What a cell does: operations, those that are done in float32 whatever the model's dtype is, bytes of memory that
    are read, bytes of files."""

    operations: float = 0.0
    operations32: float = 0.0
    read: float = 0.0
    files: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.operations + other.operations,
            self.operations32 + other.operations32,
            self.read + other.read,
            self.files + other.files,
        )

    def seconds(self, machine: Machine) -> float:
        """As long as the products or the memory take, and the files."""
        products = self.operations / machine.rate + self.operations32 / machine.rate32
        return max(products, self.read / machine.bandwidth) + self.files / DISK


def machine_for(device: str, dtype: str) -> Machine:
    """What this machine is assumed to do: by the name of its GPU, or by the number of its cores."""
    if device != "cuda":
        cores = psutil.cpu_count(logical=False) or 1
        return Machine(cores * CORE[0], cores * CORE[0], cores * CORE[1])
    name = accelerator_name() or ""
    rate, bandwidth = next((figures for known, figures in GPUS.items() if known in name), UNKNOWN_GPU)
    half, single = USED * rate * 1e12, USED * rate * 1e12 / 8
    return Machine(single if dtype == "float32" else half, single, READ * bandwidth * 1e9)


def compress_seconds(cell: ArtifactCell, shape: Shape, after: float, traits: Traits) -> float:
    """Seconds of making a checkpoint of a model of `shape`, of which the fraction `after` is kept."""
    weights = BYTES[cell.dtype] * shape.params()
    work = Work(files=weights * (1 + 2 * after)) + _calibrating(cell, shape, traits)
    if "training" in traits.needs:
        work += _training(cell, cell.config, shape, 1.0)
    if cell.recovery:
        work += _training(cell, cell.recovery, shape, after)
    return START + work.seconds(machine_for(cell.device, cell.dtype))


def measure_seconds(job: ArtifactCell, cell: MeasureCell, shape: Shape, after: float) -> float | None:
    """Seconds of a measurement; None for a kind of task whose work is not known."""
    read = passes_of(job, cell)
    if read is None:
        return None
    weights = BYTES[job.dtype] * shape.params()
    work = Work(
        operations=_operations(shape, read.tokens, read.window) * (after + read.dense),
        read=weights * read.times * (after + read.dense),
    )
    return 1.0 + work.seconds(machine_for(job.device, job.dtype))


def _calibrating(cell: ArtifactCell, shape: Shape, traits: Traits) -> Work:
    """Forward passes over the windows, with gradients where the method takes them, and decompositions."""
    config = cell.config
    samples = number(config, "calibration_samples", number(config, "n_samples", 0))
    window = number(config, "seq_len", number(config, "max_length", 1))
    repeats = max(number(config, "iterative_steps", 1), number(config, "search_steps", 1))
    passes = SCORED if {"gradients", "row_gradients"} & traits.needs else 1
    work = Work(operations=passes * _operations(shape, samples * window * repeats, window))
    if traits.needs == {"calibration"} and "values" in traits.changes:
        sizes = [shape.size(i, p.name) for i in range(len(shape.blocks)) for p in shape.family.projections]
        work += Work(operations32=FACTORISING * sum(p * q * min(p, q) for p, q in sizes))
    return work


def _training(cell: ArtifactCell, settings: Mapping[str, Any], shape: Shape, kept: float) -> Work:
    """Steps of training adapters, and looks at the examples set aside."""
    rows, tokens = _rows_and_tokens(cell.training)
    length = min(number(settings, "max_length", 256), tokens / max(rows, 1))
    length += NOTICE if settings.get("notice") else 0
    batch, aside = number(settings, "batch_size", 64), min(number(settings, "holdout", 0), rows // 2)
    passes = sum(float(settings.get(name) or 0) for name in ("epochs", "finetune_epochs"))
    given = settings.get("steps")
    steps = given if isinstance(given, int) else max(1.0, passes * (rows - aside) / batch)
    looks = steps / number(settings, "evaluate_every", 200)
    again = 1 if cell.device == "cuda" else 0  # a block's activations are made again on the way back
    seen = (TRAINED + again) * steps * batch * length + looks * aside * length
    return Work(operations=kept * _operations(shape, seen, round(length)))


def _operations(shape: Shape, tokens: float, window: int) -> float:
    """Operations of forward passes over so many tokens in windows of `window`."""
    return 2 * tokens / max(window, 1) * shape.matmul_macs(max(window, 1))


def _rows_and_tokens(text: TextSource | RandomTokens | None) -> tuple[int, float]:
    """Examples of a training text and their tokens; of one that is not known as many as of random tokens."""
    if isinstance(text, TextSource) and (found := size_of(text.data)) != (0, 0):
        rows, tokens = found
        share = 1.0 if text.rows is None else min(1.0, (text.rows[1] - text.rows[0]) / max(rows, 1))
        return round(rows * share), tokens * share
    return RANDOM_ROWS, float("inf")


def number(settings: Mapping[str, Any], name: str, default: int) -> int:
    """A setting that is a whole number, else `default`."""
    value = settings.get(name)
    return value if isinstance(value, int) else default
