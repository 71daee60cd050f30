"""Validation of arguments that adapters accept in the same form as their frameworks."""

from __future__ import annotations

from typing import Any

from sm_tblog import InvalidTypeError, InvalidValueError

__all__ = ["as_batches", "as_frequency"]


def as_frequency(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return a number of epochs or batches as an ``int``.

    Raises:
        InvalidTypeError: the value is not an integer.
        InvalidValueError: the value is less than ``minimum``.
    """
    if isinstance(value, (bool, str)) or not hasattr(type(value), "__index__"):
        message = f"{name} must be a number of epochs or batches, got {value!r:.60}"
        raise InvalidTypeError(message)
    if value < minimum:
        message = f"{name} must be at least {minimum}, got {value!r:.60}"
        raise InvalidValueError(message)
    return int(value)


def as_batches(profile_batch: Any) -> range:
    """Return the numbers of the batches to profile.

    Args:
        profile_batch: a batch number, a pair of first and last, or ``"first,last"``; 0 for none.

    Raises:
        InvalidTypeError: the argument has none of these forms.
        InvalidValueError: the last batch comes before the first, or a number is negative.
    """
    given = profile_batch.split(",") if isinstance(profile_batch, str) else profile_batch
    try:
        ends = [int(batch) for batch in (given if isinstance(given, (list, tuple)) else [given])]
    except (TypeError, ValueError) as error:
        message = f"profile_batch must be a batch or a pair of batches, got {profile_batch!r:.60}"
        raise InvalidTypeError(message) from error
    if len(ends) not in {1, 2} or not 0 <= ends[0] <= ends[-1]:
        message = f"profile_batch must be 0, a batch, or first <= last, got {profile_batch!r:.60}"
        raise InvalidValueError(message)
    return range(ends[0], ends[-1] + 1) if ends != [0] else range(0)
