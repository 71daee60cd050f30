"""The memory of the process, as curves beside the steps.

``True`` reads what the operating system counts, twenty times a second, at no cost to the script.
``"python"`` also has ``tracemalloc`` count what Python's own allocator gives out, which costs about
0.7 µs for each object that is made: where a leak is one of Python objects, it shows.
"""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import MissingDependencyError
from sm_tblog.profile.formats.xspace import HOST_PLANE
from sm_tblog.profile.recording.ticker import Ticker
from sm_tblog.profile.recording.timeline import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.profile.formats.xspace import Space

__all__ = ["Memory"]

INTERVAL = 0.05
"""Seconds between two looks."""

RESIDENT = "resident memory (MB)"
PYTHON = "memory of Python objects (MB)"


class Memory:
    """An engine: the memory of the process.

    Args:
        python: whether to count the memory of Python objects too.

    Raises:
        MissingDependencyError: not on Linux, and psutil is not installed.
    """

    name = "the memory's curves"

    def __init__(self, *, python: bool) -> None:
        self._read = _reader()
        self._python = python
        self._traces = False
        self._rows: list[tuple[int, int, int]] = []
        self._ticker = Ticker(self._look, INTERVAL, "memory")

    def start(self) -> None:
        """Begin to look."""
        if self._python and not tracemalloc.is_tracing():
            tracemalloc.start()
            self._traces = True
        self._ticker.start()

    def stop(self) -> None:
        """Look for the last time."""
        self._ticker.stop()
        self._look()
        if self._traces:
            tracemalloc.stop()

    def reset_after_fork(self) -> None:
        """Count nothing in a forked child."""
        if self._traces:
            tracemalloc.stop()

    def export(self, space: Space) -> None:
        """Draw the curves."""
        line = space.plane(HOST_PLANE).line(COUNTERS)
        for at, resident, python in self._rows:
            line.event(RESIDENT, at, 0, {"value": resident / 1e6})
            if self._python:
                line.event(PYTHON, at, 0, {"value": python / 1e6})

    def _look(self) -> None:
        python = tracemalloc.get_traced_memory()[0] if self._python else 0
        self._rows.append((time.time_ns(), self._read(), python))


def _reader() -> Callable[[], int]:
    """Return what reads the resident memory of this process, in bytes."""
    statm = Path("/proc/self/statm")
    if statm.exists():  # on Linux
        import resource

        page = resource.getpagesize()
        return lambda: int(statm.read_bytes().split()[1]) * page
    try:
        import psutil
    except ImportError as error:
        message = "profile(memory=…) needs psutil on this system: pip install psutil"
        raise MissingDependencyError(message) from error
    process: Any = psutil.Process()
    return lambda: int(process.memory_info().rss)
