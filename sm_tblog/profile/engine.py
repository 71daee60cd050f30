"""The interface of engines: profilers that record while a session is open.

The script's thread starts an engine before the profiled code and stops it after that, so both must
be quick. The writer's worker thread later adds the engine's records to the session's file.

To combine the records of several engines, events on a thread of this process go to the plane
``HOST_PLANE``, on the line whose id is the thread's ``threading.get_native_id()``. That is how
operators that PyTorch records appear inside the step that ``step_span`` has marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.profile.formats.xspace import Space

__all__ = ["Engine"]


class Engine(Protocol):
    """A profiler that records while a session is open.

    An engine may have a true attribute ``warms_up``. It is then started at the beginning of the
    warm-up of a step-driven session instead of at the first recorded step. It must leave out events
    that begin before ``space.begin_ns``.

    It may have a method ``reset_after_fork()``, which is called in a child process that is forked
    while the engine records. The method must remove the engine's hooks in the child, and must not
    touch what belongs to the parent.

    It may have an attribute ``name``, a str, for messages; the default is the name of its class.
    """

    def start(self) -> None:
        """Start recording. Called once.

        Raises:
            TBLogError: the engine cannot start, for example because another profiler is running.
        """
        ...

    def stop(self) -> None:
        """Stop recording. Called once, on the thread that called ``start``, if that succeeded."""
        ...

    def export(self, space: Space) -> Mapping[str, bytes] | None:
        """Add the records to a session. Called on the worker thread, after ``stop``.

        If this raises an exception, only the records of this engine are lost, and one warning is
        logged.

        Args:
            space: the session. Append warnings about the records to ``space.warnings``.

        Returns:
            Additional files of the session by their name in its folder, for an engine that creates
            whole files; None if there are none.
        """
        ...
