"""Scatter plot: quality against size, speed, memory or cost, with the Pareto front of the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from bench.record.kinds import GENERATION, SPEEDUP, form_of
from bench.report.board import Board, Column, Row
from bench.report.plots.labels import place_labels
from bench.report.plots.looks import Series, legend, letter2d, line2d, looks, names, series_of
from bench.report.plots.points import PlotAxis, Point
from bench.report.plots.style import DASHES, INK, QUIET, canvas, dark, log_scale, plain, settled

LABELLED = 12
"""Up to this many points have labels next to them; more are named in a legend."""
FRONT, FRONT_WIDTH = "#c9d3dd", 4.5
WIDTH, HEIGHT = 7.6, 4.9
STEP, REACH = 11.0, 2
"""A step, in points of the page, to move a marker that would cover another, and how many steps one may move."""


def axes_of(board: Board, model: str) -> list[PlotAxis]:
    """The axes that the rows of `model` can be drawn against: size, and speed, memory and cost where measured.

    Of several workloads of generation it is the last, of the largest batch, where the removed weights matter most.
    """
    shown: dict[str, Column] = {}
    for column in board.columns_of(model):
        if column.kind is GENERATION or column.name not in shown:
            shown[column.name] = column
    memory = "generate.peak_memory" if "generate.peak_memory" in shown else "bytes.resident"
    known = (
        ("size", "removed.params", "size", "parameters removed (%); right is smaller", 1),
        ("speed", SPEEDUP, "speed of generation", "speed-up over the dense model (×){}; right is faster", 1),
        ("memory", memory, "memory", form_of(memory).title + " (GB){}; left is smaller", -1),
        ("cost", "cost.seconds", "the cost of compressing", "compressing and recovery (s); left is cheaper", -1),
    )
    found = []
    for kind, name, what, label, sign in known:
        if name in shown:
            protocol = f", {shown[name].protocol}" * bool(shown[name].protocol)
            found.append(PlotAxis(kind, shown[name], what, label.format(protocol), sign))
    return found


def points_of(board: Board, model: str, axis: PlotAxis, quality: Column) -> list[Point]:
    """A point for each row that has both. The dense model's speed-up is measured too, and shows the noise of timing.

    Compressing the dense model costs nothing: against cost it has no point, only the line of its quality.
    """
    rows = [row for row in board.of(model) if axis.kind != "cost" or row.identity.method != "dense"]
    look, labels = looks(row.identity for row in board.of(model)), board.labels(model)
    scales = [100.0 if c.unit == "fraction" else 1e-9 if c.unit == "bytes" else 1.0 for c in (axis.column, quality)]
    points = []
    for row in rows:
        x, y = row.value(axis.column.id), row.value(quality.id)
        if x is None or y is None:
            continue
        x_error, y_error = spread(row, axis.column, scales[0]), spread(row, quality, scales[1])
        points.append(
            Point(
                row,
                labels[row.identity],
                look[series_of(row.identity)],
                x * scales[0],
                y * scales[1],
                x_error,
                y_error,
                at=x * scales[0],
            )
        )
    return points


def has_spread(points: Sequence[Point], axis: PlotAxis) -> bool:
    """Whether the plot shows something: compressed rows at two or more places, not all of one size, speed or cost."""
    compressed = [point for point in points if not point.is_dense]
    places = [point.x for point in compressed]
    return bool(places) and max(places) - min(places) > _grain(compressed, axis)


def _grain(points: Sequence[Point], axis: PlotAxis) -> float:
    """The distance within which two places count as one: 1 % of the model (targets are met to half of it), or of x."""
    return 1.0 if axis.kind == "size" else 0.01 * max(abs(point.x) for point in points)


def spread(row: Row, column: Column, scale: float) -> tuple[float, float]:
    """How far the error bar of a cell reaches down and up."""
    cell = row.cells.get(column.id)
    off = cell.uncertainty if cell is not None else None
    if cell is None or cell.value is None or off is None:
        return 0.0, 0.0
    if off.half is not None:
        return scale * off.half, scale * off.half
    return scale * max(0.0, cell.value - off.low), scale * max(0.0, off.high - cell.value)


def front(points: Sequence[Point], x_sign: int, y_sign: int, grain: float) -> list[Point]:
    """The Pareto front by point value, from the best x to the best y: the points that no other point beats.

    One beats another where its x is as good, or worse by no more than `grain`, and its y better; or both x and y equal
    or better.
    """

    def beats(one: Point, other: Point) -> bool:
        x, y = x_sign * (one.x - other.x), y_sign * (one.y - other.y)
        return (y > 0 and x >= -grain) or (y == 0 and x > 0)

    best = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(best, key=lambda p: (-x_sign * p.x, -y_sign * p.y))


def draw(points: Sequence[Point], model: str, axis: PlotAxis, quality: Column) -> Any:
    """The figure: points with error bars, joined where a method was run at several sizes, and a name for each."""
    if len(points) <= LABELLED:
        figure, axes, placed = _drawn(points, model, axis, quality, has_legend=False)
        if place_labels(figure, axes, placed, [dark(point.look.colour) for point in placed]):
            return figure
    return _drawn(points, model, axis, quality, has_legend=True)[0]


def _drawn(
    points: Sequence[Point], model: str, axis: PlotAxis, quality: Column, has_legend: bool
) -> tuple[Any, Any, list[Point]]:
    figure, axes = canvas(WIDTH, HEIGHT)
    _dress(axes, points, model, axis, quality)
    series = _series(points)
    if has_legend:
        legend(figure, {name: line[0].look for name, line in series.items()}, WIDTH, HEIGHT)
    settled(figure)
    points = _side_by_side(axes, points)
    sign = -1 if quality.direction == "lower" else 1
    grain = 0.0 if axes.get_xscale() == "log" else _grain(points, axis)
    _draw_front(axes, front([p for p in points if not p.is_disturbed(axis)], axis.sign, sign, grain))
    for line in _series(points).values():
        axes.plot(
            [p.at for p in line], [p.y for p in line], color=line[0].look.colour, linewidth=1.2, alpha=0.5, zorder=2
        )
    for point in points:
        _draw_point(axes, point)
    return figure, axes, list(points)


def _series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points of one method, preset and recovery in the order of their x, by the name of the series."""
    series: dict[Series, list[Point]] = defaultdict(list)
    for point in points:
        series[series_of(point.row.identity)].append(point)
    return {name: sorted(series[key], key=lambda p: (p.x, p.y)) for key, name in names(series).items()}


