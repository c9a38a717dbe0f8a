"""Paired comparisons: models that answered the same items, or read the same windows.

Everything is deterministic: the resampling has a fixed seed, and results are rounded to nine digits, so that the same
records give the same bytes on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, stdtr, stdtrit

RESAMPLES = 2000
SEED = 20_261_123
LEVEL = 0.95
ALPHA = 0.05
CHUNK = 2_000_000
"""Draws held in memory at a time."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """An estimated difference, its 95 % interval, and the two-sided p-value of there being none."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Drawn:
    """The score of each seed of a row on one task, [seeds], and of resampled items, [seeds, RESAMPLES].

    `units` counts what was drawn independently: items, or blocks of windows.
    """

    values: Array
    draws: Array
    units: int


@dataclass(frozen=True)
class Interval:
    """The mean score of a row, and its values when its items and its seeds are resampled: `draws` [RESAMPLES].

    Estimates over the same tasks have the same draws, so that their differences are paired.
    `seed_variance` is that of the mean over seeds; 0 for one seed, as the row is then about that checkpoint only.
    """

    value: float
    draws: Array
    units: int
    seeds: int
    seed_variance: float


@dataclass(frozen=True)
class Pairwise:
    """All differences between several rows, each [rows, rows]: row minus column, standard error, freedom, p-value."""

    values: Array
    errors: Array
    freedom: Array
    p: Array

    def difference(self, a: int, b: int) -> Difference:
        reach = float(stdtrit(self.freedom[a, b], (1 + LEVEL) / 2) * self.errors[a, b])
        value = float(self.values[a, b])
        return Difference(*map(rounded, (value, value - reach, value + reach, self.p[a, b])))


def resample_items(scores: Array, stream: str) -> Array:
    """The mean of each row of `scores` [rows, items] when the items are resampled: [rows, RESAMPLES].

    The same items are drawn for all rows, and for each call of the same `stream` and number of items.
    """
    n = scores.shape[1]
    random = _generator(stream, n)
    return np.asarray(np.concatenate([times @ scores.T for times in _counts(random, n)]).T / n)


def resample_windows(losses: Array, targets: Array, stream: str, length: int) -> Array:
    """The mean loss per target of each row of `losses` [rows, windows], when blocks of `length` windows are drawn.

    `targets` [windows] are the windows' target counts. Where neighbouring windows are alike, `block_length` of them
    are drawn together, around the end of the text (moving blocks: Künsch, 1989; circular: Politis and Romano, 1992).
    """
    n = losses.shape[1]
    random = _generator(stream, n)
    starts = random.integers(n, size=(RESAMPLES, -(-n // length)))
    picks = ((starts[:, :, None] + np.arange(length)) % n).reshape(RESAMPLES, -1)[:, :n]
    times = _tally(picks, n)
    return np.asarray((times @ losses.T / (times @ targets)[:, None]).T)


def block_length(windows: int) -> int:
    """How many neighbouring windows are drawn together: about n^(1/3)."""
    return max(1, round(math.cbrt(windows)))


def estimate(tasks: Sequence[Drawn], name: str) -> Interval:
    """The unweighted mean over tasks; several seeds are resampled too, the same for all tasks.

    Of k seeds k - 1 are drawn, which gives their mean its variance without bias (Rao and Wu, 1988). `name` seeds the
    row's draws of seeds, so that other rows have others.
    """
    values = np.mean([task.values for task in tasks], axis=0)
    draws = np.mean([task.draws for task in tasks], axis=0)
    units, k = min(task.units for task in tasks), len(values)
    if k == 1:
        return Interval(float(values[0]), draws[0], units, 1, 0.0)
    times = _generator(name, k).multinomial(k - 1, np.full(k, 1 / k), size=RESAMPLES)
    return Interval(
        float(values.mean()), (times * draws.T).sum(axis=1) / (k - 1), units, k, float(values.var(ddof=1)) / k
    )


def pairwise(rows: Sequence[Interval]) -> Pairwise:
    """Every row against every other: a t-test whose standard error is the bootstrap's.

    Few items or seeds make the bootstrap's error too small and its tails too short (Hesterberg, 2015): the error is
    widened by units / (units - 1), and the t distribution has the freedom of Satterthwaite (1946).
    """
    values = np.array([row.value for row in rows])
    moved = np.atleast_2d(np.cov([row.draws for row in rows]))
    own = np.diag(moved)
    of_seeds = np.array([row.seed_variance for row in rows])
    units = np.minimum.outer(*[np.array([row.units for row in rows])] * 2)
    seeds = of_seeds[:, None] + of_seeds
    sampling = np.maximum(own[:, None] + own - 2 * moved - seeds, 0) * units / np.maximum(units - 1, 1)
    few = np.array([row.seed_variance**2 / max(row.seeds - 1, 1) for row in rows])
    variance = sampling + seeds
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / (sampling**2 / np.maximum(units - 1, 1) + few[:, None] + few)
        differences = (values[:, None] - values).round(12)
        t = np.where(differences == 0, 0.0, np.abs(differences) / np.sqrt(variance))
    freedom = np.where(np.isfinite(freedom), np.maximum(freedom, 1), 1)
    return Pairwise(differences, np.sqrt(variance), freedom, np.minimum(1, 2 * stdtr(freedom, -t)))


def mcnemar_all(bits: Array) -> Array:
    """Exact two-sided p-values that two models are equally often right, by pairs of rows of `bits` [rows, items].

    Source: McNemar (1947), as a binomial test on the items that only one of them has right.
    """
    only_row = bits @ (1 - bits.T)
    fewer, discordant = np.minimum(only_row, only_row.T), only_row + only_row.T
    return np.asarray(np.minimum(1, 2 * bdtr(fewer, discordant.astype(int), 0.5)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false finding among them stays below the level (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]


def above_chance(right: int, n: int, chance: float) -> float:
    """Exact one-sided p-value of at least `right` of `n` items by guesses that are right with probability `chance`.

    Where guessing gives nothing (`chance` 0), it is McNemar's against a row that has none right: six right answers at
    least, as a row that loses fewer cannot be told from one that loses none.
    """
    if chance == 0:
        return rounded(min(1.0, 2 * 0.5**right))
    return rounded(float(bdtrc(right - 1, n, chance))) if right > 0 else 1.0


def lower(losses: Array, baseline: Array) -> float:
    """One-sided p-value of the `losses` [items] being no lower than those of the `baseline`: a paired t-test."""
    gains = baseline - losses
    error = float(gains.std(ddof=1)) / math.sqrt(len(gains))
    if error == 0:
        return float(gains.mean() <= 0)
    return rounded(float(stdtr(len(gains) - 1, -gains.mean() / error)))


def rounded(value: float) -> float:
    """Nine significant digits, so that the order of a sum does not change the result."""
    return float(f"{value:.9g}") + 0.0


def _counts(random: np.random.Generator, n: int) -> list[Array]:
    """How often each of `n` items is drawn in each of RESAMPLES draws of n, in parts of bounded size."""
    size = max(1, CHUNK // n)
    sizes = [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]
    return [_tally(random.integers(n, size=(rows, n)), n) for rows in sizes]


def _tally(picks: NDArray[np.int64], n: int) -> Array:
    """[draws, picks] of item numbers -> [draws, n] of how often each was picked."""
    rows = len(picks)
    flat = (picks + n * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(float)


def _generator(stream: str, n: int) -> np.random.Generator:
    return np.random.default_rng([SEED, n, *stream.encode()])
