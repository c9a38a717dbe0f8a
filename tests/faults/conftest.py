"""What the tests of faults tried and saw, as the table of `docs/reliability.md`: `tox -e faults` writes it."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

HEAD = """# Reliability

Faults that tests really inject into small sweeps, on a tiny LLaMA: what was tried, how often, what came of it. *Lost
cells* are those that had ended well and had to be computed again, or whose record was gone. Written by
`tox -e faults` ({date}); nothing here is typed by hand.

| fault | times | outcome | lost cells |
|---|---:|---|---:|
"""
Tally = Callable[..., None]
ROWS = pytest.StashKey[dict[str, tuple[int, str, int]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = {}


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Tell of a fault once its checks have passed: (fault, times, outcome, cells lost); times of one fault add up."""
    rows = request.config.stash[ROWS]

    def tell(fault: str, times: int, outcome: str, lost: int = 0) -> None:
        before = rows.get(fault, (0, outcome, 0))
        rows[fault] = (before[0] + times, outcome, before[2] + lost)

    return tell


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the table where `LEANBOARD_RELIABILITY` says, if every test passed."""
    file, rows = os.environ.get("LEANBOARD_RELIABILITY"), session.config.stash.get(ROWS, {})
    if file and rows and exitstatus == 0:
        lines = [f"| {fault} | {times} | {outcome} | {lost} |" for fault, (times, outcome, lost) in rows.items()]
        text = HEAD.format(date=datetime.now(UTC).date().isoformat()) + "\n".join(lines) + "\n"
        Path(file).write_text(text, encoding="utf-8")
