"""Paired comparisons: two models that answered the same items, or read the same windows.

Everything is deterministic: the resampling has a fixed seed, so that the same records always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

RESAMPLES = 4000
SEED = 20_261_123
LEVEL = 0.95

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """An estimated difference, its 95 % interval, and the two-sided p-value of there being none."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(ours: str, theirs: str) -> float:
    """Exact two-sided p-value that two models are equally often right; one character (1 or 0) per item.

    Source: McNemar (1947), as a binomial test on the items that only one of them has right.
    """
    only_ours = sum(a > b for a, b in zip(ours, theirs, strict=True))
    only_theirs = sum(a < b for a, b in zip(ours, theirs, strict=True))
    discordant = only_ours + only_theirs
    ways = tail = 1  # of choosing i of the discordant items; of choosing at most i
    for i in range(min(only_ours, only_theirs)):
        ways = ways * (discordant - i) // (i + 1)
        tail += ways
    return float(min(1.0, 2 * tail / 2**discordant))


def mean_difference(strata: Sequence[Vector]) -> Difference:
    """The unweighted mean over strata (tasks) of the mean difference of their items, by a paired bootstrap over items.

    `strata` holds, for each task, one difference per item. These take few values, so how often each is drawn is drawn.
    """
    random = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for items in strata:
        values, counts = np.unique(items, return_counts=True)
        times = random.multinomial(len(items), counts / len(items), size=RESAMPLES)
        means += times @ values / len(items) / len(strata)
    means = means.round(12) + 0.0  # fractions that cancel are 0, never nearly or -0, and count on both sides
    return _summary(float(np.mean([items.mean() for items in strata])), means)


def window_difference(differences: Vector, targets: Vector) -> Difference:
    """The mean difference per target token of the windows of one text, by a moving-block bootstrap over windows.

    `differences` are those of the windows' summed losses (nats), `targets` their target counts. Neighbouring windows
    are alike, so blocks of about n^(1/3) of them are drawn, around the end of the text (Politis and Romano, 1992).
    """
    n = len(differences)
    length = max(1, round(n ** (1 / 3)))
    random = np.random.default_rng(SEED)
    starts = random.integers(n, size=(RESAMPLES, -(-n // length)))
    rest = n - length * (starts.shape[1] - 1)  # windows of the last block, so that n are drawn

    def drawn(values: Vector) -> Vector:
        whole, last = _block_sums(values, length)[starts[:, :-1]], _block_sums(values, rest)[starts[:, -1]]
        return np.asarray(whole.sum(axis=1) + last)

    return _summary(float(differences.sum() / targets.sum()), drawn(differences) / drawn(targets))


def _block_sums(values: Vector, length: int) -> Vector:
    """By where it starts: the sum of a block of `length` neighbours, around the end."""
    return np.asarray(sliding_window_view(np.concatenate([values, values[: length - 1]]), length).sum(axis=1))


def _summary(value: float, resampled: Vector) -> Difference:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return Difference(value, float(low), float(high), min(1.0, 2 * (float(tail) + 1) / (len(resampled) + 1)))
