"""NVIDIA GPUs, read with NVML: utilization, memory, power and temperature.

Readings that a GPU does not support are left out for that GPU. A machine without a driver counts as
having no GPUs.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog.system.sensor import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Gpu", "find_gpus"]

GIB = 1 << 30
DRIVER = Path("/dev/nvidiactl")
"""Exists if the driver of an NVIDIA GPU is installed."""

UNSUPPORTED = (
    "NVML_ERROR_NOT_SUPPORTED",
    "NVML_ERROR_NO_PERMISSION",
    "NVML_ERROR_FUNCTION_NOT_FOUND",
)
"""The errors of a reading that a GPU, its driver or this user's rights do not provide."""


class Gpu(Sensor):
    """A sensor for one GPU.

    If the GPU is partitioned (MIG), its memory is that of one instance: the first one that
    ``CUDA_VISIBLE_DEVICES`` names, or else the first one that this process can access. CUDA lets a
    process use one only. Power and temperature are those of the whole GPU; NVML has no utilization.

    Args:
        nvml: the module ``pynvml``, initialized.
        index: the index of the GPU, numbered as in ``nvidia-smi``.
        own_pids: returns the processes whose GPU memory counts as that of this process.
    """

    def __init__(
        self, nvml: Any, index: int, own_pids: Callable[[], Iterable[int]] = tuple
    ) -> None:
        readers = {
            "utilization": self._utilization,
            "memory": self._memory,
            "power": self._power,
            "temperature": self._temperature,
            "process memory": self._process_memory,
        }
        super().__init__({
            name: partial(self._if_supported, reader) for name, reader in readers.items()
        })  # fmt: skip
        self.index = index
        self._nvml = nvml
        self._own_pids = own_pids
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self._unsupported = {getattr(nvml, name, None) for name in UNSUPPORTED}

    def _if_supported(self, reader: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return readings; ``{}`` if the GPU does not support them."""
        try:
            return reader()
        except self._nvml.NVMLError as error:
            if getattr(error, "value", error) not in self._unsupported:
                raise
            return {}

    def _utilization(self) -> dict[str, float]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        return {"utilization_percent": rates.gpu, "memory_bandwidth_percent": rates.memory}

    def _memory(self) -> dict[str, float]:
        instance = self._instance()
        if instance is None:
            return {}
        memory = self._nvml.nvmlDeviceGetMemoryInfo(instance)
        readings = {"memory_used_gib": memory.used / GIB}
        if memory.total:
            readings["memory_percent"] = 100 * memory.used / memory.total
        return readings

    def _power(self) -> dict[str, float]:
        return {"power_watts": self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000}

    def _temperature(self) -> dict[str, float]:
        kind = self._nvml.NVML_TEMPERATURE_GPU
        return {"temperature_celsius": self._nvml.nvmlDeviceGetTemperature(self._handle, kind)}

    def _process_memory(self) -> dict[str, float]:
        """Return the memory of these processes; empty if NVML uses pids of another namespace."""
        pids, instance = frozenset(self._own_pids()), self._instance()
        if instance is None:
            return {}
        processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(instance)
        own = [p.usedGpuMemory for p in processes if p.pid in pids and p.usedGpuMemory is not None]
        return {"process_memory_gib": sum(own) / GIB} if own else {}

    def _instance(self) -> Any:
        """Return the handle whose memory this process can use, None if there is no such instance.

        It is looked up at each sample, because a GPU can be partitioned at any time.
        """
        if not self._is_partitioned():
            return self._handle
        found: dict[str, Any] = {}
        for number in range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(self._handle)):
            # Numbers may be unused, or belong to instances that a container cannot access.
            with contextlib.suppress(self._nvml.NVMLError):
                handle = self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._handle, number)
                found[self._uuid(handle) or str(number)] = handle
        for wanted in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","):
            for uuid, handle in found.items():
                if wanted.strip().startswith("MIG-") and uuid.startswith(wanted.strip()):
                    return handle
        return next(iter(found.values()), None)

    def _is_partitioned(self) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(self._handle)[0])
        except (self._nvml.NVMLError, AttributeError):  # an older GPU, driver or pynvml
            return False

    def _uuid(self, handle: Any) -> str:
        """Return the UUID of an instance; "" if it cannot be read."""
        try:
            uuid = self._nvml.nvmlDeviceGetUUID(handle)
        except (self._nvml.NVMLError, AttributeError):
            return ""
        return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


def find_gpus(
    indices: Sequence[int] | None = None, own_pids: Callable[[], Iterable[int]] = tuple
) -> tuple[list[Gpu], list[str]]:
    """Return the GPUs of this machine, and warnings about those that cannot be read.

    Args:
        indices: the indices of the GPUs to return, numbered as in ``nvidia-smi``; by default all.
        own_pids: returns the processes whose GPU memory counts as that of this process.
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
            gpus.append(Gpu(pynvml, index, own_pids))
        except Exception as error:  # noqa: BLE001, PERF203 - each may fail
            warnings.append(f"GPU {index} of {count} cannot be read: {error}")
    return gpus, warnings
