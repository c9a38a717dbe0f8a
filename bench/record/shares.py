"""The share of right items, over all of them or as a mean over the parts of a task."""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import fmean
from string import ascii_lowercase, digits

NUMBERS = digits + ascii_lowercase
"""One character for the number of an answer."""


def share_of(bits: str, parts: Collection[int] = ()) -> tuple[float, float | None]:
    """The share of '1' among `bits`, and its standard error, None where there are too few.

    With `parts`, how many items each part has in order, it is the unweighted mean of the shares of the parts.
    """
    counts, shares, variances, start = tuple(parts) or (len(bits),), [], [], 0
    for count in counts:
        share = bits[start : start + count].count("1") / count
        shares.append(share)
        variances.append(share * (1 - share) / (count - 1) if count > 1 else math.nan)
        start += count
    error = math.sqrt(sum(variances)) / len(counts)
    return fmean(shares) if len(shares) > 1 else shares[0], None if math.isnan(error) else error


def weights_of(parts: Collection[int]) -> list[float]:
    """What each item counts, so that the mean over items is the mean over parts."""
    items = sum(parts)
    return [items / (len(parts) * count) for count in parts for _ in range(count)]
