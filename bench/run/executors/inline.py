"""Run jobs in this process, one after another: for a debugger, and for rehearsals.

A crash of the interpreter ends everything, and there are no limits.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.run.cells import Job
from bench.run.executors.attendant import record_end
from bench.run.outcome import Event
from bench.run.worker import Worker


def run_inline(
    jobs: list[Job], on_event: Callable[[Event], None], on_end: Callable[[Job], None] = lambda job: None
) -> None:
    """Run `jobs`, with `on_end` after each; on KeyboardInterrupt the cell in flight gets an `interrupted` record."""
    for job in jobs:
        left: Job | None = job
        while left is not None:
            left = _run(left, on_event)
        on_end(job)


def _run(job: Job, on_event: Callable[[Event], None]) -> Job | None:
    """Run `job`; returns what is left of it where a cell asked the process to exit, which fails that cell alone."""
    in_flight: str | None = None
    done = set[str]()

    def follow(event: Event) -> None:
        nonlocal in_flight
        if event["event"] in ("start", "done"):
            in_flight = event["key"] if event["event"] == "start" else None
            done.update([event["key"]] * (in_flight is None))
        on_event(event)

    try:
        Worker(job, follow).run()
    except KeyboardInterrupt:
        if in_flight is not None:
            record_end(job, in_flight, "interrupted", "interrupted", "interrupted by the user", on_event)
        raise
    except SystemExit as asked:
        if in_flight is None:
            raise
        message = f"its code asked the process to exit (code {asked.code})"
        record_end(job, in_flight, "failed", "worker_died", message, on_event)
        left = [cell for cell in job.cells if cell.key not in done | {in_flight}]
        return job.model_copy(update={"cells": left}) if left and in_flight != job.artifact.key else None
    return None
