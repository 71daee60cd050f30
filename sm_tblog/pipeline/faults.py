"""What goes wrong on the worker: counted, said once, raised at the barrier if asked for."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from sm_tblog._errors import InvalidTypeError

if TYPE_CHECKING:
    from sm_tblog._types import OnError

__all__ = ["FaultLog"]

logger = logging.getLogger("sm_tblog")


class FaultLog:
    """The failures of one writer.

    A failure has a key: the sink or the tag that it concerns. It is said when it begins, and again
    only after it had ended.

    Args:
        on_error: ``"warn"`` says it through the logger ``sm_tblog``; ``"raise"`` also keeps the
            first for ``raise_first``; a function is called with the exception instead.

    Attributes:
        count: failures so far, each attempt counted.
        last: what the last one said.
    """

    def __init__(self, on_error: OnError) -> None:
        if on_error not in ("warn", "raise") and not callable(on_error):
            message = f"on_error is 'warn', 'raise' or a function of an exception, not {on_error!r}"
            raise InvalidTypeError(message)
        self._on_error = on_error
        self._lock = threading.RLock()  # a signal's handler may come back here
        self._current: set[str] = set()
        self._first: Exception | None = None
        self.count = 0
        self.last = ""

    def report(self, key: str, error: Exception) -> None:
        """Take note of a failure, and say it if it is new."""
        with self._lock:
            self.count += 1
            self.last = str(error)
            if self._on_error == "raise" and self._first is None:
                self._first = error
            is_new = self._add(key)
        if is_new and callable(self._on_error):
            try:
                self._on_error(error)
            except Exception:
                logger.exception("on_error itself failed, given: %s", error)
        elif is_new:
            logger.warning("%s", error)

    def warn_once(self, key: str, message: str) -> None:
        """Say, once, what is worth knowing and no failure."""
        if self._add(key):
            logger.warning("%s", message)

    def resolve(self, key: str, message: str = "") -> None:
        """Take note that what failed works again."""
        with self._lock:
            was_current = key in self._current
            self._current.discard(key)
        if was_current and message:
            logger.info("%s", message)

    def raise_first(self) -> None:
        """Raise the first failure since the last call, if ``on_error`` is ``"raise"``."""
        error, self._first = self._first, None
        if error is not None:
            raise error

    def _add(self, key: str) -> bool:
        with self._lock:
            is_new = key not in self._current
            self._current.add(key)
        return is_new
