"""Checks of arguments that adapters take as their frameworks do."""

from __future__ import annotations

from typing import Any

from sm_tblog import InvalidTypeError, InvalidValueError

__all__ = ["as_batches", "as_frequency"]


def as_frequency(name: str, value: Any, *, least: int = 0) -> int:
    """Return a number of epochs or batches.

    Raises:
        InvalidTypeError: the value is not an integer.
        InvalidValueError: it is less than ``least``.
    """
    if isinstance(value, (bool, str)) or not hasattr(type(value), "__index__"):
        message = f"{name} is a number of epochs or batches, got {value!r:.60}"
        raise InvalidTypeError(message)
    if value < least:
        message = f"{name} is {least} or more, got {value!r:.60}"
        raise InvalidValueError(message)
    return int(value)


def as_batches(profile_batch: Any) -> range:
    """Return which batches to profile.

    Args:
        profile_batch: a batch, a pair of batches, or ``"first,last"``; 0 for none.

    Raises:
        InvalidTypeError: it is none of these.
        InvalidValueError: the last batch comes before the first, or one is negative.
    """
    given = profile_batch.split(",") if isinstance(profile_batch, str) else profile_batch
    try:
        ends = [int(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
    except (TypeError, ValueError) as error:
        message = f"profile_batch is a batch or a pair of batches, got {profile_batch!r:.60}"
        raise InvalidTypeError(message) from error
    if len(ends) not in {1, 2} or not 0 <= ends[0] <= ends[-1]:
        message = f"profile_batch: a batch and one not before it, or 0, not {profile_batch!r:.60}"
        raise InvalidValueError(message)
    return range(ends[0], ends[-1] + 1) if ends != [0] else range(0)
