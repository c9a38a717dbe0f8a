import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.data.files import replacing
from bench.errors import LeanboardError, RecordError, UsageError
from bench.record.schema import MeasureRecord, Metric
from bench.record.store import ABSENT, Store, differences, safe_name
from bench.record.text import AnyRecord, render
from tests.record.records import accuracy, artifact, failed, measure, perplexity, speed

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_a_record_lies_in_the_folder_of_its_checkpoint(store: Store) -> None:
    made = artifact("llm_pruner", model="smollm2-135m")
    got = accuracy(made, "piqa@0shot/limit20", 0.5)
    folder = store.results / "runs" / "smollm2-135m" / "llm_pruner" / made.key
    assert store.write(made) == folder / "artifact.json"
    assert store.write(got) == folder / f"piqa.{got.key}.json"
    assert store.load(made.key) == made
    assert store.load(got.key) == got
    assert store.load("0" * 16) is None
    assert store.read_all() == ([made, got], [])


@quick
@given(
    model=st.text(max_size=12),
    method=st.text(max_size=12),
    task=st.text(max_size=12),
    value=finite,
    ingredients=st.dictionaries(st.text(max_size=6), json_values, max_size=4),
    note=st.text(max_size=20),
    nll=st.lists(finite, min_size=1, max_size=5),
)
def test_any_record_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    model: str,
    method: str,
    task: str,
    value: float,
    ingredients: dict,
    note: str,
    nll: list[float],
) -> None:
    store = Store(tmp_path_factory.mktemp("r") / "results")
    made = artifact(method, model=model, ingredients=ingredients, achieved={"params": value})
    metric = Metric(id="a.b@c", value=value, unit="u", direction="none", n=1, interval=(value, value))
    got = measure(
        made,
        task,
        [metric],
        ingredients=ingredients,
        evidence={
            "items": {"a.b@c": "0110"},
            "windows": {"nll": nll, "targets": [3] * len(nll)},
            "samples": {note: nll},
            "notes": [note],
        },
    )
    for record in (made, got):
        path = store.write(record)
        assert store.runs.resolve() in path.resolve().parents
        assert len(path.relative_to(store.runs).parts) == 4
        before = path.read_bytes()
        assert store.load(record.key) == record
        assert store.write(store.load(record.key)).read_bytes() == before
    assert store.read_all() == ([made, got], []) or store.read_all() == ([got, made], [])


@given(st.text(max_size=200), st.text(max_size=200))
def test_names_stay_in_their_folder_and_apart(a: str, b: str) -> None:
    for name in (a, b, "..", ".", "", "../x", "/etc", "a/../../b", "a\\b", "nul\0"):
        safe = safe_name(name)
        assert safe not in ("", ".", "..")
        assert "/" not in safe
        assert not safe.startswith(".")
        assert len(safe) < 100
    assert (safe_name(a) == safe_name(b)) == (a == b)


@quick
@given(at=st.integers(min_value=0, max_value=10_000), byte=st.integers(0, 255))
def test_a_changed_byte_never_raises_anything_else(store: Store, at: int, byte: int) -> None:
    record = perplexity(artifact(), 20.0)
    path = store.path_of(record)
    content = bytearray(render(record).encode())
    content[at % len(content)] = byte
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    records, problems = store.read_all()
    assert len(records) + len(problems) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": "0"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"schema_version": 99, "kind": "novel"}, "schema_version"),
        ({"schema_version": None}, "schema_version"),
        ({"kind": "photo"}, "kind"),
        ({"surprise": 1}, "surprise"),
        ({"status": "failed"}, "status"),
        ({"key": "0" * 16}, "key"),
        ({"key": "xyz"}, "key"),
        ({"artifact": "0" * 16}, "artifact"),
        ({"model": "another"}, "model"),
        ({"method": "../../.."}, "method"),
        ({"task": "boolq@0shot"}, "task"),
        ({"metrics": [{"id": "no id", "value": 1.0, "unit": "u", "direction": "none", "n": 1}]}, "metrics.0.id"),
        ({"metrics": [{"id": "a.b", "value": "1", "unit": "u", "direction": "none", "n": 1}]}, "metrics.0.value"),
        ({"evidence": {"items": {"a.acc": "012"}}}, "evidence.items.a.acc"),
        ({"evidence": {"windows": {"nll": [1.0], "targets": []}}}, "evidence.windows"),
        ({"provenance": {}}, "provenance.created"),
    ],
)
def test_a_bad_record_is_named_with_its_field_and_left_alone(store: Store, change: dict, field: str) -> None:
    good = artifact()
    record = accuracy(good, "piqa@0shot", 0.5)
    store.write(good)
    path = store.write(record)
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    before = path.read_bytes()
    records, problems = store.read_all()
    assert records == [good]
    assert len(problems) == 1
    assert str(path) in str(problems[0])
    assert f"'{field}'" in str(problems[0])
    assert "\n" not in str(problems[0])
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"[]\n", b"null\n", b"{}\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_a_foreign_file_is_named(store: Store, content: bytes) -> None:
    path = store.runs / "notes.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    records, problems = store.read_all()
    assert records == []
    assert str(path) in str(problems[0])


