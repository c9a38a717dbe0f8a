"""One session: the processes of all entrants, their rounds, and what else is measured of them and of the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.data.files import read_json
from bench.measure.generation import nvml, roofline, watch
from bench.measure.generation.apart import Apart
from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.footprint import Footprint
from bench.measure.generation.rounds import Rounds, alternate
from bench.shape import Shape

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Entrant:
    """A checkpoint that takes part."""

    folder: Path
    dtype: str
    device: str

    @property
    def shape(self) -> Shape:
        return Shape.from_json(read_json(self.folder / "config.json"))


@dataclass(frozen=True)
class Session:
    """What was seen of each entrant, by its name, and of the machine.

    Attributes:
        cold: seconds from the start of its process to the first token; files may have been in the page cache.
        least: seconds that no generation of it can be below on this machine.
        machine: what the machine did (`bench.record.schema.Evidence`).
        disturbed: what disturbed the rounds; None where nothing did.
    """

    work: Workload
    rounds: Rounds
    memory: dict[str, Footprint]
    cold: dict[str, float]
    notes: list[str]
    least: dict[str, float] = field(default_factory=dict)
    machine: dict[str, float] = field(default_factory=dict)
    disturbed: str | None = None


def play(
    backend: str, entrants: Mapping[str, Entrant], work: Workload, rounds: int,
    on_progress: OnProgress = lambda done, total: None,
) -> Session:
    """Start a process for each entrant, one after another, and let them generate in turn.

    The last of them is the one under measurement: the machine is tried out in its process.

    Raises:
        LeanboardError: a checkpoint cannot be loaded, a process died, or what was timed is not what was meant to be.
        MemoryError: a process wanted for memory.
    """
    players: dict[str, Apart] = {}
    memory: dict[str, Footprint] = {}
    cold: dict[str, float] = {}
    with ExitStack() as stack:
        for name, entrant in entrants.items():
            checkpoint = Checkpoint(entrant.folder, entrant.dtype, entrant.device, work)
            player = players[name] = stack.enter_context(Apart(backend, checkpoint))
            cold[name] = player.generate(Workload(work.batch, work.prompt, 1)).stamps[-1] - player.started
            memory[name] = player.memory(work)
        pids = [player.pid for player in players.values()]
        before = watch.read(pids)
        found, notes = alternate(players, work, rounds, on_progress)
        others = nvml.foreign(player.ask("processes"), {os.getpid(), *pids})
        seen = watch.between(before, watch.read(pids), others)
        odd = roofline.odd_width(entrant.shape, entrant.device)
        tried = player.probe(
            dtype=entrant.dtype, device=entrant.device, hidden=entrant.shape.hidden, widths=odd[:2] if odd else (),
            batch=work.batch,
        )
    if odd:
        notes.append(roofline.odd_width_note(odd, len(entrant.shape.blocks), tried.products))
    if any(footprint.activations is None for footprint in memory.values()):
        notes.append("peak memory not measured: this platform cannot reset its high-water mark")
    if entrant.device.startswith("cuda") and found[name][0].joules is None:
        notes.append(nvml.MISSING)
    disturbed = seen.disturbance(tried, psutil.cpu_count() or 1)
    if disturbed:
        notes.append(f"disturbed: {disturbed}")
    least = {name: roofline.least_seconds(e.shape, work, e.dtype, tried) for name, e in entrants.items()}
    return Session(work, found, memory, cold, notes, least, seen.machine(tried), disturbed)
