"""Dictionaries by tag."""

from __future__ import annotations

import difflib
from typing import TypeVar

__all__ = ["TagDict"]

T = TypeVar("T")

_MAX_SUGGESTIONS = 3


class UnknownTagError(KeyError):
    """There is no such tag."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class TagDict(dict[str, T]):
    """A dictionary by tag whose ``KeyError`` suggests tags."""

    def __missing__(self, tag: object) -> T:
        """Raise a ``KeyError`` that names similar tags."""
        near = difflib.get_close_matches(str(tag), self, _MAX_SUGGESTIONS, 0.5)
        listed = ", ".join(map(repr, near or list(self)[:_MAX_SUGGESTIONS]))
        what = "did you mean" if near else "the first are" if self else "there are none at all"
        message = f"no such tag: {tag!r}; {what} {listed}".rstrip()
        raise UnknownTagError(message)