def _side_by_side(axes: Any, points: Sequence[Point]) -> list[Point]:
    """The same points in the same order; those that would cover another are moved aside by whole steps.

    None is moved further than `REACH` steps: where no such place is free, it takes the one that is least covered. The
    dense model is not moved, nor is a point with an interval along x, as its bar would then show another number.
    """
    step = STEP * axes.figure.dpi / 72
    aside = sorted(range(-REACH, REACH + 1), key=lambda n: (abs(n), n < 0))
    taken: list[tuple[float, float]] = []
    moved = {}
    for i in sorted(range(len(points)), key=lambda i: (not points[i].is_dense, points[i].x, points[i].y)):
        x, y = axes.transData.transform((points[i].x, points[i].y))
        places = [x] if any(points[i].x_error) else [x + n * step for n in aside]
        at = max(places, key=lambda p: min((step, *(max(abs(p - a), abs(y - b)) for a, b in taken))))
        taken.append((at, y))
        moved[i] = points[i].x if at == x else float(axes.transData.inverted().transform((at, y))[0])
    return [replace(point, at=moved[i]) for i, point in enumerate(points)]


def _draw_front(axes: Any, best: Sequence[Point]) -> None:
    """Draw a broad grey stair along the front; points on its worse side are beaten in both x and y."""
    from matplotlib.collections import LineCollection

    corners = [(point.x, point.y) for point in best[:1]]
    for one, two in pairwise(best):
        corners += [(two.x, one.y), (two.x, two.y)]
    if len(best) > 1:
        axes.add_collection(
            LineCollection(
                [corners],
                colors=FRONT,
                linewidths=FRONT_WIDTH,
                zorder=1.2,
                alpha=0.8,
                joinstyle="round",
                capstyle="round",
            ),
            autolim=False,
        )


