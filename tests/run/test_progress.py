"""The progress display counts what happens and learns how long things take."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench.run.progress import GUESS, Progress


def plan(finished: set[str]) -> Any:
    cells = [SimpleNamespace(key=f"m{i}", task=f"task{i}", kind="accuracy") for i in range(3)]
    job = SimpleNamespace(artifact=SimpleNamespace(key="a", label="tiny · random"), cells=cells)
    return SimpleNamespace(jobs=[job], finished=finished)


def display(finished: set[str] = frozenset(), past: dict[str, list[float]] | None = None) -> Progress:
    return Progress(Console(file=io.StringIO(), width=120), plan(set(finished)), past or {})


def done(key: str, status: str = "ok", seconds: float = 1.0) -> dict[str, Any]:
    return {"event": "done", "key": key, "status": status, "seconds": seconds, "message": "a reason"}


def text(progress: Progress) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(progress._render())
    return console.file.getvalue()


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
    assert display().seconds_left() == pytest.approx(GUESS["compress"] + 3 * GUESS["accuracy"])
    progress = display()
    progress.on_event(done("a", seconds=2 * GUESS["compress"]))
    assert progress.seconds_left() == pytest.approx(2 * 3 * GUESS["accuracy"])
    progress.on_event(done("m0", seconds=100.0))
    past = display({"a", "m0"}, {"task1": [10.0, 30.0], "task2": [5.0]})
    assert past.seconds_left() == pytest.approx(25.0)


def test_past_seconds_come_from_good_records(tmp_path: Path) -> None:
    from bench.record.store import Store
    from bench.run.progress import past_seconds
    from tests.record.records import artifact, failed_artifact, perplexity

    made = artifact("random")
    for record in (made, perplexity(made, 20.0), failed_artifact("broken")):
        Store(tmp_path).write(record)
    seconds = past_seconds(tmp_path)
    assert {task: len(values) for task, values in seconds.items()} == {"compress": 1, perplexity(made, 20.0).task: 1}
