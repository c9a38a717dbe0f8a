import pytest
import torch

from bench.measure import memory
from bench.measure.memory import peak_memory

MIB = 2**20


def test_the_peak_of_a_block_is_seen_and_not_that_of_an_earlier_one() -> None:
    if not memory._reset_high_water():
        pytest.skip("this kernel cannot reset the high-water mark of memory")
    torch.ones(200 * MIB // 4).sum()
    with peak_memory("cpu") as small:
        torch.ones(40 * MIB // 4).sum()
    with peak_memory("cpu") as nothing:
        pass
    assert small.bytes is not None
    assert nothing.bytes is not None
    assert 35 * MIB < small.bytes < 60 * MIB
    assert nothing.bytes < 5 * MIB


def test_what_ran_before_does_not_hide_a_peak() -> None:
    if not memory._reset_high_water():
        pytest.skip("this kernel cannot reset the high-water mark of memory")

    def many_small_blocks() -> bytearray:
        blocks = [bytearray(60_000) for _ in range(500)]  # too small to be mapped one by one
        return blocks[-1]  # pins the end of the heap, so that what lies before it stays with the process

    pin = many_small_blocks()
    with peak_memory("cpu") as peak:
        many_small_blocks()
    assert len(pin) == 60_000
    assert peak.bytes is not None
    assert peak.bytes > 25_000_000


def test_a_platform_that_cannot_tell_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_high_water", lambda: False)
    with peak_memory("cpu") as peak:
        pass
    assert peak.bytes is None
