"""The data of a rehearsal: the first rows of each real file, or made-up rows of the same columns where none is had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bench.data.pack import Pack
from bench.data.sources import SOURCES, add, ensure
from bench.errors import UsageError

Row = dict[str, Any]
Say = Callable[[str], None]
ROWS, CHARACTERS, MOST_ROWS = 64, 20_000, 2000
"""At least so many rows and characters of each file (a window of perplexity is long), and at most so many rows."""
TEXT = (
    "a model is made smaller and what is left of it is measured again on the same text with the same clock so that "
    "two ways to do it can be told apart by their numbers and by nothing else"
)
WORDS = TEXT.split()
SENTENCE, PARAGRAPH = 6, 120
"""Words of a column among others, and of a text."""


@dataclass(frozen=True)
class Texts:
    """Rows by ref of the data pack; `made_up` says of which refs they are not real, and why."""

    rows: Mapping[str, list[Row]]
    made_up: Mapping[str, str]

    def write(self) -> None:
        """Put them into the pack of the cache, which must be the rehearsal's own."""
        for ref, rows in self.rows.items():
            add(ref, rows)


def gather(refs: Iterable[str], *, offline: bool, say: Say) -> Texts:
    """The first rows of every ref, fetched as a run would fetch it.

    Raises:
        DataError: a file of a pack is damaged.
        UsageError: a ref that no pack has and whose columns are not known.
    """
    wanted = sorted(set(refs))
    made_up = ensure(wanted, offline=offline, on_progress=say)
    for ref, reason in made_up.items():
        if ref not in SOURCES or not SOURCES[ref].columns:
            raise UsageError(f"data {ref} is not available, nor can rows of its form be made up: {reason}")
    pack = Pack.default()
    rows = {ref: _made_up(ref) if ref in made_up else _first_rows(pack, ref) for ref in wanted}
    return Texts(rows, made_up)


def _first_rows(pack: Pack, ref: str) -> list[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(pack.path(ref)) as file:
        rows = (row for batch in file.iter_batches(batch_size=ROWS) for row in batch.to_pylist())
        return _enough(islice(rows, MOST_ROWS))


def _made_up(ref: str) -> list[Row]:
    columns = SOURCES[ref].columns
    answers = 1 if "_gold/" in ref else 5
    return _enough({name: _value(name, columns, i, answers) for name in columns} for i in range(MOST_ROWS))


def _enough(rows: Iterable[Row]) -> list[Row]:
    taken: list[Row] = []
    characters = 0
    for row in rows:
        if len(taken) >= ROWS and characters >= CHARACTERS:
            break
        taken.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, str))
    return taken


def _words(i: int, count: int) -> str:
    return " ".join(WORDS[(i * 7 + k * (1 + i % 3)) % len(WORDS)] for k in range(count))


def _value(column: str, columns: tuple[str, ...], i: int, answers: int) -> Any:
    """What stands in a column of row `i`, of the type that tasks read there."""
    letters = ["A", "B", "C", "D", "E"]
    texts = [_words(i + k, 3) for k in range(answers)]
    values: dict[str, Any] = {
        "answer": i % 4 if "subject" in columns else str(1 + i % 2),
        "answerKey": letters[i % 4],
        "choices": {"text": texts, "label": letters} if "answerKey" in columns else texts,
        "ctx": "",
        "gold": 0,
        "endings": [_words(i + k, 6) for k in range(4)],
        "id": f"made-up-{i}",
        "idx": i,
        "ind": i,
        "label": str(i % 4) if "endings" in columns else i % 2,
        "part": f"part {i % 2}",
        "sentence": f"{_words(i, 6)} because _ is {_words(i + 1, 2)}.",
        "split": "made up",
        "subject": "abstract_algebra",
    }
    return values.get(column, _words(i, SENTENCE if len(columns) > 1 else PARAGRAPH))
