"""The progress of a suite: cells done, failed and cached, those that run now, and the time left."""

from __future__ import annotations

import time
from collections.abc import Collection
from statistics import mean
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.run.plan import Plan
from bench.task import kind_of_task

COMPRESSING = 5.0
"""A guess of the seconds that a checkpoint takes, like `TaskSpec.seconds` for a task."""


class Progress:
    """A live line on a terminal; elsewhere one line for every cell that ends."""

    def __init__(self, console: Console, plan: Plan, workers: int, asked: Collection[str] | None = None) -> None:
        """`asked`: keys of the cells to run, where those are not all open cells of `plan`."""
        self._console = console
        self._workers = workers
        self._labels: dict[str, tuple[str, str]] = {}
        self._guesses = {"compress": COMPRESSING}
        for job in plan.jobs:
            self._labels[job.artifact.key] = (job.artifact.label, "compress")
            for cell in job.cells:
                self._labels[cell.key] = (job.artifact.label, cell.task)
                self._guesses[cell.task] = kind_of_task(cell.kind).seconds
        self._open = {key for key in self._labels if key not in plan.finished and (asked is None or key in asked)}
        self._cached = sum(key in plan.finished for key in self._labels)
        self._total = self._cached + len(self._open)
        self._done = 0
        self._failures: list[str] = []
        self._at_work: dict[str, tuple[float, str]] = {}
        self._start_ups: list[float] = []
        past = {key: seconds for takes in plan.estimates.values() for key, seconds in takes.seconds.items()}
        self._past = {key: seconds for key, seconds in past.items() if seconds is not None}
        self._seconds: dict[str, list[float]] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._console.print(f"{len(self._open)} cells to do, {self._cached} cached")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    @property
    def failed(self) -> int:
        """Cells that did not end as ok."""
        return len(self._failures)

    def on_event(self, event: dict[str, Any]) -> None:
        """Follow an event of a worker."""
        key = event["key"]
        label, task = self._labels[key]
        self._at_work.pop(label, None)  # its worker has started, or died while starting
        if event["event"] == "start-up" and event["seconds"] is None:
            self._at_work[label] = (time.monotonic(), f"{label} · start-up")
        elif event["event"] == "start-up":
            self._start_ups.append(event["seconds"])
        elif event["event"] == "wait":
            self._at_work[key] = (time.monotonic(), f"{label} · {task} · locked by another run")
        elif event["event"] == "start":
            self._at_work[key] = (time.monotonic(), f"{label} · {task}")
        elif event["event"] == "progress" and key in self._at_work:
            steps = f"{event['done']}/{event['total']}" if event["total"] else ""
            self._at_work[key] = (self._at_work[key][0], " · ".join(filter(None, [label, task, event["what"], steps])))
        elif event["event"] == "done":
            self._end(key, event, label, task)

    def _end(self, key: str, event: dict[str, Any], label: str, task: str) -> None:
        self._at_work.pop(key, None)
        if key not in self._open:  # a checkpoint that was lost from the cache and made again
            return
        self._open.discard(key)
        self._done += 1
        ok = event["status"] == "ok"
        if not ok:
            self._failures.append(f"{label} · {task}: {event['status']}: {event['message']}")
        if ok:
            self._seconds.setdefault(task, []).append(event["seconds"])
        line = Text(f"{'✓' if ok else '✗'} {label} · {task}", style="" if ok else "red")
        line.append(f"  {event['seconds']:.1f} s" if ok else f"  {event['status']}: {event['message']}")
        self._console.print(line, soft_wrap=True)

    def seconds_left(self) -> float:
        """Estimate from the time of the same work before, else of the same task in this run, else a scaled guess."""
        seen = {task: mean(values) for task, values in self._seconds.items()}
        known = [(self._past[key], self._guess(key)) for key in self._past if key in self._labels]
        known += [(seconds, self._guesses[task]) for task, seconds in seen.items()]
        scale = sum(seconds for seconds, _ in known) / sum(guess for _, guess in known) if known else 1.0
        now = time.monotonic()
        left = 0.0
        for key in self._open:
            spent = now - self._at_work[key][0] if key in self._at_work else 0.0
            seconds = self._past.get(key) or seen.get(self._labels[key][1]) or self._guess(key) * scale
            left += max(0.0, seconds - spent)
        return left / self._workers

    def snapshot(self) -> dict[str, Any]:
        """The progress as plain data: counts, seconds left, cells that run now with their seconds, and failures."""
        now = time.monotonic()
        return {
            "cells": self._total,
            "cached": self._cached,
            "done": self._done,
            "failed": self.failed,
            "seconds_left": round(self.seconds_left()),
            "at_work": [{"what": what, "seconds": round(now - start)} for start, what in self._at_work.values()],
            "failures": self._failures,
        }

    def _guess(self, key: str) -> float:
        return self._guesses[self._labels[key][1]]

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        head = f"{self._cached + self._done}/{self._total} cells · {self._cached} cached · "
        head += f"{self.failed} failed · about {_clock(self.seconds_left())} left"
        head += f" · a worker starts in {mean(self._start_ups):.1f} s" if self._start_ups else ""
        table.add_row(Text(head, style="bold"))
        for start, what in self._at_work.values():
            table.add_row(Text(f"  {what}  ({_clock(time.monotonic() - start)})", style="dim"))
        return table


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
