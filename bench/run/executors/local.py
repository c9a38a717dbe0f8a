"""Run jobs in worker processes of this machine, as many at a time as were asked for and as memory and GPUs allow."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

from bench.blocks.settings import WORKING
from bench.record.provenance import accelerator_ids, accelerator_memory
from bench.run.cells import Job
from bench.run.executors.attendant import Attendant, Limits
from bench.run.outcome import Event
from bench.run.threads import threads_each

TICK_SECONDS = 0.25
"""How often workers are checked."""


def run_local(
    jobs: list[Job],
    workers: int,
    on_event: Callable[[Event], None],
    *,
    limits: Limits,
    memory: Mapping[str, int],
    on_end: Callable[[Job], None] = lambda job: None,
) -> None:
    """Run `jobs` with at most `workers` at a time; arguments and interruption as in `run_jobs`."""
    pool = _Pool(workers, limits, memory)
    waiting, looked = list(jobs), time.monotonic()
    try:
        while waiting or pool.running:
            while (job := pool.next_of(waiting)) is not None:
                waiting.remove(job)
                pool.start(job)
            if time.monotonic() - looked >= TICK_SECONDS:
                looked = time.monotonic()
                for attendant in pool.running:
                    attendant.look()
            try:
                attendant, event = pool.events.get(timeout=TICK_SECONDS)
            except queue.Empty:
                continue
            if event is not None:
                attendant.follow(event)
                on_event(event)
                continue
            pool.running.remove(attendant)
            if (rest := attendant.ended(on_event)) is not None:
                waiting.insert(0, rest)
            else:
                on_end(attendant.job)
    except BaseException:
        for attendant in pool.running:
            attendant.interrupt(on_event)
        raise


@dataclass
class _Pool:
    """The workers that run, and the room left for others."""

    workers: int
    limits: Limits
    memory: Mapping[str, int]
    running: list[Attendant] = field(default_factory=list)
    events: queue.Queue[tuple[Attendant, Event | None]] = field(default_factory=queue.Queue)

    def next_of(self, waiting: list[Job]) -> Job | None:
        """The first of `waiting` that can start now."""
        if len(self.running) >= self.workers:
            return None
        return next((job for job in waiting if self._has_room(job)), None)

    def start(self, job: Job) -> None:
        device = {"CUDA_VISIBLE_DEVICES": ",".join(self._gpus_for(job))} if job.artifact.device == "cuda" else {}
        environment = os.environ | device | {"OMP_NUM_THREADS": str(threads_each(self.workers))}
        self.running.append(Attendant(job, environment, self.limits, self.events))

    def _has_room(self, job: Job) -> bool:
        """Its GPUs are free; on a CPU memory for all estimates together (the plan checked that a single job fits)."""
        if job.artifact.device == "cuda":
            return self._gpus_for(job) != [] and set(self._gpus_for(job)) <= set(self._free_gpus())
        taken = [self._needs(attendant.job) for attendant in self.running]
        return not taken or sum(taken) + self._needs(job) <= psutil.virtual_memory().total

    def _needs(self, job: Job) -> int:
        return 0 if job.artifact.device == "cuda" else self.memory.get(job.artifact.key, 0)

    def _gpus_for(self, job: Job) -> list[str]:
        """A free GPU, or all where one does not hold what the job needs and what `bench.model.place` leaves free."""
        is_wide = self.memory.get(job.artifact.key, 0) > (accelerator_memory() or float("inf")) - WORKING
        return accelerator_ids() if is_wide else self._free_gpus()[:1]

    def _free_gpus(self) -> list[str]:
        visible = [attendant.environment["CUDA_VISIBLE_DEVICES"] for attendant in self.running]
        taken = {gpu for names in visible for gpu in names.split(",")}
        return [gpu for gpu in accelerator_ids() if gpu not in taken]
