"""Every defect that a measurement of generation can have, planted one by one: none passes, and without one all is true.

A defect of a backend or of the harness either ends in a clear error or shows in a number that the fake machine tells
exactly.
"""

from dataclasses import replace
from typing import Any

import pytest

from bench.errors import LeanboardError
from bench.measure.generation import rounds
from bench.measure.generation.backend import Ids, Workload
from bench.measure.generation.footprint import Footprint
from bench.measure.generation.metrics import metrics_of
from bench.measure.generation.timing import Generation, Local
from tests.measure.generation import fakes
from tests.measure.generation.fakes import (
    LAUNCH,
    TASK,
    TOKEN_BYTES,
    WEIGHTS,
    WORK,
    WORKSPACE,
    Fake,
    Machine,
    session,
    values,
)

PREFILL, STEP = 2 * 5 + LAUNCH, 2 * 1 + LAUNCH
TOTAL = PREFILL + 3 * STEP
TRUTH = {
    "tokens_per_s": 8 / TOTAL,
    "requests_per_s": 2 / TOTAL,
    "prefill_tokens_per_s": 10 / PREFILL,
    "decode_tokens_per_s": 6 / (3 * STEP),
    "ttft_ms": 1000 * PREFILL,
    "itl_ms": 1000 * STEP,
    "speedup": (2 * TOTAL - 4 * LAUNCH) / TOTAL,
    "prefill_speedup": (2 * PREFILL - LAUNCH) / PREFILL,
    "decode_speedup": (2 * STEP - LAUNCH) / STEP,
    "cold_start_s": 3.0,
    "cache_memory": 2 * 8 * TOKEN_BYTES,
    "activation_memory": WORKSPACE,
    "peak_memory": WEIGHTS + 2 * 8 * TOKEN_BYTES + WORKSPACE,
}


def faults(backend: type[Fake] = Fake, *, rounds: int = 4) -> list[str]:
    """What is seen to be wrong with a measurement of `backend`, whose twin is sound and half as fast."""
    machine = Machine()
    try:
        found = session(backend(machine, 1.0), Fake(machine, 2.0), rounds)
    except LeanboardError as error:
        return [str(error)]
    got = values(metrics_of(TASK, found))
    wrong = [name for name, true in TRUTH.items() if got.get(name) != pytest.approx(true)]
    return [*wrong, *found.notes]


def test_no_defect_passes() -> None:
    assert faults() == []


class ForgottenSync(Fake):
    def sync(self) -> None:
        pass


class TwoPrefills(Fake):
    def prefill(self, prompt: Ids, new: int) -> Any:
        super().prefill(prompt, new)
        return super().prefill(prompt, new)


class TwoGenerations(Fake):
    """Only the last one's tokens are handed over."""

    def prefill(self, prompt: Ids, new: int) -> Any:
        super().prefill(prompt, new)
        for _ in range(new - 1):
            super().decode()
        return super().prefill(prompt, new)


class NoCache(Fake):
    """Each step reads all tokens again."""

    length = 0

    def prefill(self, prompt: Ids, new: int) -> Any:
        self.length = len(prompt[0])
        return super().prefill(prompt, new)

    def decode(self) -> Any:
        self.length += 1
        self.cache = [0] * len(self.cache)
        return self.forward(len(self.cache), self.length)

    def cached(self) -> list[int]:
        return []


class CacheOfOneStep(Fake):
    """Each step sees the token before it and no more."""

    def decode(self) -> Any:
        self.cache = [0] * len(self.cache)
        return super().decode()


class KeptPrefix(Fake):
    """The prompts stay in the cache, so that the next prefill has little to do."""

    def clear(self) -> None:
        self.cache = [WORK.prompt - 1] * len(self.cache)


class Retokenised(Fake):
    """The text of two tokens comes back as one."""

    def ids(self, passes: Any) -> Ids:
        return [sequence[1:] for sequence in super().ids(passes)]


class BatchIgnored(Fake):
    def prefill(self, prompt: Ids, new: int) -> Any:
        return super().prefill(prompt[:1], new)

    def ids(self, passes: Any) -> Ids:
        return super().ids(passes) * WORK.batch


