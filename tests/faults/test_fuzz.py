"""Anything at all in the files that Leanboard reads: a result or one sentence, no hang, no file astray."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.data.pack import Pack
from bench.data.wheels import join, read_member
from bench.errors import LeanboardError
from bench.model.checkpoint import load_checkpoint, save_checkpoint
from bench.model.load import load_folder
from bench.model.surgery import kept_of, prune
from bench.record.schema import Metric
from bench.record.store import Store, safe_name
from bench.record.text import render
from bench.registry import tasks_named
from bench.shape import BlockKept, Kept
from bench.suite import load_suite
from tests.data.helpers import make_wheel
from tests.faults.conftest import Tally
from tests.packs import make_pack, tables
from tests.record.records import accuracy, artifact, perplexity, speed
from tests.suites import make_suite
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.slow

TIMES = 150
fuzz = settings(
    max_examples=TIMES,
    deadline=20_000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=12)), min_size=1, max_size=6)
"""Where in a file (as a fraction of it), how many bytes go there, and what comes in their place."""


def edited(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for at, gone, new in changes:
        start = int(at * len(content))
        content = content[:start] + new + content[start + gone :]
    return content


def survives(do: Callable[[], object]) -> bool:
    """Whether it gives a result; if not, then one sentence for the user."""
    sentence = None
    try:
        do()
    except LeanboardError as error:
        sentence = str(error)
    assert sentence is None or (sentence and "\n" not in sentence)
    return sentence is None


def replaced(value: Any, path: list[int], new: Any) -> Any:
    """`value` with something inside replaced: `path` are numbers that choose a member at each level."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, dict):
        name = sorted(value)[path[0] % len(value)]
        return value | {name: replaced(value[name], path[1:], new)}
    at = path[0] % len(value)
    return [*value[:at], replaced(value[at], path[1:], new), *value[at + 1 :]]


paths = st.lists(st.integers(0, 40), min_size=1, max_size=3)


def test_suites(tmp_path: Path, tally: Tally) -> None:
    file = make_suite(tmp_path)
    good = file.read_bytes()

    @fuzz
    @given(changes=edits)
    def bytes_change(changes: list[tuple[float, int, bytes]]) -> None:
        file.write_bytes(edited(good, changes))
        survives(lambda: load_suite(str(file)))

    @fuzz
    @given(path=paths, new=json_values)
    def values_change(path: list[int], new: Any) -> None:
        file.write_text(yaml.safe_dump(replaced(yaml.safe_load(good), path, new)))
        survives(lambda: load_suite(str(file)))

    bytes_change()
    values_change()
    deep = "[" * 100_000
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrstuvw", "bcdefghijklmnopqrstuvwx", strict=True)
    )
    for text in (deep, "methods: " + deep, bomb, bomb + "methods: *x\n", "? [a]\n: b", "!!python/object:os.system x"):
        file.write_text(text)
        assert not survives(lambda: load_suite(str(file)))
    tally("fuzzed suite file", 2 * TIMES + 6, "a suite or one sentence")


def test_records(tmp_path: Path, tally: Tally) -> None:
    made = artifact()
    samples: list[Any] = [made, perplexity(made, 20.0), accuracy(made, "piqa@0shot", 0.5), speed(made, 1.1)]

    @fuzz
    @given(which=st.integers(0, 3), changes=edits)
    def bytes_change(which: int, changes: list[tuple[float, int, bytes]]) -> None:
        check(which, edited(render(samples[which]).encode(), changes))

    @fuzz
    @given(which=st.integers(0, 3), path=paths, new=json_values)
    def values_change(which: int, path: list[int], new: Any) -> None:
        check(which, json.dumps(replaced(json.loads(render(samples[which])), path, new)).encode() + b"\n")

    def check(which: int, content: bytes) -> None:
        store = Store(tmp_path)
        file = store.path_of(samples[which])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        records, problems = store.read_all()
        assert len(records) + len(problems) == 1
        assert file.read_bytes() == content
        file.unlink()

    bytes_change()
    values_change()
    tally("fuzzed record", 2 * TIMES, "a record, or named and left alone")


id_text = (
    st.text(max_size=20)
    | st.text("abc2.@/+-_0limit", max_size=24)
    | st.sampled_from(
        [
            "piqa",
            "wikitext2@",
            "generate@hf/b1/p4/n2",
            "wikitext2@99999999999999999999",
            "generate@hf/b0/p0/n0",
            "piqa@5s",
        ]
    ).flatmap(lambda name: st.text("@/.limit0123 b", max_size=8).map(lambda more: name + more))
)


@fuzz
@given(text=id_text)
def test_task_and_metric_ids(text: str) -> None:
    survives(lambda: tasks_named(text))
    try:
        Metric(id=text, value=1.0, unit="u", direction="none", n=1)
    except ValidationError:
        return
    assert "/" not in text.split("@")[0]
    assert safe_name(text) not in ("", ".", "..")


