"""Figures of synthetic boards."""

import itertools
from typing import Any

from matplotlib.text import Text

from bench.report.board import Board
from bench.report.plots.labels import is_inside
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


def texts_of(figure: Any) -> list[Any]:
    [axes] = figure.axes
    legend = [text for legend in figure.legends for text in legend.get_texts()]
    ticks = [t for t in (*axes.get_xticklabels(), *axes.get_yticklabels()) if t.get_text()]
    inside = [t for t in ticks if is_inside_axes(t, axes)]
    return [*axes.texts, *legend, *inside, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]


def is_inside_axes(tick: Any, axes: Any) -> bool:
    """Tick labels outside the limits are not drawn."""
    x, y = tick.get_position()
    (x0, x1), (y0, y1) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    return x0 <= x <= x1 if tick in axes.get_xticklabels() else y0 <= y <= y1


def assert_texts_apart(figure: Any) -> None:
    with style():
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in texts_of(figure) if t.get_text()]
    for text, box in boxes:
        assert is_inside(box, figure.bbox), f"{text} is cut"
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{one} and {two} overlap"
