"""Records of older forms: `tests/data/old_records` holds some as they were first committed, before `cost.peaks` and
under keys of the first schema."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.record import migrate
from bench.record.check import check_records
from bench.record.keys import measure_key
from bench.record.schema import SCHEMA_VERSION, ArtifactRecord, Failure, MeasureRecord
from bench.record.store import Store
from bench.registry import tasks_named
from bench.report.build import build
from bench.report.hidden import hidden
from bench.task import Task

OLD = Path(__file__).parents[1] / "data" / "old_records"
COMMITTED = Path(__file__).parents[2] / "results"
TEXT = "aeff9960799fbe21"
"""The first key of the perplexity in `OLD`."""


def test_the_first_committed_records_are_read_checked_and_shown() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(OLD.rglob("*.json"))]
    assert not any('"peaks"' in text for text in texts)
    records, problems = Store(OLD).read_all()
    assert problems == []
    assert len(records) == len(texts) == 4
    assert check_records(OLD) == []
    [made] = [record for record in records if isinstance(record, ArtifactRecord)]
    assert made.cost is not None
    assert made.cost.peaks == {}
    assert "instructions" in made.ingredients
    [row] = build(records, []).rows
    assert row.status == "ok"
    assert row.value("cost.peak_memory") == made.cost.peak_memory_bytes


def older(tmp_path: Path) -> Path:
    """The same records as a version before theirs might have had them: another name for the peak of memory."""
    shutil.copytree(OLD, tmp_path / "results")
    [path] = (tmp_path / "results").rglob("artifact.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["schema_version"] = 0
    data["cost"]["memory"] = data["cost"].pop("peak_memory_bytes")
    path.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return path


def renamed(data: dict[str, Any]) -> dict[str, Any]:
    cost = dict(data["cost"])
    cost["peak_memory_bytes"] = cost.pop("memory")
    return {**data, "cost": cost}


def test_an_older_version_is_brought_forward_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = older(tmp_path)
    before = path.read_bytes()
    monkeypatch.setitem(migrate.STEPS, 0, renamed)
    records, problems = Store(tmp_path / "results").read_all()
    assert problems == []
    assert records == Store(OLD).read_all()[0]
    assert path.read_bytes() == before


def test_a_version_that_no_step_leads_from_is_one_sentence(tmp_path: Path) -> None:
    path = older(tmp_path)
    _, [problem] = Store(tmp_path / "results").read_all()
    assert str(problem) == f"{path}: field 'schema_version' is 0, older than any that this leanboard reads"


def test_a_newer_version_asks_for_an_update(tmp_path: Path) -> None:
    path = older(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"schema_version": 0', '"schema_version": 7'))
    _, [problem] = Store(tmp_path / "results").read_all()
    assert str(problem).startswith(f"{path}: field 'schema_version' is 7, newer than the {SCHEMA_VERSION} that")


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """A copy of the old records, to be changed."""
    shutil.copytree(OLD, tmp_path / "results")
    return Store(tmp_path / "results")


def text_of(store: Store) -> tuple[Path, MeasureRecord]:
    """The perplexity among the old records, and its file."""
    [path] = store.runs.rglob(f"*.{TEXT}.json")
    record = store.find(TEXT)
    assert isinstance(record, MeasureRecord)
    return path, record


def edit(path: Path, **changes: Any) -> None:
    """Change the file of an old record, under the first key of what it then says."""
    data = json.loads(path.read_text(encoding="utf-8")) | changes
    data["key"] = measure_key(data["ingredients"], 1)
    path.unlink()
    new = path.with_name(f"{path.name.split('.')[0]}.{data['key']}.json")
    new.write_text(json.dumps(data) + "\n", encoding="utf-8")


@pytest.mark.parametrize("tree", ["", "full", "saap-ablation", "serving"])
def test_committed_records_count_as_finished_under_the_keys_of_today(tree: str) -> None:
    """Their tasks are those of `tasks/`, so that a plan computes the same keys."""
    store = Store(COMMITTED / tree)
    before = {path: path.read_bytes() for path in store.runs.rglob("*.json")}
    records, problems = store.read_all()
    assert problems == []
    former = 0
    for record in records:
        if isinstance(record, MeasureRecord):
            [task] = tasks_named(record.task)
            assert record.ingredients.items() >= task.settings().items()
            assert record.key == measure_key(record.ingredients)
            assert record.artifact == record.ingredients["artifact"]
            former += record.former_key is not None
        assert store.finished(record.key) == (record.status == "ok")
        assert store.path_of(record) in before
    assert hidden(records) == []
    assert former > 0
    assert {path: path.read_bytes() for path in store.runs.rglob("*.json")} == before


def test_an_old_record_is_found_by_both_its_keys_and_why_compares_it(old: Store) -> None:
    path, record = text_of(old)
    assert record.key != TEXT
    assert record.former_key == TEXT
    assert "windows" not in record.ingredients["task"]
    assert old.load(record.key) == old.find(record.key[:9]) == old.find(TEXT[:9]) == old.find(str(path)) == record
    assert old.load(TEXT) is None
    assert old.path_of(record) == path
    newer = record.model_copy(update={"former_key": None, "ingredients": record.ingredients | {"limit": 3}})
    assert old.why(record, newer) == [("limit", record.ingredients["limit"], 3)]


@pytest.mark.parametrize(
    "changes",
    [{"windows": (64, 2048)}, {"description": "another"}, {"chance": 0.1}, {"headline": "other"}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_no_number_changes_no_key(changes: dict[str, Any]) -> None:
    [task] = tasks_named("wikitext2@128" if "windows" in changes else "piqa")
    other = Task(task.spec.model_copy(update=changes), task.protocol, task.limit)
    assert other.spec != task.spec
    assert other.settings() == task.settings()


@pytest.mark.parametrize(("field", "value"), [("version", 2), ("join", " "), ("column", "page"), ("text", "c4/test")])
def test_what_changes_a_number_changes_the_key(field: str, value: object) -> None:
    [task] = tasks_named("wikitext2@128")
    other = Task(task.spec.model_copy(update={field: value}), task.protocol, task.limit)
    assert other.settings() != task.settings()


def test_a_key_that_was_not_that_of_its_ingredients_gets_no_other(old: Store) -> None:
    path, _ = text_of(old)
    data = json.loads(path.read_text(encoding="utf-8"))
    data["ingredients"]["limit"] = 7
    path.write_text(json.dumps(data) + "\n", encoding="utf-8")
    [problem] = Store(old.results).read_all()[1]
    assert str(problem).startswith(f"{path}: field 'key' is {TEXT}, but its ingredients give ")


def test_a_new_record_takes_the_place_of_an_old_one_that_failed(old: Store) -> None:
    path, good = text_of(old)
    failure = Failure(stage="measure", code="oom", message="no memory")
    edit(path, status="oom", metrics=[], evidence={}, error=failure.model_dump())
    store = Store(old.results)
    assert not store.finished(good.key)
    new = store.write(good)
    assert new.name == f"wikitext2.{good.key}.json"
    assert json.loads(new.read_text(encoding="utf-8"))["schema_version"] == SCHEMA_VERSION
    assert "former_key" not in json.loads(new.read_text(encoding="utf-8"))
    assert list(new.parent.glob("wikitext2.*")) == [new]
    assert Store(old.results).load(good.key) == good.model_copy(update={"former_key": None})
    assert check_records(old.results) == []


def test_an_old_record_that_is_good_gives_way_to_none_that_is_not(old: Store) -> None:
    path, good = text_of(old)
    failure = Failure(stage="measure", code="oom", message="no memory")
    bad = good.model_copy(update={"status": "oom", "error": failure, "metrics": [], "former_key": None})
    assert old.write(bad) == path
    assert list(path.parent.glob("wikitext2.*")) == [path]


def test_of_two_files_of_one_cell_one_counts_and_the_other_is_named(old: Store) -> None:
    """Two lists of usual windows gave two keys, though the number is the same."""
    path, record = text_of(old)
    data = json.loads(path.read_text(encoding="utf-8"))
    data["ingredients"]["task"]["windows"] = [128]
    data["provenance"]["created"] = "2001-01-01T00:00:00.000+00:00"
    data["key"] = measure_key(data["ingredients"], 1)
    twin = path.with_name(f"wikitext2.{data['key']}.json")
    twin.write_text(json.dumps(data) + "\n", encoding="utf-8")
    store = Store(old.results)
    records, [problem] = store.read_all()
    assert len(records) == 4
    assert str(problem) == f"{twin}: {path} is of the same cell and counts instead"
    assert store.load(record.key) == store.find(record.key) == record
    written = store.write(record)
    assert sorted(path.parent.glob("wikitext2.*")) == [written]
