"""Addresses, marks and texts of rows, methods and cells on the site."""

from __future__ import annotations

from dataclasses import dataclass

from bench.record.kinds import form_of
from bench.record.rows import RowName
from bench.record.store import safe_name
from bench.report.board import Comparison
from bench.report.cell import Cell
from bench.report.formats import number, writer
from bench.report.plots.looks import Look
from bench.report.plots.style import INK

SHAPES = {
    "o": "M8 2.6a5.4 5.4 0 1 1 0 10.8a5.4 5.4 0 1 1 0-10.8z",
    "D": "M8 1.6L14.4 8L8 14.4L1.6 8z",
    "s": "M3 3h10v10h-10z",
    "^": "M8 2.2L14.2 13H1.8z",
    "v": "M8 13.8L14.2 3H1.8z",
    "<": "M2.2 8L13 1.8V14.2z",
    ">": "M13.8 8L3 1.8V14.2z",
    "p": "M8 1.8L14.2 6.3L11.8 13.6H4.2L1.8 6.3z",
    "h": "M8 1.8L13.4 4.9V11.1L8 14.2L2.6 11.1V4.9z",
    "P": "M5.7 2h4.6v3.7H14v4.6h-3.7V14H5.7v-3.7H2V5.7h3.7z",
    "X": "M4.6 2L8 5.4L11.4 2L14 4.6L10.6 8L14 11.4L11.4 14L8 10.6L4.6 14L2 11.4L5.4 8L2 4.6z",
    "*": "M8 1l1.9 4.7l5.1.3l-3.9 3.3l1.2 4.9L8 11.5l-4.3 2.7l1.2-4.9L1 6l5.1-.3z",
}
"""Matplotlib's markers as paths in a square of 16."""


@dataclass(frozen=True)
class Mark:
    """The mark of a row in tables and plots, as attributes of an SVG path."""

    path: str
    fill: str
    stroke: str
    letter: str
    ink: str


@dataclass(frozen=True)
class Number:
    """A cell as text: its value, its uncertainty, and a tip that explains both."""

    text: str
    error: str
    tip: str
    value: str
    low: str
    high: str


def row_href(identity: RowName) -> str:
    return f"rows/{safe_name(identity.joined('.'))}.html"


def method_href(method: str) -> str:
    return f"methods/{safe_name(method)}.html"


def mark_of(look: Look) -> Mark:
    colour = "currentColor" if look.colour == INK else look.colour
    return Mark(
        SHAPES[look.marker],
        colour if look.is_filled else "none",
        "none" if look.is_filled else colour,
        look.letter,
        "#fff" if look.is_filled else colour,
    )


def number_of(cell: Cell | None, unit: str) -> Number:
    """A cell for reading, for sorting and for a plot; a cell without a value shows its status."""
    if cell is None or cell.value is None:
        lost = ", ".join(dict.fromkeys(cell.lost)) if cell else ""
        return Number(lost or "–", "", lost or "not measured", "", "", "")
    write, suffix = writer(cell.value, unit)
    off = cell.uncertainty
    low, high = (cell.value, cell.value) if off is None else (off.low, off.high)
    if off is None:
        error = kind = ""
    elif off.half is not None:
        error = f"± {write(off.half)}"
        kind = f"{error} {off.of}"
    else:
        error = f"{write(low)}–{write(high)}"
        kind = f"{off.of} {error}"
    parts = [f"{cell.value:.6g} {unit}".strip(), kind, f"n = {cell.n:,}" * (cell.n > 1)]
    parts.append("disturbed: others used the machine" * cell.is_disturbed)
    parts += [f"{cell.seeds} seeds" * (cell.seeds > 1), *dict.fromkeys(cell.lost)]
    value, *ends = (f"{x:.8g}" for x in (cell.value, low, high))
    return Number(write(cell.value) + suffix, error, "; ".join(filter(None, parts)), value, *ends)


def variant(identity: RowName) -> str:
    """The preset, recovery and calibration text of a row, in which it differs from others of its method."""
    recovery = f"+ {identity.recovery}" if identity.recovery != "none" else ""
    return " · ".join(filter(None, (identity.preset, recovery, identity.calibration)))


def published_line(comparison: Comparison) -> dict[str, str]:
    """A published number with ours, in the unit in which it is shown."""
    theirs = comparison.published
    unit = form_of(theirs.metric_id).unit
    bounds = f"{number(comparison.low, unit)}–{number(comparison.high, unit)}" if comparison.low is not None else ""
    delta = number(comparison.delta, unit)
    return {
        "metric": theirs.metric if theirs.protocol.why else theirs.metric_id,
        "name": ", ".join(filter(None, (theirs.row.method, theirs.row.model, theirs.row.ratio))),
        "source": theirs.source,
        "conditions": theirs.conditions,
        "theirs": number(theirs.number, unit),
        "ours": number(comparison.ours, unit),
        "interval": bounds,
        "delta": f"+{delta}" if (comparison.delta or 0.0) > 0 else delta.replace("-", "−"),
        "verdict": f"{comparison.state}: {comparison.why}" if comparison.why else comparison.state,
    }
