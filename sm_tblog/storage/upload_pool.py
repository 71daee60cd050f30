"""The threads that upload to one destination: one a folder with something left, eight at most.

A thread takes the queue whose next attempt is due first, and makes it; no two take the same. They
end when no queue has anything left. Daemons: the process may end without them, since what they were
to bring is in the spool.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import Protocol

__all__ = ["MOST", "Task", "UploadPool"]

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


class UploadPool:
    """Threads that look after queues.

    Attributes:
        condition: guards what the queues share with them; notified when anything has changed.
        is_down: a barrier has waited in vain, and no attempt has succeeded since.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.is_down = False
        self._queues: set[Task] = set()
        self._busy: set[Task] = set()
        self._threads = 0

    def schedule(self, queue: Task) -> bool:
        """Have a queue looked after; return whether there is anybody to do it."""
        with self.condition:
            self._queues.add(queue)
            if self._threads < min(len(self._queues), MOST):
                # No thread can be started when the interpreter ends.
                with contextlib.suppress(RuntimeError):
                    thread = threading.Thread(target=self._run, name="sm_tblog upload", daemon=True)
                    thread.start()
                    self._threads += 1
            self.condition.notify_all()
            return self._threads > 0

    def _run(self) -> None:
        while (queue := self._next()) is not None:
            queue.step()
            with self.condition:
                self._busy.discard(queue)
                if queue.is_empty:
                    self._queues.discard(queue)
                self.condition.notify_all()

    def _next(self) -> Task | None:
        """Wait until an attempt is due, and return its queue; None when nothing is left."""
        with self.condition:
            while self._queues:
                idle = self._queues - self._busy
                queue = min(idle, key=lambda queue: queue.due, default=None)
                rest = math.inf if queue is None else queue.due - time.monotonic()
                if queue is not None and rest <= 0:
                    self._busy.add(queue)
                    return queue
                self.condition.wait(None if rest == math.inf else rest)
            self._threads -= 1
            return None
