"""Print the last value of each curve to the terminal at intervals."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog._types import Series
    from sm_tblog.sinks.base import Batch

__all__ = ["ConsoleSink"]


class ConsoleSink:
    """Prints a line with the step and the last values, at most once per interval, with Rich.

    Args:
        logdir: not used, but passed to every sink factory.
        every: minimum seconds between lines.
        console: a ``rich.console.Console``; by default one on standard error, so that it does not
            mix with the program's standard output.
        clock: a function that returns monotonic seconds.

    Raises:
        MissingDependencyError: Rich is not installed.
    """

    def __init__(
        self,
        logdir: str = "",
        *,
        every: float = 5.0,
        console: Any = None,
        clock: Callable[[], float] = time.monotonic,
        **_options: object,
    ) -> None:
        try:
            from rich.console import Console
            from rich.markup import escape
        except ImportError as error:
            message = "the console sink needs Rich: pip install 'sm-tblog[console]'"
            raise MissingDependencyError(message) from error
        del logdir
        self._escape = escape
        self._console = console or Console(stderr=True, highlight=True)
        self._every = every
        self._clock = clock
        self._next_line = float("-inf")
        self._last: dict[Series, tuple[int, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which prints to its own console."""
        return {"every": self._every}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start afresh, on standard error."""
        self.__init__(**state)  # type: ignore[misc]

    def write(self, batch: Batch) -> None:
        """Record the last values and print them if it is time."""
        for series, step, _, value in batch.rows():
            self._last[series] = (step, value)
        if self._last and self._clock() >= self._next_line:
            self._print()

    def flush(self) -> None:
        """Do nothing: a barrier does not print."""

    def close(self) -> None:
        """Print the values logged since the last line."""
        if self._last:
            self._print()

    def _print(self) -> None:
        step = max(step for step, _ in self._last.values())
        values = "  ".join(
            f"[bold]{self._escape(_name(series))}[/] {value:.5g}"
            for series, (_, value) in self._last.items()
        )
        self._console.print(f"[dim]step[/] {step}  {values}")
        self._last.clear()
        self._next_line = self._clock() + self._every


def _name(series: Series) -> str:
    return f"{series.run}/{series.tag}" if series.run else series.tag
