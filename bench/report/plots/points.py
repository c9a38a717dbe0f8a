"""The points of a scatter plot: rows of the board, against an axis."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.board import Column, Row
from bench.report.plots.looks import Look


@dataclass(frozen=True)
class PlotAxis:
    """The axis that quality is drawn against; `sign` is 1 where more of it is better, -1 where less is."""

    kind: str
    column: Column
    what: str
    label: str
    sign: int


@dataclass(frozen=True)
class Point:
    """A row's place in a plot; errors are distances down and up, `at` is the x where it is drawn next to others."""

    row: Row
    label: str
    look: Look
    x: float
    y: float
    x_error: tuple[float, float]
    y_error: tuple[float, float]
    at: float

    @property
    def is_dense(self) -> bool:
        return self.row.identity.method == "dense"

    def is_disturbed(self, axis: PlotAxis) -> bool:
        """Whether others used the machine while its value on the axis was timed."""
        return self.row.cells[axis.column.id].is_disturbed
