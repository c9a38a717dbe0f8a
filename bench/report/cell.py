"""A number of a board, from those of its seeds, and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from statistics import fmean, stdev
from typing import Literal

from bench.errors import ProtocolMismatch
from bench.record.schema import Metric
from bench.report.stats import rounded

Spread = Literal["standard deviation between seeds", "95 % interval", "standard error"]


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty that is shown of a value: its ends, and what they are; `half` where both are equally far."""

    of: Spread
    low: float
    high: float
    half: float | None = None


@dataclass(frozen=True)
class Cell:
    """A number of a row, over several seeds the mean.

    `stderr` and `interval` are then the means of the seeds' own (every seed answers the same items, so more seeds do
    not make the sampling error smaller), `std` is the standard deviation between seeds. `lost` says, for each seed
    without a value, why; where no seed has one, `value` is None. A speed `is_disturbed` where others used the machine:
    it is shown, but counts for nothing.
    """

    value: float | None
    n: int = 0
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    std: float | None = None
    seeds: int = 0
    lost: tuple[str, ...] = ()
    is_disturbed: bool = False

    @property
    def uncertainty(self) -> Uncertainty | None:
        """The uncertainty shown with the value: between seeds if it has several, else its interval or standard error.

        None where nothing is known.
        """
        if self.value is None:
            return None
        if self.std is None and self.interval is not None:
            return Uncertainty("95 % interval", *self.interval)
        of: Spread = "standard error" if self.std is None else "standard deviation between seeds"
        half = self.stderr if self.std is None else self.std
        return None if half is None else Uncertainty(of, self.value - half, self.value + half, half)

    @property
    def interval95(self) -> tuple[float, float] | None:
        """The 95 % interval for another measurement of the same, over several seeds with their spread."""
        if self.value is None or (self.interval is None and self.stderr is None and self.std is None):
            return None
        if self.interval is not None and self.std is None:
            return self.interval
        error = 1.96 * hypot(self.stderr or 0.0, self.std or 0.0)
        return rounded(self.value - error), rounded(self.value + error)


def cell_of(metrics: Sequence[Metric], lost: Sequence[str] = ()) -> Cell:
    """One number from those of the seeds.

    Raises:
        ProtocolMismatch: they are numbers of several metric ids.
    """
    ids = sorted({metric.id for metric in metrics})
    if len(ids) > 1:
        raise ProtocolMismatch(f"{' and '.join(ids)} are two metrics and cannot share a cell")
    if not metrics:
        return Cell(None, lost=tuple(lost))
    values = [metric.value for metric in metrics]
    errors = [metric.stderr for metric in metrics if metric.stderr is not None]
    bounds = [metric.interval for metric in metrics if metric.interval is not None]
    return Cell(
        value=fmean(values) if len(values) > 1 else values[0],
        n=min(metric.n for metric in metrics),
        stderr=fmean(errors) if len(errors) == len(values) else None,
        interval=(fmean(low for low, _ in bounds), fmean(high for _, high in bounds))
        if len(bounds) == len(values)
        else None,
        std=stdev(values) if len(values) > 1 else None,
        seeds=len(values),
        lost=tuple(lost),
    )
