"""Rows of files of rendered requests (`bench.data.rendered`), each checked before it is asked."""

from __future__ import annotations

from typing import Any

from bench.data.pack import Pack
from bench.data.rendered import COLUMNS
from bench.errors import DataError
from bench.record.shares import NUMBERS

ITEM, CONTEXT, CHOICES, GOLD = COLUMNS
PART, ABOUT = "part", "about"


def read_rendered(pack: Pack, ref: str) -> list[dict[str, Any]]:
    """The rows in order with `item`, `context`, `choices` and `gold`; with `part` and `about` where the file has them.

    Raises:
        DataError: the file is missing or damaged, has no rows, or a row is not of this form.
    """
    known = pack.columns(ref)
    rows = pack.rows(ref, [*COLUMNS, *(name for name in (PART, ABOUT) if name in known)])
    if not rows:
        raise DataError(f"{pack.path(ref)}: has no rows")
    for number, row in enumerate(rows):
        if problem := _problem(row):
            raise DataError(f"{pack.path(ref)}: row {number}, item '{row[ITEM]}': {problem}")
    return rows


def _problem(row: dict[str, Any]) -> str | None:
    """What is wrong with a row."""
    for column in (ITEM, PART, ABOUT):
        if not _is_said(row.get(column, column)):
            return f"'{column}' is not a text"
    if not isinstance(row[CONTEXT], str):
        return f"'{CONTEXT}' is not a text"
    choices, gold = row[CHOICES], row[GOLD]
    if not isinstance(choices, list) or not 0 < len(choices) <= len(NUMBERS) or not all(map(_is_said, choices)):
        return f"'{CHOICES}' is not a list of 1 to {len(NUMBERS)} texts"
    if type(gold) is not int or not 0 <= gold < len(choices):
        return f"'{GOLD}' is not the number, from 0, of one of its {len(choices)} choices"
    return None


def _is_said(value: Any) -> bool:
    return isinstance(value, str) and not value.isspace() and value != ""
