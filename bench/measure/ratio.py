"""Bits per byte from nats and bytes, with the standard error of a ratio of sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.record.schema import Metric


def bits_per_byte(metric_id: str, nats: Sequence[float], sizes: Sequence[int]) -> Metric:
    """Summed `nats`, in bits, over the summed bytes `sizes`, one of each for an item or window.

    The standard error is that of a ratio over independent items, by the delta method (Cochran 1977); None for one item.
    """
    n, ratio = len(nats), sum(nats) / sum(sizes)
    squares = sum((x - ratio * size) ** 2 for x, size in zip(nats, sizes, strict=True))
    stderr = math.sqrt(squares * n / (n - 1)) / sum(sizes) / math.log(2) if n > 1 else None
    return Metric(
        id=metric_id, value=ratio / math.log(2), unit="bits/byte", direction="lower", n=sum(sizes), stderr=stderr
    )
