"""Limits and usage of a container: Linux control groups, version 1 and 2.

A limit can be set at any level from the process's own group up to the root. The lowest limit is the
binding one, and usage is read at its level. Page cache that the kernel can drop immediately does
not count as used memory, as in Kubernetes; otherwise a container that reads its data would appear
to be full.

Without a limit, the readings are empty. Old kernels and sandboxes do not have all files: a reading
is left out if its file is missing. Without ``memory.stat``, used memory includes all page cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sm_tblog.system.rates import Rates
from sm_tblog.system.sensor import Sensor

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


class Cgroup(Sensor):
    """A sensor for the limits and usage of this process's control group.

    Args:
        root: the folder that contains ``proc`` and ``sys``.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        super().__init__({
            "memory limit": self._read_memory_limit,
            "memory": self._read_memory,
            "processor limit": self._read_cpu_limit,
            "processor time": self._read_cpu,
            "throttling": self._read_throttling,
        })  # fmt: skip
        self._base = root / "sys" / "fs" / "cgroup"
        self._paths = _group_paths(root / "proc" / "self" / "cgroup")
        self._is_v1 = bool({"memory", "cpu"} & set(self._paths))
        self._files = _V1 if self._is_v1 else _V2
        self._levels: dict[str, Path | None] = {}
        self._cpu_rates, self._throttling_rates = Rates(), Rates()

    def _level(self, controller: str, limit_of: Callable[[Path], float | None]) -> Path | None:
        """Return the level that limits a resource; it is looked up once."""
        if controller not in self._levels:
            name = controller if self._is_v1 else ""
            self._levels[controller] = _binding_level(self._base, self._paths, name, limit_of)
        return self._levels[controller]

    def _memory(self) -> tuple[Path, int] | None:
        """Return the level that limits memory, and the limit, which can change at any time."""
        level = self._level("memory", self._memory_limit)
        limit = level and self._memory_limit(level)
        return (level, limit) if level is not None and limit else None

    def _memory_limit(self, level: Path) -> int | None:
        limit = _number(level / self._files.limit)
        return None if limit is None or limit >= UNLIMITED else limit

    def _cpu(self) -> tuple[Path, float] | None:
        """Return the level that limits processor time, and the limit in cores."""
        level = self._level("cpu", _quota)
        quota = level and _quota(level)
        return (level, quota) if level is not None and quota else None

    def _read_memory_limit(self) -> dict[str, float]:
        found = self._memory()
        return {"memory_limit_gib": found[1] / GIB} if found else {}

    def _read_memory(self) -> dict[str, float]:
        found = self._memory()
        used = found and _number(found[0] / self._files.used)
        if found is None or used is None:
            return {}
        level, limit = found
        used = max(used - _entries(level / "memory.stat").get(self._files.cache, 0), 0)
        return {"memory_used_gib": used / GIB, "memory_percent": 100 * used / limit}

    def _read_cpu_limit(self) -> dict[str, float]:
        found = self._cpu()
        return {"cpu_limit_cores": found[1]} if found else {}

    def _read_cpu(self) -> dict[str, float]:
        found = self._cpu()
        seconds = found and self._used_seconds(found[0])
        if found is None or seconds is None:
            return {}
        rates = self._cpu_rates.of({"used": seconds})
        return {"cpu_percent": 100 * rates["used"] / found[1]} if rates else {}

    def _used_seconds(self, level: Path) -> float | None:
        """Return the processor time of a group in seconds; None if the kernel does not report it.

        In version 1 it belongs to another controller, which may have a folder of its own.
        """
        if not self._is_v1:
            used = _entries(level / "cpu.stat").get("usage_usec")
            return None if used is None else used / 1e6
        other = self._base / "cpuacct" / level.relative_to(self._base / "cpu")
        for folder in (level, other):
            used = _number(folder / "cpuacct.usage")
            if used is not None:
                return used / 1e9
        return None

    def _read_throttling(self) -> dict[str, float]:
        found = self._cpu()
        stat = _entries(found[0] / "cpu.stat") if found else {}
        if not {"nr_periods", "nr_throttled"} <= set(stat):
            return {}
        rates = self._throttling_rates.of(
            {key: stat[key] for key in ("nr_periods", "nr_throttled")}
        )
        if not rates:
            return {}
        periods = rates["nr_periods"]
        return {"cpu_throttled_percent": 100 * rates["nr_throttled"] / periods if periods else 0}


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

    Raises:
        OSError: no limit was found, and a file cannot be read.
        ValueError: no limit was found, and a file has unexpected contents.
    """
    top = base / controller
    group = top / paths.get(controller, "/").lstrip("/")
    limits: list[tuple[float, Path]] = []
    errors: list[Exception] = []
    for level in (group, *group.parents):
        if level.is_relative_to(top):
            try:
                limit = limit_of(level)
            except (OSError, ValueError) as error:
                errors.append(error)
            else:
                limits += [(limit, level)] if limit else []
    if errors and not limits:
        raise errors[0]
    return min(limits)[1] if limits else None


def _quota(level: Path) -> float | None:
    """Return the limit of a group's processor time in cores; None without a limit."""
    text = _text(level / "cpu.max")
    if text is None:
        cores, per = _number(level / "cpu.cfs_quota_us"), _number(level / "cpu.cfs_period_us")
        return cores / per if cores is not None and cores > 0 and per else None
    quota, period = [*text.split(), "100000"][:2]  # the kernel's default period
    return None if quota == "max" else int(quota) / int(period)


def _number(path: Path) -> int | None:
    """Return the number in a file; None if it contains ``max`` or does not exist."""
    text = _text(path)
    return None if text in (None, "max") else int(text)


def _entries(path: Path) -> dict[str, int]:
    """Return the numbers by name from a file with a name and a number per line.

    Other lines are skipped. The result is empty if the file does not exist.
    """
    lines = (line.split() for line in (_text(path) or "").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}


def _text(path: Path) -> str | None:
    """Return the text of a file; None if it does not exist, as a kernel may not have it."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
