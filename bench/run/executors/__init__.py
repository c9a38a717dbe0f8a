"""Where jobs run: `inline` in this process, `local` in processes of this machine, `ray` on the nodes of a cluster.

All three run the same worker and report the same events; `local` and `ray` survive its death.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

from bench.errors import UsageError, unknown
from bench.record.store import Store
from bench.run.cells import Job
from bench.run.executors.attendant import Limits, record_skipped
from bench.run.outcome import Event
from bench.task import kind_of_task

EXECUTORS = ("local", "inline", "ray")
NO_LIMITS = Limits()


def run_jobs(
    jobs: list[Job],
    workers: int,
    on_event: Callable[[Event], None],
    *,
    executor: str = "local",
    limits: Limits = NO_LIMITS,
    memory: Mapping[str, int] | None = None,
    on_end: Callable[[Job], None] = lambda job: None,
) -> None:
    """Run `jobs`; speed cells afterwards, alone and on this machine, so that nothing disturbs the clock.

    On KeyboardInterrupt every worker is ended and the cells in flight get an `interrupted` record.

    Args:
        workers: at a time, with `local`; Ray's nodes take as many as they have room for.
        memory: estimated bytes of each job, by key of its checkpoint; jobs that do not fit wait.
        on_end: called with each job whose last worker has ended (not with `ray`).
    """
    needs = memory or {}
    if executor == "inline":
        from bench.run.executors.inline import run_inline

        run_inline(jobs, on_event, on_end)
        return
    from bench.run.executors.local import run_local

    if executor == "local" and workers == 1:
        run_local(jobs, 1, on_event, limits=limits, memory=needs, on_end=on_end)
        return
    without_speed = [_with_kinds(job, speed=False) for job in jobs]
    goes_on = {job.artifact.key for job in jobs if _with_kinds(job, speed=True).cells}

    def on_whole_end(job: Job) -> None:
        if job.artifact.key not in goes_on:
            on_end(job)

    if executor == "ray":
        from bench.run.executors.on_ray import run_on_ray

        run_on_ray(without_speed, on_event, limits=limits, memory=needs)
    else:
        run_local(without_speed, workers, on_event, limits=limits, memory=needs, on_end=on_whole_end)
    ready = []
    for job in (_with_kinds(job, speed=True) for job in jobs):
        if Store(job.results).finished(job.artifact.key):
            ready.append(job)
        else:
            record_skipped(job, "the checkpoint could not be made", on_event)
    run_local([job for job in ready if job.cells], 1, on_event, limits=limits, memory=needs, on_end=on_end)


def check_executor(name: str, limits: Limits) -> None:
    """Refuse an executor that cannot run here, before anything is planned.

    Raises:
        UsageError: no such executor, Ray is not installed, or limits with `inline`, which has no process to end.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS, "--executor")
    if name == "ray" and find_spec("ray") is None:
        raise UsageError("--executor ray: Ray is not installed; pip install 'leanboard[ray]'")
    if name == "inline" and limits != NO_LIMITS:
        raise UsageError("--executor inline: runs in this process, which no limit can end; use --executor local")


def _with_kinds(job: Job, *, speed: bool) -> Job:
    return job.model_copy(update={"cells": [c for c in job.cells if kind_of_task(c.kind).is_timed == speed]})
