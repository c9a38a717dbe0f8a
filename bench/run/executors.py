"""Running jobs in worker processes on this machine.

Each job (one checkpoint, all its tasks) gets a process of its own, so that a crash costs one cell. A worker that dies
leaves a failed record for the cell in flight, and another goes on with the rest.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.record.provenance import without_user
from bench.record.schema import Failure, Status
from bench.record.store import Store
from bench.run.cells import Job
from bench.run.worker import artifact_record, measure_record

Event = dict[str, Any]
STDERR_TAIL = 4000


def run_jobs(jobs: list[Job], workers: int, on_event: Callable[[Event], None]) -> None:
    """Run `jobs` with at most `workers` at a time; speed cells afterwards, alone, so that nothing disturbs the clock.

    On KeyboardInterrupt every worker is ended and the cells in flight get an `interrupted` record.
    """
    if workers == 1:
        _run_phase(jobs, 1, on_event)
        return
    _run_phase([_with_kinds(job, speed=False) for job in jobs], workers, on_event)
    ready = []
    for job in (_with_kinds(job, speed=True) for job in jobs):
        if Store(job.results).finished(job.artifact.key):
            ready.append(job)
        else:
            _skip(job, "the checkpoint could not be made", on_event)
    _run_phase([job for job in ready if job.cells], 1, on_event)


def threads_each(workers: int) -> int:
    """Compute threads of a worker: `OMP_NUM_THREADS` where the user set it, else an equal share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else max(1, (os.cpu_count() or 1) // workers)


def _skip(job: Job, reason: str, on_event: Callable[[Event], None]) -> None:
    """Record every cell of `job` as skipped, because there is no checkpoint to measure."""
    failure = Failure(stage="worker", code="artifact_failed", message=reason)
    for cell in job.cells:
        Store(job.results).write(measure_record(job, cell, "skipped", 0.0, error=failure))
        on_event(_done(cell.key, "skipped", reason))


def _done(key: str, status: Status, message: str) -> Event:
    return {"event": "done", "key": key, "status": status, "seconds": 0.0, "message": message}


def _with_kinds(job: Job, *, speed: bool) -> Job:
    return job.model_copy(update={"cells": [c for c in job.cells if (c.kind == "generation") == speed]})


def _run_phase(jobs: list[Job], workers: int, on_event: Callable[[Event], None]) -> None:
    events: queue.Queue[tuple[_Worker, Event | None]] = queue.Queue()
    waiting, running = list(jobs), set[_Worker]()
    threads = threads_each(workers)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.add(_Worker(waiting.pop(0), threads, events))
            worker, event = events.get()
            if event is not None:
                worker.follow(event)
                on_event(event)
                continue
            running.discard(worker)
            if (rest := worker.ended(on_event)) is not None:
                waiting.insert(0, rest)
    except BaseException:
        for worker in running:
            worker.end("interrupted", on_event)
        raise


@dataclass(eq=False)
class _Worker:
    """A worker process and what is known of its progress."""

    job: Job
    threads: int
    events: queue.Queue[tuple[_Worker, Event | None]]
    done: set[str] = field(default_factory=set)
    in_flight: str | None = None

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="leanboard-")
        job_file = Path(self._folder.name) / "job.json"
        job_file.write_text(self.job.model_dump_json(), encoding="utf-8")
        self._log = (Path(self._folder.name) / "stderr").open("w+b")
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1",
        }
        self._kills_before = _kernel_kills()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.run.worker", str(job_file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment, start_new_session=True,
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
            self.in_flight = event["key"]
        elif event["event"] == "done":
            self.done.add(event["key"])
            self.in_flight = None

    def ended(self, on_event: Callable[[Event], None]) -> Job | None:
        """Tidy up after the process; the job that is left to do if it died in the middle."""
        code = self._process.wait()
        if code == 0:
            self._close()
            return None
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        out_of_memory = code == -signal.SIGKILL and _kernel_kills() > self._kills_before
        status: Status = "oom" if out_of_memory else "failed"
        stuck = self.in_flight or next(iter(self._open_keys()), None)
        if stuck is None:
            self._close()
            return None
        self._record_failure(stuck, status, "worker_died", f"the worker process ended with {reason}", on_event)
        return self._rest(stuck)

    def end(self, status: Literal["interrupted"], on_event: Callable[[Event], None]) -> None:
        """Kill the process and record the cell in flight as interrupted."""
        self._process.kill()
        self._process.wait()
        if self.in_flight is not None and not Store(self.job.results).finished(self.in_flight):
            self._record_failure(self.in_flight, status, "interrupted", "interrupted by the user", on_event)
        else:
            self._close()

    def _open_keys(self) -> Iterator[str]:
        return (cell.key for cell in self.job.cells if cell.key not in self.done)

    def _rest(self, stuck: str) -> Job | None:
        if stuck == self.job.artifact.key:
            return None
        left = [c for c in self.job.cells if c.key not in self.done and c.key != stuck]
        return self.job.model_copy(update={"cells": left}) if left else None

    def _record_failure(
        self, key: str, status: Status, code: str, message: str, on_event: Callable[[Event], None]
    ) -> None:
        failure = Failure(stage="worker", code=code, message=message, traceback=self._tail())
        store = Store(self.job.results)
        if key == self.job.artifact.key:
            store.write(artifact_record(self.job, status, 0.0, error=failure))
            if status != "interrupted":
                _skip(self.job, message, on_event)
        for cell in self.job.cells:
            if cell.key == key:
                store.write(measure_record(self.job, cell, status, 0.0, error=failure))
        on_event(_done(key, status, message))
        self._close()

    def _tail(self) -> str:
        self._log.flush()
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - STDERR_TAIL))
        return without_user(self._log.read().decode(errors="replace"))

    def _close(self) -> None:
        self._log.close()
        self._folder.cleanup()


def _kernel_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
