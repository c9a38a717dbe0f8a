"""Each row beside the controls at the same size: the same items and windows, compared pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.record.schema import MeasureRecord
from bench.report.frame import Identity, Run
from bench.report.stats import Difference, Vector, mean_difference, window_difference
from bench.task import TaskGroup

CONTROLS = ("random", "magnitude")
"""What a criterion must beat at the same size."""


@dataclass(frozen=True)
class Pair:
    """A row against a control of the same model, recovery and target, by one metric.

    `metric` is a perplexity, where the difference is that of the mean losses (nats per token, below 0 is better), or
    a group mean, where it is that of the accuracies (above 0 is better). `n` counts windows or items.
    """

    row: Identity
    control: str
    metric: str
    n: int
    difference: Difference


def pairs(runs: Mapping[Identity, Mapping[int, Run]], groups: Sequence[TaskGroup]) -> list[Pair]:
    """Every comparison that the records allow; over several seeds, losses and answers are averaged item by item."""
    found: list[Pair] = []
    for identity in sorted(runs):
        for control in CONTROLS if identity.method not in (*CONTROLS, "dense") else ():
            rivals = [
                other for other in runs
                if (other.model, other.method, other.recovery, other.target)
                == (identity.model, control, identity.recovery, identity.target)
            ]
            if identity.target != "none" and rivals:
                found += _compare(identity, control, runs[identity], runs[min(rivals)], groups)
    return found


def _compare(
    identity: Identity, control: str, ours: Mapping[int, Run], theirs: Mapping[int, Run], groups: Sequence[TaskGroup]
) -> Iterator[Pair]:
    tasks = sorted({task for run in ours.values() for task in run.measures})
    for task in tasks:
        (a, targets), (b, others) = _windows(ours, task), _windows(theirs, task)
        if len(a) and np.array_equal(targets, others):
            name, _, protocol = task.partition("@")
            yield Pair(identity, control, f"{name}.ppl_token@{protocol}", len(a), window_difference(a - b, targets))
    for group in groups:
        for suffix in sorted({task.partition("@")[2] for task in tasks}):
            strata = [_items(ours, member, suffix) for member in group.members]
            rivals = [_items(theirs, member, suffix) for member in group.members]
            if all(len(x) and len(x) == len(y) for x, y in zip(strata, rivals, strict=True)):
                difference = mean_difference([x - y for x, y in zip(strata, rivals, strict=True)])
                yield Pair(identity, control, f"{group.name}.mean@{suffix}", sum(map(len, strata)), difference)


def _windows(runs: Mapping[int, Run], task: str) -> tuple[Vector, Vector]:
    """Summed loss of each window of a perplexity task, averaged over seeds, and the target counts."""
    windows = [r.evidence.windows for r in _records(runs, task) if r.evidence.windows is not None]
    if not windows:
        return np.empty(0), np.empty(0)
    return np.mean([w.nll for w in windows], axis=0), np.asarray(windows[0].targets, dtype=float)


def _items(runs: Mapping[int, Run], member: str, suffix: str) -> Vector:
    """Right (1) or wrong (0) for each item of a group's member such as 'piqa.acc', averaged over seeds."""
    task, _, metric = member.partition(".")
    bits = [r.evidence.items[metric] for r in _records(runs, f"{task}@{suffix}") if metric in r.evidence.items]
    return np.mean([[int(bit) for bit in row] for row in bits], axis=0) if bits else np.empty(0)


def _records(runs: Mapping[int, Run], task: str) -> list[MeasureRecord]:
    return [run.measures[task] for _, run in sorted(runs.items()) if task in run.measures]
