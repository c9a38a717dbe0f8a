"""A worker that would compute something else than a key says: a failed record that names the field, never a number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UsageError
from bench.paths import artifact_path
from bench.record.check import check_records
from bench.record.schema import ArtifactRecord, MeasureRecord
from bench.record.store import Store
from bench.record.text import AnyRecord
from bench.run import agreement
from bench.run.cells import Job
from bench.run.worker import Worker
from bench.task import PerplexityTask
from tests.run.bad import jobs_of, write_plugins
from tests.suites import make_suite

Change = Callable[[Job], Job]
TASK = "wikitext2@128/limit2"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of a plug-in that changes nothing, with a LoRA of one step, and a perplexity."""
    root = tmp_path_factory.mktemp("suite")
    recovery = {"name": "lora", "steps": 1, "batch_size": 2, "micro_batch": 2, "max_length": 16, "holdout": 2}
    make_suite(
        root,
        methods=[{"name": "nothing", "recovery": recovery, "targets": []}],
        tasks=[TASK],
        training={"data": "lambada_passages/test"},
    )
    return root


@pytest.fixture
def job(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The suite's only job, with a plug-in, a cache and results of its own."""
    write_plugins(tmp_path / "plugins", {"nothing": ""})
    monkeypatch.setenv("LEANBOARD_DATA", str(root / "pack"))
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))
    [job] = jobs_of(root, str(tmp_path / "results"), (str(tmp_path / "plugins"),))
    return job


def run(job: Job) -> tuple[AnyRecord | None, AnyRecord | None]:
    """The records of the checkpoint and of the task."""
    Worker(job, lambda event: None).run()
    store = Store(job.results)
    return store.load(job.artifact.key), store.load(job.cells[0].key)


def other_sources(name: str) -> Change:
    return lambda job: job.model_copy(update={"sources": job.sources | {name: "0.0+another"}})


def checkpoint_of(**ingredients: Any) -> Change:
    """The plan of somebody whose checkpoint has these ingredients."""

    def change(job: Job) -> Job:
        mixed = job.artifact.ingredients | ingredients
        artifact = job.artifact.model_copy(update={"ingredients": mixed})
        cells = [
            cell.model_copy(update={"ingredients": cell.ingredients | {"artifact": artifact.key}}) for cell in job.cells
        ]
        return job.model_copy(update={"artifact": artifact, "cells": cells})

    return change


def task_of(**ingredients: Any) -> Change:
    """The plan of somebody whose task has these ingredients."""

    def change(job: Job) -> Job:
        cells = [cell.model_copy(update={"ingredients": cell.ingredients | ingredients}) for cell in job.cells]
        return job.model_copy(update={"cells": cells})

    return change


