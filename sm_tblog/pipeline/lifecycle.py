"""What happens to pipelines when the process forks, is asked to end, or ends.

=========================  ===================================================================
``fork``                   the child forgets the parent's rows and workers; what it logs itself
                           goes into files of its own
the interpreter's exit     every pipeline is closed, with a deadline
a child of                 the same, by that package's own exit hook: such a child ends with
``multiprocessing``        ``os._exit``, which runs no exit handlers
``SIGTERM``                every pipeline is flushed; then whatever was to happen before happens:
                           an earlier handler is called, or the signal ends the process. Not so
                           in a child of ``multiprocessing``, which is commonly ended that way
=========================  ===================================================================
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["close_at_exit", "is_exiting", "register", "register_for_forks", "unregister"]

EXIT_TIMEOUT = 30.0
"""Seconds that the end of the process waits for all pipelines together."""

TERM_TIMEOUT = 15.0
"""Seconds that ``SIGTERM`` waits; containers are commonly killed 30 s later, or sooner."""


class _Pipeline(Protocol):
    def reset_after_fork(self) -> None: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def close(self, timeout: float | None = None) -> bool: ...


_all: weakref.WeakSet[Any] = weakref.WeakSet()
_running: set[Any] = set()
_finalized: weakref.WeakSet[Any] = weakref.WeakSet()
_exiting = False
_installed = False
_previous_handler: Callable[[int, FrameType | None], Any] | int | None = None


def register(pipeline: _Pipeline) -> None:
    """Have a forked child begin anew with this pipeline."""
    _all.add(pipeline)
    _install_handler()  # its worker may begin in another thread, where that is not possible


def register_for_forks(thing: Any) -> None:
    """Have a forked child call ``reset_after_fork`` of this, as long as it exists."""
    _all.add(thing)


def close_at_exit(pipeline: _Pipeline) -> None:
    """Close this pipeline, whose worker has begun, when the process ends."""
    _running.add(pipeline)
    _install_handler()
    if _is_multiprocessing_child() and pipeline not in _finalized:
        from multiprocessing import util

        _finalized.add(pipeline)
        util.Finalize(pipeline, _close, args=(weakref.ref(pipeline),), exitpriority=0)


def unregister(pipeline: _Pipeline) -> None:
    """Forget a pipeline that is closed."""
    _running.discard(pipeline)


def _close(reference: weakref.ref[Any]) -> None:
    pipeline = reference()
    if pipeline is not None:
        _for_all([pipeline], "close", EXIT_TIMEOUT)


def is_exiting() -> bool:
    """Return whether the pipelines have been closed because the interpreter ends."""
    return _exiting


def _close_all() -> None:
    global _exiting  # noqa: PLW0603 - there is one interpreter
    _exiting = True
    _for_all(list(_running), "close", EXIT_TIMEOUT)


def _for_all(pipelines: list[Any], action: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    # The failure has been said; nobody is left to catch it.
    with contextlib.suppress(KeyboardInterrupt):
        for pipeline in pipelines:
            with contextlib.suppress(Exception):
                getattr(pipeline, action)(max(deadline - time.monotonic(), 0.0))


def _is_multiprocessing_child() -> bool:
    parent_process = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    return parent_process is not None and parent_process() is not None


def _reset_after_fork() -> None:
    _uninstall_handler()
    _running.clear()
    _finalized.clear()
    for pipeline in list(_all):
        pipeline.reset_after_fork()


def _install_handler() -> None:
    """Install the handler, once: one installed later may call it, and must not be called by it."""
    global _previous_handler, _installed  # noqa: PLW0603 - the signal's handler is global too
    if _installed or threading.current_thread() is not threading.main_thread():
        return
    if _is_multiprocessing_child():
        # Its parent expects the signal to end it at once. A handler in Python is not run when the
        # signal comes just before a wait: Pool.terminate() would then wait for ever.
        return
    current = signal.getsignal(signal.SIGTERM)
    # None: not a Python handler, which could not be put back. SIG_IGN: nothing ends the process.
    if current is None or current == signal.SIG_IGN:
        return
    _installed = True
    _previous_handler = current
    signal.signal(signal.SIGTERM, _on_sigterm)


def _uninstall_handler() -> None:
    """Have ``SIGTERM`` do what it did before; a forked child may be ended by it at any time."""
    global _installed  # noqa: PLW0603 - the signal's handler is global too
    if _installed and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, _previous_handler)
        _installed = False


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    _for_all(list(_running), "flush", TERM_TIMEOUT)
    if callable(_previous_handler):
        _previous_handler(number, frame)
    elif signal.getsignal(number) is _on_sigterm:  # else a later handler calls this one
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
