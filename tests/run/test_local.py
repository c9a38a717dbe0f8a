"""What runs at the same time on one machine: as many as asked for, as memory holds, and one on a GPU."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.run.executors import local
from bench.run.executors.attendant import Limits
from bench.run.executors.local import _Pool


@dataclass(eq=False)
class Idle:
    """An attendant whose worker does nothing."""

    job: Any
    environment: dict[str, str]
    limits: Limits
    events: Any


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 bytes of memory and two GPUs."""
    monkeypatch.setattr(local, "Attendant", Idle)
    monkeypatch.setattr(local, "accelerator_ids", lambda: ["3", "GPU-b"])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=10))
    monkeypatch.setenv("OMP_NUM_THREADS", "")


def job(key: str, device: str = "cpu") -> Any:
    return SimpleNamespace(artifact=SimpleNamespace(key=key, device=device))


def start_all(pool: _Pool, waiting: list[Any]) -> list[str]:
    """Start what can start; the keys of what runs then."""
    while (found := pool.next_of(waiting)) is not None:
        waiting.remove(found)
        pool.start(found)
    return [attendant.job.artifact.key for attendant in pool.running]


def test_what_does_not_fit_waits_and_smaller_ones_go_before_it() -> None:
    waiting = [job("six"), job("five"), job("four"), job("unknown")]
    pool = _Pool(4, Limits(), {"six": 6, "five": 5, "four": 4})
    assert start_all(pool, waiting) == ["six", "four", "unknown"]
    pool.running.pop(0)
    assert start_all(pool, waiting) == ["four", "unknown", "five"]


def test_alone_a_job_starts_whatever_its_estimate() -> None:
    waiting = [job("huge"), job("small")]
    pool = _Pool(2, Limits(), {"huge": 11, "small": 1})
    assert start_all(pool, waiting) == ["huge"]


def test_no_more_than_asked_for() -> None:
    pool = _Pool(2, Limits(), {})
    assert start_all(pool, [job("a"), job("b"), job("c")]) == ["a", "b"]


@pytest.mark.parametrize("need", [40, 22], ids=["more than it has", "what it has to work with"])
def test_a_job_that_one_gpu_does_not_hold_gets_all(need: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.run.executors.local.accelerator_memory", lambda: 24 * 10**9)
    pool = _Pool(3, Limits(), {"wide": need * 10**9, "a": 20 * 10**9})
    assert start_all(pool, [job("a", "cuda"), job("wide", "cuda")]) == ["a"]
    pool.running.clear()
    assert start_all(pool, [job("wide", "cuda"), job("a", "cuda")]) == ["wide"]
    assert pool.running[0].environment["CUDA_VISIBLE_DEVICES"] == "3,GPU-b"


def test_each_job_has_a_gpu_of_its_own() -> None:
    waiting = [job("a", "cuda"), job("b", "cuda"), job("c", "cuda")]
    pool = _Pool(3, Limits(), {"a": 9, "b": 9, "c": 9})
    assert start_all(pool, waiting) == ["a", "b"]
    assert [attendant.environment["CUDA_VISIBLE_DEVICES"] for attendant in pool.running] == ["3", "GPU-b"]
    pool.running.pop(0)
    assert start_all(pool, waiting) == ["b", "c"]
    assert pool.running[1].environment["CUDA_VISIBLE_DEVICES"] == "3"
