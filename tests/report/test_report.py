import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import LeanboardError
from bench.record.store import Store
from bench.registry import task_groups
from bench.report import check, report
from bench.report.compare import compare_rows
from bench.report.find import Rows
from tests.record.records import artifact, failed_artifact
from tests.report.boards import PAIR, cells, dense, five_hundred, of_the_hub, row, smollm, store

FILES = [
    "leaderboard.csv",
    "leaderboard.md",
    "long.csv",
    "paired.csv",
    "reproduction.csv",
    "reproduction.md",
    "sides.csv",
]
KNOWN_DENSE = """
about: a test
metrics: {piqa: {task: piqa, metric: acc, protocol: 0shot/limit500}}
tables:
  - source: measured before
    rows:
      - {method: dense, model: One, of: dense, ours: {model: one, method: dense}, known: true, values: {piqa: 0.8}}
"""
RUN = """
import sys, pathlib
from bench.report import report
from bench.task_group import TaskGroup
group = TaskGroup(name="pair", kind="group", description="two tasks", members=("piqa.acc", "hellaswag.acc_norm"))
report(pathlib.Path(sys.argv[1]), [group])
heavy = {"torch", "transformers", "lm_eval", "datasets"} & set(sys.modules)
assert not heavy, heavy
"""


def run(results: Path, **environment: str) -> None:
    subprocess.run([sys.executable, "-c", RUN, str(results)], check=True, env={**os.environ, **environment})


def content(results: Path) -> dict[str, bytes]:
    """Everything under `results` but the records."""
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and "runs" not in path.parts
    }


@pytest.mark.slow
def test_other_processes_orders_and_settings_give_the_same_bytes_without_torch(tmp_path: Path) -> None:
    records = [*smollm(), failed_artifact("saap"), *cells("random", 40.0, seed=1), *cells("random", 41.0, seed=2)]
    shuffled = records[:]
    random.Random(3).shuffle(shuffled)
    a, b = store(tmp_path / "a", records), store(tmp_path / "elsewhere" / "b", shuffled)
    style = tmp_path / "matplotlibrc"
    style.write_text("font.size: 30\naxes.facecolor: red\nsavefig.dpi: 20\n")
    run(a, PYTHONHASHSEED="1")
    run(b, PYTHONHASHSEED="2", MATPLOTLIBRC=str(style), TZ="Asia/Tokyo", LC_ALL="C")
    assert content(a) == content(b)
    assert {Path(name).suffix for name in content(a)} >= {".csv", ".md", ".png", ".svg"}


def test_the_report_says_what_it_wrote_and_what_it_could_not_read(tmp_path: Path) -> None:
    results = store(tmp_path / "results", smollm())
    broken = Store(results).path_of(artifact("magnitude"))
    broken.write_bytes(broken.read_bytes()[:-20])
    before = broken.read_bytes()
    outcome = report(results, [PAIR])
    assert [path.name for path in outcome.written[: len(FILES)]] == FILES
    assert all(path.is_file() for path in outcome.written)
    assert len(outcome.problems) == 1
    assert str(broken) in str(outcome.problems[0])
    assert broken.read_bytes() == before
    assert len(outcome.board.rows) == 5
    assert any("record of its checkpoint is missing" in note for note in outcome.board.notes)


def test_check_names_every_file_that_differs(tmp_path: Path) -> None:
    smaller = row("saap", 0.6, target="params=0.3", removed=0.3)
    results = store(tmp_path / "results", [*dense(), *row("random", 0.5), *row("saap", 0.3), *smaller])
    report(results, [PAIR])
    assert check(results, [PAIR]) == []
    (results / "leaderboard.md").write_text("edited by hand\n")
    (results / "long.csv").unlink()
    left_over = results / "plots" / "gone.quality-vs-size.png"
    left_over.write_bytes(b"")
    assert check(results, [PAIR]) == [results / "leaderboard.md", results / "long.csv", left_over]


def test_stale_plots_go_and_other_files_stay(tmp_path: Path) -> None:
    results = store(tmp_path / "results", smollm())
    report(results, [PAIR])
    notes = results / "plots" / "my-own.png"
    notes.write_bytes(b"mine")
    old = sorted(path.name for path in (results / "plots").iterdir())
    assert "tiny.quality-vs-speed.svg" in old
    for path in (results / "runs").rglob("generate.*.json"):
        path.unlink()
    report(results, [PAIR])
    left = sorted(path.name for path in (results / "plots").iterdir())
    assert left == [name for name in old if not name.startswith(("tiny.quality-vs-speed", "tiny.quality-vs-memory"))]


def test_no_results_at_all(tmp_path: Path) -> None:
    outcome = report(tmp_path / "results", [PAIR])
    assert [str(path.relative_to(tmp_path / "results")) for path in outcome.written] == [
        *FILES,
        "site/style.css",
        "site/board.js",
        "site/index.html",
    ]
    assert "No records yet" in (tmp_path / "results" / "leaderboard.md").read_text()


def test_what_the_file_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file in the way")
    with pytest.raises(LeanboardError, match="cannot be written"):
        report(tmp_path / "results", [PAIR])


def test_nothing_of_the_place_enters_the_report(tmp_path: Path) -> None:
    results = store(tmp_path / "results", smollm())
    report(results, [PAIR])
    for name, data in content(results).items():
        assert str(tmp_path).encode() not in data, name


@pytest.mark.slow
def test_a_report_of_five_hundred_records_is_whole(tmp_path: Path) -> None:
    records = five_hundred()
    assert len(records) >= 500
    results = store(tmp_path / "results", records)
    (results / "published").mkdir()
    (results / "published" / "known.yaml").write_text(KNOWN_DENSE)
    report(results, task_groups())
    kinds = 5 + 2 * 3 + 2  # of the headline, of two sides more, and of sides against each other
    assert len(list((results / "plots").iterdir())) == 2 * 2 * kinds
    assert len(list((results / "site" / "rows").iterdir())) == 2 * 28
    assert len((results / "paired.csv").read_text().splitlines()) > 200
    one = (results / "leaderboard.md").read_text().partition("## two")[0]
    assert "Dense gate **passed**" in one
    assert "1 of 9" in one.partition("### Ranks")[2]


@pytest.mark.slow
def test_models_with_a_slash_in_their_name_have_tables_figures_and_pages(tmp_path: Path) -> None:
    """Next to those of others, in no folder of their own; and their rows are found by what the tables call them."""
    results = store(tmp_path / "results", of_the_hub())
    outcome = report(results, [PAIR])
    assert outcome.problems == []
    assert check(results, [PAIR]) == []
    folders = {path.parent.relative_to(results).as_posix() for path in outcome.written}
    assert folders <= {".", "plots", "tables", "site", "site/rows", "site/methods"}
    figures = [path.name for path in outcome.written if path.suffix == ".png"]
    assert len({name.split(".")[0] for name in figures}) == 2, figures
    rows = Rows(results)
    for model in ("lab/tiny", "other/tiny@v1.0"):
        assert f"## {model}" in (results / "leaderboard.md").read_text()
        assert rows.checkpoint(f"{model} saap").model == model
        compared = compare_rows(rows, f"{model} saap", f"{model}/dense", [PAIR])
        assert (compared.a.split("/saap")[0], compared.b.split("/dense")[0]) == (model, model)