def test_a_job_of_this_very_code_is_done(job: Job) -> None:
    made, measured = run(job)
    assert isinstance(made, ArtifactRecord)
    assert isinstance(measured, MeasureRecord)
    assert (made.status, measured.status) == ("ok", "ok")
    assert set(job.sources) == {"leanboard", "family", "plug-in"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (other_sources("leanboard"), "sources.leanboard"),
        (other_sources("plug-in"), "sources.plug-in"),
        (other_sources("family"), "sources.family"),
        (checkpoint_of(version="2"), "ingredients.version"),
        (checkpoint_of(config={"ratio": 0.5}), "ingredients.config"),
        (checkpoint_of(recovery=None), "ingredients.recovery"),
        (checkpoint_of(training={"data": "lambada_passages/test", "fingerprint": "x"}), "ingredients.training"),
        (checkpoint_of(seed=7), "ingredients.seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_under_another_key_is_not_made(job: Job, change: Change, field: str) -> None:
    other = change(job)
    made, measured = run(other)
    assert isinstance(made, ArtifactRecord)
    assert made.error is not None
    assert (made.status, made.error.code) == ("failed", "KeyMismatch")
    assert made.error.message.startswith(f"{other.artifact.label}: field '{field}")
    assert measured is not None
    assert measured.status == "skipped"
    assert not artifact_path(other.artifact.key).exists()


TASK_CHANGES = {
    "ingredients.engine": task_of(engine="perplexity/1"),
    "ingredients.task.": task_of(task={"name": "wikitext2", "join": " "}),
    "ingredients.protocol": task_of(protocol="64"),
    "ingredients.data.wikitext2_raw/test": task_of(data={"wikitext2_raw/test": "x"}),
    "ingredients.dtype": task_of(dtype="float16"),
    "sources.leanboard": other_sources("leanboard"),
}


def test_a_task_under_another_key_is_not_measured(job: Job) -> None:
    """Though its checkpoint is there and good: that record stays."""
    Worker(job.model_copy(update={"cells": []}), lambda event: None).run()
    before = Store(job.results).load(job.artifact.key)
    for field, change in TASK_CHANGES.items():
        made, measured = run(change(job))
        assert made == before
        assert isinstance(measured, MeasureRecord)
        assert measured.error is not None
        assert (measured.status, measured.error.code, measured.metrics) == ("failed", "KeyMismatch", [])
        assert f"field '{field}" in measured.error.message


def test_a_method_of_another_version_is_refused(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a node has it that was not updated, even if its sources could not be told apart."""
    file = tmp_path / "plugins" / "nothing.py"
    file.write_text(file.read_text().replace('version = "1"', 'version = "2"'))
    made, _ = run(job)
    assert made is not None
    assert made.error is not None
    assert "field 'sources.plug-in' is" in made.error.message
    monkeypatch.setattr(agreement, "sources_of", lambda entry, weights: job.sources)
    made, _ = run(job)
    assert made is not None
    assert made.error is not None
    assert "field 'ingredients.version' is 1 in the key and 2 in this worker" in made.error.message


def test_an_engine_of_another_version_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PerplexityTask, "engine", "perplexity/99")
    made, measured = run(job)
    assert made is not None
    assert made.status == "ok"
    assert measured is not None
    assert measured.error is not None
    assert "is perplexity/2 in the key and perplexity/99 in this worker" in measured.error.message


def test_what_only_shows_numbers_may_change_while_a_suite_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("report/a.py", "cli/a.py", "measure/a.py", "measure/notes.md"):
        (tmp_path / "bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bench" / name).write_text("1")
    monkeypatch.setattr(agreement, "ROOT", tmp_path)

    def code() -> str:
        return agreement.leanboard_code.__wrapped__()

    before = code()
    for name, changes in (
        ("report/a.py", False),
        ("cli/a.py", False),
        ("measure/notes.md", False),
        ("measure/a.py", True),
    ):
        (tmp_path / "bench" / name).write_text("2")
        assert (code() != before) == changes, name


def test_the_weights_are_hashed_when_they_are_saved_and_can_be_checked(job: Job) -> None:
    made, measured = run(job)
    assert isinstance(made, ArtifactRecord)
    assert isinstance(measured, MeasureRecord)
    assert measured.evidence.notes == []
    assert made.weights_sha256 is not None
    assert check_records(job.results) == []
    store = Store(job.results)
    path = store.path_of(made)
    path.write_text(path.read_text().replace(made.weights_sha256, "0" * 64))
    [problem] = check_records(job.results)
    assert problem.startswith(f"{path}: field 'weights_sha256' is {'0' * 64}, but the weights in ")
    store.path_of(measured).unlink()
    _, again = run(job)
    assert isinstance(again, MeasureRecord)
    assert again.metrics == measured.metrics
    assert again.evidence.notes == [
        "measured on a checkpoint that was made again and has other weights than the one of its record"
    ]


def test_an_unknown_recovery_is_one_sentence(job: Job) -> None:
    other = checkpoint_of()(
        job.model_copy(update={"artifact": job.artifact.model_copy(update={"recovery": {"name": "x"}})})
    )
    made, _ = run(other)
    assert made is not None
    assert made.error is not None
    assert made.error.code == UsageError.__name__
    assert "unknown recovery 'x'" in made.error.message
