"""Sensors for this machine and this process, based on psutil.

A sensor is an object whose ``read()`` returns numbers by name. Rates cover the time between two
calls, so the first call returns no rates.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import MissingDependencyError
from sm_tblog.system.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Iterable

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


class Cpu:
    """A sensor for all cores, and for the busiest one: a Python loop keeps only one core busy."""

    def __init__(self) -> None:
        self._psutil = import_psutil()
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return the load of all cores and of the busiest core, in percent."""
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


class Memory:
    """A sensor for memory that is not available without swapping, and for swap."""

    def __init__(self) -> None:
        self._psutil = import_psutil()

    def read(self) -> dict[str, float]:
        """Return readings in percent and GiB."""
        memory = self._psutil.virtual_memory()
        used = memory.total - memory.available
        readings = {"used_gib": used / GIB, "percent": 100 * used / memory.total}
        swap = self._psutil.swap_memory()
        if swap.total:
            readings["swap_used_gib"] = swap.used / GIB
        return readings


class Disk:
    """A sensor for the traffic of all disks, and for the free space of the disk with a folder.

    Args:
        folder: a path. If it does not exist yet, the nearest existing parent is used.
    """

    def __init__(self, folder: Path) -> None:
        self._psutil = import_psutil()
        self._folder = folder.absolute()
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return the used space in percent, the free space in GiB, and the traffic in MB/s."""
        folder = next(path for path in (self._folder, *self._folder.parents) if path.exists())
        usage = self._psutil.disk_usage(str(folder))
        counters = self._psutil.disk_io_counters()  # None if the system reports no disks
        megabytes = {
            name: getattr(counters, name) / MB for name in ("read_bytes", "write_bytes") if counters
        }
        rates = self._rates.of(megabytes)
        return {
            "used_percent": usage.percent,
            "free_gib": usage.free / GIB,
            **{f"{name.removesuffix('_bytes')}_mb_per_s": rate for name, rate in rates.items()},
        }


class Network:
    """A sensor for the traffic of all network interfaces except loopback."""

    def __init__(self) -> None:
        self._psutil = import_psutil()
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return the traffic in MB/s."""
        counters = self._psutil.net_io_counters(pernic=True)
        real = [count for name, count in counters.items() if name not in LOOPBACK]
        sums = {
            "sent_mb_per_s": sum(count.bytes_sent for count in real) / MB,
            "received_mb_per_s": sum(count.bytes_recv for count in real) / MB,
        }
        return self._rates.of(sums) if real else {}


class Process:
    """A sensor for this process and its descendants, such as data loader workers.

    Attributes:
        pids: the ids of these processes at the last ``read``.
    """

    def __init__(self) -> None:
        self._psutil = import_psutil()
        self._own = self._psutil.Process()
        self._known: dict[int, Any] = {}
        self._rates = Rates()
        self.pids: list[int] = [self._own.pid]

    def read(self) -> dict[str, float]:
        """Return the used cores, resident memory in GiB, and the counts of threads and children.

        Memory that processes share counts for each of them.
        """
        found = set(self._find_children())
        self._known = {pid: self._known.get(pid) for pid in found}
        seconds: dict[str, float] = {}
        resident = 0
        children = 0
        for pid in (self._own.pid, *sorted(found)):
            # A child may end at any time. The system does not reuse its pid soon.
            with contextlib.suppress(self._psutil.NoSuchProcess, self._psutil.AccessDenied):
                process = self._own if pid == self._own.pid else self._process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    resident += process.memory_info().rss
                seconds[str(pid)] = times.user + times.system
                children += process is not self._own
        self.pids = list(map(int, seconds))
        rates = self._rates.of(seconds)
        readings = {
            "memory_gib": resident / GIB,
            "threads": float(self._own.num_threads()),
            "children": float(children),
        }
        if str(self._own.pid) in rates:
            readings["cpu_cores"] = sum(rates.values())
        return readings

    def _process(self, pid: int) -> Any:
        process = self._known.get(pid)
        if process is None:
            process = self._known[pid] = self._psutil.Process(pid)
        return process

    def _find_children(self) -> Iterable[int]:
        """Return the pids of all descendants of this process."""
        if not Path(f"/proc/{self._own.pid}/task/{self._own.pid}/children").exists():
            return [child.pid for child in self._own.children(recursive=True)]
        # A hundred times faster than inspecting every process of the machine.
        found: list[int] = []
        pending = [self._own.pid]
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
