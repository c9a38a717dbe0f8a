"""Methods from elsewhere: a folder, a file and an installed package; rows on the board, and nothing edited."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.registry import load_registry, load_tasks
from bench.scaffold import new_method
from tests.suites import environment, here, leanboard, make_suite

pytestmark = pytest.mark.slow

BROKEN = "import a_module_that_does_not_exist\n"
FILE = '''
from bench.method import Context, Method, Traits

class Same(Method):
    """Changes nothing."""

    name, version, traits = "same", "1", Traits(title="Same", track="control")

    def compress(self, model, ctx: Context):
        return model
'''


def install(name: str, site: Path) -> None:
    """What `pip install` would leave behind of a package with an entry point."""
    new_method(name, site)
    info = site / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: leanboard-{name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[leanboard.methods]\n{name} = {name}\n")


def test_a_folder_a_file_and_a_package_get_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_method("dropped_in", tmp_path / "plugins")
    (tmp_path / "alone.py").write_text(FILE)
    install("installed", tmp_path / "site")
    make_suite(
        tmp_path,
        tasks=["size"],
        methods=["dense", "same", {"name": "dropped_in", "preset": "quick"}, {"name": "installed", "preset": "quick"}],
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return here(tmp_path, *arguments, "--plugins", "plugins", "--plugins", "alone.py")

    rows = {row["method"]: row for row in json.loads(run("methods", "--json").stdout)}
    assert rows["installed"]["origin"] == "package leanboard-installed"
    assert rows["dropped_in"]["presets"] == rows["installed"]["presets"] == "default, quick, paper"
    for name in ("dropped_in", "installed"):
        assert json.loads(run("methods", name, "--json").stdout)["card"].startswith(f"# {name.replace('_', ' ')}")
    done = run("run", "suite.yaml", "--executor", "inline")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "results" / "leaderboard.csv").open() as file:
        board = {row["method"]: row for row in csv.DictReader(file)}
    assert set(board) == {"dense", "same", "dropped_in", "installed"}
    assert {row["status"] for row in board.values()} == {"ok"}
    markdown = (tmp_path / "results" / "leaderboard.md").read_text()
    for name in board:
        assert f"| {name} " in markdown


def test_a_broken_plug_in_is_named_with_its_reason_and_the_others_work(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "alone.py").write_text(FILE)
    (tmp_path / "taken.py").write_text(FILE.replace('"same"', '"random"'))
    (tmp_path / "_private.py").write_text(BROKEN)
    registry = load_registry([tmp_path])
    assert registry.method("same").folder is None
    assert set(registry.broken) == {"broken", "taken"}
    assert "No module named 'a_module_that_does_not_exist'" in registry.broken["broken"]
    assert "method 'random' exists already, from built in" in registry.broken["taken"]
    with pytest.raises(UsageError, match=r"method 'broken' cannot be loaded: .*broken\.py: ModuleNotFoundError"):
        registry.method("broken")


def test_a_plug_in_is_found_by_folder_by_package_and_by_file(tmp_path: Path) -> None:
    new_method("mine", tmp_path)
    (tmp_path / "alone.py").write_text(FILE)
    assert {"mine", "same"} <= set(load_registry([tmp_path]).methods)
    found = load_registry([tmp_path / "mine"]).methods
    assert found["mine"].folder == tmp_path / "mine"
    assert "same" not in found
    assert "same" in load_registry([tmp_path / "alone.py"]).methods
    for wrong in (tmp_path / "nowhere", tmp_path / "mine" / "card.md"):
        with pytest.raises(UsageError, match="is not a folder or a Python file"):
            load_registry([wrong])


def test_a_failed_check_ends_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(FILE.replace("return model", "return None"))
    done = here(tmp_path, "test-method", "same", "--plugins", "alone.py", "--json")
    assert done.returncode == 1, done.stderr
    outcomes = {row["check"]: row for row in json.loads(done.stdout)}
    assert outcomes["runs"]["status"] == "failed"
    assert outcomes["runs"]["reason"] == "mha: compress() returned NoneType, not the model"
    assert outcomes["presets and card"]["status"] == "ok"


def test_a_users_methods_and_tasks_hide_none_of_ours(tmp_path: Path) -> None:
    """Neither from a script next to them nor from a run and its workers."""
    make_suite(tmp_path, methods=["random"], tasks=["size"])
    (tmp_path / "methods.py").write_text("MINE = 1\n")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("MINE = 2\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import methods, tasks\n"
        "from bench.registry import load_registry, load_tasks\n"
        "from bench.suite import load_suite\n"
        "print(methods.MINE, tasks.MINE, len(load_registry().methods), len(load_tasks()), load_suite('smollm').name)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "2", str(len(load_registry().methods)), str(len(load_tasks())), "smollm"]
    run = leanboard(tmp_path, "run", "suite.yaml")
    assert run.returncode == 0, run.stderr
