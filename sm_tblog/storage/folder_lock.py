"""A lock on a local folder against other threads and processes."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["locked"]

INTERVAL = 0.005
"""Seconds between two attempts."""


@contextlib.contextmanager
def locked(folder: Path, timeout: float = math.inf) -> Iterator[None]:
    """Lock a folder against other threads and processes if the file system supports it.

    Args:
        folder: an existing folder.
        timeout: seconds after which the folder is used without the lock.
    """
    with contextlib.ExitStack() as stack:
        # Windows and some network file systems do not support it.
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(_quietly, os.close, descriptor)
            deadline = time.monotonic() + timeout
            while not _try_lock(descriptor, wait=timeout == math.inf):
                if time.monotonic() > deadline:
                    break
                time.sleep(INTERVAL)
            else:
                # Closing is not enough: a child forked in the meantime also holds the lock.
                stack.callback(_quietly, fcntl.flock, descriptor, fcntl.LOCK_UN)
        yield


def _try_lock(descriptor: int, *, wait: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _quietly(action: Callable[..., object], *args: object) -> None:
    """Call a function of a lock, whose failure must not look like a failed write."""
    with contextlib.suppress(OSError):
        action(*args)
