"""Select what is watched: the kinds of arrays, and the arrays by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.rules.observation import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["as_filter", "check_kinds"]


def check_kinds(log: Any) -> tuple[str, ...]:
    """Return the kinds of arrays to watch.

    Raises:
        InvalidTypeError: ``log`` is neither a str nor a sequence of strs.
        InvalidValueError: one of them is not in ``KINDS``.
    """
    if log == "all":
        return KINDS
    kinds = (log,) if isinstance(log, str) else log
    try:
        kinds = tuple(kinds)
    except TypeError as error:
        message = f"log must be a sequence of {', '.join(KINDS)}; got {log!r}"
        raise InvalidTypeError(message) from error
    for kind in kinds:
        if kind not in KINDS:
            message = f"log must be among {', '.join(KINDS)}; got {kind!r}"
            raise InvalidValueError(message)
    return kinds


def as_filter(include: Any, exclude: Any) -> Callable[[str], bool]:
    """Return a function that returns whether a name is selected.

    Args:
        include: one or several regular expressions; a name is selected if one of them matches any
            part of it. None selects every name.
        exclude: one or several regular expressions; names that match are not selected.

    Raises:
        InvalidTypeError: an argument is neither a str nor a sequence of strs.
        InvalidValueError: an argument is not a regular expression.
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
        message = f"{argument}: {error.pattern!r} is not a regular expression: {error}"
        raise InvalidValueError(message) from error
    except TypeError as error:
        message = (
            f"{argument} must be a regular expression or a sequence of them, got {given!r:.60}"
        )
        raise InvalidTypeError(message) from error
