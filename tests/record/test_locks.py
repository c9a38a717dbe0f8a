"""Locks of cells between real processes."""

import subprocess
import sys
from pathlib import Path

from bench.record.locks import cell_lock
from bench.record.store import Store
from tests.record.records import accuracy, artifact, failed

HOLD = """
import sys, time
from pathlib import Path
from bench.record.locks import cell_lock
with cell_lock(Path(sys.argv[1]), sys.argv[2]) as mine:
    print(mine, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(results: Path, key: str, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(results), key, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_cell_that_another_process_holds_cannot_be_locked_until_that_dies(tmp_path: Path) -> None:
    other = holder(tmp_path, "a" * 16, 600)
    with cell_lock(tmp_path, "a" * 16) as mine, cell_lock(tmp_path, "b" * 16) as second:
        assert not mine
        assert second
    other.kill()
    other.wait()
    with cell_lock(tmp_path, "a" * 16) as mine:
        assert mine


def test_waiting_lasts_as_long_as_the_other_holds_it(tmp_path: Path) -> None:
    other = holder(tmp_path, "a" * 16, 1.0)
    with cell_lock(tmp_path, "a" * 16, wait=True) as mine:
        assert mine
        other.wait(timeout=30)


def test_the_locks_are_nothing_to_git_nor_to_the_store(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with cell_lock(tmp_path / "results", "a" * 16):
        said = subprocess.check_output(["git", "status", "--porcelain"], cwd=tmp_path)
        assert said == b""
    assert Store(tmp_path / "results").read_all() == ([], [])


def test_a_good_record_gives_way_to_a_good_one_alone(tmp_path: Path) -> None:
    store, made = Store(tmp_path), artifact()
    good = accuracy(made, "piqa@0shot", 0.5)
    path = store.write(good)
    before = path.read_bytes()
    assert store.write(failed(made, "piqa@0shot")) == path
    assert path.read_bytes() == before
    better = accuracy(made, "piqa@0shot", 0.6)
    store.write(better)
    assert store.load(good.key) == better
