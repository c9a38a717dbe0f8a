"""A small suite over a tiny model and a tiny pack, as a user would write it, and running it as a user would."""

import io
import os
import resource
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from bench.cli import main
from tests.packs import make_pack, tables
from tests.tiny import make_checkpoint

CALIBRATION = "lambada_passages/test"


def passages() -> list[dict[str, str]]:
    """Texts long enough for windows of 64 tokens."""
    return [{"text": " ".join([row["text"]] * 4)} for row in tables()["lambada_openai/test"] * 200]


def make_suite(root: Path, **changes: Any) -> Path:
    """Write model, pack and suite into `root`; returns the suite's file. `changes` replace fields of the suite."""
    if not (root / "tiny").exists():
        make_checkpoint(root / "tiny", kv_heads=2, tied=True)
        make_pack(root / "pack", tables() | {CALIBRATION: passages()})
    suite = {
        "name": "tiny",
        "description": "a test",
        "models": [str(root / "tiny")],
        "device": "cpu",
        "targets": [{"basis": "params", "value": 0.2}],
        "calibration": {"data": CALIBRATION},
        "methods": ["dense", "random"],
        "tasks": ["size", "wikitext2@128/limit2", "piqa/limit4"],
    }
    file = root / "suite.yaml"
    file.write_text(yaml.safe_dump(suite | changes))
    return file


def environment(root: Path) -> dict[str, str]:
    """Environment of a command that may use nothing but what lies in `root`."""
    repository = str(Path(__file__).parents[1])
    data = {"LEANBOARD_DATA": str(root / "pack")} if (root / "pack").exists() else {}
    return (
        os.environ
        | data
        | {
            "LEANBOARD_CACHE": str(root / "cache"),
            "LEANBOARD_OFFLINE": "1",
            "PYTHONPATH": repository,
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }
    )


def leanboard(root: Path, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the command line in `root`."""
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def here(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has all imports: for a command that computes little."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment(root) | variables),
        patch.object(sys, "argv", ["leanboard", *arguments]),
        chdir(root),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main()
    return subprocess.CompletedProcess(arguments, int(end.value.code or 0), out.getvalue(), err.getvalue())


def user_seconds(root: Path, *arguments: str, times: int) -> float:
    """What the command line computes in `root`, start-up included: the least of several times.

    Seconds in user mode, unlike those on the wall, are hardly more on a machine that is busy with other things.
    """

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = leanboard(root, *arguments)
        assert done.returncode == 0, done.stderr
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    return min(once() for _ in range(times))
