"""The threads that upload to one destination: one a folder with something left, eight at most.

A thread takes the lane whose next attempt is due first, and makes it; no two take the same. They
end when no lane has anything left. Daemons: the process may end without them, since what they were
to bring is in the spool.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import Protocol

__all__ = ["MOST", "Crew", "Task"]

MOST = 8
"""Threads for one destination."""


class Task(Protocol):
    """What a pool does again and again until nothing is left of it."""

    @property
    def due(self) -> float:
        """When the next attempt is to begin, by the monotonic clock."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        ...

    def step(self) -> None:
        """Make an attempt. Never raises."""
        ...


class Crew:
    """Threads that look after lanes.

    Attributes:
        condition: guards what the lanes share with them; notified when anything has changed.
        is_down: a barrier has waited in vain, and no attempt has succeeded since.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.is_down = False
        self._lanes: set[Task] = set()
        self._busy: set[Task] = set()
        self._threads = 0

    def call(self, lane: Task) -> bool:
        """Have a lane looked after; return whether there is anybody to do it."""
        with self.condition:
            self._lanes.add(lane)
            if self._threads < min(len(self._lanes), MOST):
                # No thread can be started when the interpreter ends.
                with contextlib.suppress(RuntimeError):
                    thread = threading.Thread(target=self._run, name="sm_tblog upload", daemon=True)
                    thread.start()
                    self._threads += 1
            self.condition.notify_all()
            return self._threads > 0

    def _run(self) -> None:
        while (lane := self._next()) is not None:
            lane.step()
            with self.condition:
                self._busy.discard(lane)
                if lane.is_empty:
                    self._lanes.discard(lane)
                self.condition.notify_all()

    def _next(self) -> Task | None:
        """Wait until an attempt is due, and return its lane; None when nothing is left."""
        with self.condition:
            while self._lanes:
                idle = self._lanes - self._busy
                lane = min(idle, key=lambda lane: lane.due, default=None)
                rest = math.inf if lane is None else lane.due - time.monotonic()
                if lane is not None and rest <= 0:
                    self._busy.add(lane)
                    return lane
                self.condition.wait(None if rest == math.inf else rest)
            self._threads -= 1
            return None
