"""The recovery matrix: what a criterion is worth and what training after it is worth, apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from bench.report.board import Board, Column, Row
from bench.report.formats import NOTHING, cell_text, difference
from bench.report.frame import Identity
from bench.report.paired import UNRECOVERED, Pair

KEYS = ("method", "preset", "target")


@dataclass(frozen=True)
class Matrix:
    """By one metric: a line for each method, preset and target, with a value for each recovery and what it changed.

    `heads` stand above the columns, of which the first are `KEYS`.
    """

    metric: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def matrix_of(board: Board, model: str) -> Matrix | None:
    """The matrix of a model by its headline, of all that was measured both with and without a recovery.

    Lines are in the board's order of what was not recovered. None where there is no such line.
    """
    column = next((column for column in board.columns if column.id == board.headlines[model].metric), None)
    if column is None:
        return None
    found: dict[tuple[str, ...], dict[str, Row]] = defaultdict(dict)
    for row in board.of(model):
        if row.identity.target != "none" and row.value(column.id) is not None:
            found[tuple(getattr(row.identity, key) for key in KEYS)][row.identity.recovery] = row
    found = {who: rows for who, rows in found.items() if "none" in rows and len(rows) > 1}
    places = {row.identity: i for i, row in enumerate(board.of(model))}
    found = dict(sorted(found.items(), key=lambda item: places[item[1]["none"].identity]))
    recoveries = sorted({recovery for rows in found.values() for recovery in rows} - {"none"})
    changes = {p.row: p for p in board.pairs if (p.control, p.metric) == (UNRECOVERED, column.id)}
    unit = "nats/token" if column.family == "perplexity" else "points"
    heads = [*KEYS, "none", *(head for name in recoveries for head in (name, f"change by {name} ({unit})"))]
    lines = [(*who, *_cells(rows, recoveries, column, changes)) for who, rows in found.items()]
    return Matrix(column.id, tuple(heads), tuple(lines)) if lines else None


def _cells(
    rows: Mapping[str, Row], recoveries: list[str], column: Column, changes: Mapping[Identity, Pair]
) -> list[str]:
    cells = [cell_text(rows["none"].cells[column.id], column.unit)]
    for row in map(rows.get, recoveries):
        pair = changes.get(row.identity) if row is not None else None
        cells.append(cell_text(row.cells[column.id], column.unit) if row is not None else NOTHING)
        cells.append("{} ({})".format(*difference(pair)[:2]) if pair is not None else NOTHING)
    return cells
