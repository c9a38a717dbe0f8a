"""Files that are written whole or not at all, one writer at a time; JSON files, and the hashes of files."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from bench.errors import DataError, LeanboardError, UsageError

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
WORK = ".part"


def nearest(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists: on the disk where `path` will be."""
    return next(each for each in (path, *path.parents) if each.exists())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` against other processes; makes its folder, and removes what killed writers left there.

    Raises:
        UsageError: there or in the block, nothing can be written: no space, no permission.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock"):
            for left in path.parent.glob(f".{glob.escape(path.name)}.*{WORK}"):
                shutil.rmtree(left, ignore_errors=True)
            yield


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error


@contextmanager
def used(path: Path) -> Iterator[None]:
    """Hold `path` against `claimed`, in as many processes as want to.

    Raises:
        UsageError: nothing can be written there.
    """
    mine = FileLock(path.parent / f".{path.name}.use-{uuid4().hex[:8]}.lock")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.uses.lock"):
            mine.acquire()
    try:
        yield
    finally:
        mine.release()
        Path(mine.lock_file).unlink(missing_ok=True)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether nobody uses `path`; in the block nobody begins to (`used`)."""
    with FileLock(path.parent / f".{path.name}.uses.lock"):
        uses = list(path.parent.glob(f".{glob.escape(path.name)}.use-*.lock"))
        yield all(_is_left(use) for use in uses)


def _is_left(use: Path) -> bool:
    """Whether the process that held this lock has ended; its file is removed."""
    try:
        with FileLock(use, timeout=0):
            pass
    except Timeout:
        return False
    use.unlink(missing_ok=True)
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write a file or a folder to; it takes the place of `path` when all went well, else `path` is as it was.

    Where several may write the same large thing, hold `locked(path)` too: what a killed writer leaves is then removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=WORK))
    try:
        new = work / path.name
        yield new
        if new.is_dir() and path.is_dir():
            os.rename(path, work / f"{path.name}.old")
        os.replace(new, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, flushed to the disk before it takes the place of what is there.

    Raises:
        LeanboardError: the file system refuses (read-only, full, no permission); `path` is as it was.
    """
    try:
        with replacing(path) as new, new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LeanboardError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: the file is missing, not JSON or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    except RecursionError:
        raise DataError(f"{path}: not valid JSON (nested too deeply)") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a JSON object")
    return content


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, computed once per process as long as its size and time stay the same."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
