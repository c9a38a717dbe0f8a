"""Tasks and groups of a user's folder and of installed packages, found as those built in are."""

import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import task_files
from bench.cli.common import app
from bench.errors import UsageError
from bench.paths import TASKS
from bench.registry import chance_of, load_registry, load_tasks, task_groups, tasks_named
from bench.run.plan import make_plan
from bench.suite import load_suite
from tests.packs import make_pack, tables
from tests.suites import CALIBRATION, environment, make_suite, passages

PAGE = (Path(__file__).parents[1] / "docs" / "add-a-task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```yaml title=mine/(\w+)\.yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
"""Those that the page shows."""
QUIZ, PAIR = FILES["quiz"], FILES["pair"]
SAID = (TASKS / "sciq_open.yaml").read_text(encoding="utf-8").replace("sciq_open", "said")
EMPTY = "name: {name}\nkind: {kind}\ndescription: d\n{field}: []\n"


def folder(root: Path, **files: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in (files or FILES).items():
        (root / f"{name}.yaml").write_text(text)
    return root


def quiz(n: int = 12) -> list[dict[str, str]]:
    return [
        {
            "support": f"The fox is number {i}.",
            "question": f"Which number has fox {i}?",
            "correct_answer": f"{i}",
            **{f"distractor{k}": f"{i + k}" for k in (1, 2, 3)},
        }
        for i in range(n)
    ]


def test_a_folder_adds_its_tasks_and_groups(tmp_path: Path) -> None:
    before = set(load_tasks())
    task_files.share_tasks([folder(tmp_path)])
    assert set(load_tasks()) == before | {"quiz", "pair", "letters"}
    assert [group.name for group in task_groups()] == ["can_say", "commonsense7", "pair"]
    assert [task.id for task in tasks_named("pair@0shot+nobos")] == ["quiz@0shot+nobos", "piqa@0shot+nobos"]
    assert chance_of("quiz@0shot") == 0.25


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"quiz": QUIZ.replace("chance: 0.25", "chance: 4")}, "quiz.yaml: chance: Input should be less than 1"),
        ({"quiz": QUIZ.replace("metrics:", "metrix:")}, "quiz.yaml: metrics: Field required"),
        ({"quiz": QUIZ.replace("kind: accuracy", "kind: acuracy")}, "quiz.yaml: unknown kind 'acuracy'; did you mean"),
        ({"test": QUIZ}, "test.yaml: name: 'quiz' is not the file's name"),
        ({"piqa": QUIZ.replace("quiz", "piqa")}, "piqa.yaml: name: a task 'piqa' exists already, in "),
        ({"quiz": "name: ["}, "quiz.yaml: not valid YAML"),
        ({"said": SAID.replace("sciq_olmes.", "nosuch.")}, "said.yaml: choice: unknown task with choices 'nosuch'; "),
        ({"said": SAID.replace("acc_norm", "exact_match")}, "said.yaml: choice: unknown metric of task sciq_olmes "),
        ({"moved": EMPTY.format(name="moved", kind="divergence", field="protocols")}, "moved.yaml: protocols: "),
        (
            {"timed": EMPTY.format(name="timed", kind="generation", field="rounds: 2\nprotocols")},
            "timed.yaml: protocols: ",
        ),
        (
            {"read": EMPTY.format(name="read", kind="perplexity", field="text: a/b\ncolumn: c\njoin: ''\nwindows")},
            "read.yaml: windows: ",
        ),
    ],
)
def test_a_bad_file_is_one_sentence_with_file_and_field(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["tasks", "--tasks", str(folder(tmp_path, **files))])
    assert isinstance(done.exception, UsageError)
    assert sentence in str(done.exception)
    assert str(tmp_path) in str(done.exception)


def test_a_group_of_no_task_and_a_folder_of_none_are_one_sentence(tmp_path: Path) -> None:
    task_files.share_tasks([folder(tmp_path / "a", pair=PAIR.replace("quiz", "quizz"))])
    with pytest.raises(UsageError, match=r"^group pair: unknown task 'quizz'"):
        tasks_named("pair")
    (tmp_path / "empty").mkdir()
    task_files.share_tasks([tmp_path / "empty"])
    with pytest.raises(UsageError, match=r"^--tasks: .*/empty is not a task file \(.yaml\) or a folder of such files$"):
        load_tasks()


def test_an_installed_package_adds_its_tasks_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "some_tasks")
    (tmp_path / "some_tasks" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("some", "some_tasks", "leanboard.tasks")]
    monkeypatch.setattr(task_files, "entry_points", lambda group: points)
    monkeypatch.setenv("LEANBOARD_TASKS", str(folder(tmp_path / "more", other=QUIZ.replace("quiz", "other"))))
    assert {*FILES, "other"} <= set(load_tasks())
    points[0] = EntryPoint("some", "no_such_package", "leanboard.tasks")
    monkeypatch.setenv("LEANBOARD_TASKS", str(tmp_path / "more" / "other.yaml"))
    with pytest.raises(UsageError, match=r"^entry point leanboard.tasks: some: 'no_such_package' is no installed"):
        load_tasks()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a user in a folder with a suite that measures tasks of their own."""
    make_suite(tmp_path, methods=["dense"], tasks=["pair/limit8", "letters@32+nobos", "size"])
    make_pack(tmp_path / "pack", tables() | {CALIBRATION: passages(), "quiz/test": quiz(), "letters/test": passages()})
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return folder(tmp_path / "mine")


def test_they_are_carried_to_workers_and_are_part_of_the_keys(suite: Path) -> None:
    task_files.share_tasks([suite])

    def plan() -> tuple[list[Path], str]:
        options: Any = {"model_paths": {}, "plugins": [], "only": {}, "offline": True, "command": [], "say": print}
        job = make_plan(load_suite("suite.yaml"), load_registry(), Path("results"), **options).jobs[0]
        return job.task_folders, job.cells[0].key

    folders, before = plan()
    assert folders == [suite]
    (suite / "changed").mkdir()
    (suite / "quiz.yaml").rename(suite / "changed" / "quiz.yaml")
    (suite / "changed" / "quiz.yaml").write_text(QUIZ + "version: 2\n")
    task_files.share_tasks([suite / "changed"])
    folders, after = plan()
    assert folders == [suite / "changed", suite]
    assert before != after


@pytest.mark.slow
def test_the_page_is_typed_as_it_is_written_and_the_board_has_the_mean_of_the_group(suite: Path) -> None:
    """In worker processes; `report` needs to know the group again."""
    commands = re.search(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert commands is not None
    for line in commands[1].splitlines():
        done = CliRunner().invoke(app, line.split()[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    header = Path("results/leaderboard.csv").read_text().splitlines()[0]
    for metric in ("pair.mean@0shot/limit8", "quiz.acc_norm@0shot/limit8", "letters.ppl_token@32+nobos"):
        assert metric in header
    words = ["plan", "suite.yaml", "--tasks", str(suite), "--cells", "--json"]
    listed = CliRunner().invoke(app, words, catch_exceptions=False)
    assert {row["status"] for row in json.loads(listed.stdout)} == {"finished"}
