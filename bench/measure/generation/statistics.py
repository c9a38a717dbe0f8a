"""Intervals of what is measured in rounds: of a median, and so of the ratio of two models timed in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np
from scipy.special import ndtr, stdtrit

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
    return float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + LEVEL) / 2)))
