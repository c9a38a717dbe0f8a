"""Fingerprints that took long to compute, kept in the user's cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from bench.data.files import locked, sha256_of, write_whole
from bench.paths import cache_dir


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered across processes by its place, size and time."""
    path = path.resolve()
    state = path.stat()
    return remembered(f"{path}|{state.st_size}|{state.st_mtime_ns}", lambda: sha256_of(path))


def remembered(key: str, compute: Callable[[], str]) -> str:
    """What `compute` gave for `key` the first time; a damaged store counts as an empty one."""
    store = cache_dir() / "fingerprints.json"
    known = _read(store)
    if key not in known:
        value = compute()
        with locked(store):
            known = {**_read(store), key: value}
            write_whole(store, json.dumps(known, indent=1, sort_keys=True).encode())
    return known[key]


def _read(store: Path) -> dict[str, str]:
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)}
