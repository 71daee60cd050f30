"""Faults on the worker thread: counted, logged once, and raised at the barrier on request."""

from __future__ import annotations

import errno
import logging
import threading
from typing import TYPE_CHECKING

from sm_tblog._errors import InvalidTypeError, StoreError
from sm_tblog.storage.base import StoreLostError

if TYPE_CHECKING:
    from sm_tblog._types import OnError

__all__ = ["FaultLog"]

logger = logging.getLogger("sm_tblog")

_REMEDIES = {
    "make the folder writable": (errno.EACCES, errno.EPERM, errno.EROFS),
    "free some space": (errno.ENOSPC, errno.EDQUOT),
    "remove the file that is in the way": (errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    "raise the limit of open files (ulimit -n)": (errno.EMFILE, errno.ENFILE),
    "check the path": (errno.ENOENT,),
    "check the disk or the mount": (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
}
"""What a user can do about an error of the operating system."""


class FaultLog:
    """The faults of one writer.

    Each fault has a key: the sink or tag it concerns. A fault is logged when it first occurs, and
    again only after it was resolved.

    Args:
        on_error: ``"warn"`` logs a warning to the logger ``sm_tblog``; ``"raise"`` also keeps the
            first fault for ``raise_first``; a function is called with the exception instead.

    Attributes:
        count: the number of faults so far, counting every attempt.
        last: the message of the last fault, "" before the first.
    """

    def __init__(self, on_error: OnError) -> None:
        if on_error not in ("warn", "raise") and not callable(on_error):
            message = f"on_error must be 'warn', 'raise' or a function, got {on_error!r}"
            raise InvalidTypeError(message)
        self._on_error = on_error
        self._lock = threading.RLock()  # a signal handler may re-enter
        self._current: set[str] = set()
        self._first: Exception | None = None
        self.count = 0
        self.last = ""

    def report(self, key: str, error: Exception) -> None:
        """Count a fault, and log it if it is new."""
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
                logger.exception("on_error itself failed when called with: %s", error)
        elif is_new:
            logger.warning("%s", _describe(error))

    def warn_once(self, key: str, message: str) -> None:
        """Log a warning once, without counting a fault."""
        if self._add(key):
            logger.warning("%s", message)

    def resolve(self, key: str, message: str = "") -> None:
        """Mark a fault as resolved; log ``message`` if it was current."""
        with self._lock:
            was_current = key in self._current
            self._current.discard(key)
        if was_current and message:
            logger.info("%s", message)

    def raise_first(self) -> None:
        """Raise the first fault since the last call, if ``on_error`` is ``"raise"``."""
        error, self._first = self._first, None
        if error is not None:
            raise error

    def _add(self, key: str) -> bool:
        with self._lock:
            is_new = key not in self._current
            self._current.add(key)
        return is_new


def _describe(error: Exception) -> str:
    """Return what happened, what follows for the training, and what to do."""
    if not isinstance(error, StoreError):
        return str(getattr(error, "strerror", None) or error)
    remedies = [text for text, codes in _REMEDIES.items() if error.errno in codes]
    if isinstance(error, StoreLostError):
        consequence = "training continues, and logging with it, in a new file"
    else:
        consequence = "training continues, and the data is kept and written later"
    return "; ".join([error.strerror or str(error), consequence, *remedies])
