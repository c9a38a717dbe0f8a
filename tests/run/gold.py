"""A made-up kind of task and of metric: bits per byte of fixed answers, by a model that has no say in their bytes."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import stdev
from typing import ClassVar, Literal

import torch

from bench.errors import UsageError
from bench.measure.measurement import Measurement, Resources
from bench.measure.perplexity import window_losses
from bench.measure.subject import Subject
from bench.record.kind import Form, Gap, Kind
from bench.record.schema import Evidence, Metric, Windows
from bench.run.status import running
from bench.task import Task
from bench.task_kind import TaskSpec
from bench.views import status_lines

BITS_PER_BYTE = Kind(
    "bits per byte",
    "Bits per byte",
    {"*.bpb": Form("bits/byte", "lower", "{task} bits per byte")},
    evidence="windows",
    value=lambda mean: mean / math.log(2),
    is_quality=True,
    gap=Gap("loss", "bits/byte", 1 / math.log(2)),
    noun="bits per byte",
    axis="bits per byte",
    footnote="*bits per byte*: the loss of the answers over their bytes.",
)
seen: list[str] = []
"""What `leanboard status` said while the task was at work."""


class GoldTask(TaskSpec):
    """Answers as token ids, each with the bytes that it stands for."""

    module = "tests.run.gold"
    engine = "gold/1"
    seconds = 3.0
    has_limit = True
    results: ClassVar[Path] = Path("results")

    kind: Literal["gold"]
    answers: int

    def protocol(self, given: str | None) -> str:
        if given not in (None, "0shot"):
            raise UsageError(f"task {self.name}: protocol '{given}' is not 0shot")
        return "0shot"


def measure(task: Task, spec: GoldTask, subject: Subject, resources: Resources) -> Measurement:
    """Bits per byte; the answers are not alike, so that the standard error is that of a mean over them."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 60, (task.limit or spec.answers, 8), generator=draw)
    seen[:] = status_lines(running(spec.results))
    losses = window_losses(subject.model, ids)
    counts = [20 + i % 7 for i in range(len(losses))]
    resources.on_progress(len(losses), len(losses))
    value = sum(losses) / sum(counts) / math.log(2)
    error = stdev(a / b for a, b in zip(losses, counts, strict=True)) / math.log(2) / math.sqrt(len(losses))
    form = BITS_PER_BYTE.metrics["*.bpb"]
    metric = Metric(
        id=task.metric_id("bpb"), value=value, unit=form.unit, direction=form.direction, n=sum(counts), stderr=error
    )
    return Measurement([metric], Evidence(windows=Windows(nll=losses, targets=counts)))
