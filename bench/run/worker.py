"""One worker process: makes (or finds) a checkpoint, measures the open tasks on it, writes a record for each.

Started as `python -m bench.run.worker JOB.json`. Events go to standard output as JSON lines; standard input is a
lifeline: when the parent dies, it closes, and the worker ends at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import LeanboardError
from bench.paths import cache_dir
from bench.record.provenance import provenance, without_user
from bench.record.schema import ArtifactRecord, Failure, MeasureRecord, Status
from bench.record.store import Store
from bench.registry import load_registry, tasks_named
from bench.run.cells import ArtifactCell, Job, MeasureCell

if TYPE_CHECKING:
    from bench.measure.subject import Subject

Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Run the job file named on the command line."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints joins standard error
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job = Job.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Worker(job, lambda event: print(json.dumps(event), file=events)).run()


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def artifact_path(key: str) -> Path:
    """Where the checkpoint of an artefact key lies on this machine."""
    return cache_dir() / "artifacts" / key


class Worker:
    """The cells of one job, one after another; a cell that fails is recorded, and the next goes on."""

    def __init__(self, job: Job, emit: Emit) -> None:
        self.job = job
        self.emit = emit
        self.store = Store(job.results)

    def run(self) -> None:
        self._start_up()
        failure = self._artifact()
        subject: Subject | None = None
        for cell in self.job.cells:
            if failure is not None:
                self._write(measure_record(self.job, cell, "skipped", 0.0, error=failure))
                continue
            if subject is None:
                subject = self._subject()
            self._measure(cell, subject)

    def _start_up(self) -> None:
        """Import what every job needs, which takes seconds: said before, and afterwards how many."""
        event = {"event": "start-up", "key": self.job.artifact.key}
        self.emit(event | {"seconds": None})
        start = time.perf_counter()
        import bench.model.checkpoint  # noqa: F401  torch and transformers

        self.emit(event | {"seconds": time.perf_counter() - start})

    def _artifact(self) -> Failure | None:
        """Make the checkpoint unless it is there; the reason why the other cells must be skipped, if there is one."""
        from bench.model.checkpoint import MANIFEST

        cell = self.job.artifact
        path = artifact_path(cell.key)
        recorded = self.store.finished(cell.key)
        if recorded and (path / MANIFEST).exists():
            return None
        self.emit({"event": "start", "key": cell.key, "what": "compress"})
        start = time.perf_counter()
        from bench.run.compress import Stages, build

        stages = Stages(cell.device)
        try:
            built = build(order_of(cell, self.job.plugins), path, stages, self._progress(cell.key))
        except Exception as error:
            failure = failure_of(error, stages.current)
            self._write(artifact_record(self.job, status_of(error), time.perf_counter() - start, error=failure))
            return Failure(stage=failure.stage, code="artifact_failed", message=failure.message)
        record = artifact_record(
            self.job, "ok", time.perf_counter() - start,
            achieved=built.manifest.achieved, widths=built.widths, cost=built.cost,
        )
        self._write(record, already=recorded)
        return None

    def _subject(self) -> Subject:
        from bench.measure.subject import Subject

        cell = self.job.artifact
        return Subject(artifact_path(cell.key), dense=cell.weights, dtype=cell.dtype, device=cell.device)

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
            [task] = tasks_named(cell.task)
            progress = self._progress(cell.key)
            got = measure(task, subject, Pack.default(), lambda done, total: progress("", done, total), answers)
            record = measure_record(self.job, cell, "ok", seconds(), metrics=got.metrics, evidence=got.evidence)
        except Exception as error:
            failure = failure_of(error, "measure")
            record = measure_record(self.job, cell, status_of(error), seconds(), error=failure)
        self._write(record)
        if record.status == "ok":
            answers.done()

    def _write(self, record: ArtifactRecord | MeasureRecord, already: bool = False) -> None:
        """Store `record` (unless a good one is there: remaking a lost checkpoint changes no result) and say so."""
        if not already:
            self.store.write(record)
        self.emit({
            "event": "done", "key": record.key, "status": record.status, "seconds": record.provenance.seconds,
            "message": record.error.message if record.error else "",
        })

    def _progress(self, key: str) -> Callable[[str, int, int], None]:
        last = 0.0

        def progress(what: str, done: int, total: int) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= 0.2 or done == total:
                last = now
                self.emit({"event": "progress", "key": key, "what": what, "done": done, "total": total})

        return progress


def order_of(cell: ArtifactCell, plugins: list[Path]) -> Any:
    """The `bench.run.compress.Order` that an artefact cell describes."""
    from bench.run.compress import Order, Texts

    entry = load_registry(plugins).method(cell.method)
    method = entry.cls(entry.cls.Config.model_validate(cell.config))
    texts = Texts(calibration=cell.calibration, training=cell.training)
    return Order(
        weights=cell.weights, method=method, recovery=cell.recovery, target=cell.target, seed=cell.seed,
        dtype=cell.dtype, device=cell.device, texts=texts, ingredients=cell.ingredients,
    )


def status_of(error: BaseException) -> Status:
    """How a record calls what `error` did to its cell."""
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "not enough memory" in str(error).lower():
        return "oom"
    return "interrupted" if name == "Cancelled" else "failed"


def failure_of(error: BaseException, stage: str) -> Failure:
    """What a record keeps of an error: for one of ours the sentence is enough to the user, the traceback stays."""
    code = type(error).__name__ if isinstance(error, LeanboardError) else f"exception.{type(error).__name__}"
    message = str(error).strip() or type(error).__name__
    trace = "".join(traceback.format_exception(error))
    return Failure(
        stage=stage, code=code, message=without_user(message.splitlines()[0]), traceback=without_user(trace)
    )


def _common(job: Job, status: Status, seconds: float) -> dict[str, Any]:
    cell = job.artifact
    return {
        "status": status, "model": cell.model, "method": cell.method, "preset": cell.preset,
        "recovery": cell.recovery_name, "target": cell.target_name, "seed": cell.seed,
        "provenance": provenance(seconds, job.command, job.accelerator),
    }


def artifact_record(job: Job, status: Status, seconds: float, **content: Any) -> ArtifactRecord:
    """The record of the job's checkpoint."""
    cell = job.artifact
    return ArtifactRecord(key=cell.key, ingredients=cell.ingredients, **_common(job, status, seconds), **content)


def measure_record(job: Job, cell: MeasureCell, status: Status, seconds: float, **content: Any) -> MeasureRecord:
    """The record of one measurement of the job."""
    return MeasureRecord(
        key=cell.key, ingredients=cell.ingredients, artifact=job.artifact.key, task=cell.task,
        **_common(job, status, seconds), **content,
    )


if __name__ == "__main__":
    main()
