"""One worker process: makes (or finds) a checkpoint, measures the open tasks on it, writes a record for each.

Started as `python -m bench.run.worker JOB.json`. Events go to standard output as JSON lines. Standard input closes when
the parent dies; then the worker ends at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checkpoint_files import check_checkpoint, weights_sha256
from bench.data.files import locked, used
from bench.errors import DataError
from bench.measure.memory import importing
from bench.method import Progress
from bench.paths import artifact_path
from bench.record.locks import cell_lock
from bench.record.schema import ArtifactRecord, Failure, MeasureRecord
from bench.record.store import Store
from bench.registry import Registry, load_registry, share_plugins, tasks_named
from bench.run.agreement import check_checkpoint_agrees, check_task_agrees
from bench.run.cells import ArtifactCell, Job, MeasureCell
from bench.run.outcome import artifact_record, done, failure_of, measure_record, status_of
from bench.task_files import share_tasks

if TYPE_CHECKING:
    from bench.measure.subject import Subject
    from bench.model.load import Loaded
    from bench.run.compress import Order

Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Run the job file named on the command line."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what a library prints goes to standard error
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job = Job.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    share_plugins(job.plugins)
    share_tasks(job.task_folders)
    Worker(job, lambda event: print(json.dumps(event), file=events)).run()


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


class Worker:
    """The cells of one job, one after another; a cell that fails is recorded, and the next goes on."""

    def __init__(self, job: Job, emit: Emit) -> None:
        self.job = job
        self.emit = emit
        self.store = Store(job.results)
        self.loaded: Loaded | None = None

    @cached_property
    def registry(self) -> Registry:
        return load_registry(self.job.plugins)

    def run(self) -> None:
        self._start_up()
        with used(artifact_path(self.job.artifact.key)):
            self._cells()

    def _cells(self) -> None:
        failure = self._artifact()
        if failure is not None:
            for cell in self.job.cells:
                self._write(measure_record(self.job, cell, "skipped", 0.0, error=failure))
            return
        subject = self._subject()
        todo = {cell.key: partial(self._measure, cell, subject) for cell in self.job.cells}
        elsewhere = [key for key, do in todo.items() if not self._alone(key, do)]
        for key in elsewhere:  # other runs held their locks
            self._alone(key, todo[key], wait=True)

    def _alone(self, key: str, do: Callable[[], object], wait: bool = False) -> bool:
        """Do the cell of `key` unless another run has done it; False where another run holds its lock.

        With `wait`, wait for that run and keep its result, good or bad.
        """
        before = self.store.load(key)
        if wait:
            self.emit({"event": "wait", "key": key})
        with cell_lock(self.job.results, key, wait=wait) as mine:
            if not mine:
                return False
            after = self.store.load(key)
            if after is not None and (after.status == "ok" or after != before):
                self._report(after)
            else:
                do()
        return True

    def _start_up(self) -> None:
        """Import what every job needs, which takes seconds; an event before it, and one with the seconds after it."""
        event = {"event": "start-up", "key": self.job.artifact.key}
        self.emit(event | {"seconds": None})
        start = time.perf_counter()
        with importing():
            import bench.model.checkpoint  # noqa: F401  torch and transformers

        self.emit(event | {"seconds": time.perf_counter() - start})

    def _artifact(self) -> Failure | None:
        """Make the checkpoint unless it exists; returns why the other cells must be skipped, if they must."""
        key = self.job.artifact.key
        if not self.store.finished(key) and not self._alone(key, self._compress):
            self._alone(key, self._compress, wait=True)
        record = self.store.load(key)
        error = record.error if record is not None else None
        if error is None and not self._is_whole():  # it was lost or damaged, or made on another machine
            error = self._compress()
        return error and Failure(stage=error.stage, code="artifact_failed", message=error.message)

    def _is_whole(self) -> bool:
        from bench.model.checkpoint import MANIFEST

        path = artifact_path(self.job.artifact.key)
        try:
            check_checkpoint(path)
        except DataError:
            return False
        return (path / MANIFEST).exists()

    def _compress(self) -> Failure | None:
        """Make the checkpoint and record it; returns why that failed, if it did."""
        from bench.run.compress import Stages, build

        cell = self.job.artifact
        path = artifact_path(cell.key)
        with locked(path):
            already = self.store.finished(cell.key)
            if already and self._is_whole():  # another run made it meanwhile
                return None
            self.emit({"event": "start", "key": cell.key, "what": "compress"})
            start = time.perf_counter()
            stages = Stages(cell.device)
            try:
                check_checkpoint_agrees(self.job, self.registry)
                built = build(order_of(cell, self.registry), path, stages, self._progress(cell.key))
            except Exception as error:
                failure = failure_of(error, stages.current)
                self._write(artifact_record(self.job, status_of(error), time.perf_counter() - start, error=failure))
                return failure
            self.loaded = built.loaded
            self._write(
                artifact_record(
                    self.job,
                    "ok",
                    time.perf_counter() - start,
                    achieved=built.manifest.achieved,
                    widths=built.widths,
                    cost=built.cost,
                    weights_sha256=built.weights_sha256,
                ),
                already,
            )
        return None

    def _subject(self) -> Subject:
        """The checkpoint to measure; the model that was loaded to check it is used again."""
        from bench.measure.subject import Subject

        cell, (loaded, self.loaded) = self.job.artifact, (self.loaded, None)
        return Subject(artifact_path(cell.key), cell.weights, cell.dtype, cell.device, loaded)

    def _notes(self) -> list[str]:
        """Notes for the record of every measurement on the checkpoint."""
        record = self.store.load(self.job.artifact.key)
        recorded = record.weights_sha256 if isinstance(record, ArtifactRecord) else None
        if recorded in (None, weights_sha256(artifact_path(self.job.artifact.key))):
            return []
        return ["measured on a checkpoint that was made again and has other weights than the one of its record"]

    def _measure(self, cell: MeasureCell, subject: Subject) -> None:
        from bench.data.pack import Pack
        from bench.measure import measure
        from bench.measure.answers import Answers

        self.emit({"event": "start", "key": cell.key, "what": cell.task})
        start = time.perf_counter()
        answers = Answers(subject.path / f"answers.{cell.key}", cell.key)

        def seconds() -> float:
            return time.perf_counter() - start + answers.earlier_seconds

        try:
            check_task_agrees(self.job, cell, self.registry)
            [task] = tasks_named(cell.task)
            progress = partial(self._progress(cell.key), "")
            got = measure(task, subject, Pack.default(), progress, answers, is_rehearsal=self.job.is_rehearsal)
            evidence = got.evidence.model_copy(update={"notes": [*got.evidence.notes, *self._notes()]})
            record = measure_record(self.job, cell, "ok", seconds(), metrics=got.metrics, evidence=evidence)
        except Exception as error:
            failure = failure_of(error, "measure")
            record = measure_record(self.job, cell, status_of(error), seconds(), error=failure)
        self._write(record)
        if record.status == "ok":
            answers.done()

    def _write(self, record: ArtifactRecord | MeasureRecord, already: bool = False) -> None:
        """Store `record` (unless a good one is there: remaking a lost checkpoint changes no result) and report it."""
        if not already:
            self.store.write(record)
        self._report(record)

    def _report(self, record: ArtifactRecord | MeasureRecord) -> None:
        message = record.error.message if record.error else ""
        self.emit(done(record.key, record.status, message, record.provenance.seconds))

    def _progress(self, key: str) -> Progress:
        last = 0.0

        def progress(what: str, done: int, total: int) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= 0.2 or done == total:
                last = now
                self.emit({"event": "progress", "key": key, "what": what, "done": done, "total": total})

        return progress


def order_of(cell: ArtifactCell, registry: Registry) -> Order:
    """The `bench.run.compress.Order` that an artefact cell describes."""
    from bench.run.compress import Order, Texts

    entry = registry.method(cell.method)
    method = entry.cls(entry.cls.Config.model_validate(cell.config))
    texts = Texts(calibration=cell.calibration, training=cell.training)
    return Order(
        weights=cell.weights,
        method=method,
        recovery=cell.recovery,
        target=cell.target,
        seed=cell.seed,
        dtype=cell.dtype,
        device=cell.device,
        texts=texts,
        ingredients=cell.ingredients,
    )


if __name__ == "__main__":
    main()
