"""From records to numbers: the tidy long table, and for each row and seed of the board the records that count.

Records that are superseded or stale, or whose checkpoint has no record, are counted and reported, never just dropped.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.record.kinds import kind_of
from bench.record.rows import RowName
from bench.record.schema import ArtifactRecord, BaseRecord, Cost, Direction, MeasureRecord, Metric
from bench.record.text import AnyRecord

LONG = [
    "model",
    "method",
    "preset",
    "recovery",
    "target",
    "calibration",
    "seed",
    "task",
    "metric",
    "side",
    "value",
    "unit",
    "direction",
    "n",
    "stderr",
    "low",
    "high",
    "status",
    "error",
    "artifact_key",
    "measure_key",
]


@dataclass
class Run:
    """One seed of a row: its checkpoint's record and the record that counts for each task.

    `stale` are the tasks that only an older engine measured, with its name.
    """

    artifact: ArtifactRecord | None
    measures: dict[str, MeasureRecord]
    stale: dict[str, str]


def long_frame(records: Iterable[AnyRecord]) -> pd.DataFrame:
    """Tidy table, one line per metric per record; a record without metrics has one line with its status."""
    lines = []
    for record in records:
        numbers = [_number(metric) for metric in metrics_of(record)] or [(None,) * 9]
        lines += [(*_who(record), *number, *_how(record)) for number in numbers]
    lines.sort(key=lambda line: (line[:8], str(line[8]), line[-2:]))
    frame = pd.DataFrame(lines, columns=LONG)
    frame["n"] = frame["n"].astype("Int64")
    return frame


def _who(record: AnyRecord) -> tuple[str | int, ...]:
    return (*RowName.of(record), record.seed, record.task if isinstance(record, MeasureRecord) else "compress")


def _number(metric: Metric) -> tuple[object, ...]:
    bounds = metric.interval or (None, None)
    side, value = kind_of(metric.id).side, (metric.value, metric.unit, metric.direction, metric.n, metric.stderr)
    return (metric.id, side, *value, *bounds)


def _how(record: AnyRecord) -> tuple[str, ...]:
    keys = (record.artifact, record.key) if isinstance(record, MeasureRecord) else (record.key, "")
    return (record.status, record.error.code if record.error else "", *keys)


def metrics_of(record: AnyRecord) -> Sequence[Metric]:
    """The numbers of a record; those of an artifact are the removed fractions and the cost of compressing."""
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
    """The metrics of a cost. Loading, saving and reloading the checkpoint are not part of a method's seconds."""
    seconds = [cost.seconds[stage] for stage in sorted(cost.seconds) if stage not in ("load", "save", "reload")]
    numbers = [
        ("cost.seconds", sum(seconds), "s"),
        ("cost.peak_memory", cost.peak_memory_bytes, "bytes"),
        ("cost.calibration_tokens", cost.calibration_tokens, "tokens"),
        ("cost.optimiser_steps", cost.optimiser_steps, "steps"),
        ("cost.trainable_parameters", cost.trainable_parameters, "parameters"),
    ]
    return [(id_, value, unit, "lower") for id_, value, unit in numbers if value is not None]


def status_text(record: BaseRecord) -> str:
    """'ok', else the status with the error's code: 'failed:nan_loss', 'oom'."""
    code = record.error.code if record.error else record.status
    return record.status if code == record.status else f"{record.status}:{code}"


def stale_of(records: Iterable[AnyRecord]) -> dict[str, str]:
    """Key -> why a record is stale: on the same model its method, or for the same task its engine, has a newer version.

    Two versions give different numbers, so they never share a column. A version without a good record replaces nothing.
    """
    records = list(records)
    versions = {record.key: version for record in records if (version := _version(record)) is not None}
    newest: dict[tuple[str, ...], int] = {}
    for record in records:
        if record.key in versions and record.status == "ok":
            what, number = versions[record.key]
            newest[what] = max(number, newest.get(what, 0))
    return {
        key: f"stale: {what[-1]}/{number}, and there is {what[-1]}/{newest[what]}"
        for key, (what, number) in versions.items()
        if number < newest.get(what, 0)
    }


