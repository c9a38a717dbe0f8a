"""The documents of a text source, as calibration and plain training read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from bench.data.glue import PairTemplate, template_of
from bench.data.instructions import prompt_of
from bench.data.pack import Pack

if TYPE_CHECKING:
    from bench.suite import TextSource

TEXT = "text"
"""The column that is read where a source names none."""
INSTRUCTION = ("instruction", "input", "output")
Row = TypeVar("Row")


def documents(source: TextSource) -> list[str]:
    """The texts of `source` in order.

    Instructions and GLUE's labelled rows have no column `text`: their document is the prompt and the answer, as in
    training. Where the source names another column, that column alone is read.

    Raises:
        DataError: the file is missing or damaged, has no such column, or a row of GLUE no label.
    """
    pack = Pack.default()
    template = template_for(source)
    if is_instructions(source) and TEXT not in pack.columns(source.data):
        rows = within(pack.rows(source.data, INSTRUCTION), source)
        return [prompt_of(row) + row["output"] for row in rows]
    if template is not None:
        rows = within(pack.rows(source.data, template.columns), source)
        return ["".join(template.pair(row)) for row in rows]
    return list(within(pack.column(source.data, source.column), source))


def template_for(source: TextSource) -> PairTemplate | None:
    """GLUE's template, where the source is a file of GLUE and names no column of its own."""
    return template_of(source.data) if source.column == TEXT else None


def is_instructions(source: TextSource) -> bool:
    """Whether the rows are instructions with answers; not where the source names a column of its own."""
    return source.column == TEXT and set(INSTRUCTION) <= set(Pack.default().columns(source.data))


def within(rows: Sequence[Row], source: TextSource) -> Sequence[Row]:
    """The rows that the source does not leave out."""
    return rows[slice(*source.rows)] if source.rows else rows
