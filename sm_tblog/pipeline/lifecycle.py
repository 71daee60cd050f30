"""What happens to pipelines when the process forks, is terminated, or exits.

=========================  ===================================================================
``fork``                   waits until no thread of this library imports a module; the child
                           discards the parent's rows and worker threads; what the child logs goes
                           to its own files
interpreter exit           every pipeline is closed, with a deadline
exit of a child of         the same, through the package's own exit hook
``multiprocessing``
message of such a child    everything logged before is passed to the sinks first, because its
                           parent may end it once the message has arrived; see ``child_process``
``SIGTERM``                every pipeline is flushed; then the earlier handler is called, or the
                           signal ends the process. Not in a child of ``multiprocessing``,
                           because such children are commonly ended with this signal
=========================  ===================================================================

Whatever keeps data back that has not reached a pipeline yet is called first; see ``add_pending``.
"""

from __future__ import annotations

import atexit
import contextlib
import logging  # noqa: F401 - see the last lines
import os
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from sm_tblog.pipeline.child_process import call_at_exit_and_before_sending, is_child_process
from sm_tblog.pipeline.imports import wait_for_imports

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = [
    "add_pending",
    "close_at_exit",
    "is_exiting",
    "register",
    "register_for_forks",
    "remove_pending",
    "unregister",
]

EXIT_TIMEOUT = 30.0
"""Seconds that the process waits at exit for the stores of all pipelines together."""

TERM_TIMEOUT = 15.0
"""Seconds that the ``SIGTERM`` handler waits; containers are often killed 30 s later or sooner."""


class _Pipeline(Protocol):
    def reset_after_fork(self) -> None: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def hand_over(self) -> None: ...
    def close_at_exit(self, timeout: float) -> float: ...


_fork_hooks: weakref.WeakSet[Any] = weakref.WeakSet()
_running: set[Any] = set()
_pending: set[Any] = set()
_exiting = False
_installed = False
_installed_in_child = False
_previous_handler: Callable[[int, FrameType | None], Any] | int | None = None


def register(pipeline: _Pipeline) -> None:
    """Reset this pipeline in forked children."""
    _fork_hooks.add(pipeline)
    _install_handler()  # its worker may be started from another thread, where this is impossible


def register_for_forks(thing: Any) -> None:
    """Call ``thing.reset_after_fork()`` in forked children for as long as ``thing`` exists."""
    _fork_hooks.add(thing)


def close_at_exit(pipeline: _Pipeline) -> None:
    """Close this pipeline, whose worker thread is starting, when the process exits."""
    _running.add(pipeline)
    _install_handler()
    _install_in_child()


def unregister(pipeline: _Pipeline) -> None:
    """Remove a closed pipeline from those to close at exit."""
    _running.discard(pipeline)


def add_pending(thing: Any) -> None:
    """Call ``thing.log_pending()`` before pipelines are flushed or closed from here.

    The call may come from any thread, and from a signal handler.
    """
    _pending.add(thing)
    _install_in_child()


def remove_pending(thing: Any) -> None:
    """Undo ``add_pending``: everything is logged."""
    _pending.discard(thing)


def _log_pending() -> None:
    for thing in list(_pending):
        with contextlib.suppress(Exception):
            thing.log_pending()


def is_exiting() -> bool:
    """Return whether the pipelines are being or have been closed because the interpreter exits."""
    return _exiting


def _close_all() -> None:
    global _exiting  # noqa: PLW0603 - the interpreter exits once
    _exiting = True
    left = EXIT_TIMEOUT
    # Faults have been logged, and nothing is left to catch the exception.
    with contextlib.suppress(KeyboardInterrupt):
        _log_pending()
        for pipeline in list(_running):
            with contextlib.suppress(Exception):
                left = pipeline.close_at_exit(left)


def _hand_over_all() -> None:
    _log_pending()
    for pipeline in list(_running):
        with contextlib.suppress(Exception):
            pipeline.hand_over()


def _install_in_child() -> None:
    """Install the hooks of a child of ``multiprocessing``, unless this process is none."""
    global _installed_in_child  # noqa: PLW0603 - the hooks are global too
    if not _installed_in_child and is_child_process():
        _installed_in_child = True
        call_at_exit_and_before_sending(_close_all, _hand_over_all)


def _reset_after_fork() -> None:
    global _installed_in_child  # noqa: PLW0603 - the hooks are global too
    _uninstall_handler()
    _running.clear()
    _pending.clear()
    _installed_in_child = False
    for pipeline in list(_fork_hooks):
        pipeline.reset_after_fork()


def _install_handler() -> None:
    """Install the handler only once: a later one may call ours, and ours must not call it back."""
    global _previous_handler, _installed  # noqa: PLW0603 - the signal handler is global too
    if _installed or threading.current_thread() is not threading.main_thread():
        return
    if is_child_process():
        # The parent expects the signal to end the child at once. A Python handler does not run if
        # the signal arrives just before a wait, and Pool.terminate() would then wait forever.
        return
    current = signal.getsignal(signal.SIGTERM)
    # None: a handler not set from Python, which could not be restored. SIG_IGN: the process
    # ignores the signal.
    if current is None or current == signal.SIG_IGN:
        return
    _installed = True
    _previous_handler = current
    signal.signal(signal.SIGTERM, _on_sigterm)


def _uninstall_handler() -> None:
    """Restore the previous handler, because ``SIGTERM`` may end a forked child at any time."""
    global _installed  # noqa: PLW0603 - the signal handler is global too
    if _installed and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, _previous_handler)
        _installed = False


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    deadline = time.monotonic() + TERM_TIMEOUT
    with contextlib.suppress(KeyboardInterrupt):
        _log_pending()
        for pipeline in list(_running):
            with contextlib.suppress(Exception):
                pipeline.flush(max(deadline - time.monotonic(), 0.0))
    if callable(_previous_handler):
        _previous_handler(number, frame)
    elif signal.getsignal(number) is _on_sigterm:  # otherwise a later handler called this one
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    # The last function registered is called first. ``logging`` has been imported and has registered
    # its own, which takes a lock that imports need.
    os.register_at_fork(before=wait_for_imports, after_in_child=_reset_after_fork)
