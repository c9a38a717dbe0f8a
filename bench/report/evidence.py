"""The evidence of the rows of a board for a metric, item by item and window by window."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.record.kinds import form_of, kind_of, split
from bench.record.rows import RowName
from bench.record.schema import MeasureRecord
from bench.record.shares import weights_of
from bench.report.frame import Run
from bench.report.stats import Array, Drawn, block_length, resample_items, resample_windows


@dataclass(frozen=True)
class ItemScores:
    """One row, one metric: for each seed the bits of its items (1 right), or the sums of its windows.

    `values` is [seeds, items], weighted where the parts of the data count alike; `targets` are the windows' target
    counts, None for items. `data` names the data that was read, and the engine: rows are paired only where it is the
    same.
    """

    seeds: tuple[int, ...]
    values: Array
    targets: Array | None
    data: str

    @property
    def key(self) -> tuple[str, int, bytes]:
        """What two rows must share to be compared pair by pair."""
        return self.data, self.values.shape[1], b"" if self.targets is None else self.targets.tobytes()


def scores_of(runs: Mapping[int, Run], metric: str) -> ItemScores | None:
    """The evidence of one row's seeds for a metric id; None where no record keeps any.

    Seeds that were measured on other data than the first are left out.
    """
    task, name, suffix = split(metric)
    kept = kind_of(metric).evidence
    found: dict[int, tuple[MeasureRecord, Array, Array | None]] = {}
    for seed, run in sorted(runs.items()):
        record = run.measures.get(f"{task}@{suffix}")
        if record is None or record.status != "ok":
            continue
        windows = record.evidence.sums.get(name, record.evidence.windows)
        bits = record.evidence.items.get(name)
        if kept == "windows" and windows is not None:
            found[seed] = (record, np.asarray(windows.nll), np.asarray(windows.targets, dtype=float))
        elif kept == "items" and bits:
            found[seed] = (record, bits_of(bits) * _weights(record, metric), None)
    if not found:
        return None
    every = [
        (seed, ItemScores((seed,), values[None], targets, data_of(record)))
        for seed, (record, values, targets) in found.items()
    ]
    same = [(seed, scores) for seed, scores in every if scores.key == every[0][1].key]
    values = np.concatenate([scores.values for _, scores in same])
    return ItemScores(tuple(seed for seed, _ in same), values, every[0][1].targets, every[0][1].data)


def _weights(record: MeasureRecord, metric: str) -> Array | float:
    """What the items count: the mean over them is the metric, also where that is a mean over parts of the data."""
    parts = record.evidence.parts.values()
    return np.asarray(weights_of(parts)) if parts and form_of(metric).over_parts else 1.0


def bits_of(text: str) -> Array:
    """'101' -> [1, 0, 1]."""
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(float) - ord("0")


def data_of(record: MeasureRecord) -> str:
    """The data that was read, and the engine, from the ingredients of the key."""
    return json.dumps([record.ingredients.get("data"), record.ingredients.get("engine")], sort_keys=True)


def evidence_of(
    runs: Mapping[RowName, Mapping[int, Run]], metrics: Iterable[str]
) -> dict[str, dict[RowName, ItemScores]]:
    """Metric id -> row -> its evidence."""
    found: dict[str, dict[RowName, ItemScores]] = {}
    for metric in metrics:
        rows = {identity: scores_of(seeds, metric) for identity, seeds in runs.items()}
        found[metric] = {identity: scores for identity, scores in rows.items() if scores is not None}
    return found


def draw(rows: Mapping[RowName, ItemScores], metric: str) -> dict[RowName, Drawn]:
    """Resample the items or windows of all rows of one metric; rows that read the same ones get the same draws."""
    alike: dict[tuple[str, int, bytes], list[RowName]] = defaultdict(list)
    for identity in sorted(rows):
        alike[rows[identity].key].append(identity)
    drawn: dict[RowName, Drawn] = {}
    for identities in alike.values():
        together = np.concatenate([rows[identity].values for identity in identities])
        targets, n = rows[identities[0]].targets, together.shape[1]
        if targets is None:
            values, draws, units = together.mean(axis=1), resample_items(together, metric), n
        else:
            length = block_length(n) if kind_of(metric).has_neighbours else 1
            values, draws = together.sum(axis=1) / targets.sum(), resample_windows(together, targets, metric, length)
            units = -(-n // length)
        ends = np.cumsum([len(rows[identity].values) for identity in identities])[:-1]
        for identity, v, d in zip(identities, np.split(values, ends), np.split(draws, ends), strict=True):
            drawn[identity] = Drawn(v, d, units)
    return drawn


def common(parts: Sequence[ItemScores]) -> tuple[int, ...]:
    """The seeds that all parts have."""
    return tuple(sorted(set.intersection(*(set(part.seeds) for part in parts))))
