"""This machine and this process, by psutil.

A sensor is an object whose ``read()`` returns numbers by name. What is a rate is taken between two
calls: the first returns only what needs none.
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
    """Return the module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        message = "system metrics need psutil: pip install 'sm-tblog[system]'"
        raise MissingDependencyError(message) from error
    return psutil


class Cpu:
    """All cores together, and the busiest one: a loop in Python keeps one busy of many."""

    def __init__(self) -> None:
        self._psutil = import_psutil()
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return percentages, of all cores and of one core."""
        counters: dict[str, float] = {}
        for core, times in enumerate(self._psutil.cpu_times(percpu=True)):
            idle = times.idle + getattr(times, "iowait", 0.0)
            # A guest's time is part of the user's.
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
    """Memory that cannot be had without swapping, and swap."""

    def __init__(self) -> None:
        self._psutil = import_psutil()

    def read(self) -> dict[str, float]:
        """Return percentages and GiB."""
        memory = self._psutil.virtual_memory()
        used = memory.total - memory.available
        readings = {"used_gib": used / GIB, "percent": 100 * used / memory.total}
        swap = self._psutil.swap_memory()
        if swap.total:
            readings["swap_used_gib"] = swap.used / GIB
        return readings


class Disk:
    """What all disks read and write, and how full the one is that holds a folder.

    Args:
        folder: a path that exists, or will; the nearest parent that does is taken.
    """

    def __init__(self, folder: Path) -> None:
        self._psutil = import_psutil()
        self._folder = folder.absolute()
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return the percentage that is used, GiB that are free, and MB a second."""
        folder = next(path for path in (self._folder, *self._folder.parents) if path.exists())
        usage = self._psutil.disk_usage(str(folder))
        counters = self._psutil.disk_io_counters()  # None where the system tells of no disk
        moved = {
            name: getattr(counters, name) / MB for name in ("read_bytes", "write_bytes") if counters
        }
        rates = self._rates.of(moved)
        return {
            "used_percent": usage.percent,
            "free_gib": usage.free / GIB,
            **{f"{name.removesuffix('_bytes')}_mb_per_s": rate for name, rate in rates.items()},
        }


class Network:
    """What all interfaces send and receive, but for those that lead back to this machine."""

    def __init__(self) -> None:
        self._psutil = import_psutil()
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return MB a second."""
        counters = self._psutil.net_io_counters(pernic=True)
        real = [count for name, count in counters.items() if name not in LOOPBACK]
        sums = {
            "sent_mb_per_s": sum(count.bytes_sent for count in real) / MB,
            "received_mb_per_s": sum(count.bytes_recv for count in real) / MB,
        }
        return self._rates.of(sums) if real else {}


class Process:
    """This process and those that it has started, as workers that load data.

    Attributes:
        pids: theirs, as of the last ``read``.
    """

    def __init__(self) -> None:
        self._psutil = import_psutil()
        self._own = self._psutil.Process()
        self._known: dict[int, Any] = {}
        self._rates = Rates()
        self.pids: list[int] = [self._own.pid]

    def read(self) -> dict[str, float]:
        """Return processor time in cores, resident memory in GiB, threads and children.

        Memory that processes share counts in each of them.
        """
        found = set(self._find_children())
        self._known = {pid: self._known.get(pid) for pid in found}
        seconds: dict[str, float] = {}
        resident = 0
        children = 0
        for pid in (self._own.pid, *sorted(found)):
            # A child may end at any time. Its number may be given to another much later only.
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
        """Return the numbers of all processes that descend from this one."""
        if not Path(f"/proc/{self._own.pid}/task/{self._own.pid}/children").exists():
            return [child.pid for child in self._own.children(recursive=True)]
        # A hundred times less work than to look at every process of the machine.
        found: list[int] = []
        unseen = [self._own.pid]
        while unseen:
            below = list(_started_by(unseen.pop()))
            found += below
            unseen += below
        return found


def _started_by(pid: int) -> Iterable[int]:
    """Yield the numbers of the processes that any thread of a process has started."""
    with contextlib.suppress(OSError):  # they end at any time
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                yield from map(int, (thread / "children").read_bytes().split())
