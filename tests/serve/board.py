"""A board of one row: a tiny checkpoint in the cache, its record and a score."""

from pathlib import Path

from bench.paths import artifact_path
from bench.record.store import Store
from bench.serve.find import Found, find_row
from tests.artefacts import make
from tests.record.records import artifact, measure, perplexity


def row(results: Path, kind: str, shape: str = "gqa", method: str | None = None) -> Found:
    """With the checkpoint of that kind; the method is called so too, unless another is named."""
    record = artifact(method or kind)
    store = Store(results)
    store.write(record)
    store.write(perplexity(record, 12.5))
    store.write(measure(record, "size", []))
    make(kind, shape, artifact_path(record.key))
    return find_row(record.key, results)
