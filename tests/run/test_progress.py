"""The progress display counts what happens and learns how long things take."""

import io
from collections.abc import Set
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench.run.progress import COMPRESSING, Progress
from bench.task_accuracy import AccuracyTask


def plan(finished: set[str], past: dict[str, float]) -> Any:
    cells = [SimpleNamespace(key=f"m{i}", task=f"task{i}", kind="accuracy") for i in range(3)]
    job = SimpleNamespace(artifact=SimpleNamespace(key="a", label="tiny · random"), cells=cells)
    seconds = {key: past.get(key) for key in ("a", *(cell.key for cell in cells))}
    return SimpleNamespace(jobs=[job], finished=finished, estimates={"a": SimpleNamespace(seconds=seconds)})


def display(finished: Set[str] = frozenset(), past: dict[str, float] | None = None, workers: int = 1) -> Progress:
    return Progress(Console(file=io.StringIO(), width=120), plan(set(finished), past or {}), workers)


def done(key: str, status: str = "ok", seconds: float = 1.0) -> dict[str, Any]:
    return {"event": "done", "key": key, "status": status, "seconds": seconds, "message": "a reason"}


def text(progress: Progress) -> str:
    file = io.StringIO()
    console = Console(file=file, width=120)
    console.print(progress._render())
    return file.getvalue()


def test_cells_done_cached_and_failed_are_counted() -> None:
    progress = display({"a"})
    assert "1/4 cells · 1 cached · 0 failed" in text(progress)
    progress.on_event({"event": "start", "key": "m0", "what": "task0"})
    progress.on_event({"event": "progress", "key": "m0", "what": "", "done": 3, "total": 8})
    assert "tiny · random · task0 · 3/8" in text(progress)
    progress.on_event(done("m0"))
    progress.on_event(done("m1", "failed"))
    assert "3/4 cells · 1 cached · 1 failed" in text(progress)
    assert progress.failed == 1


def test_a_snapshot_says_the_same_in_plain_data() -> None:
    progress = display({"a"})
    progress.on_event({"event": "wait", "key": "m0"})
    progress.on_event({"event": "start", "key": "m1", "what": "task1"})
    progress.on_event(done("m2", "oom"))
    seen = progress.snapshot()
    assert {name: seen[name] for name in ("cells", "cached", "done", "failed")} == {
        "cells": 4,
        "cached": 1,
        "done": 1,
        "failed": 1,
    }
    assert [cell["what"] for cell in seen["at_work"]] == [
        "tiny · random · task0 · locked by another run",
        "tiny · random · task1",
    ]
    assert seen["failures"] == ["tiny · random · task2: oom: a reason"]


def test_cells_that_are_not_asked_for_do_not_count() -> None:
    progress = Progress(Console(file=io.StringIO(), width=120), plan({"a"}, {}), 1, {"m0"})
    assert "1/2 cells · 1 cached" in text(progress)


def test_the_start_up_of_workers_is_shown_while_it_lasts_and_then_its_seconds() -> None:
    progress = display()
    assert "start" not in text(progress)
    progress.on_event({"event": "start-up", "key": "a", "seconds": None})
    assert "tiny · random · start-up  (0:00)" in text(progress)
    progress.on_event({"event": "start-up", "key": "a", "seconds": 4.0})
    assert "· start-up" not in text(progress)
    progress.on_event({"event": "start-up", "key": "a", "seconds": None})
    progress.on_event(done("m0", "failed"))  # the worker died before its first cell
    assert "· start-up" not in text(progress)
    progress.on_event({"event": "start-up", "key": "a", "seconds": 5.0})
    assert "a worker starts in 4.5 s" in text(progress)


def test_a_checkpoint_made_again_is_not_counted_twice() -> None:
    progress = display({"a"})
    progress.on_event(done("a"))
    assert "1/4 cells · 1 cached" in text(progress)


def test_time_left_is_guessed_then_scaled_then_known() -> None:
    assert display().seconds_left() == pytest.approx(COMPRESSING + 3 * AccuracyTask.seconds)
    progress = display()
    progress.on_event(done("a", seconds=2 * COMPRESSING))
    assert progress.seconds_left() == pytest.approx(2 * 3 * AccuracyTask.seconds)
    past = display({"a", "m0"}, {"m1": 20.0, "m2": 5.0})
    assert past.seconds_left() == pytest.approx(25.0)
    assert display({"a", "m0"}, {"m1": 20.0, "m2": 5.0}, workers=2).seconds_left() == pytest.approx(12.5)
    assert display({"a"}, {"m0": 3 * AccuracyTask.seconds}).seconds_left() == pytest.approx(9 * AccuracyTask.seconds)


def test_what_this_run_showed_of_a_task_counts_for_its_other_checkpoints() -> None:
    progress = display({"a"})
    progress._labels["other"] = ("tiny · dense", "task0")
    progress._open.add("other")
    progress.on_event(done("m0", seconds=30.0))
    assert progress.seconds_left() == pytest.approx(30.0 + 2 * AccuracyTask.seconds * 30.0 / AccuracyTask.seconds)
