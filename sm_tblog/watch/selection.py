"""What is watched of a model: kinds of arrays, and which of them by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.rules.observation import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["as_filter", "check_kinds"]


def check_kinds(log: Any) -> tuple[str, ...]:
    """Return what is to be watched.

    Raises:
        InvalidTypeError: it is no str and no sequence of such.
        InvalidValueError: one of them is none of ``KINDS``.
    """
    if log == "all":
        return KINDS
    kinds = (log,) if isinstance(log, str) else log
    try:
        kinds = tuple(kinds)
    except TypeError as error:
        message = f"log is a sequence of {', '.join(KINDS)}, got {log!r}"
        raise InvalidTypeError(message) from error
    for kind in kinds:
        if kind not in KINDS:
            message = f"log: what can be watched are {', '.join(KINDS)}; not {kind!r}"
            raise InvalidValueError(message)
    return kinds


def as_filter(include: Any, exclude: Any) -> Callable[[str], bool]:
    """Return what tells whether a name is wanted.

    Args:
        include: a regular expression that is found in the name, or several; None for every name.
        exclude: the same, for what is not wanted after all.

    Raises:
        InvalidTypeError: one is no str and no sequence of such.
        InvalidValueError: one is no regular expression.
    """
    wanted, unwanted = _patterns("include", include), _patterns("exclude", exclude)

    def is_wanted(name: str) -> bool:
        found = include is None or any(pattern.search(name) for pattern in wanted)
        return found and not any(pattern.search(name) for pattern in unwanted)

    return is_wanted


def _patterns(argument: str, given: Any) -> list[re.Pattern[str]]:
    given = () if given is None else (given,) if isinstance(given, (str, re.Pattern)) else given
    try:
        return [re.compile(pattern) for pattern in given]
    except re.error as error:
        message = f"{argument}: {error.pattern!r} is no regular expression: {error}"
        raise InvalidValueError(message) from error
    except TypeError as error:
        message = f"{argument} is a regular expression or a sequence of such, got {given!r:.60}"
        raise InvalidTypeError(message) from error
