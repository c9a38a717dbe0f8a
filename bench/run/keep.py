"""Which checkpoints stay on the disk, and how many are there at a time. No torch.

A checkpoint that is removed can be made again from its record; records and what reports show of them stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from bench.data.files import WORK, claimed, locked, nearest
from bench.errors import UsageError, unknown
from bench.paths import artifact_path, cache_dir
from bench.record.store import Store
from bench.run.cells import Job
from bench.run.estimate import GB
from bench.run.work import BYTES
from bench.shape import Shape

if TYPE_CHECKING:
    from bench.run.plan import Plan

Keep = Literal["none", "ok", "all"]


@dataclass(frozen=True)
class Keeping:
    """Whether `none` of the checkpoints stays, those whose cells all ended as `ok`, or `all`.

    `limit` are the bytes that new ones may take, at a time where none stays; None: what is free.
    """

    keep: Keep = "all"
    limit: float | None = None

    @classmethod
    def of(cls, keep: str, limit: float | None, executor: str) -> Keeping:
        """The choice that the command line's words make.

        Raises:
            UsageError: another word, or checkpoints of Ray's nodes, which cannot be removed from here.
        """
        if keep not in get_args(Keep):
            raise unknown("choice", keep, get_args(Keep), "--keep")
        if executor == "ray" and keep != "all":
            raise UsageError(f"--keep {keep}: the checkpoints lie on Ray's nodes, where they are not removed")
        return cls(keep, limit)  # type: ignore[arg-type]

    def parts(self, jobs: Sequence[Job], plan: Plan) -> list[list[Job]]:
        """`jobs` in order, in parts whose new checkpoints fit onto the disk together; one part where they may all stay.

        Raises:
            UsageError: they do not fit, or where none stays the largest does not.
        """
        disk, room = _disk_of_new(jobs, plan), self._room(plan)
        problem = self._problem(disk, room)
        if problem is not None:
            raise UsageError(problem)
        return list(_batches(jobs, disk, room)) if self.keep == "none" else [list(jobs)]

    def problem(self, plan: Plan) -> str | None:
        """Why the checkpoints of what is to do do not fit onto the disk; None where they do."""
        jobs = [job for job in plan.open_jobs() if job.artifact.key not in plan.misfits]
        return self._problem(_disk_of_new(jobs, plan), self._room(plan))

    def remover(self, plan: Plan) -> Callable[[Job], None]:
        """To be called with each job whose worker has ended: removes its checkpoint once all its cells are recorded.

        It stays where a cell was interrupted or has no record yet (also one that a filter of this run leaves out).
        """

        def remove(job: Job) -> None:
            key = job.artifact.key
            records = [Store(job.results).load(each) for each in (key, *plan.whole[key])]
            statuses = {"none" if record is None else record.status for record in records}
            if not statuses & {"none", "interrupted"} and (self.keep == "none" or statuses != {"ok"}):
                _remove(key)

        return remove if self.keep != "all" else lambda job: None

    def _room(self, plan: Plan) -> float:
        """Bytes for checkpoints: what is free in the cache once random weights are made, `limit` at most."""
        taken = sum(BYTES[recipe.dtype] * Shape.of(recipe.config).params() for recipe in plan.unmade())
        free = shutil.disk_usage(nearest(cache_dir())).free - taken
        return free if self.limit is None else min(free, self.limit)

    def _problem(self, disk: Mapping[str, int], room: float) -> str | None:
        largest = max(disk.values(), default=0)
        need = largest if self.keep == "none" else sum(disk.values())
        if need <= room:
            return None
        what = "the largest checkpoint needs" if self.keep == "none" else "the checkpoints need"
        advice = "; with --keep none one goes before the next" if self.keep != "none" and largest <= room else ""
        there = f"{max(room, 0) / GB:.1f} GB are {'free' if self.limit is None else 'free and allowed'}"
        return f"{cache_dir()}: {what} about {need / GB:.1f} GB of disk, and {there}{advice}"


def _disk_of_new(jobs: Sequence[Job], plan: Plan) -> dict[str, int]:
    """Bytes of the checkpoints of `jobs` that are not made yet, by key."""
    keys = [job.artifact.key for job in jobs]
    return {key: plan.estimates[key].disk for key in keys if not artifact_path(key).exists()}


def _batches(jobs: Sequence[Job], disk: Mapping[str, int], room: float) -> Iterator[list[Job]]:
    """`jobs` in order, in runs whose checkpoints take at most `room` together."""
    batch: list[Job] = []
    taken = 0
    for job in jobs:
        need = disk.get(job.artifact.key, 0)
        if batch and taken + need > room:
            yield batch
            batch, taken = [], 0
        batch.append(job)
        taken += need
    if batch:
        yield batch


def _remove(key: str) -> None:
    """Remove a checkpoint, unless a worker of another run is at it."""
    path = artifact_path(key)
    with locked(path), claimed(path) as mine:
        if mine and path.is_dir():
            gone = path.rename(path.with_name(f".{path.name}.removed{WORK}"))  # at once: no half of it is ever found
            shutil.rmtree(gone, ignore_errors=True)
