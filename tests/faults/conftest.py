"""What the tests of faults tried and saw, as the table of `docs/reliability.md`: `tox -e faults` writes it."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

HEAD = """# Reliability

Faults that tests really inject into small sweeps, on a tiny LLaMA: what was tried, how often, what came of it, and when
that was last seen. *Lost cells* are those that had ended well and had to be computed again, or whose record was gone.
Written by `tox -e faults`, a row where the checks of its fault have passed; nothing here is typed by hand.

| fault | times | outcome | lost cells | seen |
|---|---:|---|---:|---|
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
    """Write the table where `LEANBOARD_RELIABILITY` says, if every test passed; rows of other sessions stay."""
    given, rows = os.environ.get("LEANBOARD_RELIABILITY"), session.config.stash.get(ROWS, {})
    if given and rows and exitstatus == 0:
        file, today = Path(given), datetime.now(UTC).date().isoformat()
        old = file.read_text(encoding="utf-8").removeprefix(HEAD).splitlines() if file.exists() else []
        lines = {line.split(" | ")[0].removeprefix("| "): line for line in old}
        lines |= {
            fault: f"| {fault} | {times} | {outcome} | {lost} | {today} |"
            for fault, (times, outcome, lost) in rows.items()
        }
        file.write_text(HEAD + "\n".join(lines[fault] for fault in sorted(lines)) + "\n", encoding="utf-8")
