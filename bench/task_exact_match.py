"""Tasks whose items are questions that the model answers in its own words."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from bench.protocol import BOS, EXAMPLES
from bench.record.kinds import kind_of
from bench.task_accuracy import ChoiceTask, LmEvalTask, PromptsTask

CPU_TOKENS, GPU_TOKENS = 4096, 8192
"""Tokens of the prompts and answers of one batch, whose keys and values are in memory."""


class AnswerTask(ChoiceTask):
    """What all of them share."""

    module = "bench.measure.exact_match"
    engine = f"exact_match/1 lm-eval/0.4 greedy/cpu{CPU_TOKENS}/gpu{GPU_TOKENS}"
    seconds = 60.0
    cached = (CPU_TOKENS, GPU_TOKENS)

    chance: float | None = Field(0.0, ge=0, lt=1, description="the share that guessing gets right")


class ExactMatchTask(AnswerTask, LmEvalTask):
    """A task of lm-eval that generates, with its prompts, ends of answers, filters and metrics."""

    flags: ClassVar[tuple[str, ...]] = (*BOS, "notice", "chat", *EXAMPLES)

    kind: Literal["exact_match"]
    by: None = None


class OpenTask(AnswerTask, PromptsTask):
    """The questions of a task with choices, by the same prompts, which do not show the choices.

    Items keep their places, so that each is paired with the same question of that task.
    """

    flags: ClassVar[tuple[str, ...]] = (*BOS, "notice")

    kind: Literal["open_answer"]
    choice: str = Field(description="<task>.<metric> of the same questions with their choices, under the same protocol")

    @field_validator("choice")
    @classmethod
    def _is_a_share(cls, value: str) -> str:
        if not kind_of(value).is_share:
            raise ValueError(f"'{value}' is not <task>.<metric> of a share of items that bench.record.kinds knows")
        return value


def filtered(metric: str, number: int, name: str) -> str:
    """Our name of a metric of lm-eval after its filter of that number and name: its own, and after another than the
    first the filter's behind it ('exact_match_flexible_extract')."""
    return f"{metric}_{re.sub(r'[^a-z0-9]+', '_', name.lower())}" if number else metric
