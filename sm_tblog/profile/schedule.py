"""Which steps of a training loop are profiled."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from sm_tblog._errors import InvalidTypeError, InvalidValueError

__all__ = ["Phase", "Schedule"]


class Phase(NamedTuple):
    """What a step is.

    Attributes:
        cycle: of which cycle, from 0; -1 before the first and after the last.
        is_warm_up: engines run, and what they record does not count.
        is_active: what is recorded counts.
    """

    cycle: int
    is_warm_up: bool = False
    is_active: bool = False


@dataclass(frozen=True)
class Schedule:
    """Which steps of a training loop are profiled: cycles of waiting, warming up and recording.

    Each cycle makes a session of its own. The names and their meaning are those of
    ``torch.profiler.schedule``.

    Args:
        skip_first: steps before the first cycle. The first steps of a loop are not like the others.
        wait: steps of a cycle in which nothing is recorded.
        warmup: steps in which engines run and what they record does not count: the first step that
            one runs in pays for its start.
        active: steps that are recorded, at least one.
        repeat: how many cycles there are; 0 for as many as the loop lasts.

    Raises:
        InvalidTypeError: a number is not an integer.
        InvalidValueError: it is negative, or ``active`` is 0.
    """

    skip_first: int = 0
    wait: int = 0
    warmup: int = 0
    active: int = 1
    repeat: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for field in fields(self):
            number = getattr(self, field.name)
            least = 1 if field.name == "active" else 0
            if not isinstance(number, int):
                message = f"Schedule: {field.name} is an integer, got {number!r:.60}"
                raise InvalidTypeError(message)
            if number < least:
                message = f"Schedule: {field.name} is {least} or more, got {number}"
                raise InvalidValueError(message)

    def phase(self, step: int) -> Phase:
        """Return what a step is.

        Args:
            step: how many steps there were before it.
        """
        length = self.wait + self.warmup + self.active
        cycle, place = divmod(step - self.skip_first, length)
        if cycle < 0 or (self.repeat and cycle >= self.repeat) or place < self.wait:
            return Phase(-1)
        is_active = place >= self.wait + self.warmup
        return Phase(cycle, not is_active, is_active)
