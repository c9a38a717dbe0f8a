"""What a measurement gives, and whom it tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.record.schema import Evidence, Metric

Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""


@dataclass(frozen=True)
class Measurement:
    """What one task measured on one checkpoint."""

    metrics: list[Metric]
    evidence: Evidence = field(default_factory=Evidence)
