"""A client in a process of its own, as its parent sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any

from bench import errors
from bench.errors import LeanboardError
from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.footprint import Footprint
from bench.measure.generation.roofline import MachineProbe
from bench.measure.generation.timing import Generation

KEEPS_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""For glibc: reuse freed memory for the next tensor, as the allocators used in serving do.

By default glibc decides by what was freed before whether a large block goes back to the kernel, so that one of two
equal models can spend longer in page faults.
"""
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"} | KEEPS_FREED
TAIL = 2000


class ProcessClient:
    """A fresh process that a checkpoint is loaded in; `with` ends it. Its memory, threads and crashes are its own.

    Attributes:
        started: seconds on the clock when the process was started; `perf_counter` is the same in every process.
    """

    def __init__(self, backend: str) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  open as long as the process
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.measure.generation.worker", backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | ENVIRONMENT,
            encoding="utf-8",
        )

    def __enter__(self) -> ProcessClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def load(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint; its probe is checked where it has one."""
        self.ask("load", checkpoint=checkpoint.to_json())

    def generate(self, work: Workload) -> Generation:
        """Generate once in that process, and time it there."""
        return Generation(**self.ask("generate", work=asdict(work)))

    def memory(self, work: Workload) -> Footprint:
        """Generate once, and measure the peak of memory of that process."""
        return Footprint(**self.ask("memory", work=asdict(work)))

    def probe(self, **arguments: Any) -> MachineProbe:
        """Try the machine out in that process; the arguments are those of `probe.probe`."""
        return MachineProbe(**self.ask("probe", **arguments))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, **arguments: Any) -> Any:
        """The process's answer to a command.

        Raises:
            LeanboardError: the process met an error, or died.
            MemoryError: it ran out of memory.
        """
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        try:
            orders.write(json.dumps({"do": what, **arguments}) + "\n")
            orders.flush()
        except BrokenPipeError:
            raise self._death() from None
        line = answers.readline()
        if not line:
            raise self._death()
        answer = json.loads(line)
        if "error" in answer:
            raise _error(answer["error"], answer["message"])
        return answer["answer"]

    def end(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _death(self) -> Exception:
        code = self._process.wait()
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        last = self._log.read().decode(errors="replace")[-TAIL:].strip()
        return LeanboardError(f"the process that generates died ({reason}){': ' + last if last else ''}")


def _error(name: str, message: str) -> Exception:
    if name in ("MemoryError", "OutOfMemoryError"):
        return MemoryError(message)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, LeanboardError):
        return kind(message)
    return LeanboardError(f"{name}: {message}")
