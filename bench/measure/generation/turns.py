"""Checkpoints that do not fit into memory together: one process at a time, started anew for each turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psutil

from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.footprint import Footprint
from bench.measure.generation.process_client import ProcessClient
from bench.measure.generation.roofline import BYTES, MachineProbe
from bench.measure.generation.rounds import warm_up
from bench.measure.generation.timing import Generation
from bench.shape import Shape

PROCESS = 700_000_000
"""Bytes of a process with its engine, or of its context on a GPU: a guess, and on the safe side on a CPU."""
HIDDEN_USED, CHANNELS_USED = 8, 4
"""Vectors of each width that a block has for each token while it runs."""
SPARE = 1.05


def fit_together(wanted: Sequence[tuple[Checkpoint, Shape]], free: int) -> bool:
    """Whether `free` bytes hold all the checkpoints at once, each with its cache, a block at work, and its process."""
    return sum(SPARE * _need(checkpoint, shape) + PROCESS for checkpoint, shape in wanted) <= free


def _need(checkpoint: Checkpoint, shape: Shape) -> int:
    most = checkpoint.most
    cache = most.batch * (most.prompt + most.new) * 2 * shape.head_dim * sum(block.kv_heads for block in shape.blocks)
    widest = max(block.channels for block in shape.blocks)
    work = most.batch * most.prompt * (HIDDEN_USED * shape.hidden + CHANNELS_USED * widest)
    return BYTES[checkpoint.dtype] * (shape.params() + cache + work + most.batch * shape.vocab)


def free_memory(device: str) -> int:
    """Bytes that processes can still take on a device."""
    if not device.startswith("cuda"):
        return int(psutil.virtual_memory().available)
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


class Seat:
    """Room for one loaded checkpoint, in a process that `start` starts; `loads` counts those that had it."""

    def __init__(self, start: Callable[[], ProcessClient]) -> None:
        self.start = start
        self.loads = 0
        self.owner: TurnClient | None = None
        self.process: ProcessClient | None = None

    def give(self, owner: TurnClient, checkpoint: Checkpoint) -> ProcessClient:
        """A fresh process with `checkpoint`, for `owner`; that of another is ended first."""
        self.end()
        self.owner, self.process = owner, self.start()
        self.process.load(checkpoint)
        self.loads += 1
        return self.process

    def end(self) -> None:
        if self.process is not None:
            self.process.end()
        self.owner = self.process = None


class TurnClient:
    """A `ProcessClient` that gives way to others: where one of them has the seat, its own process is started again,
    loaded and warmed up before it generates. What is asked of the machine goes to whichever process is there."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._checkpoint: Checkpoint | None = None

    def end(self) -> None:
        self._seat.end()

    @property
    def started(self) -> float:
        return self._there.started

    @property
    def pid(self) -> int:
        """Of the process that has the seat."""
        return self._there.pid

    def load(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._seat.give(self, checkpoint)

    def generate(self, work: Workload) -> Generation:
        return self._mine(work).generate(work)

    def memory(self, work: Workload) -> Footprint:
        return self._mine(work).memory(work)

    def probe(self, **arguments: Any) -> MachineProbe:
        return self._there.probe(**arguments)

    def ask(self, what: str, **arguments: Any) -> Any:
        return self._there.ask(what, **arguments)

    @property
    def _there(self) -> ProcessClient:
        assert self._seat.process is not None, "load comes first"
        return self._seat.process

    def _mine(self, work: Workload) -> ProcessClient:
        if self._seat.owner is self:
            return self._there
        assert self._checkpoint is not None, "load comes first"
        process = self._seat.give(self, self._checkpoint)
        warm_up(process, work)
        return process
