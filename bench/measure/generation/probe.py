"""What a machine can do at most, by a short try with the threads that generation has: reading memory, multiplying."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from bench.measure.generation.roofline import MachineProbe
from bench.model.load import dtype_of

READ_BYTES = 128 * 2**20
"""More than the cache of a few cores, or of a GPU, holds."""
SIDES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
"""Sides of the square matrices that are multiplied: for few cores, and for many."""
TRIES = 8
PRODUCTS = 24


def probe(dtype: str, device: str, hidden: int, widths: Sequence[int] = (), batch: int = 1) -> MachineProbe:
    """Try the machine out, in well under a second."""
    on_gpu = device.startswith("cuda")
    cpu, start = time.process_time(), time.perf_counter()
    rate = max(_rate(side, dtype, device) for side in SIDES["cuda" if on_gpu else "cpu"])
    share = (time.process_time() - cpu) / (time.perf_counter() - start)
    threads = 1 if on_gpu else torch.get_num_threads()
    return MachineProbe(
        bandwidth=_bandwidth(device),
        rate=rate,
        threads=threads,
        share=None if on_gpu else share / threads,
        products=[_product(width, hidden, batch, dtype, device) for width in widths],
    )


def _rate(side: int, dtype: str, device: str) -> float:
    """Multiply-accumulates a second of a product of two square matrices."""
    matrix = torch.ones(side, side, dtype=dtype_of(dtype), device=device)
    return side**3 / _fastest(lambda: matrix @ matrix, device)


def _bandwidth(device: str) -> float:
    numbers = torch.ones(READ_BYTES // 4, dtype=torch.float32, device=device)
    first, second = numbers.chunk(2)
    return READ_BYTES / min(_fastest(numbers.sum, device), _fastest(lambda: first.copy_(second), device))


def _product(width: int, hidden: int, batch: int, dtype: str, device: str) -> float:
    """Seconds of a token's product with a matrix [width, hidden], each time another one, so that no cache has it."""
    given = torch.ones(batch, hidden, dtype=dtype_of(dtype), device=device)
    number = max(2, READ_BYTES // 4 // (width * hidden * given.element_size()))
    matrices = torch.ones(number, width, hidden, dtype=given.dtype, device=device)

    def some() -> None:
        for i in range(PRODUCTS):
            torch.nn.functional.linear(given, matrices[i % number])

    return _fastest(some, device) / PRODUCTS


def _fastest(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of some tries, the first of which does not count."""
    seconds = []
    for _ in range(TRIES + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
