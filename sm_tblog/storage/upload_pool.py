"""The threads that upload to one destination: one for each non-empty queue, at most eight.

Each thread picks the queue whose next attempt is due first and makes that attempt; a queue is
processed by one thread at a time. The threads end when all queues are empty. They are daemon
threads: the process may end before them, because their data is in the spool.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

__all__ = ["MAX_THREADS", "Task", "UploadPool"]

MAX_THREADS = 8
"""Maximum number of threads for one destination."""


class Task(Protocol):
    """Work that a pool repeats until nothing is left, such as an upload queue."""

    @property
    def due(self) -> float:
        """When the next attempt is due, by the monotonic clock."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        ...

    def step(self) -> None:
        """Make one attempt. Never raises."""
        ...


class UploadPool:
    """Threads that process upload queues.

    Attributes:
        condition: guards the state that queues and threads share; notified at every change.
        is_down: whether a barrier has timed out, and no attempt has succeeded since.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.is_down = False
        self._queues: set[Task] = set()
        self._busy: set[Task] = set()
        self._threads: set[threading.Thread] = set()

    def schedule(self, queue: Task) -> bool:
        """Add a queue to the pool; return whether there is a thread to process it."""
        with self.condition:
            self._queues.add(queue)
            if len(self._threads) < min(len(self._queues), MAX_THREADS):
                self._start_thread()
            self.condition.notify_all()
            return bool(self._threads)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="sm_tblog upload", daemon=True)
        try:
            self._threads.add(thread)
            thread.start()
        except BaseException as error:
            # An interrupt may come before the new thread says that it runs. It is given up then,
            # and ends by itself; see ``_next``.
            if not thread.is_alive():
                self._threads.discard(thread)
            if not isinstance(error, RuntimeError):  # the interpreter shuts down
                raise

    def _run(self) -> None:
        while (queue := self._next()) is not None:
            queue.step()
            with self.condition:
                self._busy.discard(queue)
                if queue.is_empty:
                    self._queues.discard(queue)
                self.condition.notify_all()

    def _next(self) -> Task | None:
        """Wait until an attempt is due and return its queue, or None if no queue is left."""
        with self.condition:
            thread = threading.current_thread()
            while self._queues and thread in self._threads:
                idle = self._queues - self._busy
                queue = min(idle, key=lambda queue: queue.due, default=None)
                delay = math.inf if queue is None else queue.due - time.monotonic()
                if queue is not None and delay <= 0:
                    self._busy.add(queue)
                    return queue
                self.condition.wait(None if delay == math.inf else delay)
            self._threads.discard(thread)
            return None
