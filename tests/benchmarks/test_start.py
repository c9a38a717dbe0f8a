"""What a user waits for without any computing: the command line's answer, and the report of a large board."""

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import Limit
from tests.report.boards import five_hundred, store
from tests.suites import user_seconds

pytestmark = pytest.mark.perf


@pytest.mark.parametrize(("verb", "most"), [("--help", 0.3), ("methods", 0.3), ("report", 5.0)])
def test_reading_verbs_answer_soon(benchmark: Any, limits: list[Limit], tmp_path: Path, verb: str, most: float) -> None:
    if verb == "report":
        store(tmp_path / "results", five_hundred())
    seconds = benchmark.pedantic(user_seconds, args=(tmp_path, verb), kwargs={"times": 5})
    limits.append((f"leanboard {verb}: seconds", seconds, most, "most"))
    assert seconds <= most
