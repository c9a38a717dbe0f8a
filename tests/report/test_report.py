import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import LeanboardError
from bench.record.schema import ArtifactRecord
from bench.record.store import AnyRecord, Store
from bench.report import check, report
from bench.report.plots import KNOWN
from tests.record.records import artifact, failed_artifact, scored, windowed
from tests.report.boards import PAIR, answers, cells, smollm, store, text_losses
from tests.suites import user_seconds

FILES = ["leaderboard.csv", "leaderboard.md", "long.csv", "paired.csv", "reproduction.csv", "reproduction.md"]
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
from bench.task import TaskGroup
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
        str(path.relative_to(results)): path.read_bytes() for path in sorted(results.rglob("*"))
        if path.is_file() and "runs" not in path.parts
    }


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
    assert len(content(a)) == len(FILES) + 4


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
    results = store(tmp_path / "results", smollm())
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
    for path in (results / "runs").rglob("generate.*.json"):
        path.unlink()
    report(results, [PAIR])
    assert sorted(path.name for path in (results / "plots").iterdir()) == [
        "my-own.png", "tiny.quality-vs-size.png", "tiny.quality-vs-size.svg",
    ]


def test_no_results_at_all(tmp_path: Path) -> None:
    outcome = report(tmp_path / "results", [PAIR])
    assert [path.name for path in outcome.written] == FILES
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


def evidence(made: ArtifactRecord, shift: float) -> list[AnyRecord]:
    """Windows and items as in a real board, worse by `shift` than the dense model."""
    noise = sum(map(ord, made.method))
    return [
        windowed(made, "wikitext2@128/limit64", text_losses(shift, seed=noise)),
        *(scored(made, f"{task}@0shot/limit500", answers(0.8 - 0.1 * shift, 500, seed=noise + i))
          for i, task in enumerate(("piqa", "arc_easy", "boolq", "winogrande", "lambada_openai"))),
    ]


def test_a_report_of_five_hundred_records_takes_less_than_three_seconds(tmp_path: Path) -> None:
    records: list[AnyRecord] = []
    for model in ("one", "two"):
        dense = cells("dense", 12.0, model=model)
        records += [*dense, *evidence(dense[0], 0.0)]
        for i, method in enumerate(["random", "magnitude", *KNOWN[:7]]):
            for removed in (0.2, 0.3, 0.4):
                made = cells(method, 13.0 + i, target=f"params={removed}", removed=removed, model=model)
                records += [*made, *evidence(made[0], 0.1 * i + removed)]
    assert len(records) >= 500
    results = store(tmp_path / "results", records)
    (results / "published").mkdir()
    (results / "published" / "known.yaml").write_text(KNOWN_DENSE)
    assert user_seconds(tmp_path, "report", times=2) < 3
    assert len((results / "paired.csv").read_text().splitlines()) > 200
    one = (results / "leaderboard.md").read_text().partition("## two")[0]
    assert "Dense gate **passed**" in one
    assert "1 of 9" in one.partition("### Ranks")[2]
