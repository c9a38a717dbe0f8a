"""The order of the rows and columns of a board, and which rows are worse than random ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.record.kinds import place_of
from bench.report.board import Column, Row


def row_place(row: Row, quality: Mapping[str, str | None], columns: Mapping[str, Column]) -> tuple[object, ...]:
    """Sort key of rows: by model, dense first, then target by target the best quality; rows without a value last."""
    column = quality[row.identity.model]
    value = row.value(column)
    goodness = 0.0 if value is None or column is None else badness(value, columns[column])
    size = re.fullmatch(r"([a-z_]+)=(\d+(?:\.\d+)?)", row.identity.target)
    target = (row.identity.target != "none", size[1] if size else "", float(size[2]) if size else 0.0)
    return (row.identity.model, row.identity.method != "dense", *target, value is None, goodness, row.identity)


def badness(value: float, column: Column) -> float:
    return -value if column.direction == "higher" else value


def is_worse_than_random(row: Row, rows: Sequence[Row], column: Column | None) -> bool:
    """Whether `random` at the same target is better; with the same recovery if it was run with that."""
    key = row.identity
    value = row.value(column.id) if column else None
    if column is None or value is None or key.method in ("random", "dense") or key.target == "none":
        return False
    rivals = [
        (rival.identity.recovery == key.recovery, badness(number, column))
        for rival in rows
        if (rival.identity.model, rival.identity.method, rival.identity.target) == (key.model, "random", key.target)
        and (number := rival.value(column.id)) is not None
    ]
    same = [badness for has_same_recovery, badness in rivals if has_same_recovery] or [badness for _, badness in rivals]
    return bool(same) and badness(value, column) > min(same)


def column_place(column: Column, order: Mapping[str, int]) -> tuple[object, ...]:
    numbers = [part.zfill(12) if part.isdecimal() else part for part in re.split(r"(\d+)", column.id)]
    is_first = column.name in column.kind.first
    return (*place_of(column.kind), not is_first, order.get(column.name, len(order)), numbers)
