"""Records on disk: one JSON file per cell under `<results>/runs/<model>/<method>/<artifact key>/`.

Files are written whole or not at all, the same record always gives the same bytes, and a file that is not a record of
ours is reported and left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from bench.data.files import write_whole
from bench.errors import RecordError, UsageError
from bench.record.rows import tell_texts_apart
from bench.record.schema import ArtifactRecord, MeasureRecord
from bench.record.text import AnyRecord, one_line, parse, render

ABSENT = "(absent)"
KEY_START = re.compile(r"[0-9a-f]{1,16}")


class Store:
    """The records under one results folder.

    Other processes may write at the same time. So only the files of an older form, which nobody writes any more, are
    remembered, by the key that their records have now.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self.runs = results / "runs"

    def path_of(self, record: AnyRecord) -> Path:
        """Where `record` lies: in the file that it was read from, else where `write` puts it."""
        return self._place(record, record.former_key or record.key)

    def write(self, record: AnyRecord) -> Path:
        """Write `record`, in place of an older record of the same key; only a good one replaces a good one.

        An older record under a former key is deleted once the new one is written.

        Raises:
            RecordError: the file there is damaged or not ours (it is left as it is), or the record is not JSON.
            LeanboardError: the file cannot be written.
        """
        path, former = self._place(record, record.key), self._former.get(record.key, [])
        for older in [path, *former]:
            if older.exists() and self._read(older).status == "ok" != record.status:
                return older
        try:
            text = render(record)
        except (TypeError, ValueError) as error:
            raise RecordError(f"{path}: the record cannot be written as JSON: {one_line(error)}") from error
        write_whole(path, text.encode())
        for older in former:
            older.unlink(missing_ok=True)
        return path

    def load(self, key: str) -> AnyRecord | None:
        """The record with exactly this key; None where there is none.

        Raises:
            RecordError: there is a file for the key, but it is damaged or not ours.
        """
        if len(key) != 16:
            return None
        paths = self._named(key) or [path for path in self._former.get(key, []) if path.exists()]
        record = self._read(paths[0]) if paths else None
        return record if record is not None and record.key == key else None

    def finished(self, key: str) -> bool:
        """Whether the cell of this key has ended well. Raises as `load` does."""
        record = self.load(key)
        return record is not None and record.status == "ok"

    def has(self, prefix: str) -> bool:
        """Whether any record's key starts with `prefix`."""
        return bool(self._paths(prefix))

    def find(self, prefix: str) -> AnyRecord:
        """The one record that a user names by its key (now or formerly), the start of it, its file or its checkpoint's
        folder.

        Raises:
            UsageError: no record or several match.
            RecordError: the one that matches is damaged or not ours.
        """
        given = Path(prefix)
        given = given / "artifact.json" if given.is_dir() else given
        if given.is_file():
            return parse(given)
        paths = self._paths(prefix)
        if not paths:
            raise UsageError(f"'{prefix}' is neither a record's file nor the start of a key under {self.runs}")
        if len(paths) > 1:
            listed = ", ".join(_key_in(path) for path in paths[:4]) + (", …" if len(paths) > 4 else "")
            raise UsageError(f"'{prefix}' is the start of {len(paths)} keys ({listed}); give more of it")
        return self._read(paths[0])

    def files(self) -> list[Path]:
        """The files of all records, in order, without those that are being written in hidden folders."""
        paths = (path for path in self.runs.rglob("*.json") if not path.parent.name.startswith("."))
        return sorted(paths)

    def read_all(self) -> tuple[list[AnyRecord], list[RecordError]]:
        """All records in the order of their paths, told apart by calibration text, and one error for each other file.

        Where two files hold one cell, under keys of two schemas, the one that `load` gives counts.
        """
        records: dict[Path, AnyRecord] = {}
        problems = []
        for path in self.files():
            try:
                record = self._read(path)
            except RecordError as error:
                problems.append(error)
                continue
            place = self._place(record, record.key)
            if place in records:
                less, record = sorted([record, records[place]], key=_weight)
                counts = self.path_of(record)
                problems.append(RecordError(f"{self.path_of(less)}: {counts} is of the same cell and counts instead"))
            records[place] = record
        return tell_texts_apart(list(records.values())), problems

    def why(self, a: AnyRecord, b: AnyRecord) -> list[tuple[str, Any, Any]]:
        """What differs between two records, as `differences`; where their checkpoints differ, what differs in those;
        and the commits of the models, where they differ.

        Shape of an entry: (path of the field, its value in `a`, its value in `b`).
        """
        found = differences(a, b)
        if isinstance(a, MeasureRecord) and isinstance(b, MeasureRecord) and a.artifact != b.artifact:
            made = self.load(a.artifact), self.load(b.artifact)
            if made[0] is not None and made[1] is not None:
                keys = {a.artifact, b.artifact}
                found = [entry for entry in found if set(map(str, entry[1:])) != keys]
                found += [(f"artifact.{path}", x, y) for path, x, y in differences(made[0], made[1])]
        commits = a.provenance.model_revision, b.provenance.model_revision
        return found + [("provenance.model_revision", *commits)] * (commits[0] != commits[1])

    @cached_property
    def _former(self) -> dict[str, list[Path]]:
        """The files of each record that lies under a former key, by its key of today; the one that counts is first."""
        found: dict[str, list[AnyRecord]] = {}
        for path in self.runs.glob("*/*/*/*.json"):
            with contextlib.suppress(RecordError):
                record = self._read(path)
                if record.former_key is not None:
                    found.setdefault(record.key, []).append(record)
        by_weight = {key: sorted(records, key=_weight, reverse=True) for key, records in found.items()}
        return {key: [self.path_of(record) for record in records] for key, records in by_weight.items()}

    def _place(self, record: AnyRecord, key: str) -> Path:
        folder = self.runs / safe_name(record.model) / safe_name(record.method)
        if isinstance(record, ArtifactRecord):
            return folder / key / "artifact.json"
        task = safe_name(record.task.split("@")[0]).replace(".", "_")
        return folder / record.artifact / f"{task}.{key}.json"

    def _paths(self, prefix: str) -> list[Path]:
        """Files of records whose key, now or formerly, begins with `prefix`."""
        if not KEY_START.fullmatch(prefix):
            return []
        named = self._named(prefix)
        known = {_key_in(path) for path in named}
        former = [paths[0] for key, paths in self._former.items() if key.startswith(prefix) and key not in known]
        return sorted({*named, *former})

    def _named(self, prefix: str) -> list[Path]:
        """Files under a key that begins with `prefix`."""
        if not KEY_START.fullmatch(prefix):
            return []
        artifacts = self.runs.glob(f"*/*/{prefix}*/artifact.json")
        measures = self.runs.glob(f"*/*/*/*.{prefix}*.json")
        return sorted([*artifacts, *measures])

    def _read(self, path: Path) -> AnyRecord:
        record = parse(path)
        expected = self.path_of(record)
        if path != expected:
            raise RecordError(
                f"{path}: field '{_misfit(path, expected, record)}' does not fit the file's place, "
                f"which would be {expected.relative_to(self.results)}"
            )
        return record


