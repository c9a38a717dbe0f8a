"""A client in this very process, for rehearsals: nothing is started, and no second of it means anything."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from bench.measure.generation.backend import Workload
from bench.measure.generation.process_client import ProcessClient
from bench.measure.generation.roofline import MachineProbe
from bench.measure.generation.timing import Generation
from bench.measure.generation.worker import Stage


class InProcessClient(ProcessClient):
    """Commands and answers are those of a client in a process of its own; the machine is not tried out."""

    def __init__(self, backend: str) -> None:
        self.started = time.perf_counter()
        self._stage = Stage(backend)

    def ask(self, what: str, **arguments: Any) -> Any:
        return self._stage.do({"do": what, **arguments})

    def generate(self, work: Workload) -> Generation:
        """Its ids are checked, but not how long the device was waited for: a few tokens take no time."""
        return replace(super().generate(work), waited=0.0)

    def probe(self, **arguments: Any) -> MachineProbe:
        return MachineProbe(bandwidth=1.0, rate=1.0, threads=1, share=None, products=[1.0] * len(arguments["widths"]))

    @property
    def pid(self) -> int:
        return os.getpid()

    def end(self) -> None:
        self.__dict__.pop("_stage", None)
