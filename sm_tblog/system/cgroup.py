"""Limits and usage of a container: Linux control groups, version 1 and 2.

A limit can be set at any level from the process's own group up to the root. The lowest limit is the
binding one, and usage is read at its level. Page cache that the kernel can drop immediately does
not count as used memory, as in Kubernetes; otherwise a container that reads its data would appear
to be full.

Without a limit, the readings are empty.
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
"""Bytes. In version 1, a limit of about 2 ** 63 means that there is none."""


class _MemoryFiles(NamedTuple):
    """The names of a version's memory files, and of an entry of ``memory.stat``."""

    limit: str
    used: str
    cache: str


_V1 = _MemoryFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _MemoryFiles("memory.max", "memory.current", "inactive_file")


class Cgroup:
    """A sensor for the limits and usage of this process's control group.

    Args:
        root: the folder that contains ``proc`` and ``sys``.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        base = root / "sys" / "fs" / "cgroup"
        paths = _group_paths(root / "proc" / "self" / "cgroup")
        is_v1 = bool({"memory", "cpu"} & set(paths))
        self._files = _V1 if is_v1 else _V2
        self._memory = _binding_level(base, paths, "memory" if is_v1 else "", self._memory_limit)
        self._cpu = _binding_level(base, paths, "cpu" if is_v1 else "", _quota)
        self._cpu_usage = self._cpu
        if is_v1 and self._cpu is not None:
            self._cpu_usage = base / "cpuacct" / self._cpu.relative_to(base / "cpu")
        self._rates = Rates()

    def read(self) -> dict[str, float]:
        """Return the readings by name. Processor time is measured since the previous call.

        Raises:
            OSError: a file cannot be read, or no longer exists.
            ValueError: a file has unexpected contents.
        """
        return {**self._read_memory(), **self._read_cpu()}

    def _memory_limit(self, level: Path) -> int | None:
        limit = _number(level / self._files.limit)
        return None if limit is None or limit >= UNLIMITED else limit

    def _read_memory(self) -> dict[str, float]:
        level = self._memory
        limit = level and self._memory_limit(level)  # it can change at any time
        if level is None or not limit:
            return {}
        used = _number(level / self._files.used) or 0
        used -= _entries(level / "memory.stat").get(self._files.cache, 0)
        return {
            "memory_used_gib": used / GIB,
            "memory_limit_gib": limit / GIB,
            "memory_percent": 100 * used / limit,
        }

    def _read_cpu(self) -> dict[str, float]:
        quota = self._cpu and _quota(self._cpu)
        if self._cpu is None or self._cpu_usage is None or not quota:
            return {}
        stat = _entries(self._cpu / "cpu.stat")
        nanoseconds = _number(self._cpu_usage / "cpuacct.usage") or 0
        used = stat["usage_usec"] / 1e6 if "usage_usec" in stat else nanoseconds / 1e9
        counters = {"used": used, "periods": stat["nr_periods"], "throttled": stat["nr_throttled"]}
        readings = {"cpu_limit_cores": quota}
        if rates := self._rates.of(counters):
            periods = rates["periods"]
            readings["cpu_percent"] = 100 * rates["used"] / quota
            readings["cpu_throttled_percent"] = 100 * rates["throttled"] / periods if periods else 0
        return readings


def _group_paths(listing: Path) -> dict[str, str]:
    """Return this process's groups by controller; ``""`` is the controller of version 2."""
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    return {name: path for _, names, path in parts for name in names.split(",")}


def _binding_level(
    base: Path, paths: dict[str, str], controller: str, limit_of: Callable[[Path], float | None]
) -> Path | None:
    """Return the folder of the level with the lowest limit; None without a limit.

    In a container, the path of its group may be one on the host, which does not exist in the
    container. The root is then the container's own group.
    """
    top = base / controller
    group = top / paths.get(controller, "/").lstrip("/")
    levels = [level for level in (group, *group.parents) if level.is_relative_to(top)]
    limits = [(limit_of(level), level) for level in levels]
    return min(((limit, level) for limit, level in limits if limit), default=(0, None))[1]


def _quota(level: Path) -> float | None:
    """Return the limit of a group's processor time in cores; None without a limit."""
    try:
        quota, period = (level / "cpu.max").read_text(encoding="ascii").split()
    except FileNotFoundError:
        cores, per = _number(level / "cpu.cfs_quota_us"), _number(level / "cpu.cfs_period_us")
        return cores / per if cores is not None and cores > 0 and per else None
    return None if quota == "max" else int(quota) / int(period)


def _number(path: Path) -> int | None:
    """Return the number in a file; None if it contains ``max`` or does not exist."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    return None if text == "max" else int(text)


def _entries(path: Path) -> dict[str, int]:
    """Return the numbers by name from a file with a name and a number per line."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2}
