"""Choose failed cells by how they failed."""

from __future__ import annotations

from collections.abc import Collection

from bench.record.store import Store
from bench.run.cells import Job


def failed_with(jobs: list[Job], codes: Collection[str]) -> list[Job]:
    """The cells of `jobs` whose last record has one of `codes` as its status or as the code of its error.

    With a checkpoint, its tasks that were skipped or never run are chosen too.
    """
    chosen, stores = [], {job.results: Store(job.results) for job in jobs}
    for job in jobs:
        store = stores[job.results]
        artifact = bool(_codes(store, job.artifact.key) & set(codes))
        wanted = {*codes, "skipped", "none"} if artifact else set(codes)
        cells = [cell for cell in job.cells if _codes(store, cell.key) & wanted]
        if artifact or cells:
            chosen.append(job.model_copy(update={"cells": cells}))
    return chosen


def _codes(store: Store, key: str) -> set[str]:
    record = store.load(key)
    if record is None:
        return {"none"}
    return {record.status, record.error.code} if record.error is not None else {record.status}