class BatchLost(Fake):
    def ids(self, passes: Any) -> Ids:
        return super().ids(passes)[:1]


class TooManyTokens(Fake):
    def ids(self, passes: Any) -> Ids:
        return [[*sequence, 7] for sequence in super().ids(passes)]


class EndOfSequence(Fake):
    """One sequence stops early."""

    def ids(self, passes: Any) -> Ids:
        first, *others = super().ids(passes)
        return [first[:-1], *others]


class PeakOfLoading(Fake):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.meter.reset = lambda: self.meter.used


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [
        (ForgottenSync, "it was not waited for"),
        (TwoPrefills, "forward passes ran while"),
        (TwoGenerations, "forward passes ran while"),
        (NoCache, "holds no tokens and not 5 of each of 2"),
        (CacheOfOneStep, "holds 1, 1 tokens and not 6 of each of 2"),
        (KeptPrefix, "before the prefill the key/value cache still holds 4, 4 tokens"),
        (Retokenised, "new tokens came out"),
        (BatchIgnored, "holds 5 tokens and not 5 of each of 2"),
        (BatchLost, "1 new tokens came out and not 1 of each of 2"),
        (TooManyTokens, "2, 2 new tokens came out"),
        (EndOfSequence, "0, 1 new tokens came out"),
        (PeakOfLoading, "right after its reset"),
    ],
)
def test_a_defect_of_the_backend_ends_in_a_sentence(backend: type[Fake], sentence: str) -> None:
    [fault] = faults(backend)
    assert sentence in fault


def old_start(self: Local, work: Workload) -> Generation:
    """Events that are made once: the start stays that of the first generation."""
    generation = GENERATE(self, work)
    first = self.__dict__.setdefault("first", generation.stamps[0])
    return replace(generation, stamps=[first, *generation.stamps[1:]])


def two_in_a_block(self: Local, work: Workload) -> Generation:
    first, second = GENERATE(self, work), GENERATE(self, work)
    return replace(second, stamps=[first.stamps[0], *second.stamps[1:]])


def never_waiting(self: Local, work: Workload) -> Generation:
    self.backend.sync, sync = lambda: None, self.backend.sync
    try:
        return GENERATE(self, work)
    finally:
        self.backend.sync = sync


def unreset(client: Local, work: Workload) -> Footprint:
    """The peak since the process began."""
    client.generate(work)
    peak, cache = client.backend.meter.peak(), client.backend.cache_bytes()
    return Footprint(client.backend.weight_bytes, cache, peak - client.backend.weight_bytes - cache)


GENERATE = Local.generate
HARNESS: dict[str, tuple[Any, str, Any]] = {
    "events are not reset": (Local, "generate", old_start),
    "two generations in one block": (Local, "generate", two_in_a_block),
    "the device is not waited for": (Local, "generate", never_waiting),
    "counts of text": (Generation, "tokens", property(lambda g: sum(len(set(s)) for s in g.ids))),
    "the batch is counted twice": (Generation, "tokens", property(lambda g: len(g.ids) * sum(map(len, g.ids)))),
    "the batch is ignored": (Generation, "tokens", property(lambda g: len(g.ids[0]))),
    "the prefill counts as decoding": (Generation, "decoding", property(lambda g: g.total)),
    "the peak is not reset": (fakes, "footprint", unreset),
}


@pytest.mark.parametrize("defect", HARNESS)
def test_a_defect_of_the_harness_is_seen(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, planted = HARNESS[defect]
    monkeypatch.setattr(where, name, planted)
    assert faults() != []


class Compiles(Fake):
    slow_at = WORK.prompt + 1


def test_a_slow_first_generation_stays_out_of_the_rounds() -> None:
    machine = Machine()
    fake = Compiles(machine)
    found, notes = rounds.alternate({"m": fakes.local(fake)}, WORK, 3)
    assert [g.total for g in found["m"]] == [pytest.approx(TOTAL)] * 3
    assert notes == []


def test_without_a_warm_up_a_slow_first_round_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "warm_up", lambda client, work, begun: True)
    found, notes = rounds.alternate({"m": fakes.local(Compiles(Machine()))}, WORK, 3)
    assert found["m"][0].total > 1000
    assert "the first round of the m model was slower" in notes[0]
