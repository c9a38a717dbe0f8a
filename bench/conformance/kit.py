"""All checks on one method, one outcome each."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers.utils import logging

from bench.conformance.checks import CHECKS, Check
from bench.conformance.declared import Failed, NotAsked
from bench.conformance.reader import Reader
from bench.conformance.trial import Trial
from bench.errors import LeanboardError
from bench.measure.memory import set_aside
from bench.registry import MethodEntry

Status = Literal["ok", "failed", "not asked"]


@dataclass(frozen=True)
class Outcome:
    """How one check ended, and why in a sentence."""

    check: str
    status: Status
    reason: str
    seconds: float


def examine(entry: MethodEntry, reader: Reader) -> Iterator[Outcome]:
    """Run every check on `entry`, giving each outcome as it is known; `reader` loads what is saved."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="leanboard-") as folder, set_aside():
        trial = Trial(entry, Path(folder), reader)
        for title, check in CHECKS.items():
            start = time.perf_counter()
            status, reason = _ask(check, trial)
            yield Outcome(title, status, reason, time.perf_counter() - start)


def _ask(check: Check, trial: Trial) -> tuple[Status, str]:
    try:
        return "ok", check(trial)
    except NotAsked as why:
        return "not asked", str(why)
    except Exception as error:  # a method may fail in any way; the other checks go on
        return "failed", _sentence(error)


def _sentence(error: Exception) -> str:
    if os.environ.get("LEANBOARD_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, Failed | LeanboardError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text} ({last.filename}:{last.lineno})"
