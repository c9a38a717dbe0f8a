"""Plots of the costs and gains of compression. The same board always gives the same bytes.

A plot is drawn only where it shows something. Quality against size, speed, memory or cost: at least two compressed rows
have both numbers and their places differ by more than a hundredth. The same for the first side of quality against each
other one: who chooses right and cannot say it. A retention curve: some method was run at two sizes or more. A heat
map: a compressed row and the dense model share two tasks or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from bench.record.kind import SIDES
from bench.record.store import safe_name
from bench.report.board import Board, Column
from bench.report.plots.heat import heat_map
from bench.report.plots.points import PlotAxis, side_axis, slug
from bench.report.plots.retention import retention_curve
from bench.report.plots.scatter import axes_of, draw, has_spread, points_of
from bench.report.plots.style import rendered, style

KINDS = (
    *(f"quality-vs-{axis}" for axis in ("size", "speed", "memory", "cost")),
    *(f"{slug(side)}-vs-{axis}" for side in SIDES for axis in ("size", "speed")),
    *(f"{slug(one)}-vs-{slug(two)}" for one, two in combinations(SIDES, 2)),
    "retention",
    *(f"retention-{slug(side)}" for side in SIDES),
    "change-by-task",
)
"""The names of all plots that a board may have."""


def plots(board: Board) -> dict[str, bytes]:
    """File name -> content: the plots of each model, as PNG and SVG."""
    files: dict[str, bytes] = {}
    for model in board.models():
        with style():
            for kind, figure in figures(board, model):
                for format_ in ("png", "svg"):
                    files[f"{safe_name(model)}.{kind}.{format_}"] = rendered(figure, format_)
    return files


def figures(board: Board, model: str) -> Iterator[tuple[str, Any]]:
    """The name and figure of each plot: the headline by all axes, other sides by size and speed, and side by side."""
    yield from _drawn("change-by-task", heat_map(board, model))
    sides, axes = board.telling(model), axes_of(board, model)
    headline = next((c for c in board.columns if c.id == board.quality[model]), None)
    if headline is not None:
        yield from _drawn("retention", retention_curve(board, model, headline))
        for axis in axes:
            yield from _against(board, model, f"quality-vs-{axis.kind}", axis, headline)
    for side, column in sides.items():
        if column is not headline:
            yield from _drawn(f"retention-{slug(side)}", retention_curve(board, model, column))
            for axis in (replace(axis, of=f"'{side}'") for axis in axes if axis.kind in ("size", "speed")):
                yield from _against(board, model, f"{slug(side)}-vs-{axis.kind}", axis, column)
    first = next(iter(sides), None)
    for side, column in sides.items():
        if first is not None and side != first:
            axis = side_axis(side, column, first)
            yield from _against(board, model, f"{slug(first)}-vs-{slug(side)}", axis, sides[first])


def _against(board: Board, model: str, kind: str, axis: PlotAxis, quality: Column) -> Iterator[tuple[str, Any]]:
    points = points_of(board, model, axis, quality)
    if has_spread(points, axis):
        yield kind, draw(points, model, axis, quality)


def _drawn(kind: str, figure: Any | None) -> Iterator[tuple[str, Any]]:
    if figure is not None:
        yield kind, figure
