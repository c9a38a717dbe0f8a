"""The recovery matrix: the effect of a criterion and the effect of training after it, separately."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.board import Board, Column, Row
from bench.report.formats import NOTHING, cell_text, difference
from bench.report.paired import UNRECOVERED, Pair

KEYS = ("method", "preset", "target")


@dataclass(frozen=True)
class Matrix:
    """One metric: a line for each method, preset and target, with a value for each recovery and its change.

    `heads` are the heads of the columns; the first columns are `KEYS`.
    """

    metric: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def matrix_of(board: Board, model: str) -> Matrix | None:
    """The matrix of a model by its headline, of all rows that were measured both with and without a recovery.

    Lines are in the board's order of the rows without recovery. None where there is no line.
    """
    column = next((column for column in board.columns if column.id == board.headlines[model].metric), None)
    if column is None:
        return None
    rows = {row.identity: row for row in board.of(model) if row.value(column.id) is not None}
    recovered = [who for who in rows if who.recovery != "none" and who._replace(recovery="none") in rows]
    recoveries = sorted({who.recovery for who in recovered})
    changes = {p.row: p for p in board.pairs if (p.control, p.metric) == (UNRECOVERED, column.id)}
    lines = []
    for who in rows:
        after = [who._replace(recovery=recovery) for recovery in recoveries]
        if who.recovery == "none" and not rows.keys().isdisjoint(after):
            cells = [text for one in after for text in (_value(rows.get(one), column), _change(changes.get(one)))]
            preset = " ".join(filter(None, (who.preset, who.calibration)))
            lines.append((who.method, preset, who.target, _value(rows[who], column), *cells))
    unit = column.kind.gap.unit
    heads = [head for recovery in recoveries for head in (recovery, f"change by {recovery} ({unit})")]
    return Matrix(column.id, (*KEYS, "none", *heads), tuple(lines)) if lines else None


def _value(row: Row | None, column: Column) -> str:
    return NOTHING if row is None else cell_text(row.cells[column.id], column.unit)


def _change(pair: Pair | None) -> str:
    return NOTHING if pair is None else "{} ({})".format(*difference(pair)[:2])
