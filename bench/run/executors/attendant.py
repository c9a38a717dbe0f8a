"""Watch one worker process from outside: its events, its limits, and the records that it can no longer write.

When a worker dies, only the cell in flight is lost; another worker continues the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.errors import LeanboardError
from bench.record.locks import cell_lock
from bench.record.provenance import without_user
from bench.record.schema import Failure, Status
from bench.record.store import Store
from bench.run.cells import Job
from bench.run.outcome import Event, artifact_record, done, measure_record

STDERR_TAIL = 4000
LIST_SECONDS = 1.0
"""How often the children of a worker are listed: that takes milliseconds, of speed cells too."""
GB = 10**9


@dataclass(frozen=True)
class Limits:
    """What one cell may take: wall seconds, and bytes of the worker's resident memory, its children's included."""

    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class _Verdict:
    """How a worker ended, as its record says it."""

    status: Status
    code: str
    message: str


@dataclass(eq=False)
class Attendant:
    """A worker process and its known progress; its events are put into `events`, and None when it ends."""

    job: Job
    environment: Mapping[str, str]
    limits: Limits
    events: queue.Queue[tuple[Attendant, Event | None]]
    done: set[str] = field(default_factory=set)
    in_flight: str | None = None
    since: float = 0.0
    peak: int = 0
    verdict: _Verdict | None = None

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="leanboard-")
        job_file = Path(self._folder.name) / "job.json"
        job_file.write_text(self.job.model_dump_json(), encoding="utf-8")
        self._log = (Path(self._folder.name) / "stderr").open("w+b")
        environment = {
            **self.environment,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONSAFEPATH": "1",
        }
        self._kills_before = _kernel_kills()
        self._listed, self._processes, self._seen = 0.0, list[psutil.Process](), 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.run.worker", str(job_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self.events.put((self, json.loads(line)))
            except ValueError:
                continue  # not an event: a library wrote past the redirection
        self.events.put((self, None))

    def follow(self, event: Event) -> None:
        """Keep track of the cell in flight."""
        if event["event"] == "start":
            self.in_flight, self.since, self.peak = event["key"], time.monotonic(), 0
        elif event["event"] == "done":
            self.done.add(event["key"])
            self.in_flight = None

    def look(self) -> None:
        """Note the memory in use, and end the worker if it is over a limit; `ended` then writes that in the record."""
        if self._process.poll() is not None:
            self._kill()  # processes that it started keep its output open, and could do so for ever
        if self._process.returncode is not None or self.verdict is not None:
            return
        limits, now = self.limits, time.monotonic()
        if now - self._listed >= LIST_SECONDS:
            self._listed, self._processes = now, _family(self._process.pid)
        seen = _resident(self._processes)
        used, self._seen = min(seen, self._seen), seen  # while a process is started, its parent's memory counts twice
        self.peak = max(self.peak, used)
        if limits.memory is not None and used > limits.memory:
            took = f"took {used / GB:.2f} GB of memory, more than the limit of {limits.memory / GB:.2f}"
            self._end_for(_Verdict("oom", "memory_limit", took))
        elif limits.seconds is not None and self.in_flight and now - self.since > limits.seconds:
            self._end_for(_Verdict("timeout", "time_limit", f"took longer than the limit of {limits.seconds:g} s"))

    def _end_for(self, verdict: _Verdict) -> None:
        self.verdict = verdict
        self._kill()

    def _kill(self) -> None:
        """End the worker and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ended(self, on_event: Callable[[Event], None]) -> Job | None:
        """Tidy up after the process; returns the rest of the job if it died in the middle."""
        code = self._process.wait()
        stuck = self._stuck()
        if stuck is None:
            self._close()
            return None
        self._record(stuck, self.verdict or self._verdict_of(code), on_event)
        left = [c for c in self.job.cells if c.key not in self.done and c.key != stuck]
        return self.job.model_copy(update={"cells": left}) if left and stuck != self.job.artifact.key else None

    def interrupt(self, on_event: Callable[[Event], None]) -> None:
        """End the process and record the cell in flight as interrupted, if that can still be written."""
        self._kill()
        self._process.wait()
        if self.in_flight is None:
            self._close()
            return
        with contextlib.suppress(LeanboardError):
            self._record(self.in_flight, _Verdict("interrupted", "interrupted", "interrupted by the user"), on_event)

    def _stuck(self) -> str | None:
        """The cell that the worker died in: the one in flight, else the next one."""
        if self.in_flight is not None:
            return self.in_flight
        key = self.job.artifact.key
        if key not in self.done and not Store(self.job.results).finished(key):
            return key
        return next((cell.key for cell in self.job.cells if cell.key not in self.done), None)

    def _verdict_of(self, code: int) -> _Verdict:
        if code == -signal.SIGKILL and _kernel_kills() > self._kills_before:
            return _Verdict("oom", "killed_for_memory", "the kernel ended the worker process: out of memory")
        if code in (-signal.SIGTERM, -signal.SIGINT):
            return _Verdict("interrupted", "interrupted", f"the worker process got {signal.Signals(-code).name}")
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return _Verdict("failed", "worker_died", f"the worker process ended with {reason}")

    def _record(self, key: str, verdict: _Verdict, on_event: Callable[[Event], None]) -> None:
        peak = self.peak if verdict.status == "oom" else None
        seconds = time.monotonic() - self.since if self.in_flight == key else 0.0
        record_end(
            self.job,
            key,
            verdict.status,
            verdict.code,
            verdict.message,
            on_event,
            traceback=self._tail(),
            seconds=seconds,
            peak=peak,
        )
        self._close()

    def _tail(self) -> str:
        self._log.flush()
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - STDERR_TAIL))
        return without_user(self._log.read().decode(errors="replace"))

    def _close(self) -> None:
        self._log.close()
        self._folder.cleanup()


