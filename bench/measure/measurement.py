"""What a measurement is given beside task and checkpoint, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.record.schema import Evidence, Metric

if TYPE_CHECKING:
    from bench.data.pack import Pack
    from bench.measure.answers import Answers

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measurement:
    """What one task measured on one checkpoint."""

    metrics: list[Metric]
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True)
class Resources:
    """What measuring may use: the texts of a data pack, whom to tell how far it is, and where to keep answers."""

    pack: Pack
    on_progress: Progress
    answers: Answers | None = None
