"""Run jobs in this process, one after another, for a debugger. A crash ends everything, and there are no limits."""

from __future__ import annotations

from collections.abc import Callable

from bench.run.cells import Job
from bench.run.executors.attendant import record_end
from bench.run.outcome import Event
from bench.run.worker import Worker


def run_inline(jobs: list[Job], on_event: Callable[[Event], None]) -> None:
    """Run `jobs`; on KeyboardInterrupt the cell in flight gets an `interrupted` record."""
    in_flight: str | None = None

    def follow(event: Event) -> None:
        nonlocal in_flight
        if event["event"] in ("start", "done"):
            in_flight = event["key"] if event["event"] == "start" else None
        on_event(event)

    for job in jobs:
        try:
            Worker(job, follow).run()
        except KeyboardInterrupt:
            if in_flight is not None:
                record_end(job, in_flight, "interrupted", "interrupted", "interrupted by the user", on_event)
            raise
