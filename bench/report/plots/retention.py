"""How much of the dense model's quality is left, size by size: a line for each method, preset and recovery."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bench.report.board import Board, Column
from bench.report.plots.looks import Look, Series, legend, letter2d, line2d, looks, names, series_of
from bench.report.plots.style import DASHES, INK, QUIET, canvas, log_scale, plain, settled

WIDTH, HEIGHT = 7.6, 4.9
Mark = tuple[float, float, float]
"""Removed (%), kept (%), and one standard error of what is kept."""


def retention_curve(board: Board, model: str, quality: Column) -> Any | None:
    """The figure; None where no method was run at two sizes or more, or the dense model's quality is not known.

    What is 0 for the dense model, as its divergence from itself, has no share that is kept: it is drawn as it is.
    """
    dense = next((row for row in board.of(model) if row.identity.method == "dense"), None)
    whole = dense.value(quality.id) if dense else None
    lines = curves(board, model, quality, whole) if whole is not None else {}
    lines = {series: line for series, line in lines.items() if max(x for x, _, _ in line) - line[0][0] > 1.0}
    if not lines:
        return None
    figure, axes = canvas(WIDTH, HEIGHT)
    found, titles = looks(row.identity for row in board.of(model)), names(lines)
    start = 100.0 if whole else 0.0
    for series, line in lines.items():
        _draw_line(axes, found[series], line, start)
    _dress(axes, model, quality, [mark for line in lines.values() for mark in line], start)
    legend(figure, {name: found[series] for series, name in titles.items()}, WIDTH, HEIGHT)
    return settled(figure)


def curves(board: Board, model: str, quality: Column, whole: float) -> dict[Series, list[Mark]]:
    """For each series its rows from the least to the most removed; `whole` is the dense model's value."""
    lines: dict[Series, list[Mark]] = defaultdict(list)
    for row in board.of(model):
        removed, cell = row.value("removed.params"), row.cells.get(quality.id)
        if row.identity.method == "dense" or removed is None or cell is None or cell.value is None:
            continue
        if whole and quality.direction == "lower" and not cell.value:
            continue  # no share can say it
        error = (cell.uncertainty.half or 0.0) if cell.uncertainty is not None else 0.0
        kept, error = _kept(cell.value, error, whole, quality.direction)
        lines[series_of(row.identity)].append((100 * removed, kept, error))
    return {series: sorted(line) for series, line in sorted(lines.items())}


def _kept(value: float, error: float, whole: float, direction: str) -> tuple[float, float]:
    """What is kept of the dense model's value, in %, and its error; both as they are where that is 0."""
    if not whole:
        return value, error
    if direction == "higher":
        return 100 * value / whole, 100 * error / whole
    return 100 * whole / value, 100 * whole * error / value**2


def _draw_line(axes: Any, look: Look, line: Sequence[Mark], start: float) -> None:
    x, y = [mark[0] for mark in line], [mark[1] for mark in line]
    axes.plot(
        [0.0, *x], [start, *y], color=look.colour, linewidth=1.4, alpha=0.7, linestyle="-" if look.is_filled else DASHES
    )
    for place, kept, error in line:
        axes.plot([place, place], [max(kept - error, 0.1 * kept), kept + error], color=look.colour, linewidth=1.2)
    axes.plot(x, y, linestyle="", **line2d(look))
    if look.letter:
        axes.plot(x, y, linestyle="", **letter2d(look))


def _dress(axes: Any, model: str, quality: Column, marks: Sequence[Mark], start: float) -> None:
    """Titles, axes with unit and protocol, and a logarithmic scale where hardly anything is kept."""
    least = min(kept for _, kept, _ in marks)
    if start and 0 < least < 10:
        axes.set_yscale("log")
        log_scale(axes.yaxis, least, 100.0)
    axes.axhline(start, color=INK, linewidth=0.9, linestyle=DASHES, alpha=0.45, zorder=1)
    noun = quality.kind.noun
    what = f"dense {noun} / {noun}" if quality.direction == "lower" else f"{noun} / dense {noun}"
    axes.set_title(f"{plain(model)}: quality kept at each size", loc="left", fontweight="bold", pad=10)
    axes.set_xlabel(
        "parameters removed (%)\nbars: ± 1 standard error of the row's own value; dashed, hollow: with "
        "recovery training",
        color=QUIET,
    )
    better = f"{what} (%)\n{quality.protocol}; higher is better" if start else _as_it_is(quality)
    axes.set_ylabel(f"{quality.task} {better}", color=QUIET)
    axes.set_axisbelow(True)


def _as_it_is(quality: Column) -> str:
    return f"{quality.kind.axis}\n{quality.protocol}; {quality.direction} is better"
