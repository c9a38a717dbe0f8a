"""The state of the runs on a results folder, for other terminals: each run writes a notice, and all can be read.

A notice is a small JSON file under `<results>/.leanboard/running/`, with a lock that its run holds while it lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from bench.data.files import write_whole
from bench.errors import LeanboardError
from bench.record.locks import private_folder
from bench.run.outcome import Event
from bench.run.progress import Progress

EVERY_SECONDS = 1.0
"""At least this long between two notices that report only steps."""


class Notice:
    """Writes the state of `progress` to a file while a run goes on. A run does not stop where it cannot be written."""

    def __init__(self, results: Path, command: Sequence[str], progress: Progress) -> None:
        folder = private_folder(results, "running")
        for dead in [file for file, alive in _notices(results) if not alive]:
            _remove(dead)
        self._file = folder / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._lock = FileLock(_lock_of(self._file))
        self._progress = progress
        self._known = {"command": list(command), "pid": os.getpid(), "started": _now()}
        self._written = 0.0

    def __enter__(self) -> Notice:
        self._lock.acquire()
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        _remove(self._file)

    def on_event(self, event: Event) -> None:
        """Follow an event of a worker, as the progress display does."""
        self._progress.on_event(event)
        if event["event"] != "progress" or time.monotonic() - self._written >= EVERY_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        content = {**self._known, "written": _now(), **self._progress.snapshot()}
        with contextlib.suppress(LeanboardError):
            write_whole(self._file, (json.dumps(content, indent=1) + "\n").encode())


def running(results: Path) -> list[dict[str, Any]]:
    """The notices of the runs on `results`, oldest first; `alive` is False for one that ended unexpectedly."""
    found = []
    for file, alive in _notices(results):
        with contextlib.suppress(OSError, ValueError):  # it ended just now
            notice = json.loads(file.read_text(encoding="utf-8"))
            if alive:
                later = max(0, round((datetime.now(UTC) - datetime.fromisoformat(notice["written"])).total_seconds()))
                notice["at_work"] = [cell | {"seconds": cell["seconds"] + later} for cell in notice["at_work"]]
            found.append(notice | {"alive": alive})
    return sorted(found, key=lambda notice: str(notice["started"]))


def _notices(results: Path) -> list[tuple[Path, bool]]:
    """Each notice, and whether its run is alive."""
    return [(file, _is_held(_lock_of(file))) for file in sorted((results / ".leanboard" / "running").glob("*.json"))]


def _is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".lock")


def _remove(file: Path) -> None:
    for path in (file, _lock_of(file)):
        path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
