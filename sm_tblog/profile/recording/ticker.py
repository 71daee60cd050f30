"""A thread that calls a function periodically."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OWN_THREADS", "Ticker"]

OWN_THREADS = "sm_tblog"
"""The prefix of the names of this library's threads."""

logger = logging.getLogger("sm_tblog")


class Ticker:
    """Calls a function periodically on a separate thread, from ``start`` to ``stop``.

    Args:
        function: the function to call, at once and then after each interval; calls never overlap.
        interval: the time in seconds from the end of a call to the start of the next.
        name: the name of the thread, without the prefix.
    """

    def __init__(self, function: Callable[[], None], interval: float, name: str) -> None:
        self._function = function
        self._interval = interval
        # A lock rather than an Event, which allocates a lock for each wait.
        self._running = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"{OWN_THREADS} {name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._running.acquire()
        try:
            self._thread.start()
        except BaseException:  # an interrupt, maybe before the thread says that it runs
            self._running.release()
            raise

    def stop(self) -> None:
        """Stop the thread, and wait for a running call to finish."""
        self._running.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self._function()
                if self._running.acquire(timeout=self._interval):
                    return
        except Exception:
            logger.exception("thread %s stopped", self._thread.name)
