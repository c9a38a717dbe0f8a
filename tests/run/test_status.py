"""What other terminals see of a run, how it ends when told to, and trying failed cells again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.record.store import Store
from bench.run.status import running
from tests.run.bad import write_plugins
from tests.run.test_sweep import records, start, wait_for
from tests.suites import here, make_suite

pytestmark = pytest.mark.slow

WAITS_AT_FIRST = """
if not os.path.exists("{flag}"):
    open("{flag}", "w").close()
    time.sleep(3600)
"""


Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def started() -> Iterator[Started]:
    """`start`, and the end of what was started however the test ends."""
    processes: list[subprocess.Popen[str]] = []

    def call(root: Path, *arguments: str) -> subprocess.Popen[str]:
        processes.append(start(root, "--plugins", "plugins", *arguments))
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A suite of one method that waits for an hour, but only at first, and another that fails."""
    waits = WAITS_AT_FIRST.format(flag=tmp_path / "waited")
    write_plugins(tmp_path / "plugins", {"waits": waits, "fails": "raise RuntimeError('a planted error')"})
    make_suite(tmp_path, methods=["fails", "waits"], tasks=["size"], targets=[])
    return tmp_path


def test_status_tells_of_a_run_at_work_and_of_one_that_was_killed(root: Path, started: Started) -> None:
    run = started(root)
    wait_for(lambda: (root / "waited").exists() and any("waits" in w["what"] for w in at_work(root)))
    [notice] = json.loads(here(root, "status", "--json").stdout)
    assert notice["alive"]
    assert notice["pid"] == run.pid
    assert notice["command"][:3] == ["leanboard", "run", "suite.yaml"]
    assert (notice["cells"], notice["done"], notice["failed"]) == (4, 2, 2)
    assert "a planted error" in notice["failures"][0]
    said = here(root, "status").stdout
    assert "running" in said
    assert "in flight: " in said
    time.sleep(1.1)
    assert at_work(root)[0]["seconds"] > notice["at_work"][0]["seconds"]
    assert "2/4 cells" in said
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    said = here(root, "status").stdout
    assert "ended unexpectedly" in said
    assert "lost: " in said
    assert again(root, "run", "--only", "method=waits").returncode == 0
    assert here(root, "status").stdout == "no run is active on results\n"


def again(root: Path, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A verb that runs cells, in this process."""
    return here(root, verb, "suite.yaml", "--plugins", "plugins", "--executor", "inline", *arguments)


def at_work(root: Path) -> list[dict[str, Any]]:
    return [cell for notice in running(root / "results") for cell in notice["at_work"]]


def test_being_told_to_stop_ends_with_a_record(root: Path, started: Started) -> None:
    """By SIGTERM, while a checkpoint is made; test_sweep does it by SIGINT, while one is measured."""
    run = started(root, "--only", "method=waits")
    wait_for((root / "waited").exists)
    run.terminate()
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 130
    assert "Traceback" not in errors
    [cut] = records(root).values()
    assert (cut.method, cut.status, cut.error.code) == ("waits", "interrupted", "interrupted")
    done = again(root, "retry", "--code", "timeout,interrupted")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2 cells to do, 0 cached" in done.stdout
    assert {(r.method, r.status) for r in records(root).values()} == {("waits", "ok")}


@pytest.mark.perf
def test_being_told_to_stop_takes_less_than_five_seconds(root: Path, started: Started) -> None:
    run = started(root, "--only", "method=waits")
    wait_for((root / "waited").exists)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=5)


def test_a_second_interrupt_ends_at_once() -> None:
    code = """
import time
from bench.run.interrupt import interruptible
with interruptible():
    try:
        print("ready", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("tidying", flush=True)
        time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "tidying\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_retry_runs_what_failed_so_and_what_was_skipped_for_it(root: Path) -> None:
    (root / "waited").touch()
    assert again(root, "run").returncode == 3
    before = {key: record.provenance.created for key, record in records(root).items()}
    done = again(root, "retry", "--code", "oom")
    assert done.returncode == 0
    assert done.stderr.endswith("no record of the suite has the code oom\n")
    done = again(root, "retry", "--code", "exception.RuntimeError")
    assert done.returncode == 3, done.stderr
    tried = {record.method for key, record in records(root).items() if record.provenance.created != before[key]}
    assert tried == {"fails"}
    assert Store(root / "results").read_all()[1] == []
