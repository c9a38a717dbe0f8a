"""The look of rows: a method has one colour and shape everywhere; its variants differ in fill and letter."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, NamedTuple

from bench.record.rows import RowName
from bench.report.plots.style import INK, dark, plain

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#7A4FBF", "#8C6D1F")
"""Okabe and Ito's palette for the colour-blind; orange is magnitude's, and two colours replace the pale yellow."""
MARKERS = ("o", "D", "^", "v", "p", "h", "<", ">", "P")
KNOWN = (
    "llm_pruner",
    "saap",
    "compresso",
    "trawl",
    "capaboost",
    "pruning_adapter",
    "lora",
    "laser",
    "layer_drop",
    "wanda_sp",
)
CONTROLS = {"dense": (INK, "*"), "random": ("#7d8590", "X"), "magnitude": ("#E69F00", "s")}
LEGEND_WIDTH = 2.8


class Series(NamedTuple):
    """The rows on one line of a plot: the same identity except for the size."""

    method: str
    preset: str
    recovery: str
    calibration: str = ""


@dataclass(frozen=True)
class Look:
    """`letter` is in the marker where another series of the method has the same colour, shape and fill."""

    colour: str
    marker: str
    is_filled: bool
    letter: str = ""


Looks = Mapping[str, Mapping[Series, Look]]
"""By model, then by series."""


def series_of(identity: RowName) -> Series:
    return Series(identity.method, identity.preset, identity.recovery, identity.calibration)


def look(method: str) -> tuple[str, str]:
    """Colour and marker of a method: always the same for the same name."""
    if method in CONTROLS:
        return CONTROLS[method]
    digest = int.from_bytes(hashlib.sha256(method.encode()).digest()[:4], "big")
    index = KNOWN.index(method) if method in KNOWN else digest
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def looks(identities: Iterable[RowName]) -> dict[Series, Look]:
    """The look of each series among the rows of a board: filled without recovery, hollow with one.

    Where a method has several series of the same fill, each of its series has a letter of its own, in their order.
    """
    variants: dict[str, list[Series]] = defaultdict(list)
    for series in sorted({series_of(identity) for identity in identities}):
        variants[series.method].append(series)
    found = {}
    for method, members in variants.items():
        colour, marker = look(method)
        has_letters = len({member.recovery == "none" for member in members}) < len(members)
        for i, member in enumerate(members):
            letter = ascii_lowercase[i % 26] if has_letters else ""
            found[member] = Look(colour, marker, member.recovery == "none", letter)
    return found


def names(series: Iterable[Series]) -> Mapping[Series, str]:
    """The shortest name for each series that differs from the others of its method; the dense model comes first."""
    ordered = sorted(series, key=lambda s: (s.method != "dense", s))
    return {
        one: " ".join(
            [
                one.method,
                *[one.preset] * (len({other.preset for other in ordered if other.method == one.method}) > 1),
                *[f"+ {one.recovery}"] * (one.recovery != "none"),
                *[one.calibration] * (len({other.calibration for other in ordered if other.method == one.method}) > 1),
            ]
        )
        for one in ordered
    }


def line2d(look: Look, scale: float = 1.0) -> dict[str, Any]:
    """Matplotlib's settings for a marker of this look."""
    size = 13 if look.marker == "*" else 10 if look.letter else 8
    return {
        "color": look.colour,
        "marker": look.marker,
        "markersize": scale * size,
        "markerfacecolor": look.colour if look.is_filled else "white",
        "markeredgecolor": "white" if look.is_filled else look.colour,
        "markeredgewidth": 0.9 if look.is_filled else 1.6,
    }


def letter2d(look: Look, scale: float = 1.0) -> dict[str, Any]:
    """The letter in a marker, as a marker of its own."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), look.letter, size=10, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    box = path.get_extents()
    centred = Path(path.vertices - [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2], path.codes)
    return {
        "marker": centred,
        "markersize": scale * 5.0,
        "markeredgewidth": 0,
        "color": "white" if look.is_filled else dark(look.colour),
    }


def legend(figure: Any, entries: Mapping[str, Look], width: float, height: float) -> None:
    """Write names on the right, one for each series; the figure of `width` × `height` inches grows to hold them."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D

    handles = [
        tuple(Line2D([], [], linestyle="", **how(look, 0.85)) for how in (line2d, letter2d)[: 1 + bool(look.letter)])
        for look in entries.values()
    ]
    figure.set_size_inches(width + LEGEND_WIDTH, max(height, 0.7 + 0.22 * len(handles)))
    figure.legend(
        handles,
        [plain(name) for name in entries],
        loc="outside right upper",
        handletextpad=0.3,
        borderaxespad=1.2,
        handler_map={tuple: HandlerTuple(ndivide=1)},
    )
