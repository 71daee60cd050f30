"""The memory of the process, as curves next to the steps.

``memory=True`` reads the resident memory from the operating system 20 times a second, at no cost to
the script. ``memory="python"`` also counts the memory of Python objects with ``tracemalloc``, which
costs about 0.7 µs per new object. It shows whether a leak consists of Python objects.
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
"""Seconds between two samples."""

RESIDENT = "resident memory (MB)"
PYTHON = "memory of Python objects (MB)"


class Memory:
    """An engine that records the memory of the process.

    Args:
        python: whether to record the memory of Python objects too.

    Raises:
        MissingDependencyError: the system is not Linux, and psutil is not installed.
    """

    name = "the memory recorder"

    def __init__(self, *, python: bool) -> None:
        self._read_resident = _resident_memory_reader()
        self._python = python
        self._started_tracemalloc = False
        self._samples: list[tuple[int, int, int]] = []
        self._ticker = Ticker(self._sample, INTERVAL, "memory")

    def start(self) -> None:
        """Start sampling."""
        if self._python and not tracemalloc.is_tracing():
            tracemalloc.start()
            self._started_tracemalloc = True
        self._ticker.start()

    def stop(self) -> None:
        """Take the last sample and stop."""
        self._ticker.stop()
        self._sample()
        if self._started_tracemalloc:
            tracemalloc.stop()

    def reset_after_fork(self) -> None:
        """Stop ``tracemalloc`` in a forked child."""
        if self._started_tracemalloc:
            tracemalloc.stop()

    def export(self, space: Space) -> None:
        """Add the samples to a session as counters, which the viewer shows as curves."""
        line = space.plane(HOST_PLANE).line(COUNTERS)
        for at, resident, python in self._samples:
            line.event(RESIDENT, at, 0, {"value": resident / 1e6})
            if self._python:
                line.event(PYTHON, at, 0, {"value": python / 1e6})

    def _sample(self) -> None:
        python = tracemalloc.get_traced_memory()[0] if self._python else 0
        self._samples.append((time.time_ns(), self._read_resident(), python))


def _resident_memory_reader() -> Callable[[], int]:
    """Return a function that reads the resident memory of this process, in bytes."""
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
