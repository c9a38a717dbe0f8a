"""Times one generation, and refuses what was not one generation of the workload.

The clock is read when the device has done its work: before the prefill and after every pass, as in a server that
streams tokens. Counts come from the ids that came out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from bench.errors import LeanboardError
from bench.measure.generation.backend import Backend, Ids, Workload

Clock = Callable[[], float]


@dataclass(frozen=True)
class Generation:
    """One timed generation.

    Attributes:
        stamps: seconds on the clock at the start and after each pass, `new + 1` of them.
        ids: the new token ids of each sequence.
        waited: seconds that reading the ids took after the last stamp, when the device must be idle.
        cpu: processor seconds of this process, all threads.
        joules: energy of the device; None where it has no counter.
    """

    stamps: list[float]
    ids: Ids = field(repr=False)
    waited: float = 0.0
    cpu: float = 0.0
    joules: float | None = None

    @property
    def first(self) -> float:
        """Seconds to the first token: the prefill."""
        return self.stamps[1] - self.stamps[0]

    @property
    def total(self) -> float:
        return self.stamps[-1] - self.stamps[0]

    @property
    def decoding(self) -> float:
        return self.stamps[-1] - self.stamps[1]

    @property
    def steps(self) -> list[float]:
        """Seconds between one token and the next, for all sequences at once."""
        return [end - start for start, end in pairwise(self.stamps[1:])]

    @property
    def tokens(self) -> int:
        """New tokens of all sequences, counted from their ids."""
        return sum(len(sequence) for sequence in self.ids)


class Client(Protocol):
    """What generates and times itself, in this process or another."""

    def generate(self, work: Workload) -> Generation: ...


class Local:
    """A backend of this process as a client."""

    def __init__(
        self,
        backend: Backend,
        clock: Clock = time.perf_counter,
        cpu: Clock = time.process_time,
        joules: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.backend = backend
        self._clock = clock
        self._cpu = cpu
        self._joules = joules

    def generate(self, work: Workload) -> Generation:
        """Generate once and time it.

        Raises:
            LeanboardError: it was not one generation of `work` that was timed.
        """
        backend, prompt = self.backend, work.prompts(self.backend.vocab)
        backend.clear()
        check_empty(backend.cached())
        backend.sync()
        passes, cpu, joules = backend.passes, self._cpu(), self._joules()
        stamps = [self._clock()]
        made = [backend.prefill(prompt, work.new)]
        backend.sync()
        stamps.append(self._clock())
        for n in range(work.new - 1):
            check_cache(backend.cached(), work, n)
            made.append(backend.decode())
            backend.sync()
            stamps.append(self._clock())
        ids = backend.ids(made)
        waited = self._clock() - stamps[-1]
        check_counts(ids, backend.passes - passes, work)
        after = self._joules()
        used = None if after is None or joules is None else after - joules
        return Generation(stamps, ids, waited, self._cpu() - cpu, used)


def check_empty(cached: list[int]) -> None:
    """Nothing is left in the cache that a prefill could make use of."""
    if any(cached):
        raise LeanboardError(f"before the prefill the key/value cache still holds {_brief(cached)} tokens")


def check_cache(cached: list[int], work: Workload, step: int) -> None:
    """Before decoding step `step` (from 0) the cache holds the prompt and the tokens fed since, of every sequence."""
    if cached != [work.prompt + step] * work.batch:
        raise LeanboardError(
            f"before decoding step {step + 1} the key/value cache holds {_brief(cached)} tokens "
            f"and not {work.prompt + step} of each of {work.batch} sequences"
        )


def check_counts(ids: Ids, passes: int, work: Workload) -> None:
    """Each sequence has exactly its new tokens, and the model ran once for each."""
    counts = [len(sequence) for sequence in ids]
    if counts != [work.new] * work.batch:
        raise LeanboardError(
            f"{_brief(counts)} new tokens came out and not {work.new} of each of {work.batch} sequences"
        )
    if passes != work.new:
        raise LeanboardError(f"{passes} forward passes ran while {work.new} were timed: one for each new token")


def _brief(counts: list[int]) -> str:
    return ", ".join(map(str, counts[:4])) + ", …" * (len(counts) > 4) if counts else "no"
