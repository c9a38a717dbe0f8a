"""What a measurement may use, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.record.schema import Evidence, Metric

if TYPE_CHECKING:
    from bench.data.pack import Pack
    from bench.measure.answers import Answers

Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""


@dataclass(frozen=True)
class Measurement:
    """What one task measured on one checkpoint."""

    metrics: list[Metric]
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True)
class Resources:
    """What measuring may use: the texts of a data pack, whom to report progress to, and where to keep answers.

    In a rehearsal a speed may be wrong, but must cost nothing.
    """

    pack: Pack
    on_progress: Progress
    answers: Answers | None = None
    is_rehearsal: bool = False