def test_ids_are_tallied(tally: Tally) -> None:
    tally("fuzzed task or metric id", TIMES, "a task or one sentence")


def test_the_pack(tmp_path: Path, tally: Tally) -> None:
    good = make_pack(tmp_path / "good", {"piqa/validation": tables()["piqa/validation"]})
    parquet = (good / "piqa" / "validation.parquet").read_bytes()
    manifest = (good / "manifest.json").read_bytes()
    root = tmp_path / "pack"
    (root / "piqa").mkdir(parents=True)

    def read() -> object:
        pack = Pack([root])
        return pack.rows("piqa/validation", pack.columns("piqa/validation")), pack.column("piqa/validation", "goal")

    @fuzz
    @given(changes=edits)
    def the_file_changes(changes: list[tuple[float, int, bytes]]) -> None:
        content = edited(parquet, changes)
        entry = json.loads(manifest)
        entry["piqa/validation.parquet"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (root / "piqa" / "validation.parquet").write_bytes(content)
        (root / "manifest.json").write_text(json.dumps(entry))
        survives(read)

    @fuzz
    @given(changes=edits)
    def the_manifest_changes(changes: list[tuple[float, int, bytes]]) -> None:
        (root / "piqa" / "validation.parquet").write_bytes(parquet)
        (root / "manifest.json").write_bytes(edited(manifest, changes))
        survives(read)
        Pack([root]).verify()

    the_file_changes()
    the_manifest_changes()
    tally("fuzzed data pack", 2 * TIMES, "rows or one sentence")


FILES = ["config.json", "leanboard.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize(("name", "lean"), [*((name, False) for name in FILES), ("config.json", True)])
def test_checkpoints(tmp_path: Path, name: str, lean: bool, tally: Tally) -> None:
    model, tokenizer = load_folder(make_checkpoint(tmp_path / "dense", layers=2))
    if lean:  # widths of their own in every layer
        model = prune(model, Kept({i: BlockKept((0, 1), tuple(range(40 + i))) for i in (0, 1)}))
        assert model.config.model_type == "lean_llama"
    folder = tmp_path / "saved"
    save_checkpoint(folder, model, tokenizer, ingredients={}, achieved={}, kept=kept_of(model))
    good = (folder / name).read_bytes()

    @settings(fuzz, max_examples=60)
    @given(path=paths, new=json_values | st.integers(2**20, 2**34))
    def values_change(path: list[int], new: Any) -> None:
        (folder / name).write_text(json.dumps(replaced(json.loads(good), path, new)))
        survives(lambda: load_checkpoint(folder))

    @settings(fuzz, max_examples=60)
    @given(changes=edits)
    def bytes_change(changes: list[tuple[float, int, bytes]]) -> None:
        (folder / name).write_bytes(edited(good, changes))
        survives(lambda: load_checkpoint(folder))

    values_change()
    bytes_change()
    widths = ("num_hidden_layers", "hidden_size", "head_dim", "intermediate_size", "vocab_size", "num_attention_heads")
    for field in widths if name == "config.json" else ():
        (folder / name).write_text(json.dumps(json.loads(good) | {field: 10**9}))
        assert not survives(lambda: load_checkpoint(folder))
    if name in ("config.json", "leanboard.json"):
        (folder / name).write_text("[" * 100_000)
        assert not survives(lambda: load_checkpoint(folder))
    times = 120 + (len(widths) if name == "config.json" else 0)
    tally(f"fuzzed {name} of a checkpoint", times, "a model or one sentence")


def test_wheels(tmp_path: Path, tally: Tally) -> None:
    wheel, box = tmp_path / "a.whl", tmp_path / "box"
    (tmp_path / "beside").write_text("untouched")
    make_wheel(wheel, {"a/one": b"1" * 50, "a/link": b"../beside"}, links=("a/link",))
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/two", b"22" * 4000)
    good, sha256 = wheel.read_bytes(), hashlib.sha256(b"22" * 4000).hexdigest()
    outside = {path.name for path in tmp_path.iterdir()}
    members = st.sampled_from(["a/one", "a/two", "a/link", "../beside", "/etc/passwd", "a"]) | st.text(max_size=8)

    @settings(fuzz, max_examples=3 * TIMES)
    @given(changes=edits, member=members)
    def archive_changes(changes: list[tuple[float, int, bytes]], member: str) -> None:
        wheel.write_bytes(edited(good, changes))
        survives(lambda: join([(wheel, member)], box / "out", sha256, 8000))
        survives(lambda: read_member(wheel, member))
        assert {path.name for path in tmp_path.iterdir()} <= outside | {"box"}
        assert {path.name for path in box.iterdir()} <= {"out", ".out.lock"}
        assert (tmp_path / "beside").read_text() == "untouched"
        shutil.rmtree(box)

    archive_changes()
    tally("fuzzed wheel", 3 * TIMES, "the file or one sentence; nothing outside its folder")
