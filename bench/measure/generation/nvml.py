"""A GPU as NVIDIA's management library sees it: its energy counter, and the processes on it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

MISSING = "energy not measured: nvidia-ml-py is not installed, or the GPU has no counter"


class Gpu:
    """The GPU of a torch device such as 'cuda:0', where the library knows it.

    Raises:
        LookupError: the library is missing, or does not know the device.
    """

    def __init__(self, device: str) -> None:
        import torch

        try:
            self._nvml: Any = import_module("pynvml")
            self._nvml.nvmlInit()
            index = torch.device(device).index or 0
            uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except Exception as error:  # the library's own errors are known only once it is there
            raise LookupError(str(error)) from error

    def joules(self) -> float | None:
        """Energy of the device since its driver was loaded; None where it has no counter."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._nvml.NVMLError:
            return None

    def processes(self) -> list[int]:
        """Process ids of those that compute on the device, as the driver sees them."""
        try:
            return [p.pid for p in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)]
        except self._nvml.NVMLError:
            return []


def gpu_of(device: str) -> Gpu | None:
    """The GPU of a device; None for a CPU, or where the library does not know it."""
    if not device.startswith("cuda"):
        return None
    try:
        return Gpu(device)
    except LookupError:
        return None


def counter_of(gpu: Gpu | None) -> Callable[[], float | None]:
    """What reads the energy counter."""
    return gpu.joules if gpu else lambda: None


def foreign(seen: list[int], ours: set[int]) -> int | None:
    """How many of the processes seen on a GPU are not ours; None where ours are not among them, as in a container."""
    return len(set(seen) - ours) if set(seen) & ours else None
