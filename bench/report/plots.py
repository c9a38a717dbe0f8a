"""Plots of quality against what compression is for: size and speed. The same board always gives the same bytes."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.record.store import safe_name
from bench.report.board import Board, Column, Row
from bench.report.labels import place_labels

INK, QUIET, GRID = "#1b1f24", "#59636e", "#e4e7eb"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#7A4FBF", "#8C6D1F")
"""Okabe and Ito's palette for the colour-blind; orange is magnitude's, and two colours stand in for the pale yellow."""
MARKERS = ("o", "D", "^", "v", "p", "h", "<", ">", "P")
KNOWN = (
    "llm_pruner", "saap", "compresso", "trawl", "capaboost", "pruning_adapter", "lora", "laser", "layer_drop",
    "wanda_sp",
)
CONTROLS = {"dense": (INK, "*"), "random": ("#7d8590", "X"), "magnitude": ("#E69F00", "s")}
LABELLED = 12
"""Up to so many points have their names beside them; more are named in a legend."""


@dataclass(frozen=True)
class Point:
    """A row's place in a plot; errors are distances down and up."""

    row: Row
    label: str
    x: float
    y: float
    x_error: tuple[float, float]
    y_error: tuple[float, float]


def plots(board: Board) -> dict[str, bytes]:
    """File name -> content: for each model its quality against size and speed, as PNG and SVG, where there is any."""
    files: dict[str, bytes] = {}
    for model in board.models():
        quality = next((c for c in board.columns if c.id == board.quality[model]), None)
        speed = next((c for c in board.columns_of(model, "generate") if c.name == "generate.speedup"), None)
        for kind, x in (("size", _removed(board, model)), ("speed", speed)):
            points = _points(board, model, x, quality) if quality and x else []
            if quality and x and any(point.row.identity.method != "dense" for point in points):
                with _style():
                    figure = draw(points, model, x, quality)
                    for format_ in ("png", "svg"):
                        files[f"{safe_name(model)}.quality-vs-{kind}.{format_}"] = _rendered(figure, format_)
    return files


def look(method: str) -> tuple[str, str]:
    """Colour and marker of a method: always the same for the same name."""
    if method in CONTROLS:
        return CONTROLS[method]
    digest = int.from_bytes(hashlib.sha256(method.encode()).digest()[:4], "big")
    index = KNOWN.index(method) if method in KNOWN else digest
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def draw(points: Sequence[Point], model: str, x: Column, quality: Column) -> Any:
    """The figure: points with error bars, joined where a method was run at several sizes, and a name for each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _dress(axes, points, model, x, quality)
    series = _series(points)
    for line in series.values():
        colour, _ = look(line[0].row.identity.method)
        axes.plot([p.x for p in line], [p.y for p in line], color=colour, linewidth=1.2, alpha=0.5, zorder=2)
    for point in points:
        _draw_point(axes, point)
    colours = [_dark(look(point.row.identity.method)[0]) for point in points]
    if len(points) > LABELLED or not place_labels(_settled(figure), axes, points, colours):
        figure.set_layout_engine("constrained")
        _legend(figure, series)
        _settled(figure)
    return figure


def _settled(figure: Any) -> Any:
    """`figure` with its layout done, once and for all."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    return figure


def _dark(colour: str) -> str:
    """`colour` dark enough for text on white."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{int(0.62 * channel):02x}" for channel in channels)


def _legend(figure: Any, series: Mapping[tuple[str, ...], Sequence[Point]]) -> None:
    """Names at the right-hand side, one for each series; the figure grows to hold them."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", label=plain(" ".join(name)), **_marker(line[0], 0.85))
        for name, line in series.items()
    ]
    figure.set_size_inches(10.4, max(4.9, 0.7 + 0.22 * len(handles)))
    figure.legend(handles=handles, loc="outside right upper", handletextpad=0.3, borderaxespad=1.2)


def _marker(point: Point, scale: float = 1.0) -> dict[str, Any]:
    """Filled where there was no recovery, hollow where there was."""
    colour, marker = look(point.row.identity.method)
    is_filled = point.row.identity.recovery == "none"
    return {
        "color": colour, "marker": marker, "markersize": scale * (13 if marker == "*" else 8),
        "markerfacecolor": colour if is_filled else "white", "markeredgecolor": "white" if is_filled else colour,
        "markeredgewidth": 0.9 if is_filled else 1.6,
    }


def _removed(board: Board, model: str) -> Column | None:
    return next((c for c in board.columns_of(model) if c.id == "removed.params"), None)


def _points(board: Board, model: str, x: Column, quality: Column) -> list[Point]:
    """A point for each row that has both. The dense model's speed-up is measured too, and shows the clock's noise."""
    points = []
    labels = board.labels(model)
    for row in board.of(model):
        own, y = row.value(x.id), row.value(quality.id)
        if own is None or y is None:
            continue
        errors = [_spread(row, column) for column in (x, quality)]
        scale = [100.0 if column.unit == "fraction" else 1.0 for column in (x, quality)]
        points.append(Point(
            row, labels[row.identity], own * scale[0], y * scale[1],
            (errors[0][0] * scale[0], errors[0][1] * scale[0]), (errors[1][0] * scale[1], errors[1][1] * scale[1]),
        ))
    return points


