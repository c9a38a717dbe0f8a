"""Whether the sides of quality agree: who is first on each, and whether two sides put rows in the same order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bench.record.kind import Side
from bench.record.rows import RowName
from bench.report.rank import Basis, Ranker
from bench.report.stats import LEVEL, Array, Interval, rounded

ROWS = 4
"""The fewest rows whose orders are compared."""


@dataclass(frozen=True)
class Agreement:
    """Two sides of quality over the rows of one group that have both.

    Of its `pairs` of rows, `same` are in the same order by point value. `tau` is Kendall's τ-b, 1 where all are and -1
    where none is; `low` and `high` hold 95 % of its values when items and windows are drawn again.
    """

    model: str
    group: str
    sides: tuple[Side, Side]
    metrics: tuple[str, str]
    rows: int
    pairs: int
    same: int
    tau: float
    low: float
    high: float


def agreements(ranking: Ranker, model: str, bases: Mapping[Side, Basis]) -> Iterator[Agreement]:
    """Every two sides in every group that has enough rows with both; `bases` are the sides' headlines."""
    groups: dict[str, list[RowName]] = defaultdict(list)
    for row in sorted(ranking.runs):
        group, why = ranking.groups[row]
        if row.model == model and not why:
            groups[group].append(row)
    for group, rows in sorted(groups.items()):
        for one, two in combinations(bases, 2):
            both = [row for row in rows if not any(ranking.lacks(row, bases[side]) for side in (one, two))]
            for side in (one, two):
                both = ranking.alike(both, bases[side])
            if len(both) >= ROWS:
                yield _agreement(ranking, model, group, (one, two), bases, both)


def _agreement(
    ranking: Ranker,
    model: str,
    group: str,
    sides: tuple[Side, Side],
    bases: Mapping[Side, Basis],
    rows: Sequence[RowName],
) -> Agreement:
    one, two = (_orders(ranking.estimates(rows, bases[side]), bases[side].higher) for side in sides)
    values, draws = tau_b(one[:, :1], two[:, :1]), tau_b(one[:, 1:], two[:, 1:])
    tau = rounded(float(values[0]))
    low, high = (rounded(float(x)) for x in np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Agreement(
        model,
        group,
        sides,
        (bases[sides[0]].metric, bases[sides[1]].metric),
        len(rows),
        len(one),
        int((one[:, 0] * two[:, 0] > 0).sum()),
        tau,
        min(low, tau),
        max(high, tau),
    )


def _orders(rows: Sequence[Interval], higher: bool) -> Array:
    """For each pair of rows 1 where the first is better, -1 where the second is: [pairs, 1 + draws]."""
    values = np.array([[row.value, *row.draws] for row in rows])
    first, second = np.triu_indices(len(rows), 1)
    return np.asarray(np.sign((values[first] - values[second]).round(12)) * (1 if higher else -1))


def tau_b(one: Array, two: Array) -> Array:
    """Kendall's τ-b of each column of two tables of signs [pairs, columns]; 0 where a side has no order.

    Source: Kendall (1945), with its correction for ties.
    """
    untied = np.abs(one).sum(axis=0) * np.abs(two).sum(axis=0)
    return np.asarray((one * two).sum(axis=0) / np.sqrt(np.maximum(untied, 1)))
