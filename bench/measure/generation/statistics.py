"""Intervals of what is measured in rounds: of a median, and so of the ratio of two models timed in turn. numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, median

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95


def ratio_of_rounds(dense: Sequence[float], measured: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """How many times as long the dense model takes: the median over rounds of the ratio within each, 95 % interval.

    Both were timed in the same rounds, in turn, so that what slows the machine down for a while slows both.
    """
    ratios = [d / m for d, m in zip(dense, measured, strict=True)]
    return median(ratios), interval_of_median(ratios)


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of the median over resampled rounds; the same numbers for the same samples.

    So few rounds vary too little when they are resampled; the percentiles are moved outwards as much as a t interval is
    wider than a normal one without its correction for small samples (Hesterberg, 2015, arXiv 1411.5279: the
    expanded percentile interval).
    """
    n = len(values)
    draws = np.random.default_rng(0).choice(np.asarray(values), size=(RESAMPLES, n))
    tail = 100 * _tail(n)
    low, high = np.percentile(np.median(draws, axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _tail(n: int) -> float:
    """Probability beyond each end of the expanded percentile interval."""
    if n < 2:
        return (1 - LEVEL) / 2
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * _t_quantile((1 + LEVEL) / 2, n - 1))


def _t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t: Abramowitz and Stegun (1964), 26.7.5; exact to 1 % from 3 degrees of freedom on."""
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / df**power for power, term in enumerate(terms, start=1)))
