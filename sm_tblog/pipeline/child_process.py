"""What a child of ``multiprocessing`` needs: an exit hook, and storing before it sends.

Such a child ends with ``os._exit``, which runs no exit handlers, but the package has its own.

Its parent may also end it with ``SIGTERM`` at any time, and does: ``with Pool() as pool:
pool.map(task, …)`` ends all children as soon as it has the last result. So before a child sends
anything to another process, a result above all, everything that it has logged is passed to the
sinks. All that the package's pools, executors, queues and pipes send goes through one method of its
connections, also for PyTorch's data loaders and joblib. In children, this method is replaced.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_at_exit_and_before_sending", "is_child_process"]

_PACKAGES = ("multiprocessing", "multiprocess")
"""The standard library's package, and its variant that pickles with dill."""

_CONNECTIONS = ("Connection", "PipeConnection")
"""The second one only exists on Windows."""

_SEND = "_send_bytes"
"""The method through which a connection sends every message."""


def is_child_process() -> bool:
    """Return whether this process was started by ``multiprocessing``."""
    return any(_is_child_of(package) for package in _PACKAGES)


def call_at_exit_and_before_sending(
    at_exit: Callable[[], None], before_sending: Callable[[], None]
) -> None:
    """Call functions when this process, a child of ``multiprocessing``, exits and sends.

    Args:
        at_exit: called at the exit of the process.
        before_sending: called before each message, on the thread that sends it. It should not
            raise.
    """
    from importlib import import_module

    for package in filter(_is_child_of, _PACKAGES):
        util: Any = import_module(f"{package}.util")
        util.Finalize(None, at_exit, exitpriority=0)
        connection = import_module(f"{package}.connection")
        for kind in filter(None, (getattr(connection, name, None) for name in _CONNECTIONS)):
            send = getattr(kind, _SEND, None)
            # Replaced already, if this process was forked by a child.
            if send is not None and not hasattr(send, "__wrapped__"):
                setattr(kind, _SEND, _preceded(send, before_sending))


def _is_child_of(package: str) -> bool:
    parent_process = getattr(sys.modules.get(f"{package}.process"), "parent_process", None)
    return parent_process is not None and parent_process() is not None


def _preceded(send: Callable[..., Any], before: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(send)
    def call(*args: Any, **kwargs: Any) -> Any:
        before()
        return send(*args, **kwargs)

    return call
