"""From records to numbers: the tidy long table, and for each row and seed of the board the records that count.

What is superseded, or has lost the record of its checkpoint, is counted, never dropped without a word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from bench.record.schema import ArtifactRecord, BaseRecord, Cost, Direction, MeasureRecord, Metric
from bench.record.store import AnyRecord

LONG = [
    "model", "method", "preset", "recovery", "target", "seed", "task", "metric", "value", "unit", "direction", "n",
    "stderr", "low", "high", "status", "error", "artifact_key", "measure_key",
]


class Identity(NamedTuple):
    """What makes a row of the board."""

    model: str
    method: str
    preset: str
    recovery: str
    target: str


@dataclass
class Run:
    """One seed of a row: its checkpoint's record and the record that counts for each task."""

    artifact: ArtifactRecord | None
    measures: dict[str, MeasureRecord]


def long_frame(records: Iterable[AnyRecord]) -> pd.DataFrame:
    """Tidy table, one line per metric per record; a record without metrics has one line with its status."""
    lines = []
    for record in records:
        numbers = [_number(metric) for metric in metrics_of(record)] or [(None,) * 8]
        lines += [(*_who(record), *number, *_how(record)) for number in numbers]
    lines.sort(key=lambda line: (line[:7], str(line[7]), line[-2:]))
    frame = pd.DataFrame(lines, columns=LONG)
    frame["n"] = frame["n"].astype("Int64")
    return frame


def _who(record: AnyRecord) -> tuple[str | int, ...]:
    return (*identity_of(record), record.seed, record.task if isinstance(record, MeasureRecord) else "compress")


def _number(metric: Metric) -> tuple[object, ...]:
    bounds = metric.interval or (None, None)
    return (metric.id, metric.value, metric.unit, metric.direction, metric.n, metric.stderr, *bounds)


def _how(record: AnyRecord) -> tuple[str, ...]:
    keys = (record.artifact, record.key) if isinstance(record, MeasureRecord) else (record.key, "")
    return (record.status, record.error.code if record.error else "", *keys)


def metrics_of(record: AnyRecord) -> Sequence[Metric]:
    """The numbers of a record; those of an artifact are what was removed (fractions) and what compressing cost."""
    if isinstance(record, MeasureRecord):
        return record.metrics
    numbers: list[tuple[str, float, str, Direction]] = [
        (f"removed.{basis}", value, "fraction", "none") for basis, value in sorted(record.achieved.items())
    ]
    numbers += _cost(record.cost) if record.cost else []
    return [
        Metric(id=re.sub(r"[^a-z0-9_.]", "_", id_.lower()), value=value, unit=unit, direction=direction, n=1)
        for id_, value, unit, direction in numbers
    ]


def _cost(cost: Cost) -> list[tuple[str, float, str, Direction]]:
    """Loading, saving and reloading the checkpoint are no part of a method's own seconds."""
    seconds = [cost.seconds[stage] for stage in sorted(cost.seconds) if stage not in ("load", "save", "reload")]
    numbers = [
        ("cost.seconds", sum(seconds), "s"), ("cost.peak_memory", cost.peak_memory_bytes, "bytes"),
        ("cost.calibration_tokens", cost.calibration_tokens, "tokens"),
        ("cost.optimiser_steps", cost.optimiser_steps, "steps"),
        ("cost.trainable_parameters", cost.trainable_parameters, "parameters"),
    ]
    return [(id_, value, unit, "lower") for id_, value, unit in numbers if value is not None]


def status_text(record: BaseRecord) -> str:
    """'ok', else the status with the error's code: 'failed:nan_loss', 'oom'."""
    code = record.error.code if record.error else record.status
    return record.status if code == record.status else f"{record.status}:{code}"


def current(records: Sequence[AnyRecord]) -> tuple[dict[Identity, dict[int, Run]], list[str]]:
    """For each row and seed the newest checkpoint, and for each task the newest measurement of that checkpoint.

    Numbers of two checkpoints never stand in one row. The second result says in words what is left out.
    """
    artifacts = {record.key: record for record in records if isinstance(record, ArtifactRecord)}
    found: dict[tuple[Identity, int], list[AnyRecord]] = defaultdict(list)
    for record in records:
        found[identity_of(record), record.seed].append(record)
    runs: dict[Identity, dict[int, Run]] = defaultdict(dict)
    notes = []
    for (identity, seed), group in sorted(found.items(), key=lambda item: item[0]):
        run = runs[identity][seed] = _newest(group, artifacts)
        where = f"{' / '.join(identity)}, seed {seed}"
        if run.artifact is None:
            notes.append(f"{where}: the record of its checkpoint is missing; only its measurements are shown.")
        older = len(group) - len(run.measures) - (run.artifact is not None)
        if older:
            notes.append(f"{where}: {older} older record{'s' * (older > 1)} not shown; the newest counts.")
    return runs, notes


def _newest(group: Sequence[AnyRecord], artifacts: Mapping[str, ArtifactRecord]) -> Run:
    group = sorted(group, key=lambda record: (record.provenance.created, record.key))
    ages: dict[str, str] = {}
    for record in group:
        key = record.artifact if isinstance(record, MeasureRecord) else record.key
        ages[key] = artifacts[key].provenance.created if key in artifacts else record.provenance.created
    newest = max(ages, key=lambda key: (ages[key], key))
    measures = {r.task: r for r in group if isinstance(r, MeasureRecord) and r.artifact == newest}
    return Run(artifacts.get(newest), measures)


def identity_of(record: AnyRecord) -> Identity:
    return Identity(record.model, record.method, record.preset, record.recovery, record.target)


def text_notes(records: Iterable[AnyRecord]) -> list[str]:
    """What the measurements themselves had to say, each remark once with the methods that it is about."""
    about: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        if isinstance(record, MeasureRecord):
            for note in record.evidence.notes:
                about[record.task, note].add(record.method)
    return [f"{task} ({', '.join(sorted(about[task, note]))}): {note}" for task, note in sorted(about)]
