"""Run code that needs torch in a process of its own, where torch must not be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_module(module: str, *arguments: str) -> str | None:
    """Run a module in a process of its own; the last line of its error output where it fails, else None."""
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}; the machine may be out of memory"
    return None if done.returncode == 0 else last_words(done)


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process failed: the last line of its error output, or its exit code where it said nothing."""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
