"""Measuring saved checkpoints. Importing this package imports neither torch nor lm-eval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measure.measurement import Measurement, Progress
from bench.task import (
    CPU_TOKENS,
    GPU_TOKENS,
    AccuracyTask,
    ContinuationTask,
    GenerationTask,
    PerplexityTask,
    SizeTask,
    Task,
)

if TYPE_CHECKING:
    from bench.data.pack import Pack
    from bench.measure.answers import Answers
    from bench.measure.subject import Subject

ENGINE: dict[str, str] = {
    "accuracy": f"accuracy/2 lm-eval/0.4 packed/cpu{CPU_TOKENS}/gpu{GPU_TOKENS}",
    "perplexity": "perplexity/2",
    "generation": "generation/3",
    "size": "size/1",
    "continuation": "continuation/1",
}
"""What measures each kind of task: part of the key of a measurement, bumped whenever a number may change."""


def measure(
    task: Task,
    subject: Subject,
    pack: Pack,
    on_progress: Progress = lambda done, total: None,
    answers: Answers | None = None,
) -> Measurement:
    """Measure `task` on `subject` with the texts of `pack`; accuracy goes on from `answers` and keeps its own there.

    Raises:
        UsageError: the task cannot be measured on this subject (no tokenizer, a text shorter than a window).
        DataError: a file of the pack is missing or damaged.
        LeanboardError: the model gives values that are not finite, or is not what its config says.
    """
    spec = task.spec
    match spec:
        case AccuracyTask():
            from bench.measure import accuracy

            return accuracy.measure(task, spec, subject, pack, on_progress, answers)
        case PerplexityTask():
            from bench.measure import perplexity

            return perplexity.measure(task, spec, subject, pack, on_progress)
        case GenerationTask():
            from bench.measure import generation

            return generation.measure(task, spec, subject, on_progress)
        case SizeTask():
            from bench.measure import size

            return size.measure(task, subject)
        case ContinuationTask():
            from bench.measure import continuations

            return continuations.measure(task, spec, subject, on_progress)
