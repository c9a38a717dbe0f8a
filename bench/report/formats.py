"""Text of numbers, cells and column heads."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence

from bench.record.kinds import form_of, kind_of
from bench.report.board import Board, Column
from bench.report.cell import Cell
from bench.report.paired import Pair

ARROWS = {"higher": " ↑", "lower": " ↓", "none": ""}
NOTHING = "–"
COUNTS = ("parameters", "MACs", "bytes", "tokens", "steps")
FINE = ("bits/byte", "nats/token")
SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def cell_text(cell: Cell | None, unit: str) -> str:
    """A value with its uncertainty."""
    if cell is None:
        return NOTHING
    lost = ", ".join(dict.fromkeys(cell.lost))
    if cell.value is None:
        return lost or NOTHING
    write, suffix = writer(cell.value, unit)
    text, off = write(cell.value), cell.uncertainty
    if off is None:
        text += suffix
    elif off.half is not None:
        text += f" ± {write(off.half)}{suffix}"
    else:
        text += f"{suffix} ({write(off.low)}–{write(off.high)})"
    text += " disturbed" * cell.is_disturbed
    return f"{text}, {lost}" if lost else text


def writer(value: float, unit: str) -> tuple[Callable[[float], str], str]:
    """A function that writes numbers of the size of `value`, and a suffix: fractions as %, counts as k, M, G, T."""
    if unit == "fraction":
        return lambda x: f"{100 * x:.1f}", ""
    if unit == "ratio":
        return lambda x: f"{x:.2f}", "×"
    if unit in COUNTS:
        size, prefix = next((scale for scale in SCALES if abs(value) >= scale[0]), (1.0, ""))
        suffix = prefix + ("B" if unit == "bytes" else "")
        return lambda x: f"{x / size:.4g}", f" {suffix}" if suffix else ""
    if abs(value) >= 1e6:
        return lambda x: f"{x:.2e}", ""
    if unit in FINE:
        return lambda x: f"{x:.3f}", ""
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return lambda x: f"{x:,.{decimals}f}", ""


def difference(pair: Pair) -> tuple[str, str, str]:
    """The difference between a row and its control, its 95 % interval, and p, as text."""
    d, gap = pair.difference, kind_of(pair.metric).gap
    value, low, high = (gap.text(x).replace("-", "−") for x in (d.value, d.low, d.high))
    return value, f"{low} – {high}", "p < 0.001" if d.p < 0.001 else f"p = {d.p:.3f}"


def number(value: float | None, unit: str) -> str:
    """`value` alone, in the unit in which it is shown."""
    if value is None:
        return NOTHING
    write, suffix = writer(value, unit)
    return write(value) + suffix


def broken(text: str, width: int) -> list[str]:
    """`text` on lines of about `width` characters.

    It is broken after slashes, plus signs and spaces (not before an arrow); words that are wider, after underscores.
    """
    lines = [""]
    for whole in re.findall(r"[^ /+]*(?: [↑↓]| (?![↑↓])|[/+])?", text):
        for piece in re.findall(r"[^_]*_?", whole) if len(whole.rstrip()) > width else [whole]:
            if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines if line.strip()]


def title_of(column: Column, smoke: bool = False, no_signal: bool = False) -> tuple[str, str]:
    """The head of a column: its name with unit and direction, and its protocol with 'smoke' and 'no signal'."""
    shown = {"fraction": "%", "s": "s", "ms": "ms", "tokens/s": "tokens/s"}.get(column.unit)
    plain = column.name.replace(".", " ") + (f" ({shown})" if shown else "")
    name = form_of(column.id).title.format(task=column.task) or plain
    return name + ARROWS[column.direction], column.protocol + " smoke" * smoke + " no signal" * no_signal


def smoke_notes(board: Board, columns: Iterable[Column]) -> list[str]:
    """How few items make a smoke test, for the kinds of those `columns` that are one."""
    kinds = dict.fromkeys(column.kind.over or column.kind for column in columns if column.id in board.smoke)
    several = len(kinds) > 1
    return [f"smoke{f' ({kind.noun})' * several}: fewer than {kind.least} items a task" for kind in kinds]


def mean_of(board: Board, model: str) -> Column | None:
    """The mean that counts for `model`: the headline, else one over tasks with signal, else any that some row has."""
    headline, rows = board.headlines[model], board.of(model)
    means = [c for c in board.columns_of(model) if c.kind.over and any(row.value(c.id) is not None for row in rows)]
    return min(means, key=lambda c: (c.id != headline.metric, c.id not in headline.others), default=None)


def grid(heads: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """A Markdown table of cells that are escaped already; the first `left` columns are text, the rest numbers."""
    rule = ["---"] * left + ["--:"] * (len(heads) - left)
    return [*("| " + " | ".join(line) + " |" for line in [heads, rule, *lines]), ""]


def escape(text: str) -> str:
    """`text` on one line, with all characters escaped that mean something in Markdown or HTML."""
    text = html.escape(" ".join(text.split()), quote=False)
    text = re.sub(r"([\\`*\[\]|~#!])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)
