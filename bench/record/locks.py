"""Locks of cells: one for each key, so that no two runs on one file system do the same cell.

The locks lie under `<results>/.leanboard/`, which git ignores. They are the file system's own (`filelock`), so the lock
of a killed process is free again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench.data.files import write_whole
from bench.errors import LeanboardError

POLL_SECONDS = 0.2


def private_folder(results: Path, name: str) -> Path:
    """A folder next to the records, for files that only runs need; made where it is missing.

    Raises:
        LeanboardError: it cannot be written.
    """
    folder = results / ".leanboard" / name
    ignore = results / ".leanboard" / ".gitignore"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LeanboardError(f"{folder}: cannot be written: {error.strerror or error}") from error
    if not ignore.exists():
        write_whole(ignore, b"*\n")
    return folder


@contextmanager
def cell_lock(results: Path, key: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of the cell of `key`; it excludes processes here and on machines that share the file system.

    Yields False where another process holds it and `wait` is not given.

    Raises:
        LeanboardError: the lock's file cannot be written.
    """
    lock = FileLock(private_folder(results, "locks") / f"{key}.lock")
    try:
        lock.acquire(timeout=-1 if wait else 0, poll_interval=POLL_SECONDS)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise LeanboardError(f"{lock.lock_file}: cannot be locked: {error.strerror or error}") from error
    try:
        yield True
    finally:
        lock.release()
