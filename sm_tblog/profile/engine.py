"""What records while a session is open, beside the spans that the script marks itself.

An engine is started and stopped on the thread of the script, around what is profiled, and has to be
quick there. What it has recorded is made part of the session's file later, on the writer's
worker.

How several engines' records fit together: what happens on a thread of this process goes to the
plane ``HOST_PLANE``, on the line whose id is the thread's ``threading.get_native_id()``. So the
operators that PyTorch records stand inside the step that ``step_span`` has marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.profile.formats.xspace import Space

__all__ = ["Engine"]


class Engine(Protocol):
    """Something that records while a session is open.

    An engine may have an attribute ``warms_up``. If that is true it is started with the warm-up of
    a step-driven session, and not only with the first step that counts; what begins before
    ``space.begin_ns`` it then leaves out.

    It may have a method ``reset_after_fork()``, called in a child that is forked while the engine
    records: it removes its hooks there, and leaves alone what belongs to the parent.
    """

    def start(self) -> None:
        """Begin to record. Called once.

        Raises:
            TBLogError: it cannot, and why; another profiler runs, for example.
        """
        ...

    def stop(self) -> None:
        """End recording, on the thread that has started it. Called once, and only if started."""
        ...

    def export(self, space: Space) -> Mapping[str, bytes] | None:
        """Add what was recorded to a session, after ``stop``, on the worker.

        An exception loses what this engine has recorded, and nothing else; it is said once.

        Args:
            space: the session. What is not quite right is said in ``space.warnings``.

        Returns:
            Further files of the session by their name in its folder, for an engine that makes
            whole files by itself.
        """
        ...