def _draw_point(axes: Any, point: Point) -> None:
    """Draw error bars (cut off above zero on a logarithmic axis), and the marker over them."""
    colour = point.look.colour
    layer = 4 if point.is_dense else 3
    left, low = (
        min(error, 0.9 * value) if scale == "log" else error
        for error, value, scale in (
            (point.x_error[0], point.x, axes.get_xscale()),
            (point.y_error[0], point.y, axes.get_yscale()),
        )
    )
    if any(point.x_error):
        ends = [point.at - left, point.at + point.x_error[1]]
        axes.plot(ends, [point.y, point.y], color=colour, linewidth=1.3, zorder=layer)
    if any(point.y_error):
        axes.plot(
            [point.at, point.at], [point.y - low, point.y + point.y_error[1]], color=colour, linewidth=1.3, zorder=layer
        )
    axes.plot([point.at], [point.y], linestyle="", zorder=layer, **line2d(point.look))
    if point.look.letter:
        axes.plot([point.at], [point.y], linestyle="", zorder=layer, **letter2d(point.look))


def _dress(axes: Any, points: Sequence[Point], model: str, axis: PlotAxis, quality: Column) -> None:
    """Titles, axes with unit and protocol, limits and reference lines."""
    _limit(axes, "x", [(p.x, *p.x_error) for p in points], 0.14)
    _limit(axes, "y", [(p.y, *p.y_error) for p in points], 0.16)
    dense = next((point for point in points if point.is_dense), None)
    if dense is not None:
        axes.axhline(dense.y, color=INK, linewidth=0.9, linestyle=DASHES, alpha=0.45, zorder=1)
    if axis.kind == "speed":
        axes.axvline(1.0, color=INK, linewidth=0.9, linestyle=DASHES, alpha=0.45, zorder=1)
    better = "lower" if quality.direction == "lower" else "higher"
    axes.set_title(f"{plain(model)}: {axis.of} against {axis.what}", loc="left", fontweight="bold", pad=10)
    axes.set_xlabel("\n".join([axis.label, *_remarks(points, axis)]), color=QUIET)
    axes.set_ylabel(f"{quality.task} {quality.kind.axis}\n{quality.protocol}; {better} is better", color=QUIET)
    axes.set_axisbelow(True)


def _remarks(points: Sequence[Point], axis: PlotAxis) -> list[str]:
    """What the reader must know about bars, fills and places, a line each."""
    bars = "bars: ± 1 standard error" + ", and the 95 % interval of the speed-up" * (axis.kind == "speed")
    has_hollow = any(not point.look.is_filled for point in points)
    has_seeds = any(point.row.seeds > 1 for point in points)
    return [
        bars + "; hollow: with recovery training" * has_hollow,
        *["where there are several seeds: mean and standard deviation between them"] * has_seeds,
        "grey: the Pareto front by point value"
        + "; points that would cover one another stand a little aside"
        * (not any(any(point.x_error) for point in points)),
    ]


def _limit(axes: Any, name: str, values: Sequence[tuple[float, float, float]], margin: float) -> None:
    """Limits of an axis around all values and their errors; logarithmic where values differ more than tenfold."""
    low, high = min(v for v, _, _ in values), max(v for v, _, _ in values)
    if low > 0 and high > 10 * low:
        low = min(max(v - down, 0.1 * v) for v, down, _ in values)
        high = max(v + up for v, _, up in values)
        factor = (high / low) ** margin
        getattr(axes, f"set_{name}scale")("log")
        log_scale(getattr(axes, f"{name}axis"), low, high)
        getattr(axes, f"set_{name}lim")(low / factor, high * factor)
        return
    low, high = min(v - down for v, down, _ in values), max(v + up for v, _, up in values)
    room = margin * (high - low) or 0.05 * abs(high) or 1.0
    getattr(axes, f"set_{name}lim")(low - room, high + room)
