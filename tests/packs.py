"""A tiny data pack in the form of the real one: parquet files and a manifest, made on the spot."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ADJECTIVES = ["red", "blue", "old", "new", "warm", "cold", "dry", "wet", "high", "low", "dark", "light"]
LETTERS = ["A", "B", "C", "D"]


def _questions(n: int, text: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{i}",
            text: f"What is {ADJECTIVES[i % 12]} and number {i}?",
            "choices": {"text": [f"the {ADJECTIVES[(i + k) % 12]} dog {k}" for k in range(4)], "label": LETTERS},
            "answerKey": LETTERS[i % 4],
        }
        for i in range(n)
    ]


def tables(n: int = 12) -> dict[str, list[dict[str, Any]]]:
    """Rows of each dataset, with the columns that lm-eval's stock tasks read, by ref."""

    def word(i: int) -> str:
        return ADJECTIVES[i % 12]

    return {
        "boolq/validation": [
            {"passage": f"The fox is {word(i)}.", "question": f"is the fox {word(i + i % 2)}", "idx": i, "label": i % 2}
            for i in range(n)
        ],
        "piqa/validation": [
            {"goal": f"make it {word(i)}", "sol1": f"Use the {word(i)} pen.", "sol2": "Wait.", "label": i % 2}
            for i in range(n)
        ],
        "hellaswag/validation": [
            {
                "ind": i,
                "activity_label": "Jumping",
                "ctx_a": f"A {word(i)} fox stands.",
                "ctx_b": "it",
                "ctx": "",
                "endings": [f"[header] jumps {k} times.  [title] Then it is {word(i + k)}." for k in range(4)],
                "source_id": "",
                "split": "val",
                "split_type": "indomain",
                "label": str(i % 4),
            }
            for i in range(n)
        ],
        "winogrande/validation": [
            {
                "sentence": f"The fox beat the dog because the _ was {word(i)}.",
                "option1": "fox",
                "option2": "dog",
                "answer": str(1 + i % 2),
            }
            for i in range(n)
        ],
        "arc_easy/test": _questions(n, "question"),
        "arc_challenge/test": _questions(n, "question"),
        "openbookqa/test": _questions(n, "question_stem"),
        "lambada_openai/test": [
            {"text": f"The quick brown fox jumps over the lazy dog number {i} and it is {word(i)}"} for i in range(n)
        ],
        "wikitext2_raw/test": [
            {"text": f" = Page {i} = \n" if i % 3 == 0 else f" A model is pruned , and what is {word(i)} is kept . \n"}
            for i in range(4 * n)
        ],
    }


def make_pack(root: Path, rows: Mapping[str, list[dict[str, Any]] | pa.Table] | None = None) -> Path:
    """Write a pack into `root` (by default all of `tables()`); `LEANBOARD_DATA` may then name it."""
    manifest = {}
    for ref, given in (rows if rows is not None else tables()).items():
        table = given if isinstance(given, pa.Table) else pa.Table.from_pylist(given)
        file = root / f"{ref}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)
        data = file.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        manifest[f"{ref}.parquet"] = {
            "rows": table.num_rows,
            "columns": table.column_names,
            "bytes": len(data),
            "sha256": sha256,
        }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return root
