"""What `leanboard new-method` writes works as it is, and what it says to do next does."""

import re
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.scaffold import FILES, TEMPLATE, new_method
from tests.suites import leanboard


def test_what_is_written_passes_the_kit_unmodified(tmp_path: Path) -> None:
    done = leanboard(tmp_path, "new-method", "my_first2", "--into", "there")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "there" / "my_first2").iterdir()) == sorted(FILES)
    [command] = re.findall(r"^  leanboard (test-method .*)$", done.stdout, re.MULTILINE)
    done = leanboard(tmp_path, *command.split())
    assert done.returncode == 0, done.stdout
    assert re.search(r"^ok +size targets: ", done.stdout, re.MULTILINE)
    assert "my_first2: none of " in done.stdout


def test_no_trace_of_the_template_is_left(tmp_path: Path) -> None:
    for path in new_method("narrow", tmp_path / "plugins"):
        assert "template" not in path.read_text().lower()
    assert "class NarrowConfig" in (tmp_path / "plugins" / "narrow" / "__init__.py").read_text()
    assert sorted(p.name for p in TEMPLATE.iterdir() if p.is_file()) == sorted(FILES)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("random", "method 'random' exists already, from built in"),
        ("Mine", "'Mine' cannot be a method's name"),
        ("2to4", "'2to4' cannot be a method's name"),
        ("a-b", "'a-b' cannot be a method's name"),
        ("../up", "'../up' cannot be a method's name"),
        ("lambda", "'lambda' cannot be a method's name"),
        ("mine", "method 'mine' exists already, from .*mine"),
        ("other", "other exists already; nothing is overwritten"),
    ],
)
def test_a_name_that_does_not_do_is_refused_in_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    new_method("mine", tmp_path)
    (tmp_path / "other").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=sentence):
        new_method(name, tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if "__pycache__" not in str(p)) == before
