"""A sweep from end to end: nothing twice, nothing lost, and one bad cell never stops the others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.record.store import Store
from tests.run.bad import write_plugins
from tests.suites import environment, here, leanboard, make_suite

pytestmark = pytest.mark.slow

TASKS = ["size", "wikitext2@128/limit2"]
BAD_METHODS = {
    "raises": "raise RuntimeError('a planted error')",
    "exits": "import os; os._exit(7)",
    "is_killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "not_a_number": "model.lm_head.weight.data[0, 0] = float('nan')",
    "lies": "",
    "returns_nothing": "return None",
}
DEADLY = ("exits", "is_killed")
"""Those that end their process; the others need none of their own."""


def records(root: Path) -> dict[str, Any]:
    found, problems = Store(root / "results").read_all()
    assert problems == []
    return {record.key: record for record in found}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small sweep has run, its bad plug-ins included."""
    root = tmp_path_factory.mktemp("sweep")
    plugins = write_plugins(root / "plugins", BAD_METHODS)
    (plugins / "broken.py").write_text("import a_package_that_is_not_there\n")
    here_alone = [name for name in BAD_METHODS if name not in DEADLY]
    make_suite(root, methods=[*here_alone, "random"], tasks=TASKS)
    assert here(root, "run", "suite.yaml", "--plugins", "plugins", "--executor", "inline").returncode == 3
    make_suite(root, methods=["dense", *DEADLY, "random"], tasks=TASKS)
    done = leanboard(root, "run", "suite.yaml", "--plugins", "plugins", "--jobs", "2")
    (root / "stdout").write_text(done.stdout)
    assert done.returncode == 3, done.stderr + done.stdout
    return root


def test_every_cell_ends_in_a_record_with_its_code(swept: Path) -> None:
    outcome = {
        (r.method, getattr(r, "task", "compress")): (r.status, r.error.code if r.error else "")
        for r in records(swept).values()
    }
    for method in ("dense", "random"):
        assert {outcome[method, what] for what in ("compress", "size@64", *TASKS[1:])} == {("ok", "")}
    assert outcome["raises", "compress"] == ("failed", "exception.RuntimeError")
    assert outcome["exits", "compress"] == ("failed", "worker_died")
    assert outcome["is_killed", "compress"] == ("failed", "worker_died")
    assert outcome["not_a_number", "compress"] == ("failed", "MethodError")
    assert outcome["lies", "compress"] == ("failed", "MethodError")
    assert outcome["returns_nothing", "compress"] == ("failed", "MethodError")
    for method in BAD_METHODS:
        assert {outcome[method, task] for task in ("size@64", *TASKS[1:])} == {("skipped", "artifact_failed")}


def test_a_failure_says_where_and_why(swept: Path) -> None:
    [failed] = [r for r in records(swept).values() if r.method == "raises" and r.kind == "artifact"]
    assert failed.error.stage == "compress"
    assert failed.error.message == "a planted error"
    assert "RuntimeError: a planted error" in failed.error.traceback
    [lies] = [r for r in records(swept).values() if r.method == "lies" and r.kind == "artifact"]
    assert "target params=0.2: the method removed 0.0000" in lies.error.message
    [nan] = [r for r in records(swept).values() if r.method == "not_a_number" and r.kind == "artifact"]
    assert nan.error.message == "weights are not finite after compression: model.embed_tokens.weight"
    [exits] = [r for r in records(swept).values() if r.method == "exits" and r.kind == "artifact"]
    assert "exit code 7" in exits.error.message


def test_the_board_shows_what_failed(swept: Path) -> None:
    board = (swept / "results" / "leaderboard.md").read_text()
    assert "exception.RuntimeError" in board
    assert "random" in board
    assert (swept / "results" / "leaderboard.csv").exists()
    assert (swept / "results" / "long.csv").exists()


def test_a_broken_plug_in_is_listed_with_its_reason(swept: Path) -> None:
    listed = json.loads(here(swept, "methods", "--plugins", "plugins", "--json").stdout)
    [broken] = [row for row in listed if row["track"] == "broken"]
    assert broken["method"] == "broken"
    assert "a_package_that_is_not_there" in broken["title"]


def test_running_again_computes_nothing_twice(swept: Path) -> None:
    before = {key: r.provenance.created for key, r in records(swept).items() if r.status == "ok"}
    reports = {p: p.read_bytes() for p in (swept / "results").rglob("leaderboard.*")}
    done = here(swept, "run", "suite.yaml", "--plugins", "plugins", "--only", "method=random")
    assert done.returncode == 0, done.stderr
    assert "0 cells to do, 3 cached" in done.stdout
    assert {key: r.provenance.created for key, r in records(swept).items() if r.status == "ok"} == before
    assert {p: p.read_bytes() for p in reports} == reports


def test_a_lost_checkpoint_is_made_again_without_touching_its_record(swept: Path) -> None:
    import shutil

    [artifact] = [r for r in records(swept).values() if r.method == "random" and r.kind == "artifact"]
    shutil.rmtree(swept / "cache" / "artifacts" / artifact.key)
    make_suite(swept, methods=["random"], tasks=[*TASKS, "wikitext2@64/limit2"])
    done = here(swept, "run", "suite.yaml", "--executor", "inline")
    assert done.returncode == 0, done.stderr + done.stdout
    after = records(swept)
    assert after[artifact.key].provenance.created == artifact.provenance.created
    assert [r.status for r in after.values() if getattr(r, "task", "") == "wikitext2@64/limit2"] == ["ok"]


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run as a terminal would: a job in the background of a shell would have SIGINT ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", "run", "suite.yaml", *arguments],
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(what: Any, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def good(root: Path) -> dict[str, str]:
    return {key: r.provenance.created for key, r in records(root).items() if r.status == "ok"}


def test_kill_9_loses_at_most_the_cell_in_flight(tmp_path: Path) -> None:
    make_suite(tmp_path, methods=["dense", "random"], tasks=TASKS)
    run = start(tmp_path)
    wait_for(lambda: len(good(tmp_path)) >= 2)
    workers = psutil.Process(run.pid).children(recursive=True)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert alive == [], "workers outlive their parent"
    kept = good(tmp_path)
    assert len(kept) < 6
    done = here(tmp_path, "run", "suite.yaml", "--executor", "inline")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{6 - len(kept)} cells to do, {len(kept)} cached" in done.stdout
    after = good(tmp_path)
    assert len(after) == 6
    assert {key: after[key] for key in kept} == kept


def test_an_interruption_is_recorded_and_ends_with_130(tmp_path: Path) -> None:
    make_suite(tmp_path, methods=["dense"], tasks=["size", "generate@hf/b1/p8/n200"])
    run = start(tmp_path)
    wait_for(lambda: len(good(tmp_path)) >= 2)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 130
    assert "run the same command again to continue" in errors
    assert "Traceback" not in errors
    [cut] = [r for r in records(tmp_path).values() if r.status != "ok"]
    assert (cut.status, cut.error.code) == ("interrupted", "interrupted")
