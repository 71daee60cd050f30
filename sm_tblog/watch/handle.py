"""What ``writer.watch`` and its like return: how a watch is looked at and ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sm_tblog.rules.engine import RuleEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sm_tblog.rules.base import Alert

__all__ = ["Watch"]


class Watch:
    """A watch that goes on until ``remove``; a context manager that calls it.

    One of a disabled writer, or in a process of another rank than 0, does nothing.

    Args:
        engine: the rules.
        removed: called when the watch ends.
    """

    def __init__(
        self, engine: RuleEngine | None = None, removed: Callable[[], object] | None = None
    ) -> None:
        self._book = RuleEngine([]) if engine is None else engine
        self._removed = removed

    @property
    def alerts(self) -> Sequence[Alert]:
        """What rules have said so far, newest last; at most a thousand."""
        return list(self._book.alerts)

    def check(self) -> None:
        """Raise if a rule with the action ``"stop"`` has fired since the last call.

        Raises:
            RuleViolationError: it has.
        """
        self._book.check()

    def step(self, step: int | None = None) -> None:
        """Say that an update has been made, where nothing else tells.

        Args:
            step: the step to log at; by default the watch's own count, or ``writer.step``.

        Raises:
            RuleViolationError: a rule with the action ``"stop"`` has fired.
        """
        del step
        self.check()

    def remove(self) -> None:
        """End the watch. Ending it twice does nothing."""
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
