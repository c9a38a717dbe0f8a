"""Peak memory of a generation: weights, key/value cache and the rest, each by itself."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import LeanboardError
from bench.measure.generation.backend import Workload
from bench.measure.generation.timing import Local

SLACK = 16 * 2**20
"""Bytes by which the high-water mark of a process may differ from its use at a reset: the kernel counts in batches."""


@dataclass(frozen=True)
class Footprint:
    """Bytes: weights and buffers as they lie in memory, keys and values at the end, and the peak of the rest.

    `activations` includes workspace; it is None where the platform cannot reset its high-water mark.
    """

    weights: int
    cache: int
    activations: int | None

    @property
    def peak(self) -> int | None:
        """What it takes to hold the model and generate."""
        return None if self.activations is None else self.weights + self.cache + self.activations


def footprint(client: Local, work: Workload) -> Footprint:
    """The footprint of one generation; another must have run before, so that what is made only once is there.

    Raises:
        LeanboardError: the peak of what ran before is still there after a reset.
    """
    backend = client.backend
    backend.clear()
    start, fresh = backend.meter.reset(), backend.meter.peak()
    if start is not None and fresh is not None and fresh > start + SLACK:
        raise LeanboardError(
            f"{fresh} bytes are the peak of memory right after its reset, while {start} are in use: it was not reset"
        )
    client.generate(work)
    peak, cache = backend.meter.peak(), backend.cache_bytes()
    grown = 0 if backend.cache_reserved else cache
    above = None if start is None or peak is None else max(0, peak - start - grown)
    return Footprint(backend.weight_bytes, cache, above)