def test_not_a_number_is_refused_both_ways(store: Store) -> None:
    with pytest.raises(RecordError, match="cannot be written as JSON"):
        store.write(artifact(ingredients={"rate": float("nan")}))
    path = store.write(artifact(ingredients={"rate": 1.0}))
    path.write_text(path.read_text().replace('"rate": 1.0', '"rate": NaN'))
    assert len(store.read_all()[1]) == 1


def test_bytes_are_the_same_for_the_same_record_and_files_are_compact(store: Store) -> None:
    made = artifact()
    text = render(perplexity(made, 0.1 + 0.2))
    assert '"value": 0.30000000000000004' in text
    assert '"nll": [6141.0, 7164.5]' in text
    shuffled = dict(reversed(list(json.loads(text).items())))
    assert render(MeasureRecord.model_validate(shuffled)) == text
    assert text.endswith("}\n")
    assert render(made).count("\n") < 50


def test_a_failed_record_gives_way_to_a_good_one(store: Store) -> None:
    made = artifact()
    bad = failed(made, "piqa@0shot", "oom", "oom")
    store.write(bad)
    assert not store.finished(bad.key)
    store.write(accuracy(made, "piqa@0shot", 0.5))
    assert store.finished(bad.key)
    assert not store.finished("f" * 16)


def test_a_crash_in_the_middle_leaves_the_old_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = artifact()
    path = store.write(made)
    before = path.read_bytes()

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.write(artifact(achieved={}))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["artifact.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_is_being_written_or_was_left_by_a_killed_writer_is_no_record(store: Store) -> None:
    path = store.write(artifact())
    with replacing(path) as new:
        new.write_text('{"half')
        assert store.files() == [path]
        assert store.read_all() == ([artifact()], [])
        assert store.load(artifact().key) == store.find(artifact().key[:6]) == artifact()
        new.write_bytes(path.read_bytes())


def test_what_the_file_system_refuses_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LeanboardError, match=r"artifact\.json: cannot be written: No space left on device$"):
        store.write(artifact())
    assert list(store.runs.rglob("*.*")) == []
    in_the_way = store.results / "runs-is-a-file"
    in_the_way.write_text("")
    with pytest.raises(LeanboardError, match="cannot be written"):
        Store(in_the_way).write(artifact())


def test_find_takes_a_key_its_start_a_file_or_a_folder(store: Store) -> None:
    made, other = artifact("random"), artifact("magnitude")
    got = accuracy(made, "piqa@0shot", 0.5)
    paths = [store.write(record) for record in (made, other, got)]
    assert store.find(made.key) == made
    assert store.find(got.key[:9]) == got
    assert store.find(str(paths[2])) == got
    assert store.find(str(paths[0].parent)) == made
    for wrong in ("0000", "not-a-key", "", "*", "../../x"):
        with pytest.raises(UsageError, match="neither a record's file nor the start of a key"):
            store.find(wrong)
    clones = [artifact(f"m{i}", key=f"{i:x}{made.key[1:]}") for i in range(2)]
    for i, clone in enumerate(clones):
        store.write(clone.model_copy(update={"key": f"abc{i}" + clone.key[4:]}))
    with pytest.raises(UsageError, match="start of 2 keys"):
        store.find("abc")


def test_differences_name_the_field(store: Store) -> None:
    a = artifact(ingredients={"config": {"ratio": 0.2, "layers": [1, 2]}, "seed": 0, "old": None})
    b = artifact(ingredients={"config": {"ratio": 0.5, "layers": [1, 2]}, "seed": 0.0, "new": True})
    assert differences(a, a) == []
    assert differences(a, b) == [
        ("config.ratio", 0.2, 0.5),
        ("new", ABSENT, True),
        ("old", None, ABSENT),
        ("seed", 0, 0.0),
    ]


def test_why_looks_through_to_the_checkpoints(store: Store) -> None:
    old, new = artifact(version="1"), artifact(version="2")
    a, b = accuracy(old, "piqa@0shot", 0.5), accuracy(new, "piqa@0shot", 0.6)
    store.write(old)
    assert store.why(a, b) == [("artifact", old.key, new.key)]
    store.write(new)
    assert store.why(a, b) == [("artifact.version", "1", "2")]


def test_all_kinds_of_records_come_back(store: Store) -> None:
    made = artifact()
    written: list[AnyRecord] = [made, speed(made, 1.2), failed(made, "piqa@0shot")]
    for record in written:
        store.write(record)
    records, problems = store.read_all()
    assert sorted(records, key=lambda r: r.key) == sorted(written, key=lambda r: r.key)
    assert problems == []
