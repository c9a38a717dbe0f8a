"""A made-up kind of task and of metric: bits per letter of fixed answers, whose letters nobody reads."""

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

BITS_PER_LETTER = Kind(
    "bits per letter",
    "Bits per letter",
    {"*.bpl": Form("bits/letter", "lower", "{task} bits per letter")},
    evidence="windows",
    value=lambda mean: mean / math.log(2),
    is_quality=True,
    side="can say",
    gap=Gap("loss", "bits/letter", 1 / math.log(2)),
    noun="bits per letter",
    axis="bits per letter",
    footnote="*bits per letter*: the loss of the answers over their letters.",
)
seen: list[str] = []
"""What `leanboard status` said while the task was at work."""


class LettersTask(TaskSpec):
    """Answers as token ids, each with the letters that it stands for."""

    module = "tests.run.letters"
    engine = "letters/1"
    seconds = 3.0
    has_limit = True
    results: ClassVar[Path] = Path("results")

    kind: Literal["letters"]
    answers: int

    def protocol(self, given: str | None) -> str:
        if given not in (None, "0shot"):
            raise UsageError(f"task {self.name}: protocol '{given}' is not 0shot")
        return "0shot"


def measure(task: Task, spec: LettersTask, subject: Subject, resources: Resources) -> Measurement:
    """Bits per letter; the answers are not alike, so that the standard error is that of a mean over them."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 60, (task.limit or spec.answers, 8), generator=draw)
    seen[:] = status_lines(running(spec.results))
    losses = window_losses(subject.model, ids)
    counts = [20 + i % 7 for i in range(len(losses))]
    resources.on_progress(len(losses), len(losses))
    value = sum(losses) / sum(counts) / math.log(2)
    error = stdev(a / b for a, b in zip(losses, counts, strict=True)) / math.log(2) / math.sqrt(len(losses))
    form = BITS_PER_LETTER.metrics["*.bpl"]
    metric = Metric(
        id=task.metric_id("bpl"), value=value, unit=form.unit, direction=form.direction, n=sum(counts), stderr=error
    )
    return Measurement([metric], Evidence(windows=Windows(nll=losses, targets=counts)))
