"""Labels next to the points of a plot, placed so that nothing covers anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.report.plots.points import Point

if TYPE_CHECKING:
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

DISTANCES = (9, 13, 18, 26, 36, 48, 64, 84)
"""Points of the page between a label and its marker; from `FAR` on a thin line joins them."""
FAR = 18
SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0))
ALIGN = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}
GAP = 2.0
MARKER = 5.5


class Spot(NamedTuple):
    """A place for a label: its offset in points, the box it covers in pixels, and the line to it where it is far."""

    offset: tuple[int, int]
    box: Bbox
    leader: list[Path]


def place_labels(figure: Any, axes: Any, points: Sequence[Point], colours: Sequence[str]) -> bool:
    """Write each point's label near it, clear of the other labels, of all markers and lines and of the frame.

    The figure must have its final layout. Returns False, with nothing written, where there is no room for all.
    """
    taken = [marker_box(axes, point) for point in points]
    lines = lines_of(axes)
    frame = axes.get_window_extent()
    labels: list[Bbox] = []
    chosen = []
    for point in points:
        for spot in _spots(axes, point, _size_of(figure, point.label)):
            is_free = is_inside(spot.box, frame) and not any(spot.box.overlaps(other) for other in taken)
            if is_free and not _crossed([spot.box], lines) and not _crossed(labels, spot.leader):
                break
        else:
            return False
        chosen.append(spot.offset)
        taken.append(spot.box)
        labels.append(spot.box)
        lines += spot.leader
    for point, colour, offset in zip(points, colours, chosen, strict=True):
        _write(axes, point, colour, offset)
    return True


def _write(axes: Any, point: Point, colour: str, offset: tuple[int, int]) -> None:
    arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}
    axes.annotate(
        point.label,
        (point.at, point.y),
        xytext=offset,
        textcoords="offset points",
        color=colour,
        zorder=5,
        ha=ALIGN[_sign(offset[0])][0],
        va=ALIGN[_sign(offset[1])][1],
        arrowprops=arrow if max(map(abs, offset)) >= FAR else None,
    )


def marker_box(axes: Any, point: Point) -> Bbox:
    """The box that a point's marker covers, in pixels."""
    from matplotlib.transforms import Bbox

    centre = axes.transData.transform((point.at, point.y))
    return Bbox([centre, centre]).padded(MARKER * axes.figure.dpi / 72)


def lines_of(axes: Any) -> list[Path]:
    """Curves, error bars and reference lines, in pixels."""
    return [line.get_transform().transform_path(line.get_path()) for line in axes.lines]


def is_inside(box: Bbox, frame: Bbox) -> bool:
    """Whether `frame` holds all of `box`."""
    return bool(box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1)


def _crossed(boxes: Sequence[Bbox], lines: Sequence[Path]) -> bool:
    return any(line.intersects_bbox(box, filled=False) for box in boxes for line in lines)


def _spots(axes: Any, point: Point, size: tuple[float, float]) -> Iterator[Spot]:
    """Places for a label of `size` pixels, the nearest first."""
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((point.at, point.y))
    scale = axes.figure.dpi / 72
    for distance in DISTANCES:
        for side_x, side_y in SIDES:
            dx, dy = side_x * distance, side_y * distance
            left = x + dx * scale - size[0] * {1: 0.0, 0: 0.5, -1: 1.0}[side_x]
            bottom = y + dy * scale - size[1] * {1: 0.0, 0: 0.5, -1: 1.0}[side_y]
            leader = [Path([(x, y), (x + dx * scale, y + dy * scale)])] if distance >= FAR else []
            yield Spot((dx, dy), Bbox.from_bounds(left, bottom, *size).padded(GAP * scale), leader)


def _size_of(figure: Any, text: str) -> tuple[float, float]:
    """Width and height of a label in pixels."""
    probe = figure.text(0, 0, text)
    box = probe.get_window_extent(figure.canvas.get_renderer())
    probe.remove()
    return box.width, box.height


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
