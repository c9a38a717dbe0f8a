"""What an attendant makes of the memory that it sees."""

from types import SimpleNamespace
from typing import Any

import pytest

from bench.run.executors import attendant
from bench.run.executors.attendant import Attendant, Limits


@pytest.mark.parametrize(
    ("seen", "over"),
    [([4, 11, 4, 4], False), ([4, 11, 4, 11, 4], False), ([4, 11, 12], True)],
    ids=["a process is started", "two are", "over the limit"],
)
def test_memory_counts_that_is_there_at_two_looks(seen: list[int], over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(seen)
    monkeypatch.setattr(attendant, "_resident", lambda processes: next(looks))
    monkeypatch.setattr(attendant, "_family", lambda pid: [])
    mine: Any = object.__new__(Attendant)
    mine.limits, mine.verdict, mine.in_flight, mine.peak = Limits(memory=10), None, None, 0
    mine._process = SimpleNamespace(pid=1, returncode=None, poll=lambda: None)
    mine._listed, mine._processes, mine._seen = 0.0, [], 0
    killed: list[int] = []
    mine._kill = lambda: killed.append(1)
    for _ in seen:
        mine.look()
    assert bool(killed) == (mine.verdict is not None) == over
    assert mine.peak == (11 if over else 4)
