"""A worker that was killed within a task: another goes on where it was."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.measure import answers, scorer
from bench.measure.subject import Subject
from bench.model import checkpoint, load
from bench.paths import artifact_path
from bench.record.schema import MeasureRecord
from bench.record.store import Store
from bench.registry import load_registry
from bench.run import compress
from bench.run.cells import Job
from bench.run.plan import make_plan
from bench.run.worker import Worker
from bench.suite import load_suite
from tests.suites import make_suite

Plan = Callable[[str], Job]


class Killed(BaseException):
    """No handler of errors sees it, as none sees a crash."""


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The same job for a folder of results."""
    suite = load_suite(str(make_suite(tmp_path, methods=["dense"], tasks=["boolq"])))
    monkeypatch.setenv("LEANBOARD_DATA", str(tmp_path / "pack"))
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))

    def job(results: str) -> Job:
        [job] = make_plan(
            suite,
            load_registry(),
            tmp_path / results,
            model_paths={},
            plugins=[],
            only={},
            offline=True,
            command=["leanboard"],
            say=lambda line: None,
        ).jobs
        return job

    return job


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Items of each batch that is computed; batches are small, and each is kept at once."""
    monkeypatch.setattr(scorer, "CPU_TOKENS", 16)
    monkeypatch.setattr(answers, "SAVE_SECONDS", 0.0)
    score, computed = scorer.PackedLM._scores, list[int]()

    def counting(lm: scorer.PackedLM, batch: Any, targets: Any) -> Any:
        computed.append(len(batch.owners))
        return score(lm, batch, targets)

    monkeypatch.setattr(scorer.PackedLM, "_scores", counting)
    return computed


def run(job: Job, kill: Callable[[dict[str, Any]], bool] = lambda event: False) -> None:
    def emit(event: dict[str, Any]) -> None:
        if kill(event):
            raise Killed

    Worker(job, emit).run()


def measured(job: Job) -> MeasureRecord | None:
    [cell] = job.cells
    record = Store(job.results).load(cell.key)
    assert record is None or isinstance(record, MeasureRecord)
    return record


def test_the_next_worker_computes_the_rest_and_leaves_nothing_but_the_record(planned: Plan, batches: list[int]) -> None:
    run(planned("whole"))
    whole, record = batches.copy(), measured(planned("whole"))
    batches.clear()
    job = planned("cut")
    with pytest.raises(Killed):
        run(job, lambda event: event["event"] == "progress" and event["key"] == job.cells[0].key)
    assert batches == whole[:1]
    assert measured(job) is None
    [file] = artifact_path(job.artifact.key).glob("answers.*")
    assert file.suffix == f".{job.cells[0].key}"
    assert not list(job.results.rglob("*answers*"))
    batches.clear()
    run(job)
    assert batches == whole[1:] != []
    again = measured(job)
    assert again is not None
    assert record is not None
    assert (again.status, again.metrics, again.evidence) == ("ok", record.metrics, record.evidence)
    assert not file.exists()


def test_a_worker_tells_its_start_up_before_any_cell(planned: Plan) -> None:
    told: list[dict[str, Any]] = []
    job = planned("told")
    Worker(job, told.append).run()
    first, second, *others = told
    assert first == {"event": "start-up", "key": job.artifact.key, "seconds": None}
    assert second == first | {"seconds": second["seconds"]}
    assert 0 < second["seconds"] < 3600
    assert [(e["event"], e["key"]) for e in others if e["event"] in ("start", "done")] == [
        (event, key) for key in (job.artifact.key, job.cells[0].key) for event in ("start", "done")
    ]


def test_the_seconds_of_a_record_are_those_of_all_its_workers(
    planned: Plan, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = planned("cut")
    with pytest.raises(Killed):
        run(job, lambda event: event["event"] == "progress" and event["key"] == job.cells[0].key)
    load = answers.Answers.load

    def an_hour_ago(kept: answers.Answers, questions: Any) -> Any:
        found = load(kept, questions)
        assert kept.earlier_seconds > 0
        kept.earlier_seconds = 3600.0
        return found

    monkeypatch.setattr(answers.Answers, "load", an_hour_ago)
    run(job)
    record = measured(job)
    assert record is not None
    assert 3600 < record.provenance.seconds < 3700


def test_a_failure_leaves_the_answers_for_the_next_run(
    planned: Plan, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = planned("failed")
    counting = scorer.PackedLM._scores

    def full(lm: scorer.PackedLM, *rest: Any) -> Any:
        if batches:
            raise MemoryError("the memory is full")
        return counting(lm, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.PackedLM, "_scores", full)
        run(job)
    failed = measured(job)
    assert failed is not None
    assert failed.status == "oom"
    first = batches.copy()
    run(job)
    again = measured(job)
    assert again is not None
    assert again.status == "ok"
    assert len(first) == 1
    assert sum(batches) == again.metrics[0].n * 2


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose model is loaded in this process, one after another."""
    found, load_folder = list[Path](), load.load_folder

    def counting(folder: Path, *rest: Any) -> Any:
        found.append(folder)
        return load_folder(folder, *rest)

    monkeypatch.setattr(checkpoint, "load_folder", counting)
    monkeypatch.setattr(compress, "load_folder", counting)
    return found


def test_what_was_loaded_to_check_a_checkpoint_is_measured(planned: Plan, loads: list[Path]) -> None:
    job = planned("results")
    worker = Worker(job, lambda event: None)
    worker.run()
    folder = artifact_path(job.artifact.key)
    assert loads == [job.artifact.weights, folder]
    assert worker.loaded is None
    first = measured(job)
    assert first is not None
    Store(job.results).path_of(first).unlink()
    run(job)
    assert loads == [job.artifact.weights, folder, folder]
    again = measured(job)
    assert again is not None
    assert (again.status, again.metrics, again.evidence) == ("ok", first.metrics, first.evidence)


def test_a_subject_lets_go_of_what_was_handed_to_it(tiny_gqa: Path, loads: list[Path]) -> None:
    """As before a generation, whose processes hold the model themselves."""
    subject = Subject(tiny_gqa, loaded=checkpoint.load_checkpoint(tiny_gqa))
    kept = weakref.ref(subject.model)
    assert len(loads) == 1
    subject.release()
    assert kept() is None
    assert subject.model is not None
    assert len(loads) == 2
