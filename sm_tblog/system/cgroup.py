"""What a container may use, and what it does use: Linux control groups, version 1 and 2.

A limit may be set at any level from the process's own group up to the root; the least one binds,
and usage is taken where it is set. The page cache that the kernel can drop at once is not counted
as used, as Kubernetes does it: else a container that reads its data seems full.

Where nothing is limited there is nothing to say, and the readings are empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sm_tblog.system.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Cgroup"]

GIB = 1 << 30

UNLIMITED = 1 << 62
"""Bytes. Version 1 says with a number of about 2 ** 63 that there is no limit."""


class _Memory(NamedTuple):
    """What a version calls the files on memory, and an entry of ``memory.stat``."""

    limit: str
    used: str
    cache: str


_V1 = _Memory("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Memory("memory.max", "memory.current", "inactive_file")


class Cgroup:
    """The limits of the control group that this process is in.

    Args:
        root: where ``proc`` and ``sys`` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        base = root / "sys" / "fs" / "cgroup"
        paths = _paths(root / "proc" / "self" / "cgroup")
        is_v1 = bool({"memory", "cpu"} & set(paths))
        self._names = _V1 if is_v1 else _V2
        self._memory = _binding(base, paths, "memory" if is_v1 else "", self._memory_limit)
        self._cpu = _binding(base, paths, "cpu" if is_v1 else "", _quota)
        self._account = self._cpu
        if is_v1 and self._cpu is not None:
            self._account = base / "cpuacct" / self._cpu.relative_to(base / "cpu")
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return the readings by name; those of the processor are since the call before.

        Raises:
            OSError: a file that was there cannot be read.
            ValueError: it holds what it should not.
        """
        return {**self._read_memory(), **self._read_cpu()}

    def _memory_limit(self, level: Path) -> int | None:
        limit = _number(level / self._names.limit)
        return None if limit is None or limit >= UNLIMITED else limit

    def _read_memory(self) -> dict[str, float]:
        level = self._memory
        limit = level and self._memory_limit(level)  # which may be changed at any time
        if level is None or not limit:
            return {}
        used = _number(level / self._names.used) or 0
        used -= _entries(level / "memory.stat").get(self._names.cache, 0)
        return {
            "memory_used_gib": used / GIB,
            "memory_limit_gib": limit / GIB,
            "memory_percent": 100 * used / limit,
        }

    def _read_cpu(self) -> dict[str, float]:
        quota = self._cpu and _quota(self._cpu)
        if self._cpu is None or self._account is None or not quota:
            return {}
        stat = _entries(self._cpu / "cpu.stat")
        nanoseconds = _number(self._account / "cpuacct.usage") or 0
        used = stat["usage_usec"] / 1e6 if "usage_usec" in stat else nanoseconds / 1e9
        counters = {"used": used, "periods": stat["nr_periods"], "throttled": stat["nr_throttled"]}
        readings = {"cpu_limit_cores": quota}
        if rates := self._rates.of(counters):
            periods = rates["periods"]
            readings["cpu_percent"] = 100 * rates["used"] / quota
            readings["cpu_throttled_percent"] = 100 * rates["throttled"] / periods if periods else 0
        return readings


def _paths(listing: Path) -> dict[str, str]:
    """Return this process's group by controller; that of version 2 by ``""``."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    return {name: path for _, names, path in parts for name in names.split(",")}


def _binding(
    base: Path, paths: dict[str, str], controller: str, limit_of: Callable[[Path], float | None]
) -> Path | None:
    """Return the folder of the level with the least limit; None where there is none.

    A container may be told a path of its host's, which it does not see: the root is its own group.
    """
    top = base / controller
    group = top / paths.get(controller, "/").lstrip("/")
    levels = [level for level in (group, *group.parents) if level.is_relative_to(top)]
    limits = [(limit_of(level), level) for level in levels]
    return min(((limit, level) for limit, level in limits if limit), default=(0, None))[1]


def _quota(level: Path) -> float | None:
    """Return how many cores' time a group may use; None without a limit."""
    try:
        quota, period = (level / "cpu.max").read_text(encoding="ascii").split()
    except FileNotFoundError:
        cores, per = _number(level / "cpu.cfs_quota_us"), _number(level / "cpu.cfs_period_us")
        return cores / per if cores is not None and cores > 0 and per else None
    return None if quota == "max" else int(quota) / int(period)


def _number(path: Path) -> int | None:
    """Return the number that a file holds; None for ``max``, and where there is no such file."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    return None if text == "max" else int(text)


def _entries(path: Path) -> dict[str, int]:
    """Return the numbers by name of a file with one of each in a line."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2}
