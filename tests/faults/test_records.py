"""Records that are damaged in every way: named and left alone, with no wrong number and no good record lost."""

import json
from pathlib import Path

import pytest

from bench.errors import RecordError
from bench.record.schema import ArtifactRecord, MeasureRecord
from bench.record.store import Store
from bench.registry import task_groups
from bench.report import report
from tests.faults.conftest import Tally
from tests.record.records import accuracy, artifact, perplexity

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("record", [artifact(), perplexity(artifact(), 20.0)], ids=["artifact", "measure"])
def test_every_truncation_is_an_error_and_the_file_stays(
    tmp_path: Path, record: ArtifactRecord | MeasureRecord, tally: Tally
) -> None:
    store, other = Store(tmp_path), artifact("magnitude")
    store.write(other)
    path = store.write(record)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        records, problems = store.read_all()
        assert records == [other]
        assert len(problems) == 1
        assert str(path) in str(problems[0])
        assert "\n" not in str(problems[0])
        assert path.read_bytes() == whole[:length]
    with pytest.raises(RecordError):
        store.load(record.key)
    with pytest.raises(RecordError):
        store.write(record)
    assert path.read_bytes() == whole[:-1]
    tally("record cut off, at every byte", len(whole), "named and left alone; the rest is shown")


def members(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every member of every object in a JSON value."""
    if isinstance(value, dict):
        return [found for name in value for found in [(*path, name), *members(value[name], (*path, name))]]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in members(item, (*path, i))]
    return []


def changed(value: object, path: tuple[str | int, ...], new: object) -> object:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)  # type: ignore[call-overload]
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


WRONG = [None, True, 7, -1.5, "text", [], [1, "a"], {}, {"a": 1}, 10**400, "\ud800"]


def test_a_member_of_any_wrong_type_is_named_or_read_as_it_stands(tmp_path: Path, tally: Tally) -> None:
    """Never anything else than a record or a RecordError; what is read says what the file says."""
    store, tried = Store(tmp_path), 0
    for record in (artifact(), accuracy(artifact(), "piqa@0shot", 0.5)):
        path = store.write(record)
        good = json.loads(path.read_text())
        for member in members(good):
            for wrong in WRONG:
                path.write_text(json.dumps(changed(good, member, wrong)) + "\n")
                records, problems = store.read_all()
                assert len(records) + len(problems) == 1, (member, wrong)
                if records:
                    kept = json.loads(records[0].model_dump_json())
                    for part in member:
                        kept = kept.get(part) if isinstance(kept, dict) else kept[part]
                    assert kept == wrong or (member, wrong) == (("evidence",), {}), (member, wrong)
                tried += 1
        path.unlink()
    tally("record with a member of a wrong type", tried, "named and left alone, or read as it stands")


def test_a_member_that_is_there_twice_is_an_error(tmp_path: Path, tally: Tally) -> None:
    store, record = Store(tmp_path), accuracy(artifact(), "piqa@0shot", 0.5)
    path = store.write(record)
    text = path.read_text()
    twice = [
        ("seed", text.replace('"seed": 0', '"seed": 0, "seed": 0')),
        ("value", text.replace('"value": 0.5', '"value": 0.9, "value": 0.5')),
        ("model", text.replace('"model": "tiny"', '"model": "tiny", "model": "tiny"')),
    ]
    for name, damaged in twice:
        assert damaged != text
        path.write_text(damaged)
        [problem] = store.read_all()[1]
        assert f"field '{name}' is there twice" in str(problem)
    tally("record with a member that is there twice", len(twice), "named and left alone")


def test_a_report_shows_the_good_records_beside_a_bad_one(tmp_path: Path, tally: Tally) -> None:
    store, made = Store(tmp_path), artifact()
    for record in (made, perplexity(made, 20.0), accuracy(made, "piqa@0shot", 0.5)):
        path = store.write(record)
    path.write_text(path.read_text()[:-9])
    outcome = report(tmp_path, task_groups())
    assert len(outcome.problems) == 1
    assert "wikitext2.ppl_token" in (tmp_path / "long.csv").read_text()
    assert "piqa" not in (tmp_path / "long.csv").read_text()
    tally("report over a damaged record", 1, "a warning that names it; the rest is shown")
