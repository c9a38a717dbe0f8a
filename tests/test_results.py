"""The committed results, of four boards: whole records, and nothing shown but what they give."""

import subprocess
from pathlib import Path

import pytest

from bench.record.check import check_records
from bench.record.store import Store
from bench.registry import load_registry, task_groups
from bench.report import check

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[1] / "results"
DRAWN_WITH = "3.11.2"
"""matplotlib, in `locks/main.in`."""


@pytest.fixture(params=["", "full", "saap-ablation", "serving"], ids=["main", "full", "ablation", "serving"])
def results(request: pytest.FixtureRequest) -> Path:
    return RESULTS / request.param


def test_every_committed_record_can_be_read(results: Path) -> None:
    records, problems = Store(results).read_all()
    assert problems == []
    assert records


def test_committed_records_hold_what_they_say(results: Path) -> None:
    assert check_records(results) == []


def test_committed_records_come_from_a_clean_checkout(results: Path) -> None:
    records, _ = Store(results).read_all()
    assert [r.key for r in records if r.provenance.dirty is not False or not r.provenance.commit] == []


def test_what_is_shown_is_what_the_records_give(results: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    stale = check(results, task_groups(), load_registry().methods)
    if matplotlib.__version__ != DRAWN_WITH:  # another version draws other bytes
        stale = [path for path in stale if path.suffix not in (".png", ".svg")]
    assert stale == []


def test_the_readme_shows_the_board_as_it_is() -> None:
    """As it was committed, where the main job has added what this machine measured."""
    readme = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("| ") and "params=0.2" in line]
    board = (RESULTS / "leaderboard.md").read_text(encoding="utf-8")
    if any(row not in board for row in rows):
        command = ["git", "show", "HEAD:results/leaderboard.md"]
        board = subprocess.run(command, cwd=RESULTS, capture_output=True, encoding="utf-8", check=True).stdout
    assert len(rows) >= 3
    for row in rows:
        assert row in board