def record_end(
    job: Job, key: str, status: Status, code: str, message: str, on_event: Callable[[Event], None], **more: Any
) -> None:
    """As `write_end`, unless another run holds the lock of the cell now: then that run writes the record."""
    with cell_lock(job.results, key) as mine:
        if mine:
            write_end(job, key, status, code, message, on_event, **more)
        else:
            on_event(done(key, status, message))


def write_end(
    job: Job,
    key: str,
    status: Status,
    code: str,
    message: str,
    on_event: Callable[[Event], None],
    *,
    traceback: str = "",
    seconds: float = 0.0,
    peak: int | None = None,
) -> None:
    """Record how the cell of `key` ended, for a worker that cannot do so, and that cells depending on it are skipped.

    The caller holds the lock of the cell.
    """
    failure = Failure(stage="worker", code=code, message=message, traceback=traceback, peak_memory_bytes=peak)
    if key == job.artifact.key:
        Store(job.results).write(artifact_record(job, status, seconds, error=failure))
    for cell in job.cells:
        if cell.key == key:
            Store(job.results).write(measure_record(job, cell, status, seconds, error=failure))
    on_event(done(key, status, message, seconds))
    if key == job.artifact.key and status != "interrupted":
        record_skipped(job, message, on_event)


def record_skipped(job: Job, reason: str, on_event: Callable[[Event], None]) -> None:
    """Record every cell of `job` as skipped, because there is no checkpoint to measure."""
    failure = Failure(stage="worker", code="artifact_failed", message=reason)
    for cell in job.cells:
        Store(job.results).write(measure_record(job, cell, "skipped", 0.0, error=failure))
        on_event(done(cell.key, "skipped", reason))


def _family(pid: int) -> list[psutil.Process]:
    """A process and its children; none once it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children()]
    return []


def _resident(processes: list[psutil.Process]) -> int:
    """Bytes of resident memory of the processes that still run."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _kernel_kills() -> int:
    """How many processes the kernel has killed out of memory since it started; 0 where it does not report that."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
