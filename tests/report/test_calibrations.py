"""Rows that differ in their calibration text alone are rows of their own, with names that say so."""

from pathlib import Path
from typing import Any

import pytest

from bench.errors import UsageError
from bench.record.rows import RowName, command, find, labels, text_name
from bench.record.schema import ArtifactRecord
from bench.record.store import Store
from bench.record.text import AnyRecord, render
from bench.report.build import build
from bench.report.compare import compare_rows
from bench.report.find import Rows
from bench.report.formats import NOTHING
from bench.report.markdown import markdown
from bench.report.plots.looks import names, series_of
from bench.report.site.names import row_href, variant
from bench.report.tables import board_csv, long_csv, paired_csv
from tests.record.records import artifact, key_of, perplexity

C4 = {"data": "c4/train", "column": "text", "rows": None, "fingerprint": "1"}
JOINED = {"data": "wikitext2_raw/train", "column": "text", "rows": None, "sampler": "joined", "fingerprint": "2"}


def on(text: dict[str, Any] | None, ppl: float, method: str = "saap", **who: Any) -> list[AnyRecord]:
    """A checkpoint that was calibrated on `text`, and its perplexity."""
    made: ArtifactRecord = artifact(method, **who)
    made = made.model_copy(update={"key": key_of(method, who, text), "ingredients": {"calibration": text}})
    return [made, perplexity(made, ppl)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results")
    for record in [*on(None, 60.0, "random"), *on(C4, 20.0), *on(JOINED, 30.0), *on(JOINED, 40.0, seed=1)]:
        store.write(record)
    return store.results


def test_each_text_has_a_row_and_no_seeds_are_mixed(results: Path) -> None:
    board = build(Store(results).read_all()[0], [])
    seeds = {row.identity.calibration: (row.seeds, row.value("wikitext2.ppl_token@2048/limit4")) for row in board.rows}
    assert seeds == {"": (1, 60.0), "c4/train": (1, 20.0), "wikitext2_raw/train+joined": (2, 35.0)}
    assert board.notes == ()
    against = {(pair.row.calibration, pair.control) for pair in board.pairs}
    assert against == {("c4/train", "random"), ("wikitext2_raw/train+joined", "random")}
    for table in (board_csv(board), long_csv(board), paired_csv(board)):
        assert table.splitlines()[0].split(",")[4:6] == ["target", "calibration"]
    page = markdown(board)
    assert f"| random | quick | none | params=0.2 | {NOTHING} |" in page
    assert "| saap | quick | none | params=0.2 | wikitext2_raw/train+joined |" in page
    rows = [row.identity for row in board.rows]
    assert len({row_href(row) for row in rows}) == len({variant(row) for row in rows}) == 3
    titles = sorted(names(map(series_of, rows)).values())
    assert titles == ["random", "saap c4/train", "saap wikitext2_raw/train+joined"]


def test_every_name_finds_its_row_and_its_records(results: Path) -> None:
    rows = Rows(results)
    one = RowName("tiny", "saap", "quick", "none", "params=0.2", "c4/train")
    other = one._replace(calibration="wikitext2_raw/train+joined")
    for row, label in labels(rows.runs).items():
        for name in (str(row), row.title, label, row.joined(" / ")):
            assert find(name, list(rows.runs)) == (row, None)
    assert rows.row("saap c4/train")[0] == one
    made = rows.record("saap c4/train")
    assert rows.row(made.key)[0] == rows.row(str(Store(results).path_of(made)))[0] == one
    assert command(made).endswith("--only target=params=0.2 --only calibration=c4/train")
    with pytest.raises(UsageError, match="'saap' names 2 rows"):
        rows.row("saap")
    compared = compare_rows(rows, "saap c4/train", "saap joined seed 0", [])
    assert (compared.a, compared.b) == (str(one), f"{other} seed 0")
    assert ("calibration.data", "c4/train", "wikitext2_raw/train") in compared.keys


def test_the_name_of_a_cell_finds_its_row_before_there_is_a_second_text(tmp_path: Path) -> None:
    for record in on(C4, 20.0):
        Store(tmp_path).write(record)
    assert Rows(tmp_path).row("tiny · saap · quick · params=0.2 · c4/train · seed 0")[0].calibration == ""
    with pytest.raises(UsageError, match="names no row"):
        Rows(tmp_path).row("tiny · saap · quick · params=0.2 · c4/test · seed 0")


def test_one_text_is_not_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for record in [*on(None, 60.0, "random"), *on(C4, 20.0), *on(JOINED, 30.0, model="another")]:
        store.write(record)
    board = build(store.read_all()[0], [])
    assert {row.identity.calibration for row in board.rows} == {""}
    assert "calibration" not in board_csv(board).splitlines()[0].split(",")
    assert '"calibration"' not in render(on(None, 60.0)[1].model_copy(update={"calibration": "c4/train"}))


def test_a_text_is_named_by_all_that_tells_it_from_others() -> None:
    assert text_name(C4) == "c4/train"
    assert text_name(C4 | {"column": "story", "rows": [0, 9], "sampler": "joined"}) == "c4/train:story[0:9]+joined"
    assert text_name({"random_tokens": 32000}) == "random_tokens=32000"
    assert text_name(None) == ""
