"""A thread that does something at an interval."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OWN_THREADS", "Ticker"]

OWN_THREADS = "sm_tblog"
"""What the names of this library's threads begin with."""

logger = logging.getLogger("sm_tblog")


class Ticker:
    """Calls a function at an interval, in a thread of its own, between ``start`` and ``stop``.

    Args:
        function: called at once, and then at the interval, never twice at a time.
        interval: in seconds, from the end of one call to the beginning of the next.
        name: of the thread.
    """

    def __init__(self, function: Callable[[], None], interval: float, name: str) -> None:
        self._function = function
        self._interval = interval
        # An event would do, and makes a lock for each wait.
        self._running = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"{OWN_THREADS} {name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._running.acquire()
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for a call that is under way."""
        self._running.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self._function()
                if self._running.acquire(timeout=self._interval):
                    return
        except Exception:
            logger.exception("%s ends", self._thread.name)
