"""Disks that are full, read-only or damaged: one clear sentence or a recorded failure, and nothing good is lost."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.paths import artifact_path
from bench.record import provenance as provenance_module
from bench.record.store import Store
from bench.run import status as status_module
from bench.run.cells import Job
from bench.run.executors import run_jobs
from bench.run.status import running
from tests.faults.conftest import Tally
from tests.run.bad import jobs_of, write_plugins
from tests.run.test_sweep import good
from tests.suites import here, leanboard, make_suite

pytestmark = pytest.mark.slow

Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount a small file system of memory; it goes with the test."""
    mounted: list[Path] = []

    def call(folder: Path, options: str) -> None:
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system may be mounted here ({done.stderr.strip()})")
        mounted.append(folder)

    yield call
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def sentence(errors: str) -> str:
    """The one line that says what went wrong; there is no traceback."""
    assert "Traceback" not in errors
    [line] = [line for line in errors.splitlines() if line.startswith("leanboard: ")]
    return line


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".part"]


def test_a_full_results_folder_ends_in_a_sentence_and_keeps_what_is_there(
    tmp_path: Path, mount: Mount, tally: Tally
) -> None:
    make_suite(tmp_path, methods=["random"], tasks=["size", "wikitext2@128/limit2", "piqa/limit4"])
    results = tmp_path / "results"
    mount(results, "size=16k")
    done = leanboard(tmp_path, "run", "suite.yaml")
    assert done.returncode == 1
    assert sentence(done.stderr).endswith("cannot be written: No space left on device")
    kept = good(tmp_path)
    assert 1 <= len(kept) < 4
    assert leftovers(results) == []
    remount(results, "size=64m")
    done = here(tmp_path, "run", "suite.yaml", "--executor", "inline")
    assert done.returncode == 0, done.stderr
    after = good(tmp_path)
    assert len(after) == 4
    assert {key: after[key] for key in kept} == kept
    tally("results folder on a full disk", 1, "one sentence; goes on once there is room")


def test_a_read_only_results_folder_is_said_before_anything_is_computed(
    tmp_path: Path, mount: Mount, tally: Tally
) -> None:
    make_suite(tmp_path, methods=["dense"], tasks=["size"])
    mount(tmp_path / "results", "size=1m,ro")
    done = leanboard(tmp_path, "run", "suite.yaml")
    assert done.returncode == 1
    assert "Read-only file system" in sentence(done.stderr)
    assert not (tmp_path / "cache" / "artifacts").exists()
    remount(tmp_path / "results", "rw")
    assert here(tmp_path, "run", "suite.yaml", "--executor", "inline").returncode == 0
    remount(tmp_path / "results", "ro")
    done = leanboard(tmp_path, "run", "suite.yaml")
    assert done.returncode == 1
    assert "Read-only file system" in sentence(done.stderr)
    assert len(good(tmp_path)) == 2
    tally("read-only results folder", 2, "one sentence, before anything is computed")


FILL = """
file = open(os.environ["LEANBOARD_CACHE"] + "/filling", "wb", buffering=0)
try:
    while True:
        file.write(bytes(65536))
except OSError:
    pass
"""


@pytest.mark.faults
def test_a_cache_that_fills_up_fails_the_checkpoint_in_work(tmp_path: Path, mount: Mount, tally: Tally) -> None:
    make_suite(tmp_path, methods=["fills", "dense"], tasks=["size"], targets=[])
    write_plugins(tmp_path / "plugins", {"fills": FILL})
    mount(tmp_path / "cache", "size=40m")
    done = leanboard(tmp_path, "run", "suite.yaml", "--plugins", "plugins")
    assert done.returncode in (1, 3), done.stderr
    assert "Traceback" not in done.stderr
    [made] = [r for r in Store(tmp_path / "results").read_all()[0] if r.method == "fills" and r.kind == "artifact"]
    assert made.status == "failed"
    assert made.error is not None
    assert made.error.stage == "save"
    assert "written" in made.error.message or "No space left" in made.error.message
    (tmp_path / "cache" / "filling").unlink()
    done = leanboard(tmp_path, "run", "suite.yaml", "--plugins", "plugins", "--only", "method=dense")
    assert done.returncode == 0, done.stderr
    tally("cache full while a checkpoint is saved", 1, "that cell failed, with the reason; others go on")


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Job]]:
    """What is open of a suite that was run once."""
    make_suite(tmp_path, methods=["random"], tasks=["size", "wikitext2@128/limit2"])
    monkeypatch.setenv("LEANBOARD_DATA", str(tmp_path / "pack"))
    monkeypatch.setenv("LEANBOARD_CACHE", str(tmp_path / "cache"))
    return lambda: jobs_of(tmp_path, plugins=())


