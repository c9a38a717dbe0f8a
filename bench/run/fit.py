"""Cells that need more memory than this machine has: found before any heavy work, and recorded as skipped. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import psutil

from bench.errors import UsageError
from bench.paths import artifact_path
from bench.record.locks import cell_lock
from bench.record.provenance import accelerator_ids
from bench.record.schema import Failure
from bench.record.store import Store
from bench.run.cells import Job
from bench.run.estimate import GB, Estimate, room_of
from bench.run.outcome import Event, artifact_record, done, measure_record


def misfits(jobs: Sequence[Job], estimates: Mapping[str, Estimate]) -> dict[str, str]:
    """The cells that this machine cannot hold, with the reason, by key; with a checkpoint go all its measurements."""
    found: dict[str, str] = {}
    for job in jobs:
        key = job.artifact.key
        takes, needs = estimates[key], estimates[key].needs
        room, where = _whole_room(job.artifact.device, takes)

        def why(need: float, room: float = room, where: str = where) -> str:
            return f"needs about {need / GB:.1f} GB of memory, and {where} {room / GB:.1f}"

        if needs[key] > room and not artifact_path(key).is_dir():
            found |= dict.fromkeys((key, *(cell.key for cell in job.cells)), why(needs[key]))
        else:
            found |= {cell.key: why(needs[cell.key]) for cell in job.cells if needs[cell.key] > room}
    return found


def _whole_room(device: str, takes: Estimate) -> tuple[float, str]:
    """Bytes of memory for one job, and whose: only a model that is spread has more than one GPU's."""
    if not takes.is_spread(device):
        return room_of(device), "a GPU has" if device == "cuda" else "this machine has"
    gpus = max(1, len(accelerator_ids()))
    room = gpus * room_of(device) + psutil.virtual_memory().total
    return room, f"{gpus} GPU{'s' * (gpus > 1)} and the CPU together have"


def split(jobs: Sequence[Job], without: Mapping[str, str]) -> tuple[list[Job], list[Job]]:
    """`jobs` without the cells in `without`, and those cells alone, by checkpoint.

    Raises:
        UsageError: nothing is left to do.
    """
    left, out = [], []
    for job in jobs:
        cells = [cell for cell in job.cells if cell.key not in without]
        if len(cells) < len(job.cells) or job.artifact.key in without:
            out.append(job.model_copy(update={"cells": [cell for cell in job.cells if cell.key in without]}))
        if job.artifact.key not in without and (cells or not job.cells):
            left.append(job.model_copy(update={"cells": cells}))
    if out and not left:
        first = out[0]
        reason = without.get(first.artifact.key) or without[first.cells[0].key]
        raise UsageError(f"nothing that is to be done fits: {first.artifact.label}: {reason}")
    return left, out


def record_misfits(jobs: Sequence[Job], reasons: Mapping[str, str], on_event: Callable[[Event], None]) -> None:
    """Record the cells of `jobs` that are in `reasons` as skipped; a machine with more room takes them up again."""
    for job in jobs:
        store = Store(job.results)
        for key in (job.artifact.key, *(cell.key for cell in job.cells)):
            if key not in reasons:
                continue
            failure = Failure(stage="plan", code="does_not_fit", message=reasons[key])
            with cell_lock(job.results, key) as mine:
                if mine and not store.finished(key):
                    cell = next((cell for cell in job.cells if cell.key == key), None)
                    store.write(
                        measure_record(job, cell, "skipped", 0.0, error=failure)
                        if cell
                        else artifact_record(job, "skipped", 0.0, error=failure)
                    )
            on_event(done(key, "skipped", reasons[key]))
