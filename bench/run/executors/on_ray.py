"""Run jobs on the nodes of a Ray cluster: a Ray task each, which watches a worker process on its node.

Ray places the tasks by CPUs, GPUs and memory, and reports when a node is lost; the rest of its jobs is then submitted
again. Records are sent back as cells end, and are written here. Nodes need Leanboard, and weights, data and plug-ins
under the same paths; a checkpoint that one node made is made again by another, unless they share the cache.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import LeanboardError
from bench.record.locks import cell_lock
from bench.record.provenance import accelerator_name
from bench.record.schema import RECORD, Status
from bench.record.store import Store
from bench.record.text import render
from bench.run.cells import Job
from bench.run.executors.attendant import Limits, write_end
from bench.run.executors.local import run_local
from bench.run.outcome import Event
from bench.run.threads import threads_each

TRIES = 3
"""How often a cell in flight is tried when its node is lost."""
WAIT_SECONDS = 1.0


@dataclass
class _Task:
    """A job that was submitted to Ray, its finished cells, and how often the cell in flight was lost."""

    job: Job
    done: set[str] = field(default_factory=set)
    in_flight: str | None = None
    lost: int = 0

    def stuck(self) -> str:
        """The cell in flight, else the first that is not done."""
        keys = [self.job.artifact.key, *(cell.key for cell in self.job.cells)]
        return self.in_flight or next((key for key in keys if key not in self.done), keys[0])

    def rest(self, without: set[str]) -> Job | None:
        """The rest of the job; None where `without` holds the checkpoint."""
        left = [cell for cell in self.job.cells if cell.key not in self.done | without]
        if self.job.artifact.key in without or (not left and self.job.artifact.key in self.done):
            return None
        return self.job.model_copy(update={"cells": left})


def run_on_ray(
    jobs: list[Job], on_event: Callable[[Event], None], *, limits: Limits, memory: Mapping[str, int]
) -> None:
    """Run `jobs` on the cluster that `RAY_ADDRESS` names, else on one of this machine; the rest as in `run_jobs`."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a lock for each cell
    heeded = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(log_to_driver=False)
    if threading.current_thread() is threading.main_thread():
        for number, handler in heeded.items():
            signal.signal(number, handler)  # Ray's own would end this process before it could record anything
    try:
        with ExitStack() as locks:
            stores = {job.results: Store(job.results) for job in jobs}
            found = [_locked(job, stores[job.results], locks, on_event) for job in jobs]
            mine = [job for job in found if job is not None]
            _Driver(ray, on_event, limits, memory).run(mine)
    finally:
        ray.shutdown()


def _locked(job: Job, store: Store, locks: ExitStack, on_event: Callable[[Event], None]) -> Job | None:
    """The open cells of `job` whose locks no other run holds; `locks` holds them from now on."""

    def is_mine(key: str) -> bool:
        if locks.enter_context(cell_lock(job.results, key)):
            return not store.finished(key)
        on_event({"event": "wait", "key": key})
        return False

    made = store.finished(job.artifact.key)
    if not made and not is_mine(job.artifact.key):
        return None
    cells = [cell for cell in job.cells if is_mine(cell.key)]
    return job.model_copy(update={"cells": cells}) if cells or not made else None


