"""Let no fork happen while a thread of this library imports a module.

A forked child has only the thread that forked. A module that another thread was importing stays
half-imported there for good: its names are missing, or importing it again waits forever. The worker
thread imports builders when it first needs them, and they import other packages, such as Pillow.
Therefore a fork waits until no thread of this library is importing anything.
"""

from __future__ import annotations

import sys
import threading
import time

__all__ = ["wait_for_imports"]

IMPORT_TIMEOUT = 5.0
"""Seconds that a fork waits at most: an import could wait for the thread that forks."""

_OWN_THREADS = "sm_tblog"
"""The prefix of the names of this library's threads."""

_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"


def wait_for_imports() -> None:
    """Wait until no other thread of this library imports a module. Called before a fork."""
    deadline = time.monotonic() + IMPORT_TIMEOUT
    while _is_importing() and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_importing() -> bool:
    """Return whether the stack of one of this library's threads contains the import system."""
    current = threading.get_ident()
    own = {
        thread.ident
        for thread in threading.enumerate()
        if thread.name.startswith(_OWN_THREADS) and thread.ident != current
    }
    if not own:
        return False
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - documented
        while ident in own and frame is not None:
            if frame.f_code.co_filename == _IMPORT_SYSTEM:
                return True
            frame = frame.f_back  # type: ignore[assignment]  # noqa: PLW2901 - down the stack
    return False
