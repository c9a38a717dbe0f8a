"""Peak memory of a block of code: CUDA's allocator, or the high-water mark of the process on a CPU."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    """The use at the start of the block, and how far above it the use rose (set when the block ends), in bytes.

    Both are None where the platform cannot tell.
    """

    start: int | None = None
    bytes: int | None = None


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Measure the highest memory use within the block above its use at the start, in bytes.

    On CUDA: the allocator's peak. On a CPU: resident set size, whose high-water mark the Linux kernel resets on
    request; elsewhere, or where the kernel refuses, nothing is measured. Memory that was freed but not yet given back
    to the system is given back first, so that what ran before does not hide a peak. Blocks must not be nested.
    """
    peak = Peak()
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        peak.start = int(torch.cuda.memory_allocated(device))
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device) - peak.start
        return
    _give_back()
    if not _reset_high_water():
        yield peak
        return
    peak.start = _resident("VmRSS")
    yield peak
    peak.bytes = max(0, _resident("VmHWM") - peak.start)


@contextmanager
def set_aside() -> Iterator[None]:
    """Within the block, collecting garbage passes over all that was there before: of torch's objects it takes 0.2 s."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _give_back() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _reset_high_water() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field + ":"))
