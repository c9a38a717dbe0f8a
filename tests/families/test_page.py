"""The tutorial on families: its example is the plug-in that other tests use, its command is typed."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from bench import family
from bench.family import Family
from tests.families import seed_oss
from tests.suites import here

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-family.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_its_example_passes_the_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "_plugged_in", {})
    (_, title, text), (_, _, typed) = BLOCKS
    assert text == Path(seed_oss.__file__).read_text(encoding="utf-8")
    (tmp_path / title).parent.mkdir()
    (tmp_path / title).write_text(text, encoding="utf-8")
    done = here(tmp_path, *typed.split()[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ok +runs: .*seed_oss-mha, seed_oss-gqa", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +only removed: ", done.stdout, re.MULTILINE)


def test_its_table_has_all_fields() -> None:
    table = "".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", table)) == {field.name for field in fields(Family)} - {"title"}