@dataclass
class _Driver:
    """The tasks on the cluster; each is a stream of events."""

    ray: Any
    on_event: Callable[[Event], None]
    limits: Limits
    memory: Mapping[str, int]
    tasks: dict[Any, _Task] = field(default_factory=dict)

    def run(self, jobs: list[Job]) -> None:
        try:
            for job in jobs:
                made = job.artifact.key
                self._submit(_Task(job, {made} if Store(job.results).finished(made) else set()))
            while self.tasks:
                ready, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=WAIT_SECONDS)
                for stream in ready:
                    self._follow(stream)
        except BaseException:
            for task in self.tasks.values():
                if task.in_flight is not None:
                    self._end(task, "interrupted", "interrupted", "interrupted by the user")
            raise

    def _submit(self, task: _Task) -> None:
        wanted = self._resources(task.job)
        if not any(_fits(wanted, node["Resources"]) for node in self.ray.nodes() if node["Alive"]):
            asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
            self._end(task, "failed", "no_node", f"no node of the Ray cluster has {asked}")
            return
        store = Store(task.job.results)
        made = store.load(task.job.artifact.key)
        texts = [render(made)] if made is not None and made.status == "ok" else []
        settings = {name: value for name, value in os.environ.items() if name.startswith("LEANBOARD_")}
        options = {
            "num_cpus": wanted["CPU"],
            "num_gpus": wanted.get("GPU", 0),
            "memory": wanted.get("memory", 0),
            "max_retries": 0,
            "num_returns": "streaming",
        }
        remote = self.ray.remote(attend).options(**options)
        self.tasks[remote.remote(task.job.model_dump_json(), texts, self.limits, settings)] = task

    def _resources(self, job: Job) -> dict[str, float]:
        """The job's needs as Ray names them: as many CPUs as it computes with, and a GPU or the estimated memory."""
        cpus = threads_each(os.cpu_count() or 1)
        if job.artifact.device == "cuda":
            return {"CPU": cpus, "GPU": 1}
        return {"CPU": cpus, "memory": self.memory.get(job.artifact.key, 0)}

    def _follow(self, stream: Any) -> None:
        """Take the next event of a task, or its end."""
        task = self.tasks[stream]
        try:
            reported = json.loads(self.ray.get(next(stream)))
        except StopIteration:
            del self.tasks[stream]
            return
        except self.ray.exceptions.RayError as error:
            del self.tasks[stream]
            self._lost(task, error)
            return
        event, text = reported["event"], reported["record"]
        if text is not None and not Store(task.job.results).finished(event["key"]):
            Store(task.job.results).write(RECORD.validate_json(text, strict=True))
        if event["event"] == "start":
            task.in_flight = event["key"]
        elif event["event"] == "done":
            task.done.add(event["key"])
            task.in_flight, task.lost = None, 0
        self.on_event(event)

    def _lost(self, task: _Task, error: Exception) -> None:
        """A task ended unexpectedly: submit its rest again, the cell in flight at most `TRIES` times."""
        kind, given_up = type(error).__name__, set[str]()
        lost = task.lost + 1
        if kind == "OutOfMemoryError" or lost >= TRIES:
            status: Status = "oom" if kind == "OutOfMemoryError" else "failed"
            reason = next(iter(str(error).splitlines()), kind)
            given_up = {task.stuck()}
            self._end(task, status, "killed_for_memory" if status == "oom" else "node_lost", f"{kind}: {reason}")
            lost = 0
        rest = task.rest(given_up)
        if rest is not None:
            self._submit(_Task(rest, task.done, lost=lost))

    def _end(self, task: _Task, status: Status, code: str, message: str) -> None:
        write_end(task.job, task.stuck(), status, code, message, self.on_event)


def attend(text: str, made: list[str], limits: Limits, settings: dict[str, str]) -> Iterator[str]:
    """On a node: run a job in a results folder of its own, and yield each event with the record of the ended cell.

    Args:
        text: the job as JSON.
        made: the record of its checkpoint, if that was made before.
        settings: environment variables of the driver.
    """
    os.environ.update(settings)
    job = Job.model_validate_json(text)
    accelerator = accelerator_name() if job.artifact.device == "cuda" else None
    with tempfile.TemporaryDirectory(prefix="leanboard-") as folder:
        here = job.model_copy(update={"results": Path(folder), "accelerator": accelerator})
        store, events = Store(here.results), queue.Queue[Event | LeanboardError | None]()
        for record in made:
            store.write(RECORD.validate_json(record, strict=True))
        threading.Thread(target=_run, args=(here, limits, events.put), daemon=True).start()
        while (event := events.get()) is not None:
            if isinstance(event, LeanboardError):
                raise event
            ended = store.load(event["key"]) if event["event"] == "done" else None
            yield json.dumps({"event": event, "record": render(ended) if ended is not None else None})


def _run(job: Job, limits: Limits, put: Callable[[Event | LeanboardError | None], None]) -> None:
    try:
        run_local([job], 1, put, limits=limits, memory={})
    except LeanboardError as error:
        put(error)
    put(None)


def _fits(wanted: Mapping[str, float], there: Mapping[str, float]) -> bool:
    return all(there.get(name, 0) >= amount for name, amount in wanted.items())
