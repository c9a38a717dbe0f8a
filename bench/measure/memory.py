"""Peak memory of a block of code: CUDA's allocator, or the high-water mark of the process on a CPU."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ASIDE: list[bool] = []


@dataclass
class Peak:
    """The use at the start of the block, and how far above it the use rose (set when the block ends), in bytes.

    Both are None where the platform cannot measure them.
    """

    start: int | None = None
    bytes: int | None = None


class CudaMeter:
    """CUDA's allocator."""

    def __init__(self, device: str) -> None:
        self._device = device

    def reset(self) -> int | None:
        """Forget the highest use so far; the bytes in use now, without what only garbage holds: a model in a cycle."""
        import torch

        give_back(self._device)
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return int(torch.cuda.memory_allocated(self._device))

    def peak(self) -> int | None:
        """The highest use since the last reset, in bytes."""
        import torch

        torch.cuda.synchronize(self._device)
        return int(torch.cuda.max_memory_allocated(self._device))


class ProcessMeter:
    """Resident size of this process, whose high-water mark the Linux kernel resets on request.

    Elsewhere, or where the kernel refuses, nothing is measured. Memory that was freed but not yet given back to the
    system is given back first, so that what ran before does not hide a peak.
    """

    def __init__(self) -> None:
        self._can = False

    def reset(self) -> int | None:
        """Forget the highest use so far; the bytes in use now, None where they cannot be read."""
        give_back()
        self._can = _reset_high_water()
        return _resident("VmRSS") if self._can else None

    def peak(self) -> int | None:
        """The highest use since the last reset, in bytes."""
        return _resident("VmHWM") if self._can else None


def meter_of(device: str) -> CudaMeter | ProcessMeter:
    """What measures the memory of a device: CUDA's, or that of a CPU."""
    return CudaMeter(device) if device.startswith("cuda") else ProcessMeter()


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Measure the highest memory use within the block above its use at the start, in bytes.

    Blocks must not be nested.
    """
    meter = meter_of(device)
    peak = Peak(meter.reset())
    yield peak
    highest = meter.peak()
    if peak.start is not None and highest is not None:
        peak.bytes = max(0, highest - peak.start)


@contextmanager
def set_aside() -> Iterator[None]:
    """Within the block, garbage collection ignores the objects that existed before: scanning torch's takes 0.2 s.

    A nested block adds those that have come since; all are looked at again once the outermost ends.
    """
    is_outermost = not _ASIDE
    _ASIDE.append(True)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        _ASIDE.pop()
        if is_outermost:
            gc.unfreeze()


@contextmanager
def importing() -> Iterator[None]:
    """Within the block no garbage is collected: importing transformers makes none, and looking for it takes a fifth of
    the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def give_back(device: str = "cpu") -> None:
    """Give memory that was freed back to the system, or to the other processes on a GPU."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
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
