"""The records that a board does not show, and why: replaced by newer ones, or stale. Nothing is ever deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.record.rows import RowName
from bench.record.schema import MeasureRecord
from bench.record.text import AnyRecord
from bench.report.frame import Run, current, stale_of


@dataclass(frozen=True)
class Hidden:
    """A record that no board shows, and why."""

    record: AnyRecord
    why: str


def hidden(records: Sequence[AnyRecord]) -> list[Hidden]:
    """Every record that a board of `records` does not show, in the order of their keys."""
    runs, _ = current(records)
    stale = stale_of(records)
    shown = set(_keys(runs))
    found = []
    for record in sorted(records, key=lambda record: record.key):
        if record.key not in shown:
            run = runs.get(RowName.of(record), {}).get(record.seed)
            found.append(Hidden(record, stale.get(record.key) or _newer(record, run)))
    return found


def _keys(runs: Mapping[RowName, Mapping[int, Run]]) -> Iterable[str]:
    for seeds in runs.values():
        for run in seeds.values():
            yield from (measure.key for measure in run.measures.values())
            if run.artifact is not None:
                yield run.artifact.key


def _newer(record: AnyRecord, run: Run | None) -> str:
    if run is None:
        return "its checkpoint is stale"
    checkpoint = record.artifact if isinstance(record, MeasureRecord) else record.key
    if isinstance(record, MeasureRecord) and record.task in run.measures:
        newest = run.measures[record.task]
        if newest.artifact == checkpoint:
            return f"superseded by {newest.key}, measured later"
    if run.artifact is not None:
        return f"superseded: {run.artifact.key} is a newer checkpoint of the same row and seed"
    return "superseded by what was measured on a newer checkpoint"
