"""One session: the processes of all entrants, their rounds, and what else is measured of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.measure.generation.apart import Apart
from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.footprint import Footprint
from bench.measure.generation.rounds import Rounds, alternate


@dataclass(frozen=True)
class Entrant:
    """A checkpoint that takes part."""

    folder: Path
    dtype: str
    device: str


@dataclass(frozen=True)
class Session:
    """What was seen of each entrant, by its name.

    `cold` are the seconds from the start of its process to the first token; files may have been in the page cache.
    """

    work: Workload
    rounds: Rounds
    memory: dict[str, Footprint]
    cold: dict[str, float]
    notes: list[str]


def play(
    backend: str, entrants: Mapping[str, Entrant], work: Workload, rounds: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Session:
    """Start a process for each entrant, one after another, and let them generate in turn.

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
        found, notes = alternate(players, work, rounds, on_progress)
    if any(footprint.activations is None for footprint in memory.values()):
        notes.append("peak memory not measured: this platform cannot reset its high-water mark")
    return Session(work, found, memory, cold, notes)
