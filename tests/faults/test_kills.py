"""`kill -9` at random moments of a small sweep: after resuming, all is as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.record.store import Store
from bench.record.text import AnyRecord, render
from bench.registry import task_groups
from bench.report import report
from tests.faults.conftest import Tally
from tests.record.records import provenance
from tests.run.test_sweep import good, records, start
from tests.suites import CALIBRATION, leanboard, make_suite

pytestmark = pytest.mark.faults
KILLS = 20

LORA = {"name": "lora", "steps": 6, "holdout": 4, "batch_size": 4, "micro_batch": 2, "max_length": 32}
SUITE = {
    "methods": ["random", {"name": "magnitude", "recovery": LORA}],
    "training": {"data": CALIBRATION},
    "tasks": ["size", "wikitext2@128/limit4", "boolq", "piqa"],
}
CELLS = 10


def timeless(record: AnyRecord) -> AnyRecord:
    """The record without what is measured of time and memory, and without where and when it was made."""
    changes: dict[str, object] = {"provenance": provenance()}
    if record.kind == "artifact" and record.cost is not None:
        cost: dict[str, Any] = {"seconds": {}, "peaks": {}, "peak_memory_bytes": None}
        changes["cost"] = record.cost.model_copy(update=cost)
    return record.model_copy(update=changes)


def shown(results: Path, copy: Path) -> dict[str, bytes]:
    """Every file of the timeless records under `results` and of the report that they give."""
    found, problems = Store(results).read_all()
    assert problems == []
    assert {record.status for record in found} == {"ok"}
    for record in found:
        Store(copy).write(timeless(record))
    report(copy, task_groups())
    files = {str(path.relative_to(copy)): path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    assert all(render(timeless(record)).encode() in files.values() for record in found)
    return files


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, bytes], float]]:
    """A folder with suite, model and pack; what an undisturbed sweep shows; and the seconds that it takes."""
    root = tmp_path_factory.mktemp("kills")
    make_suite(root, **SUITE)
    before = time.monotonic()
    done = leanboard(root, "run", "suite.yaml")
    seconds = time.monotonic() - before
    assert done.returncode == 0, done.stderr + done.stdout
    files = shown(root / "results", root / "undisturbed")
    assert len([name for name in files if name.startswith("runs")]) == CELLS
    yield root, files, seconds
    shutil.rmtree(root)


def fresh(root: Path) -> None:
    for name in ("results", "again", "cache/artifacts"):
        shutil.rmtree(root / name, ignore_errors=True)


def victim(run: subprocess.Popen[str], chance: random.Random) -> int:
    """The process of the run itself, or one of its workers."""
    try:
        workers = psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        workers = []
    return chance.choice([run.pid, *(worker.pid for worker in workers)])


def complete(root: Path, expected: dict[str, bytes]) -> None:
    """Run until all is done, and compare."""
    done = leanboard(root, "run", "suite.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    assert shown(root / "results", root / "again") == expected
    fresh(root)


def test_after_kills_at_random_moments_every_byte_is_that_of_an_undisturbed_sweep(
    undisturbed: tuple[Path, dict[str, bytes], float], tally: Tally
) -> None:
    root, expected, seconds = undisturbed
    fresh(root)
    chance, killed, finished = random.Random(KILLS), 0, dict[str, str]()
    while killed < KILLS:
        run = start(root)
        time.sleep(chance.uniform(0, seconds))
        if run.poll() is None:
            os.kill(victim(run, chance), signal.SIGKILL)
            killed += 1
        run.communicate(timeout=240)
        assert run.returncode in (0, 3, -signal.SIGKILL)
        now = good(root)
        assert {key: now.get(key) for key in finished} == finished, "a finished cell ran again"
        finished = now
        if len(records(root)) == len(now) == CELLS:
            complete(root, expected)
            finished = {}
    complete(root, expected)
    tally("`kill -9` of the run or its worker, at a random moment", KILLS, "resumed; records and report as undisturbed")
