"""One session: the processes of all candidates, their rounds, and what else is measured of them and of the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from bench.data.files import read_json
from bench.measure.generation import nvml, roofline, watch
from bench.measure.generation.backend import Checkpoint, Workload
from bench.measure.generation.footprint import Footprint
from bench.measure.generation.process_client import ProcessClient
from bench.measure.generation.rounds import Rounds, saturate
from bench.measure.generation.timing import Generation
from bench.measure.generation.turns import Seat, TurnClient, fit_together, free_memory
from bench.shape import Shape

OnProgress = Callable[[int, int], None]
Process = ProcessClient | TurnClient


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that takes part."""

    folder: Path
    dtype: str
    device: str

    def checkpoint(self, most: Workload) -> Checkpoint:
        return Checkpoint(self.folder, self.dtype, self.device, most)

    @property
    def shape(self) -> Shape:
        return Shape.of(read_json(self.folder / "config.json"))


@dataclass(frozen=True)
class Session:
    """What was seen of each candidate, by its name, and of the machine.

    Attributes:
        rounds: by batch; one batch, but for a sweep.
        cold: seconds from the start of the process of the one under measurement to its first token; files may be in the
            page cache. Others import their engine meanwhile, on another core where there is one, and wait.
        least: the least seconds that a generation of it can take on this machine.
        machine: what the machine did (`bench.record.schema.Evidence`).
        disturbed: what disturbed the rounds; None where nothing did.
    """

    work: Workload
    rounds: dict[int, Rounds]
    memory: dict[str, Footprint]
    cold: float
    notes: list[str]
    least: dict[str, float] = field(default_factory=dict)
    machine: dict[str, float] = field(default_factory=dict)
    disturbed: str | None = None


def play(
    backend: str,
    candidates: Mapping[str, Candidate],
    work: Workload,
    rounds: int,
    most: int | None = None,
    on_progress: OnProgress = lambda done, total: None,
    kind: type[ProcessClient] = ProcessClient,
) -> Session:
    """Start a client of `kind` for each candidate, which has a process of its own, and let them generate in turn.

    Where memory does not hold all candidates at once, one process is there at a time, and each turn loads its own
    checkpoint anew (`turns`); the notes say so. Where `most` is given, larger batches follow up to that, until
    throughput grows no more (`rounds.saturate`). The last candidate is the one under measurement.

    Raises:
        LeanboardError: a checkpoint cannot be loaded, a process died, or what was timed is not the workload.
        MemoryError: a process ran out of memory.
    """
    memory: dict[str, Footprint] = {}
    spread: dict[str, str | None] = {}
    under_test = list(candidates)[-1]
    checkpoints = {name: c.checkpoint(replace(work, batch=most or work.batch)) for name, c in candidates.items()}
    seat = None if _all_fit(candidates, checkpoints) else Seat(lambda: kind(backend))
    with ExitStack() as stack:
        order = reversed(list(candidates)) if seat is None else list(candidates)
        processes: dict[str, Process] = {}
        for name in order:
            processes[name] = kind(backend) if seat is None else TurnClient(seat)
            stack.callback(processes[name].end)
        for name, process in processes.items():
            process.load(checkpoints[name])
            first = process.generate(replace(work, new=1))
            if name == under_test:
                cold = first.stamps[-1] - process.started
            memory[name], spread[name] = process.memory(work), process.ask("spread")
        clients = {name: processes[name] for name in candidates}
        before = watch.read(_pids(clients))
        found, notes = saturate(clients, work, most or work.batch, rounds, on_progress)
        seen = watch.between(before, watch.read(_pids(clients)), _others_on_gpu(clients))
        tried = _try_out(clients[under_test], candidates[under_test], work, notes)
    if seat is not None:
        notes.append(f"in turns: memory holds one of the models at a time, so they were loaded {seat.loads} times")
    notes += [f"{name} model: {how}, which takes time" for name, how in spread.items() if how]
    notes += _what_is_missing(memory[under_test], candidates[under_test], found[work.batch][under_test])
    disturbed = seen.disturbance(tried, psutil.cpu_count() or 1)
    if disturbed:
        notes.append(f"disturbed: {disturbed}")
    least = {name: roofline.least_seconds(e.shape, work, e.dtype, tried) for name, e in candidates.items()}
    machine = seen.machine(tried) | ({} if seat is None else {"loads": float(seat.loads)})
    return Session(work, found, memory, cold, notes, least, machine, disturbed)


def _all_fit(candidates: Mapping[str, Candidate], checkpoints: Mapping[str, Checkpoint]) -> bool:
    if len(candidates) == 1:
        return True
    wanted = [(checkpoints[name], candidate.shape) for name, candidate in candidates.items()]
    return fit_together(wanted, free_memory(checkpoints[list(candidates)[-1]].device))


def _pids(clients: Mapping[str, Process]) -> list[int]:
    return list({client.pid for client in clients.values()})


def _others_on_gpu(clients: Mapping[str, Process]) -> int | None:
    """Foreign processes on the GPU; None without a GPU, or where they cannot be counted."""
    seen = next(iter(clients.values())).ask("processes")
    return nvml.foreign(seen, {os.getpid(), *_pids(clients)})


def _try_out(client: Process, candidate: Candidate, work: Workload, notes: list[str]) -> roofline.MachineProbe:
    """What the machine can do; the cost of widths that do not suit the kernels is added to `notes`."""
    shape = candidate.shape
    odd = roofline.odd_width(shape, candidate.device)
    tried = client.probe(
        dtype=candidate.dtype,
        device=candidate.device,
        hidden=shape.hidden,
        widths=odd[:2] if odd else (),
        batch=work.batch,
    )
    if odd:
        notes.append(roofline.odd_width_note(odd, len(shape.blocks), tried.products))
    return tried


def _what_is_missing(memory: Footprint, candidate: Candidate, played: Sequence[Generation]) -> list[str]:
    """Notes on what could not be measured."""
    notes = []
    if memory.activations is None:
        notes.append("peak memory not measured: this platform cannot reset its high-water mark")
    if candidate.device.startswith("cuda") and played[0].joules is None:
        notes.append(nvml.MISSING)
    return notes
