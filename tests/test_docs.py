"""The tutorial is run as it is written: its files put together, its commands typed, on a tiny model."""

import csv
import importlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.suites import here, make_suite

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "add-a-method.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_every_block_is_a_file_or_a_command() -> None:
    assert PAGE.count("```") == 2 * len(BLOCKS)
    assert {kind for kind, title, _ in BLOCKS if not title} == {"console"}


def test_the_worked_example_keeps_the_contract_and_gets_its_row(tmp_path: Path) -> None:
    make_suite(tmp_path)
    files: dict[str, list[str]] = defaultdict(list)
    for _, title, text in BLOCKS:
        if title:
            files[title].append(text.replace("smollm2-135m", str(tmp_path / "tiny")))
    for title, parts in files.items():
        (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / title).write_text("\n\n".join(parts), encoding="utf-8")
    typed = [line for kind, _, text in BLOCKS if kind == "console" for line in text.splitlines()]
    commands = [line.split("#")[0].split() for line in typed]
    assert [command[:2] for command in commands] == [
        ["leanboard", "new-method"],
        ["leanboard", "test-method"],
        ["leanboard", "test-method"],
        ["leanboard", "run"],
    ]
    for command in commands:
        done = here(tmp_path, *command[1:], *(["--executor", "inline"] if command[1] == "run" else []))
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    with (tmp_path / "results" / "leaderboard.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"dense", "random", "quiet"}
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_what_the_page_names_exists() -> None:
    for path in set(re.findall(r"`(bench(?:\.\w+)+)", PAGE)):
        module, _, attribute = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), path


def test_the_page_stays_short() -> None:
    assert len(PAGE.split()) < 1500
