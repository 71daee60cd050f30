"""A fake ``pynvml``: two GPUs, with any faults and any partition."""

# ruff: noqa: N802 - the names are those of pynvml

import os
import types

GIB = 1 << 30
one = types.SimpleNamespace

NAMES = {
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    10: "Timeout",
    13: "Function Not Found",
    15: "GPU is lost",
    999: "Unknown Error",
}


class NVMLError(Exception):
    def __init__(self, value):
        super().__init__(NAMES[value])
        self.value = value


class FakeNVML(types.ModuleType):
    """The module.

    Attributes:
        faults: what calls raise, error codes or exceptions, by the name of the function, or by the
            name and the handle.
        instances: the UUIDs of a partitioned GPU's instances, by GPU and number.
    """

    NVMLError = NVMLError
    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION = 3, 4
    NVML_ERROR_NOT_FOUND, NVML_ERROR_FUNCTION_NOT_FOUND = 6, 13
    NVML_TEMPERATURE_GPU = 0

    def __init__(self):
        super().__init__("pynvml")
        self.faults, self.instances = {}, {}

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if not name.startswith("nvml"):
            return value

        def call(*args):
            for key in ((name, *args[:1]), name):
                if key in self.faults:
                    fault = self.faults[key]
                    raise NVMLError(fault) if isinstance(fault, int) else fault
            return value(*args)

        return call

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUtilizationRates(self, handle):
        if handle in self.instances:
            raise NVMLError(3)
        return one(gpu=90 + handle, memory=40)

    def nvmlDeviceGetMemoryInfo(self, handle):
        if isinstance(handle, str):  # of an instance, whose UUID ends with a digit
            return one(used=int(handle[-1]) * GIB, total=10 * GIB)
        return one(used=20 * GIB, total=80 * GIB)

    def nvmlDeviceGetPowerUsage(self, handle):
        return 350_500

    def nvmlDeviceGetTemperature(self, handle, kind):
        return 61

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        own, other = (one(pid=pid, usedGpuMemory=GIB) for pid in (os.getpid(), 1))
        return [other] if handle == 1 else [own, other, one(pid=own.pid, usedGpuMemory=None)]

    def nvmlDeviceGetMigMode(self, handle):
        return [int(handle in self.instances)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, number):
        if number not in self.instances[handle]:
            raise NVMLError(6)
        return self.instances[handle][number]

    def nvmlDeviceGetUUID(self, handle):
        return handle