def _version(record: AnyRecord) -> tuple[tuple[str, ...], int] | None:
    """The engine or method of a record, and its version: ((model, task, 'perplexity'), 2), ((model, 'saap'), 1)."""
    parts = record.ingredients
    text = parts.get("engine") if isinstance(record, MeasureRecord) else f"{record.method}/{parts.get('version')}"
    found = re.match(r"([a-z0-9_]+)/(\d+)(?:\s|$)", str(text))
    where = (record.model, record.task) if isinstance(record, MeasureRecord) else (record.model,)
    return ((*where, found[1]), int(found[2])) if found else None


def current(records: Sequence[AnyRecord]) -> tuple[dict[RowName, dict[int, Run]], list[str]]:
    """For each row and seed the newest checkpoint, and for each task the newest measurement of that checkpoint.

    Numbers of two checkpoints are never in one row, and those of two versions of a method or an engine never in one
    board. The second result lists in words what is left out.
    """
    artifacts = {record.key: record for record in records if isinstance(record, ArtifactRecord)}
    stale = stale_of(records)
    found: dict[tuple[RowName, int], list[AnyRecord]] = defaultdict(list)
    for record in records:
        found[RowName.of(record), record.seed].append(record)
    runs: dict[RowName, dict[int, Run]] = defaultdict(dict)
    notes = []
    for (identity, seed), group in sorted(found.items(), key=lambda item: item[0]):
        where = f"{identity.joined(' / ')}, seed {seed}"
        checkpoints = {record.key for record in group if isinstance(record, ArtifactRecord)}
        old = {key for key in checkpoints if key in stale}
        fresh = [r for r in group if (r.artifact if isinstance(r, MeasureRecord) else r.key) not in old]
        if not fresh:
            notes.append(f"{where}: not shown; {stale[min(old)]}.")
            continue
        run = runs[identity][seed] = _newest(fresh, artifacts, stale)
        if run.artifact is None:
            notes.append(f"{where}: the record of its checkpoint is missing; only its measurements are shown.")
        older = len(group) - len(run.measures) - len(run.stale) - (run.artifact is not None)
        if older:
            notes.append(f"{where}: {older} older record{'s' * (older > 1)} not shown; the newest counts.")
    return runs, notes


def dense_of(runs: Mapping[RowName, Mapping[int, Run]], model: str) -> Mapping[int, Run]:
    """The seeds of the dense row of a model; none where it was not run."""
    return next((seeds for row, seeds in sorted(runs.items()) if (row.model, row.method) == (model, "dense")), {})


def _newest(group: Sequence[AnyRecord], artifacts: Mapping[str, ArtifactRecord], stale: Mapping[str, str]) -> Run:
    group = sorted(group, key=lambda record: (record.provenance.created, record.key))
    ages: dict[str, str] = {}
    for record in group:
        key = record.artifact if isinstance(record, MeasureRecord) else record.key
        ages[key] = artifacts[key].provenance.created if key in artifacts else record.provenance.created
    newest = max(ages, key=lambda key: (ages[key], key))
    mine = [record for record in group if isinstance(record, MeasureRecord) and record.artifact == newest]
    measures = {record.task: record for record in mine if record.key not in stale}
    old = {r.task: str(r.ingredients.get("engine")).split()[0] for r in mine if r.task not in measures}
    return Run(artifacts.get(newest), measures, old)


def text_notes(records: Iterable[AnyRecord]) -> list[str]:
    """The notes of the measurements, each once with the methods that it is about."""
    about: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        if isinstance(record, MeasureRecord):
            for note in record.evidence.notes:
                about[record.task, note].add(record.method)
    return [f"{task} ({', '.join(sorted(about[task, note]))}): {note}" for task, note in sorted(about)]
