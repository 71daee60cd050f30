"""NVIDIA GPUs, read with NVML: utilization, memory, power and temperature.

Readings that a GPU does not support are left out for that GPU. A machine without a driver counts as
having no GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Gpu", "find_gpus"]

GIB = 1 << 30
DRIVER = Path("/dev/nvidiactl")
"""Exists if the driver of an NVIDIA GPU is installed."""


class Gpu:
    """A sensor for one GPU.

    Args:
        nvml: the module ``pynvml``, initialized.
        index: the index of the GPU, numbered as in ``nvidia-smi``.
    """

    def __init__(self, nvml: Any, index: int) -> None:
        self.index = index
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self._readers: list[Callable[..., dict[str, float]]]
        self._readers = [_utilization, _memory, _power, _temperature, _process_memory]
        self._unsupported = (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        )

    def read(self, pids: Iterable[int] = ()) -> dict[str, float]:
        """Return the readings by name.

        Args:
            pids: the processes whose GPU memory counts as that of this process.

        Raises:
            NVMLError: NVML fails, for example because the GPU has fallen off the bus.
        """
        own = frozenset(pids)
        readings: dict[str, float] = {}
        for reader in list(self._readers):
            try:
                readings |= reader(self._nvml, self._handle, own)
            except self._nvml.NVMLError as error:  # noqa: PERF203 - each may fail
                if error.value not in self._unsupported:
                    raise
                self._readers.remove(reader)
        return readings


def find_gpus(indices: Sequence[int] | None = None) -> tuple[list[Gpu], list[str]]:
    """Return the GPUs of this machine, and warnings about those that cannot be read.

    Args:
        indices: the indices of the GPUs to return, numbered as in ``nvidia-smi``; by default all.
    """
    if indices is not None and not indices:
        return [], []
    has_driver = DRIVER.exists() or indices is not None
    try:
        import pynvml
    except ImportError:
        install = "reading the GPUs needs nvidia-ml-py: pip install 'sm-tblog[system]'"
        return [], [install] if has_driver else []
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except (pynvml.NVMLError, OSError) as error:
        return [], [f"the GPUs cannot be read: {error}"] if has_driver else []
    gpus: list[Gpu] = []
    warnings: list[str] = []
    for index in range(count) if indices is None else indices:
        try:
            gpus.append(Gpu(pynvml, index))
        except pynvml.NVMLError as error:  # noqa: PERF203 - each may fail
            warnings.append(f"GPU {index} of {count} cannot be read: {error}")
    return gpus, warnings


def _utilization(nvml: Any, handle: Any, _: Any) -> dict[str, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return {
        "utilization_percent": float(rates.gpu),
        "memory_bandwidth_percent": float(rates.memory),
    }


def _memory(nvml: Any, handle: Any, _: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "memory_used_gib": memory.used / GIB,
        "memory_percent": 100 * memory.used / memory.total,
    }


def _power(nvml: Any, handle: Any, _: Any) -> dict[str, float]:
    return {"power_watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1000}


def _temperature(nvml: Any, handle: Any, _: Any) -> dict[str, float]:
    kind = nvml.NVML_TEMPERATURE_GPU
    return {"temperature_celsius": float(nvml.nvmlDeviceGetTemperature(handle, kind))}


def _process_memory(nvml: Any, handle: Any, pids: frozenset[int]) -> dict[str, float]:
    """Return the memory of these processes; empty if NVML uses pids of another namespace."""
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    own = [p.usedGpuMemory for p in processes if p.pid in pids and p.usedGpuMemory is not None]
    return {"process_memory_gib": sum(own) / GIB} if own else {}