def _spread(row: Row, column: Column) -> tuple[float, float]:
    cell = row.cells.get(column.id)
    if cell is None or cell.value is None:
        return 0.0, 0.0
    if cell.std is not None:
        return cell.std, cell.std
    if cell.interval is not None:
        return max(0.0, cell.value - cell.interval[0]), max(0.0, cell.interval[1] - cell.value)
    return cell.stderr or 0.0, cell.stderr or 0.0


def _series(points: Sequence[Point]) -> dict[tuple[str, ...], list[Point]]:
    """Points of one method, preset and recovery in the order of their x, under a name that tells them apart."""
    series: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    for point in points:
        _, method, preset, recovery, _ = point.row.identity
        series[method, preset, recovery].append(point)
    named = {}
    for method, preset, recovery in sorted(series, key=lambda key: (key[0] != "dense", key)):
        has_presets = len({other for name, other, _ in series if name == method}) > 1
        name = (method, *[preset] * has_presets, *[f"+ {recovery}"] * (recovery != "none"))
        named[name] = sorted(series[method, preset, recovery], key=lambda p: (p.x, p.y))
    return named


def _draw_point(axes: Any, point: Point) -> None:
    """Error bars (cut off above zero on a logarithmic axis), and the marker over them."""
    colour, _ = look(point.row.identity.method)
    low = min(point.y_error[0], 0.9 * point.y) if axes.get_yscale() == "log" else point.y_error[0]
    layer = 4 if point.row.identity.method == "dense" else 3
    if any(point.x_error):
        ends = [point.x - point.x_error[0], point.x + point.x_error[1]]
        axes.plot(ends, [point.y, point.y], color=colour, linewidth=1.3, zorder=layer)
    if any(point.y_error):
        ends = [point.y - low, point.y + point.y_error[1]]
        axes.plot([point.x, point.x], ends, color=colour, linewidth=1.3, zorder=layer)
    axes.plot([point.x], [point.y], linestyle="", zorder=layer, **_marker(point))


def _dress(axes: Any, points: Sequence[Point], model: str, x: Column, quality: Column) -> None:
    """Titles, axes with unit and protocol, limits and reference lines."""
    from matplotlib.ticker import LogLocator, ScalarFormatter

    values = [point.y for point in points]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        if max(values) < 1000 * min(values):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(LogLocator(subs=()))
    dense = next((point for point in points if point.row.identity.method == "dense"), None)
    if dense is not None:
        axes.axhline(dense.y, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.45, zorder=1)
    if x.name == "generate.speedup":
        axes.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.45, zorder=1)
        what, label = "speed of generation", f"speed-up over the dense model (×), {x.protocol}; right is faster"
        bars = "bars: ± 1 standard error, and the 95 % interval of the speed-up"
    else:
        what, label = "size", "parameters removed (%); right is smaller"
        bars = "bars: ± 1 standard error"
    text = quality.name.split(".")[0]
    kind = "perplexity per token" if quality.family == "perplexity" else "mean accuracy (%)"
    better = "lower" if quality.direction == "lower" else "higher"
    axes.set_title(f"{plain(model)}: quality against {what}", loc="left", fontweight="bold", pad=10)
    has_seeds = any(point.row.seeds > 1 for point in points)
    seeds = "\nwhere there are several seeds: mean and standard deviation between them" if has_seeds else ""
    has_recovery = any(point.row.identity.recovery != "none" for point in points)
    hollow = "; hollow: with recovery training" if has_recovery else ""
    axes.set_xlabel(f"{label}\n{bars}{hollow}{seeds}", color=QUIET)
    axes.set_ylabel(f"{text} {kind}\n{quality.protocol}; {better} is better", color=QUIET)
    axes.margins(x=0.14, y=0.16)
    axes.set_axisbelow(True)


def plain(text: str) -> str:
    """`text` on one line, short enough for a title, with no sign that starts a formula."""
    text = " ".join(text.split()).replace("$", r"\$")
    return text if len(text) <= 48 else text[:47] + "…"


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's own defaults (whatever the user has set), and ours on top."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "svg.hashsalt": "leanboard", "svg.fonttype": "path", "figure.dpi": 160, "savefig.dpi": "figure",
            "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.edgecolor": QUIET,
            "axes.labelsize": 10, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False,
            "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "xtick.color": QUIET, "ytick.color": QUIET,
            "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.frameon": False, "legend.fontsize": 9,
            "text.parse_math": False, "axes.formatter.useoffset": False,
        })
        yield


def _rendered(figure: Any, format_: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Software": None} if format_ == "png" else {"Date": None, "Creator": None}
    figure.savefig(buffer, format=format_, metadata=metadata, facecolor="white")
    return buffer.getvalue()
