"""The local data pack: real task and calibration data as `<root>/<dataset>/<split>.parquet`, with sha256 in a manifest.

A file is named by its ref, `<dataset>/<split>`. Several roots are searched in order; none is ever written to here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench import paths
from bench.data.files import sha256_of
from bench.data.store import remembered
from bench.errors import DataError, UsageError

MANIFEST = "manifest.json"
REF = re.compile(r"^[a-z0-9_]+/[a-z0-9_]+$")


class Entry(BaseModel):
    """The manifest's entry of one file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rows: int = Field(ge=0)
    columns: tuple[str, ...]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


ENTRIES = TypeAdapter(dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_-]+\.parquet$")], Entry])


@dataclass(frozen=True)
class Problem:
    """A file of a pack that is not what its manifest says."""

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class PackFile:
    """A file of the pack as a listing shows it."""

    ref: str
    path: Path
    entry: Entry


class Pack:
    """The packs under `roots` seen as one: the first root that has a file wins."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)

    @classmethod
    def default(cls) -> Pack:
        """The pack that `LEANBOARD_DATA` names, then the one in the cache.

        Raises:
            UsageError: `LEANBOARD_DATA` names no folder.
        """
        roots = paths.data_roots()
        if len(roots) > 1 and not roots[0].is_dir():
            raise UsageError(f"LEANBOARD_DATA: the folder {roots[0]} does not exist")
        return cls(roots)

    def has(self, ref: str) -> bool:
        """True where some root holds the file (`path` checks that it is sound)."""
        return self._root_of(ref) is not None

    def path(self, ref: str) -> Path:
        """Where the file lies, after its size and sha256 were compared with the manifest.

        Raises:
            DataError: no root has it, the manifest is missing or foreign or does not list it, or it is damaged.
        """
        root, entry = self._find(ref)
        path = root / f"{ref}.parquet"
        reason = _damage(path, entry)
        if reason is not None:
            raise DataError(f"{path}: {reason}")
        return path

    def sha256(self, ref: str) -> str:
        """SHA-256 of the file, verified."""
        self.path(ref)
        return self._find(ref)[1].sha256

    def fingerprint(self, ref: str) -> str:
        """SHA-256 of the rows themselves: the same for the same content, whoever wrote the parquet file."""
        return remembered(f"rows|{self.sha256(ref)}", lambda: self._content_sha256(ref))

    def column(self, ref: str, name: str) -> list[str]:
        """One text column.

        Raises:
            DataError: as `path`; no such column, or not one of texts.
        """
        values = [row[name] for row in self.rows(ref, [name])]
        if not all(isinstance(value, str) for value in values):
            raise DataError(f"{self.path(ref)}: column '{name}' does not hold a text in every row")
        return values

    def rows(self, ref: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The rows in order, with the named columns.

        Raises:
            DataError: as `path`; a column is missing, or the file is no parquet.
        """
        path = self.path(ref)
        known = self._find(ref)[1].columns
        missing = [name for name in columns if name not in known]
        if missing:
            raise DataError(f"{path}: has no column '{missing[0]}' (it has {', '.join(known)})")
        return _read(path, columns)

    def columns(self, ref: str) -> tuple[str, ...]:
        """The names of the columns.

        Raises:
            DataError: no root has the file, or its manifest does not list it.
        """
        return tuple(self._find(ref)[1].columns)

    def files(self) -> list[PackFile]:
        """Every file that a manifest lists and that a ref leads to, by name."""
        found: dict[str, PackFile] = {}
        for root in self.roots:
            for name, entry in _manifest_or_empty(root).items():
                ref = name.removesuffix(".parquet")
                if (root / name).is_file():
                    found.setdefault(ref, PackFile(ref, root / name, entry))
        return [found[ref] for ref in sorted(found)]

    def verify(self) -> list[Problem]:
        """Compare every file of every root with its manifest; an empty list is a sound pack."""
        return [problem for root in self.roots if root.is_dir() for problem in _problems(root)]

    def _root_of(self, ref: str) -> Path | None:
        if not REF.match(ref):
            raise UsageError(f"'{ref}' does not name a file of the data pack; write <dataset>/<split>")
        return next((root for root in self.roots if (root / f"{ref}.parquet").is_file()), None)

    def _find(self, ref: str) -> tuple[Path, Entry]:
        root = self._root_of(ref)
        if root is None:
            searched = ", ".join(map(str, self.roots))
            raise DataError(f"{ref}: not in the data pack (searched {searched}); try `leanboard data fetch`")
        entry = read_manifest(root).get(f"{ref}.parquet")
        if entry is None:
            raise DataError(f"{root / MANIFEST}: does not list {ref}.parquet")
        return root, entry

    def _content_sha256(self, ref: str) -> str:
        digest = hashlib.sha256()
        for row in self.rows(ref, self._find(ref)[1].columns):
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


def read_manifest(root: Path) -> Mapping[str, Entry]:
    """The manifest of the pack in `root`: file name -> what it should be.

    Raises:
        DataError: missing, or not a manifest.
    """
    path = root / MANIFEST
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: the manifest of the data pack is missing") from error
    return _read_manifest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_manifest(path: Path, size: int, mtime_ns: int) -> Mapping[str, Entry]:
    try:
        return ENTRIES.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join([".".join(map(str, first["loc"])), first["msg"]]).removeprefix(": ")
        raise DataError(f"{path}: not the manifest of a data pack ({what})") from error


def _manifest_or_empty(root: Path) -> Mapping[str, Entry]:
    return read_manifest(root) if (root / MANIFEST).exists() else {}


def _damage(path: Path, entry: Entry) -> str | None:
    """Why the file is not what the manifest says, or None."""
    size = path.stat().st_size
    if size != entry.bytes:
        return f"truncated or changed: {size} bytes where the manifest says {entry.bytes}"
    found = sha256_of(path)
    if found != entry.sha256:
        return f"damaged: sha256 is {found} where the manifest says {entry.sha256}"
    return None


def _problems(root: Path) -> Iterator[Problem]:
    on_disk = {str(path.relative_to(root)) for path in root.glob("*/*.parquet")}
    if not on_disk and not (root / MANIFEST).exists():
        return
    try:
        manifest = read_manifest(root)
    except DataError as error:
        yield Problem(root / MANIFEST, str(error).removeprefix(f"{root / MANIFEST}: "))
        return
    for name in sorted(on_disk | set(manifest)):
        if name not in on_disk:
            yield Problem(root / name, "listed in the manifest but missing")
        elif name not in manifest:
            yield Problem(root / name, "not listed in the manifest")
        elif reason := _damage(root / name, manifest[name]):
            yield Problem(root / name, reason)


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(os.fspath(path), columns=list(columns)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
    missing = [name for name in columns if rows and name not in rows[0]]
    if missing:
        raise DataError(f"{path}: has no column '{missing[0]}', though the manifest lists it")
    return rows
