"""Rows of a rehearsal: the first of what can be had, else rows of the same columns."""

from pathlib import Path

import pytest

from bench.data.pack import Pack
from bench.data.source import Source
from bench.data.sources import SOURCES
from bench.errors import UsageError
from bench.measure import bits
from bench.rehearse import texts
from bench.rehearse.texts import gather
from tests.packs import make_pack


def test_the_first_rows_of_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"a text number {i} of {'many ' * 100}"} for i in range(3000)]
    make_pack(tmp_path / "pack", {"lambada_passages/test": rows})
    monkeypatch.setenv("LEANBOARD_DATA", str(tmp_path / "pack"))
    found = gather(["lambada_passages/test"], offline=True, say=print)
    assert found.made_up == {}
    assert found.rows["lambada_passages/test"] == rows[: texts.ROWS]


def test_what_cannot_be_had_is_made_up_with_the_same_columns_and_the_reason(tmp_path: Path) -> None:
    known = {ref for ref, source in SOURCES.items() if source.columns}  # those of lm-eval's own tasks have none
    found = gather(known, offline=True, say=print)
    assert found.made_up.keys() == known
    assert "offline" in found.made_up["c4/train"]
    for ref, rows in found.rows.items():
        assert all(tuple(row) == SOURCES[ref].columns for row in rows), ref
        assert len(rows) >= texts.ROWS
    assert {len(row["choices"]) for row in found.rows["gsm8k_gold/5shot"]} == {1}
    assert {len(row["choices"]) for row in found.rows["csqa/5shot"]} == {5}
    assert {row["answer"] for row in found.rows["mmlu/test"]} == {0, 1, 2, 3}


def test_what_nobody_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match=r"^data slimpyjama/train is not available, .*'slimpyjama/train'; did you mean slimpajama"
    ):
        gather(["slimpyjama/train"], offline=True, say=print)
    monkeypatch.setitem(SOURCES, "of_lm_eval/test", Source(()))
    with pytest.raises(UsageError, match=r"^data of_lm_eval/test is not available, nor can rows of its form"):
        gather(["of_lm_eval/test"], offline=True, say=print)


def test_made_up_rows_enter_the_pack_of_the_cache_in_use_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gather(["piqa/validation"], offline=True, say=print)
    assert not Pack.default().has("piqa/validation")
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "own"))
    found.write()
    assert Pack.default().rows("piqa/validation", ["goal"])[0] == {"goal": found.rows["piqa/validation"][0]["goal"]}


def test_made_up_gold_answers_have_another_item_of_their_part(tmp_path: Path) -> None:
    found = gather(["math_gold/4shot"], offline=True, say=lambda line: None)
    pack = Pack([make_pack(tmp_path, {"math_gold/4shot": found.rows["math_gold/4shot"]})])
    plain, shuffled = (bits.read(pack, "math_gold/4shot", is_shuffled=flag) for flag in (False, True))
    assert [answer for _, answer in plain] == [answer for _, answer in shuffled]
    assert all(own != other for (own, _), (other, _) in zip(plain, shuffled, strict=True))
