"""The points of a scatter plot: rows of the board, against an axis."""

from __future__ import annotations

from dataclasses import dataclass

from bench.record.kind import Side
from bench.report.board import Column, Row
from bench.report.plots.looks import Look


@dataclass(frozen=True)
class PlotAxis:
    """The axis that quality is drawn against; `sign` is 1 where more of it is better, -1 where less is.

    `of` names what is drawn, and `what` the axis, in the title.
    """

    kind: str
    column: Column
    what: str
    label: str
    sign: int
    of: str = "quality"


def side_axis(side: Side, column: Column, of: Side) -> PlotAxis:
    """A side of quality as the axis that another, `of`, is drawn against."""
    sign = -1 if column.direction == "lower" else 1
    better = "left" if sign < 0 else "right"
    label = f"{column.task} {column.kind.axis}, {column.protocol}; {better} is better"
    return PlotAxis(slug(side), column, f"'{side}'", label, sign, f"'{of}'")


def slug(name: str) -> str:
    """'can say' -> 'can-say'."""
    return name.replace(" ", "-")


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
