"""A sweep on a real Ray cluster of two nodes, one of which is killed in the middle."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.record.store import Store
from bench.run.executors import run_jobs
from tests.faults.conftest import Tally
from tests.run.bad import jobs_of, write_plugins
from tests.suites import environment, leanboard, make_suite

pytestmark = pytest.mark.slow

WAITS = """
from pathlib import Path
root = Path({root!r})
(root / f"at-work-{{self.name}}-{{os.getpid()}}").touch()
while not (root / "go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    body = WAITS.format(root=str(tmp_path))
    write_plugins(tmp_path / "plugins", {"one": body, "two": body})
    make_suite(tmp_path, methods=["dense", "one", "two"], tasks=["size", "wikitext2@128/limit2"], targets=[])
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return tmp_path


@pytest.fixture
def cluster(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one CPU each; it is `RAY_ADDRESS`."""
    from ray.cluster_utils import Cluster

    store = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**store, "include_dashboard": False})
    cluster.second = cluster.add_node(**store)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


def at_work(root: Path) -> list[Path]:
    return sorted(root.glob("at-work-*"))


def kill_a_node_once_both_work(root: Path, cluster: Any, killed: list[float]) -> None:
    end = time.monotonic() + 200
    while len(at_work(root)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    cluster.remove_node(cluster.second, allow_graceful=False)
    killed.append(time.time())
    while len(at_work(root)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
        if len(alive(root)) < 2:  # the one node left has room for one: the other must be let go on
            (root / "go").touch()
    (root / "go").touch()


def alive(root: Path) -> list[int]:
    return [pid for pid in (int(path.name.rpartition("-")[2]) for path in at_work(root)) if psutil.pid_exists(pid)]


def test_a_node_that_is_killed_costs_its_cell_in_flight_which_another_does_again(
    root: Path, cluster: Any, tally: Tally
) -> None:
    jobs, told, killed = jobs_of(root), list[dict[str, Any]](), list[float]()
    killer = threading.Thread(target=kill_a_node_once_both_work, args=(root, cluster, killed))
    killer.start()
    run_jobs(jobs, 1, told.append, executor="ray")
    killer.join()
    assert killed
    records, problems = Store(root / "results").read_all()
    assert problems == []
    assert {record.status for record in records} == {"ok"}
    assert len(records) == 9
    assert len(at_work(root)) == 3, "the cell that was lost is made again, and no other"
    ends = [event["key"] for event in told if event["event"] == "done"]
    assert sorted(ends) == sorted(record.key for record in records)
    assert alive(root) == [], "workers outlive their node"
    board = leanboard(root, "run", "suite.yaml", "--plugins", "plugins", "--executor", "inline")
    assert "0 cells to do, 9 cached" in board.stdout, board.stderr
    tally("node of a Ray cluster killed in mid-sweep", 1, "its cell in flight is done by another node")


@pytest.mark.faults
def test_being_told_to_stop_ends_the_tasks_and_records_what_was_in_flight(
    root: Path, cluster: Any, tally: Tally
) -> None:
    arguments = ["run", "suite.yaml", "--plugins", "plugins", "--executor", "ray", "--only", "method=one"]
    run = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=root,
        env=environment(root) | {"RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 200
    while not at_work(root) and time.monotonic() < end:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    while not (found := Store(root / "results").read_all()[0]) and run.poll() is None:
        time.sleep(0.05)
    _, errors = run.communicate(timeout=240)  # Ray's own goodbye may take seconds more
    assert run.returncode == 130, errors
    assert [(cut.method, cut.status) for cut in found] == [("one", "interrupted")]
    end = time.monotonic() + 60
    while alive(root) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive(root) == [], "workers outlive their driver"
    tally("SIGTERM to a sweep on Ray", 1, "the cell in flight is recorded as interrupted; the tasks end")
