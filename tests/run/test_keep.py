"""Checkpoints that are no longer needed are removed, never one that is, and the disk is looked at before heavy work."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench.cli.common import app
from bench.data.files import claimed, used
from bench.errors import UsageError
from bench.paths import artifact_path
from bench.record.schema import Failure
from bench.record.store import Store
from bench.registry import load_registry
from bench.run.cells import Job
from bench.run.executors import run_jobs
from bench.run.executors.attendant import record_end
from bench.run.keep import Keeping
from bench.run.plan import Plan, make_plan
from bench.run.worker import Worker
from bench.suite import load_suite
from tests.suites import environment, make_suite


def planned(root: Path, **only: str) -> Plan:
    return make_plan(
        load_suite(str(root / "suite.yaml")),
        load_registry(),
        root / "results",
        model_paths={},
        plugins=[],
        only=only,
        offline=True,
        command=["leanboard"],
        say=lambda line: None,
    )


def run(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["run", "suite.yaml", "--executor", "inline", *words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_suite(tmp_path, methods=["dense", "random"], tasks=["size", "wikitext2@128/limit2"])
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def there(plan: Plan) -> list[bool]:
    return [artifact_path(job.artifact.key).is_dir() for job in plan.jobs]


@pytest.mark.slow
def test_none_stays_once_all_cells_are_recorded_and_they_can_be_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["leanboard", "run", "suite.yaml", "--keep", "none", "--disk-limit", "1"])
    plan = planned(folder)
    run("--keep", "none", "--only", "task=size")
    assert there(plan) == [True, True], "other cells of the suite still need them"
    run("--keep", "none")
    assert there(plan) == [False, False]
    assert {file.suffix for file in (folder / "cache" / "artifacts").iterdir()} == {".lock"}
    assert {r.status for r in Store(folder / "results").read_all()[0]} == {"ok"}
    assert "0 cells to do, 6 cached" in run("--keep", "none").stdout
    with pytest.raises(UsageError, match=r"is not on this machine .* make it again with: leanboard run ") as caught:
        CliRunner().invoke(app, ["export", "random", "--to", "out"], catch_exceptions=False)
    assert "run suite.yaml --only" in str(caught.value), "it stays this time"


@pytest.mark.slow
def test_what_was_interrupted_or_failed_keeps_its_checkpoint_as_asked(folder: Path) -> None:
    plan = planned(folder)
    run("--only", "method=dense")
    run("--only", "task=size")
    dense, random = plan.jobs
    ended: list[object] = []

    def after(keep: str, *, of: int = 1) -> bool:
        Keeping.of(keep, None, "local").remover(plan)(plan.jobs[of])
        return artifact_path(plan.jobs[of].artifact.key).is_dir()

    assert after("all")
    assert after("none"), "a cell has no record"
    record_end(random, random.cells[1].key, "interrupted", "x", "x", ended.append)
    assert after("none"), "an interrupted cell goes on from its checkpoint"
    record_end(random, random.cells[1].key, "failed", "x", "x", ended.append)
    assert after("ok", of=0)
    assert not after("ok")
    assert not after("none", of=0)
    assert dense.artifact.key in {record.key for record in Store(folder / "results").read_all()[0]}


@pytest.mark.slow
def test_what_another_run_uses_stays(folder: Path) -> None:
    plan = planned(folder)
    run("--only", "method=dense")
    path = artifact_path(plan.jobs[0].artifact.key)
    remove = Keeping.of("none", None, "local").remover(plan)
    with used(path), used(path):
        remove(plan.jobs[0])
        assert path.is_dir()
    killed = path.with_name(f".{path.name}.use-1.lock")  # the lock of a process that was killed is free
    killed.touch()
    remove(plan.jobs[0])
    assert not path.exists()
    assert not killed.exists()


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "artifacts").touch()
    with pytest.raises(UsageError, match=r"artifacts/key: cannot be written \("), used(tmp_path / "artifacts" / "key"):
        pytest.fail("held")


def test_a_worker_is_at_its_checkpoint_from_its_first_cell_to_its_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job, _], free = planned(folder).jobs, list[bool]()

    def look(worker: Worker) -> Failure:
        with claimed(artifact_path(job.artifact.key)) as mine:
            free.append(mine)
        return Failure(stage="load", code="x", message="x")

    monkeypatch.setattr(Worker, "_artifact", look)
    Worker(job, lambda event: None).run()
    with claimed(artifact_path(job.artifact.key)) as mine:
        assert [*free, mine] == [False, True]


def test_jobs_go_in_parts_that_fit_onto_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(folder)
    first, second = (plan.estimates[job.artifact.key].disk for job in plan.jobs)
    free = SimpleNamespace(free=first + second)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)

    def parts(keep: str, limit: float | None = None) -> list[int]:
        return [len(part) for part in Keeping.of(keep, limit, "local").parts(plan.jobs, plan)]

    assert parts("all") == parts("none") == [2]
    assert parts("none", max(first, second)) == [1, 1]
    free.free -= 1
    assert parts("none") == [1, 1]
    for keep in ("all", "ok"):
        with pytest.raises(UsageError, match=r"the checkpoints need about .* are free; with --keep none one"):
            parts(keep)
    assert "note:" in CliRunner().invoke(app, ["plan", "suite.yaml"], catch_exceptions=False).stderr
    free.free = max(first, second) - 1
    with pytest.raises(UsageError, match=r"cache: the largest checkpoint needs about .* and 0\.0 GB are free$"):
        parts("none")
    with pytest.raises(UsageError, match=r"are free and allowed$"):
        parts("none", 1.0)
    artifact_path(plan.jobs[0].artifact.key).mkdir(parents=True)  # made already: it takes nothing more
    free.free = second
    assert parts("all") == [2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--keep", "some"], "unknown choice 'some'"),
        (["--keep", "none", "--executor", "ray"], "the checkpoints lie on Ray's nodes|Ray is not"),
    ],
)
def test_other_words_are_one_sentence(folder: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(*words)


def test_with_several_workers_a_job_ends_with_its_speed_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that failed before have records already, so that the checkpoint would go before they are tried again."""
    make_suite(folder, methods=["dense", "random"], tasks=["size", "generate@hf/b1/p4/n4"])
    dense, random = planned(folder).jobs
    random = random.model_copy(update={"cells": random.cells[:1]})
    calls: list[list[str]] = []

    def run_local(jobs: list[Job], *_: Any, on_end: Callable[[Job], None], **__: Any) -> None:
        calls.append([])
        for job in jobs:
            on_end(job)

    monkeypatch.setattr("bench.run.executors.local.run_local", run_local)
    monkeypatch.setattr(Store, "finished", lambda store, key: True)
    run_jobs([dense, random], 2, lambda event: None, on_end=lambda job: calls[-1].append(job.artifact.method))
    assert calls == [["random"], ["dense"]]


@pytest.mark.slow
def test_with_several_workers_speed_cells_come_later_and_find_their_checkpoint(folder: Path) -> None:
    """The checkpoint goes only once the last cell is recorded."""
    from bench.run.executors import inline

    plan, seen = planned(folder), list[str]()
    remove: Callable[..., None] = Keeping.of("none", None, "local").remover(plan)
    first = plan.jobs[0].model_copy(update={"cells": plan.jobs[0].cells[:1]})
    inline.run_inline([first], lambda event: seen.append(event["event"]), remove)
    assert there(plan)[0]
    inline.run_inline(plan.jobs[:1], lambda event: None, remove)
    assert not there(plan)[0]
