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
from bench.shape import Shape

OnProgress = Callable[[int, int], None]


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

    Where `most` is given, larger batches follow up to that, until throughput grows no more (`rounds.saturate`). The
    last candidate is the one under measurement: the machine is tried out in its process.

    Raises:
        LeanboardError: a checkpoint cannot be loaded, a process died, or what was timed is not the workload.
        MemoryError: a process ran out of memory.
    """
    memory: dict[str, Footprint] = {}
    under_test = list(candidates)[-1]
    with ExitStack() as stack:
        processes = {name: stack.enter_context(kind(backend)) for name in reversed(list(candidates))}
        for name, process in processes.items():
            process.load(candidates[name].checkpoint(replace(work, batch=most or work.batch)))
            first = process.generate(replace(work, new=1))
            if name == under_test:
                cold = first.stamps[-1] - process.started
            memory[name] = process.memory(work)
        clients = {name: processes[name] for name in candidates}
        before = watch.read(_pids(clients))
        found, notes = saturate(clients, work, most or work.batch, rounds, on_progress)
        seen = watch.between(before, watch.read(_pids(clients)), _others_on_gpu(clients))
        tried = _try_out(clients[under_test], candidates[under_test], work, notes)
    notes += _what_is_missing(memory[under_test], candidates[under_test], found[work.batch][under_test])
    disturbed = seen.disturbance(tried, psutil.cpu_count() or 1)
    if disturbed:
        notes.append(f"disturbed: {disturbed}")
    least = {name: roofline.least_seconds(e.shape, work, e.dtype, tried) for name, e in candidates.items()}
    return Session(work, found, memory, cold, notes, least, seen.machine(tried), disturbed)


def _pids(clients: Mapping[str, ProcessClient]) -> list[int]:
    return [client.pid for client in clients.values()]


def _others_on_gpu(clients: Mapping[str, ProcessClient]) -> int | None:
    """Foreign processes on the GPU; None without a GPU, or where they cannot be counted."""
    seen = next(iter(clients.values())).ask("processes")
    return nvml.foreign(seen, {os.getpid(), *_pids(clients)})


def _try_out(client: ProcessClient, candidate: Candidate, work: Workload, notes: list[str]) -> roofline.MachineProbe:
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
