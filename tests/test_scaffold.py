"""What `leanboard new-method` writes and refuses; that it passes the kit is tested with the tutorial's commands."""

import json
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.scaffold import FILES, TEMPLATE, new_method
from tests.suites import here


def test_it_says_what_it_wrote_and_what_to_do_next(tmp_path: Path) -> None:
    done = here(tmp_path, "new-method", "my_first2", "--into", "there")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "there" / "my_first2").iterdir()) == sorted(FILES)
    assert [f"wrote there/my_first2/{name}" for name in FILES] == done.stdout.splitlines()[: len(FILES)]
    assert "  leanboard test-method my_first2 --plugins there\n" in done.stdout
    assert "  leanboard run SUITE --plugins there --only method=my_first2\n" in done.stdout
    done = here(tmp_path, "methods", "my_first2", "--plugins", "there", "--json")
    assert json.loads(done.stdout)["title"] == "my first2"
    again = here(tmp_path, "new-method", "my_first2", "--into", "there")
    assert again.returncode == 2
    assert "exists already" in again.stderr


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
