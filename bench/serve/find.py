"""The checkpoint that a user means by a row of the board, and what was measured on it. No torch."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
from bench.paths import artifact_path
from bench.record.schema import ArtifactRecord, MeasureRecord
from bench.record.store import Store

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
    """Model, method, preset, and the recovery, target and seed where there are any."""
    parts = [record.model, record.method, record.preset]
    parts += [f"+ {record.recovery}"] * (record.recovery != "none")
    parts += [record.target] * (record.target != "none")
    return " ".join([*parts, f"seed {record.seed}"])


def find_row(row: str, results: Path) -> Found:
    """The checkpoint of `row`: the start of a key, a record's file, or words that stand in one row alone.

    Words are the row's model, method, preset, recovery and target, and `seed N`, in any order.

    Raises:
        UsageError: no row, or several; the row has no checkpoint, or it is not on this machine.
        RecordError: the record is damaged.
    """
    store = Store(results)
    records, _ = store.read_all()
    artifacts = [r for r in records if isinstance(r, ArtifactRecord) and r.status == "ok"]
    record = _by_key(row, store) or _by_words(row, artifacts, results)
    if record.status != "ok":
        raise UsageError(f"{label_of(record)}: has no checkpoint, its making ended as {record.status}")
    measures = tuple(
        r for r in records if isinstance(r, MeasureRecord) and r.artifact == record.key and r.status == "ok"
    )
    found = Found(record, artifact_path(record.key), measures)
    if not (found.folder / MANIFEST).is_file():
        raise UsageError(
            f"{found.label}: its checkpoint is not on this machine ({found.folder}); make it again with: "
            + _again(found)
        )
    return found


def _by_key(row: str, store: Store) -> ArtifactRecord | None:
    is_file = Path(row).is_file() or (Path(row) / "artifact.json").is_file()
    if not is_file and not re.fullmatch(r"[0-9a-f]{4,16}", row):
        return None
    record = store.find(row)
    made = store.load(record.artifact) if isinstance(record, MeasureRecord) else record
    if not isinstance(made, ArtifactRecord):
        raise UsageError(f"'{row}': the record of its checkpoint, {record.key}, is not under {store.runs}")
    return made


def _by_words(row: str, records: list[ArtifactRecord], results: Path) -> ArtifactRecord:
    words = set(row.replace("·", " ").replace("+", " ").split())

    def names(record: ArtifactRecord) -> set[str]:
        own = {record.model, record.method, record.preset, record.recovery, record.target, "seed", str(record.seed)}
        return own | {part for name in own for part in name.split()}

    fitting = [record for record in records if words and words <= names(record)]
    if not fitting:
        raise UsageError(f"'{row}' is neither the start of a key nor a row of {results}; `leanboard report` lists them")
    if len(fitting) > 1:
        listed = "; ".join(f"{label_of(record)} ({record.key})" for record in fitting[:4]) + "; …" * (len(fitting) > 4)
        raise UsageError(f"'{row}' stands in {len(fitting)} rows ({listed}); say more of it, or give a key")
    return fitting[0]


def _again(found: Found) -> str:
    """The command that made the checkpoint, for it alone, into a results folder of its own (finished cells stay)."""
    record = found.record
    words = ["run" if word == "retry" else word for word in record.provenance.command]
    for option in ("--code", "--jobs", "--only", "--results"):
        while option in words:
            at = words.index(option)
            del words[at : at + 2]
    chosen = {
        "model": record.model,
        "method": record.method,
        "preset": record.preset,
        "recovery": record.recovery,
        "target": record.target,
        "seed": record.seed,
    }
    if any(measure.task == "size" for measure in found.measures):
        chosen["task"] = "size"
    words += [word for name, value in chosen.items() for word in ("--only", f"{name}={value}")]
    return shlex.join([*words, "--results", "results-again"])
