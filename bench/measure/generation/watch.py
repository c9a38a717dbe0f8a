"""Whether others used the machine during a session: its cores, its memory, its GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from bench.measure.generation.roofline import MachineProbe

FOREIGN_MOST = 0.1
"""The largest share of each of our threads' cores that others may have used."""
SHARE_LEAST = 0.8
"""The smallest share of a core that each of our threads must have had."""
SWAPPED_MOST = 2**20
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")


@dataclass(frozen=True)
class Reading:
    """Counters of the machine and of our processes, in seconds and bytes."""

    wall: float
    busy: float
    own: float
    swapped: int


@dataclass(frozen=True)
class Watch:
    """What went on between two readings.

    Attributes:
        foreign: cores that others used on average, the hypervisor among them.
        swapped: bytes that went to or came from swap.
        others: foreign processes on the GPU; None without a GPU, or where they cannot be counted.
    """

    foreign: float
    swapped: int
    others: int | None = None

    def disturbance(self, tried: MachineProbe, cores: int) -> str | None:
        """What disturbed a session, in words; None where nothing did.

        `cores` are those of the machine: others may use what our threads leave free.
        """
        threads, reasons = tried.threads, []
        if self.foreign > max(0, cores - threads) + FOREIGN_MOST * threads:
            reasons.append(f"others used {self.foreign:.1f} of {cores} cores")
        if tried.share is not None and tried.share < SHARE_LEAST:
            reasons.append(f"each compute thread had {tried.share:.0%} of a core")
        if self.swapped > SWAPPED_MOST:
            reasons.append(f"the machine swapped {self.swapped / 2**20:.0f} MiB")
        if self.others:
            reasons.append(f"foreign processes on the GPU: {self.others}")
        return "; ".join(reasons) or None

    def machine(self, tried: MachineProbe) -> dict[str, float]:
        """What a record keeps of the machine."""
        kept = {"bandwidth": tried.bandwidth, "rate": tried.rate, "threads": float(tried.threads)}
        kept |= {"foreign_cores": self.foreign, "swapped_bytes": float(self.swapped)}
        return kept if tried.share is None else kept | {"core_share": tried.share}


def read(pids: Sequence[int]) -> Reading:
    """The counters now, of this process, its children that have ended, and `pids` as ours."""
    busy, swap = psutil.cpu_times(), psutil.swap_memory()
    children = psutil.Process().cpu_times()
    own = children.children_user + children.children_system
    for pid in [os.getpid(), *pids]:
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            own += times.user + times.system
    return Reading(time.perf_counter(), sum(getattr(busy, name, 0.0) for name in BUSY), own, swap.sin + swap.sout)


def between(before: Reading, after: Reading, others: int | None = None) -> Watch:
    """What went on from one reading to the other."""
    wall = max(1e-9, after.wall - before.wall)
    foreign = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / wall
    return Watch(foreign, after.swapped - before.swapped, others)
