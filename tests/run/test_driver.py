"""The driver's side of a Ray cluster, without one: what it makes of lost tasks, of want of room, and of other runs."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.record.store import Store
from bench.run.cells import Job
from bench.run.executors.attendant import Limits
from bench.run.executors.on_ray import TRIES, _Driver, _locked
from tests.record.test_locks import holder
from tests.run.bad import jobs_of
from tests.suites import make_suite


class RayError(Exception):
    """What Ray raises when a task is lost."""


class OutOfMemoryError(RayError):
    """What Ray raises when a task ran out of memory."""


class Cluster:
    """Stands for the module `ray`: every task starts its first cell, and then raises the next of `ends`."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, ends: list[Exception], memory: float = 1e12) -> None:
        self.ends, self.memory, self.jobs = ends, memory, list[Job]()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 64, "memory": self.memory}}, {"Alive": False, "Resources": {}}]

    def remote(self, function: Any) -> Any:
        return SimpleNamespace(options=lambda **wanted: SimpleNamespace(remote=self._start))

    def _start(self, text: str, *rest: Any) -> Any:
        self.jobs.append(Job.model_validate_json(text))
        key = self.jobs[-1].artifact.key
        return iter([json.dumps({"event": {"event": "start", "key": key, "what": ""}, "record": None}), "end"])

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return streams[:1], streams[1:]

    def get(self, told: str) -> str:
        if told == "end":
            raise self.ends.pop(0)
        return told


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    make_suite(tmp_path, methods=["dense"], tasks=["size"])
    monkeypatch.setenv("LEANBOARD_DATA", str(tmp_path / "pack"))
    [job] = jobs_of(tmp_path, plugins=())
    return job


def driven(job: Job, cluster: Cluster, memory: int = 0) -> dict[str, tuple[str, str]]:
    """How the records of checkpoint and task end: status and code."""
    _Driver(cluster, lambda event: None, Limits(), {job.artifact.key: memory}).run([job])
    return {r.kind: (r.status, r.error.code) for r in Store(job.results).read_all()[0] if r.error is not None}


SKIPPED = {"measure": ("skipped", "artifact_failed")}


def test_a_cell_whose_node_is_lost_again_and_again_is_given_up(job: Job) -> None:
    cluster = Cluster([RayError("the node died")] * 9)
    assert driven(job, cluster) == {"artifact": ("failed", "node_lost")} | SKIPPED
    assert len(cluster.jobs) == TRIES


def test_want_of_memory_is_recorded_at_once(job: Job) -> None:
    cluster = Cluster([OutOfMemoryError("the node has no more")] * 9)
    assert driven(job, cluster) == {"artifact": ("oom", "killed_for_memory")} | SKIPPED
    assert len(cluster.jobs) == 1


def test_what_no_node_has_room_for_is_said_and_not_waited_for(job: Job) -> None:
    cluster = Cluster([], memory=1e9)
    assert driven(job, cluster, memory=2 * 10**9) == {"artifact": ("failed", "no_node")} | SKIPPED
    assert cluster.jobs == []


def test_what_another_run_is_at_is_left_to_it(job: Job) -> None:
    told: list[Any] = []
    with ExitStack() as locks:
        assert _locked(job, Store(job.results), locks, told.append) == job
    other = holder(job.results, job.cells[0].key, 600)
    with ExitStack() as locks:
        left = _locked(job, Store(job.results), locks, told.append)
    assert left is not None
    assert left.cells == []
    assert told == [{"event": "wait", "key": job.cells[0].key}]
    other.kill()
    other.wait()
