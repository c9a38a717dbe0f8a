"""A user's own texts: from files into the pack of the cache, or one sentence about the line that is wrong."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.data.convert import Row
from bench.data.pack import REF, Pack
from bench.data.sources import SOURCES, add
from bench.data.texts import INSTRUCTION, TEXT
from bench.errors import DataError, UsageError

Placed = tuple[str, Any]
"""A row, and where it stands: file and line."""
LONGEST_FIELD = 1 << 30
"""Characters of one field of a CSV file; by default the csv module refuses documents of more than 131072."""


def add_files(name: str, files: Sequence[Path], column: str | None = None) -> Path:
    """Add the texts of `files` to the pack of the cache as `name` (<dataset>/<split>); returns the file there.

    A row of a .jsonl, .json, .csv or .parquet file is a document, its text that of `column` (else of `text`), and it is
    `text` in the pack. Without `column`, rows with instruction and output stay instructions. A .txt file holds
    paragraphs between blank lines, each a document.

    Raises:
        UsageError: the name is taken or none of a pack; no file, or one of another kind.
        DataError: a file cannot be read, is empty, or a row is not as it should be; the sentence names file and line.
    """
    if not REF.match(name):
        raise UsageError(f"'{name}' does not name a text; write <dataset>/<split> in small letters, digits and _")
    if name in SOURCES or Pack.default().has(name):
        raise UsageError(f"{name}: there is a text of that name; choose another, so that no key changes its meaning")
    rows = [row for file in files for row in _rows_of(file, column)]
    if len({tuple(row) for row in rows}) > 1:
        raise DataError(f"{files[0]} and the others: some files hold instructions and others plain text")
    return add(name, rows)


def _rows_of(file: Path, column: str | None) -> list[Row]:
    if file.suffix not in READERS:
        raise UsageError(f"{file}: must be one of {', '.join(READERS)}")
    if file.suffix == ".txt" and column is not None:
        raise UsageError(f"{file}: a text file has no columns; leave --column out")
    placed = list(READERS[file.suffix](file))
    first = placed[0][1] if placed else {}
    is_instructions = column is None and isinstance(first, Mapping) and {"instruction", "output"} <= set(first)
    rows = [_instruction(*one) if is_instructions else {TEXT: _text(*one, column or TEXT)} for one in placed]
    if not any(text.strip() for row in rows for text in row.values()):
        raise DataError(f"{file}: is empty")
    return rows


def _instruction(place: str, row: Any) -> Row:
    whole = {"input": "", **row} if isinstance(row, Mapping) else row
    return {name: _text(place, whole, name) for name in INSTRUCTION}


def _text(place: str, row: Any, column: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: is not an object with columns")
    if column not in row:
        names = ", ".join(str(name) for name in row if name is not None)
        raise DataError(f"{place}: has no column '{column}' (it has {names or 'none'}); name one with --column")
    value = row[column]
    if not isinstance(value, str):
        raise DataError(f"{place}: column '{column}' does not hold a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{place}: column '{column}' holds half a character (a lone surrogate)") from None
    return value


def _lines(file: Path) -> Iterator[Placed]:
    for number, line in enumerate(_decoded(file).split("\n"), start=1):
        if line.strip():
            yield f"{file}:{number}", _parsed(line, f"{file}:{number}")


def _array(file: Path) -> Iterator[Placed]:
    content = _parsed(_decoded(file), str(file))
    if not isinstance(content, list):
        raise DataError(f"{file}: is not a list of objects (a file with one object a line ends in .jsonl)")
    for number, row in enumerate(content, start=1):
        yield f"{file}: row {number}", row


def _table(file: Path) -> Iterator[Placed]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(_decoded(file), newline=""), strict=True)
    try:
        for row in reader:
            if None in row:
                raise DataError(f"{file}:{reader.line_num}: has more fields than the header")
            yield f"{file}:{reader.line_num}", row
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num + 1}: not valid CSV ({error})") from error


def _parquet(file: Path) -> Iterator[Placed]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(file).read().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]})") from error
    for number, row in enumerate(rows, start=1):
        yield f"{file}: row {number}", row


def _paragraphs(file: Path) -> Iterator[Placed]:
    for paragraph in re.split(r"\n[ \t]*(?:\n[ \t]*)+", _decoded(file).replace("\r\n", "\n").strip()):
        yield str(file), {TEXT: paragraph}


READERS: Mapping[str, Callable[[Path], Iterator[Placed]]] = {
    ".jsonl": _lines,
    ".json": _array,
    ".txt": _paragraphs,
    ".csv": _table,
    ".parquet": _parquet,
}


def _decoded(file: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{file}:{line}: not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{place}:{error.lineno}" if error.lineno > 1 else place
        raise DataError(f"{where}: not valid JSON ({error.msg})") from error
    except RecursionError:
        raise DataError(f"{place}: not valid JSON (nested too deeply)") from None
