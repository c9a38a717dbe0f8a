"""Plots of the costs and gains of compression. The same board always gives the same bytes.

A plot is drawn only where it shows something. Quality against size, speed, memory or cost: at least two compressed rows
have both numbers and their places differ by more than a hundredth. A retention curve: some method was run at two sizes
or more. A heat map: a compressed row and the dense model share two tasks or more.
"""

from __future__ import annotations

from bench.record.store import safe_name
from bench.report.board import Board
from bench.report.plots.heat import heat_map
from bench.report.plots.retention import retention_curve
from bench.report.plots.scatter import axes_of, draw, has_spread, points_of
from bench.report.plots.style import rendered, style

KINDS = ("quality-vs-size", "quality-vs-speed", "quality-vs-memory", "quality-vs-cost", "retention", "change-by-task")


def plots(board: Board) -> dict[str, bytes]:
    """File name -> content: the plots of each model, as PNG and SVG."""
    files: dict[str, bytes] = {}
    for model in board.models():
        quality = next((c for c in board.columns if c.id == board.quality[model]), None)
        with style():
            figures = {"change-by-task": heat_map(board, model), "retention": retention_curve(board, model)}
            for axis in axes_of(board, model):
                points = points_of(board, model, axis, quality) if quality else []
                if quality and has_spread(points, axis):
                    figures[f"quality-vs-{axis.kind}"] = draw(points, model, axis, quality)
            for kind, figure in figures.items():
                for format_ in ("png", "svg") if figure is not None else ():
                    files[f"{safe_name(model)}.{kind}.{format_}"] = rendered(figure, format_)
    return files
