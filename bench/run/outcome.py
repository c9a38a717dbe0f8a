"""How a cell ended: its record, and the event that reports it."""

from __future__ import annotations

import errno
import resource
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from bench.errors import LeanboardError
from bench.record.provenance import provenance, without_user
from bench.record.schema import ArtifactRecord, Failure, MeasureRecord, Status
from bench.run.cells import Job, MeasureCell

Event = dict[str, Any]

NO_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "std::bad_alloc")
"""Messages of allocators; torch's on a CPU raises a plain RuntimeError."""


def done(key: str, status: Status, message: str, seconds: float = 0.0) -> Event:
    """The event that the cell of `key` has ended."""
    return {"event": "done", "key": key, "status": status, "seconds": seconds, "message": message}


def status_of(error: BaseException) -> Status:
    """The status in the record of a cell that `error` ended."""
    if any(_is_out_of_memory(one) for one in _chain(error)):
        return "oom"
    return "interrupted" if type(error).__name__ == "Cancelled" else "failed"


def failure_of(error: BaseException, stage: str) -> Failure:
    """An error as a record keeps it: one of ours has a sentence for the user, but the traceback is kept too."""
    code = type(error).__name__ if isinstance(error, LeanboardError) else f"exception.{type(error).__name__}"
    message = str(error).strip() or type(error).__name__
    trace = "".join(traceback.format_exception(error))
    return Failure(
        stage=stage,
        code=code,
        message=without_user(message.splitlines()[0]),
        traceback=without_user(trace),
        peak_memory_bytes=_peak_memory() if status_of(error) == "oom" else None,
    )


def artifact_record(job: Job, status: Status, seconds: float, **content: Any) -> ArtifactRecord:
    """The record of the job's checkpoint."""
    cell = job.artifact
    return ArtifactRecord(key=cell.key, ingredients=cell.ingredients, **_common(job, status, seconds), **content)


def measure_record(job: Job, cell: MeasureCell, status: Status, seconds: float, **content: Any) -> MeasureRecord:
    """The record of one measurement of the job."""
    return MeasureRecord(
        key=cell.key,
        ingredients=cell.ingredients,
        artifact=job.artifact.key,
        task=cell.task,
        **_common(job, status, seconds),
        **content,
    )


def _common(job: Job, status: Status, seconds: float) -> dict[str, Any]:
    cell = job.artifact
    return {
        "status": status,
        "model": cell.model,
        "method": cell.method,
        "preset": cell.preset,
        "recovery": cell.recovery_name,
        "target": cell.target_name,
        "seed": cell.seed,
        "provenance": provenance(seconds, job.command, job.accelerator, job.remote_code, job.revision),
    }


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(words in str(error).lower() for words in NO_MEMORY)


def _peak_memory() -> int:
    """The most bytes that this process held, without its children: on CUDA the device's, else the resident size."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
