"""A new kind of task and of metric is a class, a module and an entry; everything else takes it as it is."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner, Result

from bench import task
from bench.cli.common import app
from bench.errors import LeanboardError, UsageError
from bench.measure import measure
from bench.measure.subject import Subject
from bench.record import kinds
from bench.record.store import Store
from bench.registry import load_tasks
from bench.run.estimate import INTERPRETER
from tests.run import letters
from tests.suites import environment, make_suite

METRIC = "answers.bpl@0shot"


def declare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new kind of task, and a task of that kind."""
    monkeypatch.setitem(task.KINDS, "letters", letters.LettersTask)
    content = yaml.safe_load("{name: answers, kind: letters, description: Answers., answers: 60}")
    monkeypatch.setitem(load_tasks(), "answers", task.spec_of(content, "answers.yaml"))


@contextmanager
def in_house(root: Path) -> Iterator[None]:
    """As a user in `root`, while there are the new kinds of task and of metric."""
    kinds.KINDS.insert(kinds.KINDS.index(kinds.ACCURACY), letters.BITS_PER_LETTER)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            declare(monkeypatch)
            for name, value in environment(root).items():
                monkeypatch.setenv(name, value)
            monkeypatch.chdir(root)
            yield
    finally:
        kinds.KINDS.remove(letters.BITS_PER_LETTER)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite that measures it on five checkpoints, run in this process."""
    root = tmp_path_factory.mktemp("measured")
    targets = [{"basis": "params", "value": value} for value in (0.2, 0.3)]
    make_suite(root, methods=["dense", "random", "magnitude"], targets=targets, tasks=["size", "answers"])
    with in_house(root):
        assert "answers" in run("tasks").stdout
        planned = json.loads(run("plan", "suite.yaml", "--cells", "--json").stdout)
        assert {row["what"] for row in planned} == {"compress", "size@64", "answers@0shot"}
        assert max(row["memory (GB)"] or 0 for row in planned) * 1e9 >= 0.95 * INTERPRETER
        run("run", "suite.yaml", "--executor", "inline")
    return root


@pytest.fixture
def board(measured: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of its results."""
    shutil.copytree(measured / "results", tmp_path / "results")
    with in_house(tmp_path):
        yield tmp_path


def run(*words: str) -> Result:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.slow
def test_it_goes_through_the_whole_house(board: Path) -> None:
    publish(board)
    run("report")
    results = board / "results"
    assert any("answers@0shot" in line for line in letters.seen), letters.seen
    heads = (results / "leaderboard.csv").read_text().splitlines()[0].split(",")
    assert {METRIC, f"{METRIC} stderr", f"{METRIC} rank"} <= set(heads)
    text = (results / "leaderboard.md").read_text()
    assert f"In the order of `{METRIC}`" in text
    assert "answers bits per letter ↓" in text
    assert "answers loss (bits/letter) ↓" in text
    assert letters.BITS_PER_LETTER.footnote in text
    assert "Dense gate **passed**: 1 of 1" in text
    plots = {path.name.rpartition(".")[0].partition(".")[2] for path in (results / "plots").glob("*.svg")}
    assert plots >= {"quality-vs-size", "quality-vs-cost", "retention"}
    assert "answers bits per letter ↓" in next((results / "tables").glob("*.md")).read_text()
    assert len(list((results / "tables").glob("*.tex"))) == 1
    pages = [path.read_text() for path in (results / "site" / "rows").glob("*.html")]
    assert len(pages) == 5
    assert all('scope="rowgroup" colspan="7">Bits per letter</th>' in page for page in pages)
    index = (results / "site" / "index.html").read_text()
    assert f'data-id="{METRIC}" data-kind="bits per letter" data-unit="bits/letter" data-axis="y"' in index
    assert run("report", "--check").stdout.strip() == "every file is what the records give"
    assert "records are whole" in run("check").stdout
    assert "records are shown" in run("gc").stdout


def publish(board: Path) -> None:
    """What the dense run gave, as a known score."""
    records = [record for record in Store(board / "results").read_all()[0] if record.method == "dense"]
    [made] = [record for record in records if record.kind == "measure" and record.task == "answers@0shot"]
    row = {
        "method": "dense",
        "model": "tiny",
        "ours": {"model": made.model, "method": "dense"},
        "known": True,
        "values": {"bpl": round(made.metrics[0].value, 6)},
    }
    content = {
        "about": "a test",
        "metrics": {"bpl": {"task": "answers", "metric": "bpl", "protocol": "0shot"}},
        "tables": [{"source": "a page", "rows": [row]}],
    }
    (board / "results" / "published").mkdir()
    (board / "results" / "published" / "tiny.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.slow
def test_two_rows_are_compared_by_it(board: Path) -> None:
    shown = json.loads(run("compare", "random params=0.2", "random params=0.3", "--json").stdout)["rows"][0]["tests"]
    [test] = [test for test in shown if test["metric"] == METRIC]
    assert test["n"] == 60
    assert test["difference"]["low"] < test["difference"]["value"] < test["difference"]["high"]
    assert "bits/letter" in run("compare", "random params=0.2", "random params=0.3").stdout


@pytest.mark.slow
def test_a_value_that_its_evidence_does_not_give_is_found(board: Path) -> None:
    [path] = (board / "results").glob("runs/*/dense/*/answers.*.json")
    data = json.loads(path.read_text())
    data["metrics"][0]["value"] *= 1.01
    path.write_text(json.dumps(data) + "\n")
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 1
    assert f"{METRIC} is " in done.output
    assert "but its 60 windows give" in done.output


def test_a_metric_that_no_kind_has_is_refused_where_it_is_measured(
    tiny_mha: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch)
    [answers] = [task.Task(cast(Any, spec), "0shot") for spec in load_tasks().values() if spec.name == "answers"]
    with pytest.raises(
        LeanboardError, match=r"answers.bpl@0shot is measured in 'bits/letter' \(lower\), and bench.record"
    ):
        measure(answers, Subject(tiny_mha), None)


def test_a_kind_of_task_that_is_not_known_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"x\.yaml: unknown kind 'acuracy'; did you mean accuracy"):
        task.spec_of({"name": "x", "kind": "acuracy", "description": ""}, "x.yaml")
    with pytest.raises(UsageError, match="unknown kind of task 'letters'; known are"):
        task.kind_of_task("letters")
    content = {"name": "x", "kind": "group", "description": "", "members": ["wikitext2.ppl_token"]}
    with pytest.raises(UsageError, match=r"members: 'wikitext2\.ppl_token' is not a metric that has a mean over tasks"):
        task.spec_of(content, "x.yaml")
