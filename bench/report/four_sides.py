"""In Markdown: each row on the four sides of quality, who is first on all of them, and whether the order holds."""

from __future__ import annotations

from collections import defaultdict

from bench.record.kind import SIDES, Side
from bench.report.board import Board, Column, Row
from bench.report.formats import NOTHING, cell_text, escape, grid, title_of
from bench.report.sides import Agreement

MEANING: dict[Side, str] = {
    "knows": "it chooses right answers",
    "can say": "it gives right answers by itself",
    "models text": "it predicts text",
    "stays itself": "it does what the dense model does",
}


def four_sides(board: Board, model: str) -> list[str]:
    """The value and rank of each row on each side; nothing where fewer than two sides were measured."""
    columns = board.sides(model)
    if len(columns) < 2:
        return []
    heads = ["row", *(f"{side}<br>{'<br>'.join(_head(board, model, columns.get(side)))}" for side in SIDES)]
    labels = board.labels(model)
    lines = [
        [escape(labels[row.identity]), *(side_text(board, row, side, columns.get(side)) for side in SIDES)]
        for row in board.of(model)
        if any(column.id in row.cells for column in columns.values())
    ]
    meaning = "; ".join(f"*{side}*: {what}" for side, what in MEANING.items())
    table = ["### Four sides", "", f"The rank stands first, then the value. {meaning}.", "", *grid(heads, lines)]
    firsts = [f"- {escape(sentence)}" for sentence in first_on_all(board, model)]
    return [*table, *firsts, *[""] * bool(firsts), *_order(board, model)]


def _head(board: Board, model: str, column: Column | None) -> tuple[str, ...]:
    if column is None:
        return ("not measured",)
    return title_of(column, column.id in board.smoke, column.id in board.no_signal(model))


def side_text(board: Board, row: Row, side: Side, column: Column | None) -> str:
    """'**2–4** · 31.2 ± 0.4'; without a rank the value alone."""
    standing = board.on_side(row.identity, side)
    text = escape(cell_text(row.cells.get(column.id), column.unit)) if column else NOTHING
    return f"**{standing.text}** · {text}" if standing is not None and standing.is_ranked else text


def first_on_all(board: Board, model: str) -> list[str]:
    """A sentence for each group that is ranked on several sides: the rows that nothing beats on any, else on each."""
    labels = board.labels(model)
    firsts: dict[str, dict[Side, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in board.of(model):
        for side in SIDES:
            standing = board.on_side(row.identity, side)
            if standing is not None and standing.low == 1:
                firsts[standing.group][side].append(labels[row.identity])
    lines = []
    for group, sides in firsts.items():
        everywhere = [label for label in next(iter(sides.values())) if all(label in found for found in sides.values())]
        if len(sides) > 1:
            each = "; ".join(f"{side}: {', '.join(found)}" for side in SIDES if (found := sides.get(side)))
            said = ", ".join(everywhere) or f"no row ({each})"
            lines.append(f"{group}: first, or tied with the first, on each side that is ranked: {said}.")
    return lines


def _order(board: Board, model: str) -> list[str]:
    """The rank correlation between sides, group by group."""
    mine = [agreement for agreement in board.agreements if agreement.model == model]
    if not mine:
        return []
    heads = ["sides", "among", "rows", "pairs in the same order", "Kendall's τ (95 %)"]
    lines = [
        [" – ".join(a.sides), escape(a.group), f"{a.rows}", f"{a.same} of {a.pairs}", tau_text(a)]
        for a in sorted(mine, key=lambda a: (SIDES.index(a.sides[0]), SIDES.index(a.sides[1]), a.group))
    ]
    return ["### Does the order hold from side to side?", "", *grid(heads, lines, left=2)]


def tau_text(agreement: Agreement) -> str:
    """'+0.67 (+0.42 – +0.81)'."""
    value, low, high = (f"{x:+.2f}".replace("-", "−") for x in (agreement.tau, agreement.low, agreement.high))
    return f"{value} ({low} – {high})"
