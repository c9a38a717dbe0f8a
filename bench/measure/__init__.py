"""Measuring saved checkpoints. Importing this package imports neither torch nor lm-eval."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bench.errors import LeanboardError
from bench.measure.measurement import Measurement, Progress, Resources
from bench.record.kinds import form_of
from bench.task import Task

if TYPE_CHECKING:
    from bench.data.pack import Pack
    from bench.measure.answers import Answers
    from bench.measure.subject import Subject


def measure(
    task: Task,
    subject: Subject,
    pack: Pack,
    on_progress: Progress = lambda done, total: None,
    answers: Answers | None = None,
    *,
    is_rehearsal: bool = False,
) -> Measurement:
    """Measure `task` on `subject` with the texts of `pack`; accuracy goes on from `answers` and keeps its own there.

    The task's kind names the module that does it, in `measure(task, spec, subject, resources)`.

    Raises:
        UsageError: the task cannot be measured on this subject (no tokenizer, a text shorter than a window).
        DataError: a file of the pack is missing or damaged.
        LeanboardError: the model gives values that are not finite, or does not fit its config; a metric's unit or
            direction is not that of `bench.record.kinds`.
    """
    module = importlib.import_module(task.spec.module)
    found: Measurement = module.measure(task, task.spec, subject, Resources(pack, on_progress, answers, is_rehearsal))
    for metric in found.metrics:
        form = form_of(metric.id)
        if (metric.unit, metric.direction) != (form.unit, form.direction):
            raise LeanboardError(
                f"{metric.id} is measured in '{metric.unit}' ({metric.direction}), and bench.record.kinds has "
                f"'{form.unit}' ({form.direction})"
            )
    return found
