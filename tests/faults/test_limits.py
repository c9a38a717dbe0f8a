"""Limits of time and memory, and the end of what is over them."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.record.store import Store
from bench.run.executors import run_jobs
from bench.run.executors.attendant import GB, Limits
from tests.faults.conftest import Tally
from tests.run.bad import jobs_of, write_plugins
from tests.suites import environment, here, make_suite

pytestmark = pytest.mark.slow

EAT = """
held = []
while True:
    held.append(bytearray(b"x" * 20_000_000))
    time.sleep(0.02)
"""
BAD = {
    "hangs": "time.sleep(3600)",
    "eats": EAT,
    "asks_too_much": "torch.empty(10**13)",
    "leaves_a_child": "import subprocess; subprocess.Popen(['sleep', '3600'], close_fds=False); os._exit(0)",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The records of checkpoints by method, and "tasks", those of tasks."""
    root = tmp_path_factory.mktemp("limits")
    write_plugins(root / "plugins", BAD)
    make_suite(root, methods=list(BAD), tasks=["size"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEANBOARD_DATA", str(root / "pack"))
        patch.setenv("LEANBOARD_CACHE", str(root / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        jobs = {job.artifact.method: job for job in jobs_of(root)}
        run_jobs([jobs.pop("hangs")], 1, lambda event: None, limits=Limits(5, None))
        run_jobs([jobs.pop("asks_too_much")], 1, lambda event: None, executor="inline")
        run_jobs(list(jobs.values()), 1, lambda event: None, limits=Limits(None, round(1.2 * GB)))
    found, problems = Store(root / "results").read_all()
    assert problems == []
    made: dict[str, Any] = {record.method: record for record in found if record.kind == "artifact"}
    return made | {"tasks": [record for record in found if record.kind == "measure"]}


def test_a_cell_that_hangs_is_ended_and_recorded(ended: dict[str, Any], tally: Tally) -> None:
    record = ended["hangs"]
    assert (record.status, record.error.code) == ("timeout", "time_limit")
    assert record.error.message == "took longer than the limit of 5 s"
    assert 5 <= record.provenance.seconds < 3600
    tally("plug-in that hangs", 1, "its cell ends at the time limit, as timeout")


def test_a_cell_over_its_memory_is_ended_and_recorded_with_its_peak(ended: dict[str, Any], tally: Tally) -> None:
    record = ended["eats"]
    assert (record.status, record.error.code) == ("oom", "memory_limit")
    assert "more than the limit of 1.20" in record.error.message
    assert 1.2 * GB < record.error.peak_memory_bytes < 4 * GB
    tally("plug-in that eats memory, over the limit", 1, "its cell ends as oom, with its peak")


def test_what_the_allocator_refuses_is_out_of_memory_with_its_peak(ended: dict[str, Any], tally: Tally) -> None:
    record = ended["asks_too_much"]
    assert (record.status, record.error.stage, record.error.code) == ("oom", "compress", "exception.RuntimeError")
    assert "allocate" in record.error.message
    assert 0.1 * GB < record.error.peak_memory_bytes < 4 * GB
    tally("plug-in that asks for more memory than there is", 1, "its cell ends as oom, with its peak")


def test_a_worker_that_ends_well_in_the_middle_has_failed(ended: dict[str, Any], tally: Tally) -> None:
    record = ended["leaves_a_child"]
    assert (record.status, record.error.code) == ("failed", "worker_died")
    assert "exit code 0" in record.error.message
    tally("plug-in that ends the worker as if all were done", 1, "its cell failed")


def test_what_depends_on_them_is_skipped(ended: dict[str, Any]) -> None:
    assert len(ended["tasks"]) == len(BAD)
    assert {(r.status, r.error.code) for r in ended["tasks"]} == {("skipped", "artifact_failed")}


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group that the kernel lets have 1.2 GB."""
    parent = Path("/sys/fs/cgroup/memory")
    folder = (parent if parent.is_dir() else parent.parent) / f"leanboard-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if parent.is_dir() else "memory.max"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(round(1.2 * GB)))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control groups may be made here ({error.strerror})")
    yield folder
    with contextlib.suppress(OSError):
        folder.rmdir()


@pytest.mark.faults
def test_what_the_kernel_kills_for_memory_is_out_of_memory_with_its_peak(
    tmp_path: Path, cgroup: Path, tally: Tally
) -> None:
    write_plugins(tmp_path / "plugins", {"eats": EAT})
    make_suite(tmp_path, methods=["eats", "dense"], tasks=["size"])
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "run", "suite.yaml", "--plugins", "plugins"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())),
    )
    assert done.returncode == 3, done.stderr
    records, _ = Store(tmp_path / "results").read_all()
    [eats] = [r for r in records if r.method == "eats" and r.kind == "artifact"]
    assert (eats.status, eats.error.code) == ("oom", "killed_for_memory")
    assert 0.4 * GB < eats.error.peak_memory_bytes < 1.3 * GB
    assert {r.status for r in records if r.method == "dense"} == {"ok"}
    tally("worker killed by the kernel, out of memory", 1, "its cell ends as oom, with its peak")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--executor", "inlin"], "--executor: unknown executor 'inlin'; did you mean inline?"),
        (["--executor", "inline", "--time-limit", "9"], "no limit can end; use --executor local"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_planned(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    done = here(tmp_path, "run", "no-such-suite", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
