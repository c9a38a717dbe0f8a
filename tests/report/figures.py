"""Figures of synthetic boards."""

from typing import Any

from bench.report.board import Board
from bench.report.plots.points import Point
from bench.report.plots.scatter import axes_of, draw, points_of
from bench.report.plots.style import style


def scatter(board: Board, kind: str) -> tuple[list[Point], Any]:
    """Points and figure of quality against `kind`."""
    [axis] = [axis for axis in axes_of(board, "tiny") if axis.kind == kind]
    quality = next(c for c in board.columns if c.id == board.quality["tiny"])
    points = points_of(board, "tiny", axis, quality)
    with style():
        return points, draw(points, "tiny", axis, quality)
