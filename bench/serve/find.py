"""The checkpoint that a user means by a row of the board, and what was measured on it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.paths import artifact_path
from bench.record.rows import RowName, command
from bench.record.schema import ArtifactRecord, MeasureRecord
from bench.report.find import Rows

MANIFEST = "leanboard.json"


@dataclass(frozen=True)
class Found:
    """A checkpoint's record, its folder in the cache, and the measurements of it that ended well."""

    record: ArtifactRecord
    folder: Path
    measures: tuple[MeasureRecord, ...]

    @property
    def label(self) -> str:
        return label_of(self.record)


def label_of(record: ArtifactRecord) -> str:
    """The name of its row in words, and its seed."""
    return f"{RowName.of(record).title} seed {record.seed}"


def find_row(row: str, results: Path) -> Found:
    """The checkpoint of `row`: a row's name (see `bench.record.rows`), the start of a key, or a record's file.

    Raises:
        UsageError: no row, or several; the row has no checkpoint, or it is not on this machine.
        RecordError: the record is damaged.
    """
    rows = Rows(results)
    record = rows.checkpoint(row)
    if record.status != "ok":
        raise UsageError(f"{label_of(record)}: has no checkpoint, its making ended as {record.status}")
    measures = tuple(
        r for r in rows.records if isinstance(r, MeasureRecord) and r.artifact == record.key and r.status == "ok"
    )
    found = Found(record, artifact_path(record.key), measures)
    if not (found.folder / MANIFEST).is_file():
        raise UsageError(
            f"{found.label}: its checkpoint is not on this machine ({found.folder}); make it again with: "
            + _again(found)
        )
    return found


def _again(found: Found) -> str:
    """The command for the one checkpoint, into a results folder of its own (finished cells stay)."""
    has_size = any(measure.task.partition("@")[0] == "size" for measure in found.measures)
    more = [f"seed={found.record.seed}", *["task=size"] * has_size]
    chosen = [word for value in more for word in ("--only", value)]
    without = ("--jobs", "--results", "--keep", "--disk-limit")
    return command(found.record, *chosen, "--results", "results-again", without=without)
