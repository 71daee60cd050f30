"""Sensors for this machine and this process, based on psutil.

A sensor is a ``Sensor``, whose ``read()`` returns numbers by name. Rates cover the time between two
calls, so the first call returns no rates.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import MissingDependencyError
from sm_tblog.system.rates import Rates
from sm_tblog.system.sensor import Sensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Cpu", "Disk", "Memory", "Network", "Process", "import_psutil"]

GIB = 1 << 30
MB = 1e6
LOOPBACK = ("lo", "lo0", "Loopback Pseudo-Interface 1")


def import_psutil() -> Any:
    """Return the module ``psutil``.

    Raises:
        MissingDependencyError: psutil is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        message = "system metrics need psutil: pip install 'sm-tblog[system]'"
        raise MissingDependencyError(message) from error
    return psutil


class Cpu(Sensor):
    """A sensor for all cores, and for the busiest one: a Python loop keeps only one core busy.

    Its readings are the load of all cores and of the busiest core, in percent.
    """

    def __init__(self) -> None:
        super().__init__({"": self._load})
        self._psutil = import_psutil()
        self._rates = Rates()

    def _load(self) -> dict[str, float]:
        counters: dict[str, float] = {}
        for core, times in enumerate(self._psutil.cpu_times(percpu=True)):
            idle = times.idle + getattr(times, "iowait", 0.0)
            # User time includes guest time.
            guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
            counters[f"busy {core}"] = sum(times) - guests - idle
            counters[f"all {core}"] = sum(times) - guests
        rates = self._rates.of(counters)
        cores = [name.removeprefix("all ") for name in rates if name.startswith("all ")]
        shares = [100 * rates[f"busy {c}"] / rates[f"all {c}"] for c in cores if rates[f"all {c}"]]
        if not shares:
            return {}
        return {"percent": sum(shares) / len(shares), "busiest_core_percent": max(shares)}


class Memory(Sensor):
    """A sensor for memory that is not available without swapping, and for swap.

    Its readings are in percent and GiB.
    """

    def __init__(self) -> None:
        super().__init__({"": self._usage, "swap": self._swap})
        self._psutil = import_psutil()

    def _usage(self) -> dict[str, float]:
        memory = self._psutil.virtual_memory()
        if not memory.total:  # as in some sandboxes
            return {}
        used = memory.total - memory.available
        return {"used_gib": used / GIB, "percent": 100 * used / memory.total}

    def _swap(self) -> dict[str, float]:
        swap = self._psutil.swap_memory()
        return {"swap_used_gib": swap.used / GIB} if swap and swap.total else {}


class Disk(Sensor):
    """A sensor for the traffic of all disks, and for the free space of the disk with a folder.

    Its readings are the used space in percent, the free space in GiB, and the traffic in MB/s.

    Args:
        folder: a path. If it does not exist yet, the nearest existing parent is used.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__({"": self._space, "traffic": self._traffic})
        self._psutil = import_psutil()
        self._folder = folder
        self._rates = Rates()

    def _space(self) -> dict[str, float]:
        wanted = self._folder.absolute()
        folder = next(path for path in (wanted, *wanted.parents) if path.exists())
        usage = self._psutil.disk_usage(str(folder))
        return {"used_percent": usage.percent, "free_gib": usage.free / GIB}

    def _traffic(self) -> dict[str, float]:
        counters = self._psutil.disk_io_counters()  # None if the system reports no disks
        return _traffic(self._rates, {
            "read_mb_per_s": getattr(counters, "read_bytes", None),
            "write_mb_per_s": getattr(counters, "write_bytes", None),
        })  # fmt: skip


class Network(Sensor):
    """A sensor for the traffic of all network interfaces except loopback, in MB/s."""

    def __init__(self) -> None:
        super().__init__({"": self._traffic})
        self._psutil = import_psutil()
        self._rates = Rates()

    def _traffic(self) -> dict[str, float]:
        counters = self._psutil.net_io_counters(pernic=True) or {}
        real = [count for name, count in counters.items() if name not in LOOPBACK]
        return _traffic(self._rates, {
            "sent_mb_per_s": _total(real, "bytes_sent"),
            "received_mb_per_s": _total(real, "bytes_recv"),
        })  # fmt: skip


class Process(Sensor):
    """A sensor for this process and its descendants, such as data loader workers.

    Its readings are the used cores, the resident memory in GiB, and the numbers of threads and
    children. Memory that processes share counts for each of them.

    Attributes:
        pids: the ids of these processes at the last ``read``.
    """

    def __init__(self) -> None:
        super().__init__({
            "children": self._count_children,  # first: the others need to know them
            "": self._cpu,
            "memory": self._memory,
            "threads": self._threads,
        })  # fmt: skip
        self._psutil = import_psutil()
        self._known: dict[int, Any] = {}
        self._rates = Rates()
        self.pids: list[int] = [os.getpid()]

    def _count_children(self) -> dict[str, float]:
        own = os.getpid()
        self.pids = [own]
        self.pids += sorted(set(self._find_children()) - {own})
        self._known = {pid: self._known[pid] for pid in self.pids if pid in self._known}
        return {"children": len(self.pids) - 1}

    def _cpu(self) -> dict[str, float]:
        times = self._of_each(lambda process: process.cpu_times())
        seconds = {str(pid): time.user + time.system for pid, time in times.items()}
        rates = self._rates.of(seconds)
        return {"cpu_cores": sum(rates.values())} if str(os.getpid()) in rates else {}

    def _memory(self) -> dict[str, float]:
        resident = self._of_each(lambda process: process.memory_info().rss)
        return {"memory_gib": sum(resident.values()) / GIB}

    def _threads(self) -> dict[str, float]:
        return {"threads": self._process(os.getpid()).num_threads()}

    def _of_each(self, read: Callable[[Any], Any]) -> dict[int, Any]:
        """Return a reading by process, without children that cannot be read."""
        own, *children = self.pids
        found = {own: read(self._process(own))}
        for pid in children:
            # A child may end at any time. The system does not reuse its pid soon.
            with contextlib.suppress(self._psutil.Error, OSError):
                found[pid] = read(self._process(pid))
        return found

    def _process(self, pid: int) -> Any:
        process = self._known.get(pid)
        if process is None:
            process = self._known[pid] = self._psutil.Process(pid)
        return process

    def _find_children(self) -> Iterable[int]:
        """Return the pids of all descendants of this process."""
        own = os.getpid()
        if not Path(f"/proc/{own}/task/{own}/children").exists():
            return [child.pid for child in self._process(own).children(recursive=True)]
        # A hundred times faster than inspecting every process of the machine.
        found: list[int] = []
        pending = [own]
        while pending:
            children = list(_children_of(pending.pop()))
            found += children
            pending += children
        return found


def _children_of(pid: int) -> Iterable[int]:
    """Yield the pids of the processes that the threads of a process have started."""
    with contextlib.suppress(OSError):  # a process or thread may end at any time
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                yield from map(int, (thread / "children").read_bytes().split())


def _total(counters: Iterable[Any], field: str) -> float | None:
    """Return the sum of a field; None if no counter has it."""
    found = [value for one in counters if (value := getattr(one, field, None)) is not None]
    return sum(found) if found else None


def _traffic(rates: Rates, counters: dict[str, float | None]) -> dict[str, float]:
    """Return rates in MB/s of the counters in bytes that the system has."""
    return rates.of({name: value / MB for name, value in counters.items() if value is not None})
