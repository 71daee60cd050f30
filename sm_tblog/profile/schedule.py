"""The schedule of a step-driven profile: which steps of a training loop are recorded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from sm_tblog._errors import InvalidTypeError, InvalidValueError

__all__ = ["Phase", "Schedule"]


class Phase(NamedTuple):
    """The phase that a step belongs to. Neither flag is set while nothing is recorded.

    Attributes:
        cycle: the number of the cycle, from 0; -1 outside warm-up and recording.
        is_warm_up: whether engines run but their records are discarded.
        is_active: whether the step is recorded.
    """

    cycle: int
    is_warm_up: bool = False
    is_active: bool = False


@dataclass(frozen=True)
class Schedule:
    """The steps of a training loop to profile: cycles of waiting, warming up and recording.

    Each cycle creates one session. The arguments have the same names and meanings as those of
    ``torch.profiler.schedule``.

    Args:
        skip_first: the number of steps before the first cycle. The first steps of a loop are not
            representative.
        wait: the number of steps per cycle in which nothing is recorded.
        warmup: the number of steps per cycle in which engines run but their records are discarded,
            because the first step of an engine includes its start-up cost.
        active: the number of recorded steps per cycle, at least 1.
        repeat: the number of cycles; 0 repeats until the loop ends.

    Raises:
        InvalidTypeError: an argument is not an integer.
        InvalidValueError: an argument is negative, or ``active`` is 0.
    """

    skip_first: int = 0
    wait: int = 0
    warmup: int = 0
    active: int = 1
    repeat: int = 1

    def __post_init__(self) -> None:
        """Check the arguments."""
        for field in fields(self):
            number = getattr(self, field.name)
            minimum = 1 if field.name == "active" else 0
            if not isinstance(number, int):
                message = f"Schedule: {field.name} must be an integer, got {number!r:.60}"
                raise InvalidTypeError(message)
            if number < minimum:
                message = f"Schedule: {field.name} must be {minimum} or more, got {number}"
                raise InvalidValueError(message)

    @property
    def first_active(self) -> int:
        """The index of the first recorded step in the loop, from 0."""
        return self.skip_first + self.wait + self.warmup

    def phase(self, step: int) -> Phase:
        """Return the phase of a step.

        Args:
            step: the index of the step in the loop, from 0.
        """
        length = self.wait + self.warmup + self.active
        cycle, position = divmod(step - self.skip_first, length)
        if cycle < 0 or (self.repeat and cycle >= self.repeat) or position < self.wait:
            return Phase(-1)
        is_active = position >= self.wait + self.warmup
        return Phase(cycle, not is_active, is_active)