def run(jobs: list[Job]) -> None:
    run_jobs(jobs, 1, lambda event: None, executor="inline")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda folder: cut(folder / "model.safetensors"),
    "no manifest": lambda folder: (folder / "leanboard.json").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "half a folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "left over": lambda folder: folder.rename(folder.with_name(f".{folder.name}.0.part")),
}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_a_damaged_checkpoint_is_made_again_with_the_same_numbers(
    tmp_path: Path, planned: Callable[[], list[Job]], tally: Tally
) -> None:
    [job] = planned()
    run([job])
    store, folder = Store(tmp_path / "results"), artifact_path(job.artifact.key)
    measured: Any = store.load(job.cells[1].key)
    assert measured is not None
    for damage in DAMAGE.values():
        made = store.load(job.artifact.key)
        damage(folder)
        store.path_of(measured).unlink()
        run(planned())
        again: Any = store.load(measured.key)
        assert again is not None
        assert (again.status, again.metrics, again.evidence) == ("ok", measured.metrics, measured.evidence)
        assert store.load(job.artifact.key) == made
    tally("damaged or half-written checkpoint in the cache", len(DAMAGE), "made again; same numbers")


def test_a_checkpoint_with_other_weights_gives_no_number(
    tmp_path: Path, planned: Callable[[], list[Job]], tally: Tally
) -> None:
    [job] = planned()
    run([job])
    store, file = Store(tmp_path / "results"), artifact_path(job.artifact.key) / "model.safetensors"
    content = bytearray(file.read_bytes())
    for at in range(len(content) // 2, len(content) // 2 + 4000, 4):  # low bits, so that no weight becomes infinite
        content[at] ^= 0x41
        content[at + 1] ^= 0x41
        content[at + 2] ^= 0x41
    file.write_bytes(content)
    measured = store.load(job.cells[1].key)
    assert measured is not None
    store.path_of(measured).unlink()
    run(planned())
    again: Any = store.load(measured.key)
    assert again is not None
    assert again.status == "failed"
    assert again.error is not None
    assert "differ" in again.error.message
    assert again.metrics == []
    tally("flipped bits in a checkpoint's weights", 1, "that cell failed: the logits are not those it was saved with")


class LongAgo(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime(1999, 12, 31, 23, 59, tzinfo=UTC)


def test_a_clock_that_is_set_back_changes_nothing_but_the_date(
    tmp_path: Path, planned: Callable[[], list[Job]], monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    [job] = planned()
    run([job.model_copy(update={"cells": job.cells[:1]})])
    before = good(tmp_path)
    monkeypatch.setattr(provenance_module, "datetime", LongAgo)
    monkeypatch.setattr(status_module, "datetime", LongAgo)
    run(planned())
    after = good(tmp_path)
    assert len(after) == 3
    assert {key: after[key] for key in before} == before
    [late] = set(after) - set(before)
    assert after[late].startswith("1999-12-31")
    record = Store(tmp_path / "results").load(late)
    assert record is not None
    assert record.provenance.seconds > 0
    notice = {"started": "x", "written": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "at_work": []}
    folder = tmp_path / "results" / ".leanboard" / "running"
    folder.mkdir(exist_ok=True)
    (folder / "1-a.json").write_text(json.dumps(notice))
    assert running(tmp_path / "results")[0]["alive"] is False
    tally("clock set back by decades in mid-sweep", 1, "nothing computed again; times of cells are right")