class Keyed(Protocol):
    """What has a key: a record, or a cell."""

    @property
    def ingredients(self) -> dict[str, Any]: ...


def differences(a: Keyed, b: Keyed) -> list[tuple[str, Any, Any]]:
    """What differs between the ingredients of two keys: (path of the field, value in `a`, value in `b`), by path.

    A field that one side lacks has the value `ABSENT` there.
    """
    left, right = _flatten(a.ingredients), _flatten(b.ingredients)
    pairs = ((path, left.get(path, ABSENT), right.get(path, ABSENT)) for path in sorted(left.keys() | right.keys()))
    return [(path, x, y) for path, x, y in pairs if json.dumps(x, sort_keys=True) != json.dumps(y, sort_keys=True)]


def safe_name(name: str) -> str:
    """`name` as the name of a file or folder: it never leaves its folder, and two names never become the same one."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:80]
    if safe == name and safe:
        return safe
    return f"{safe or 'unnamed'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _weight(record: AnyRecord) -> tuple[bool, bool, str, str]:
    """Sort key of records of one cell; the greatest counts: under its key of today, else a good one, the newest."""
    return record.former_key is None, record.status == "ok", record.provenance.created, record.former_key or ""


def _misfit(path: Path, expected: Path, record: AnyRecord) -> str:
    """The field of `record` that says it belongs at `expected` and not at `path`."""
    if len(path.parts) != len(expected.parts):
        return "kind"
    key_folder = "key" if isinstance(record, ArtifactRecord) else "artifact"
    fields = ("model", "method", key_folder, "kind" if key_folder == "key" else "key")
    pairs = zip(fields, path.parts[-4:], expected.parts[-4:], strict=True)
    name = next(field for field, is_, should in pairs if is_ != should)
    return "task" if name == "key" and _key_in(path) == (record.former_key or record.key) else name


def _key_in(path: Path) -> str:
    return path.parent.name if path.name == "artifact.json" else path.name.split(".")[-2]


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat
