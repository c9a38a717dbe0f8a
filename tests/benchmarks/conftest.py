"""A table after the run: what the benchmarks found, and what they must reach."""

from typing import Any

import pytest

Limit = tuple[str, float, float, str]
"""What was found, its value, the limit, and whether that is the 'least' or the 'most'."""

FOUND = pytest.StashKey[list[list[Limit]]]()


@pytest.fixture
def limits(benchmark: Any, request: pytest.FixtureRequest) -> list[Limit]:
    """To be filled by the benchmark, before it asserts them."""
    mine: list[Limit] = benchmark.extra_info.setdefault("limits", [])
    request.config.stash.setdefault(FOUND, []).append(mine)
    return mine


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = [limit for limits in config.stash.get(FOUND, []) for limit in limits]
    if not found:
        return
    terminalreporter.section("found, and what it must be")
    width = max(len(what) for what, _, _, _ in found)
    for what, value, limit, side in found:
        kept = value >= limit if side == "least" else value <= limit
        terminalreporter.write_line(f"{what:{width}}  {value:6.2f}  at {side} {limit:g}{'' if kept else '  MISSED'}")
