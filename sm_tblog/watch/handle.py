"""The object that ``writer.watch`` and related methods return: read alerts, end the watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sm_tblog._compilation import uncompiled
from sm_tblog.rules.engine import RuleEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sm_tblog.rules.base import Alert

__all__ = ["Watch"]


@uncompiled
class Watch:
    """A watch that runs until ``remove`` is called; also a context manager that calls it.

    A watch of a disabled writer, or in a process with a rank other than 0, does nothing.

    Args:
        engine: the rule engine.
        removed: called when the watch ends.
    """

    def __init__(
        self, engine: RuleEngine | None = None, removed: Callable[[], object] | None = None
    ) -> None:
        self._engine = RuleEngine([]) if engine is None else engine
        self._removed = removed

    @property
    def alerts(self) -> Sequence[Alert]:
        """The alerts so far, newest last; at most the last 1,000."""
        return list(self._engine.alerts)

    def check(self) -> None:
        """Raise if a rule with the action ``"stop"`` has fired since the last call.

        Raises:
            RuleViolationError: such a rule has fired.
        """
        self._engine.check()

    def step(self, step: int | None = None) -> None:
        """Report an update of the weights that nothing else reports.

        Args:
            step: the step to log at; by default the watch's own count, or ``writer.step``.

        Raises:
            RuleViolationError: a rule with the action ``"stop"`` has fired.
        """
        del step
        self.check()

    def finish(self) -> None:
        """Log what has been recorded so far, if the watch waits for more."""

    def remove(self) -> None:
        """End the watch. Calling this again does nothing."""
        removed, self._removed = self._removed, None
        if removed is not None:
            removed()

    def __enter__(self) -> Self:
        """Return the watch."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the watch."""
        self.remove()
