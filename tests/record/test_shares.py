"""The share of right items, and the mean over parts, as numbers, as weights of items and in records."""

import math
from statistics import fmean

import pytest

from bench.record.shares import share_of, weights_of


def test_a_mean_over_parts_is_that_of_weighted_items() -> None:
    bits, parts = "1100" + "01" + "111", [4, 2, 3]
    value, error = share_of(bits, parts)
    shares = [0.5, 0.5, 1.0]
    assert value == pytest.approx(fmean(shares))
    variances = [p * (1 - p) / (n - 1) for p, n in zip(shares, parts, strict=True)]
    assert error == pytest.approx(math.sqrt(sum(variances)) / 3)
    assert fmean(w * int(bit) for w, bit in zip(weights_of(parts), bits, strict=True)) == pytest.approx(value)


def test_one_part_is_the_share_itself() -> None:
    assert share_of("1011", [4]) == share_of("1011") == (0.75, math.sqrt(0.75 * 0.25 / 3))
    assert share_of("1") == (1.0, None)
    assert share_of("11", [1, 1]) == (1.0, None)
