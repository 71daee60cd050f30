"""Reads JSON objects that are not quite JSON, as profilers write them.

Kineto writes names without escaping quotation marks and, in some versions, backslashes. Other tools
write ``nan``, ``inf`` and ``N/A`` as they are. Only objects that the standard library cannot decode
come here.

A quotation mark ends a string if what follows continues the object or list. If the rest of the
object then makes no sense, the last string is continued to its next possible end, and so on.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

__all__ = ["Mender", "decode"]

_MAX_ATTEMPTS = 40
"""The maximum number of attempts for one object."""

_MAX_DEPTH = 20
"""The maximum depth of lists and objects around the damage."""

_MAX_LENGTH = 1 << 18
"""Characters. Longer objects are not repaired; the usual ones have a few hundred."""

_MAX_WASTE = 2_000_000
"""Characters. The maximum length of all failed attempts, so that hostile files take seconds."""

_DECODING_SHARE = 16
"""How much faster the standard library counts lines for its error than an attempt reads text."""

decode = json.JSONDecoder(parse_float=Decimal, strict=False).raw_decode
"""Decode the JSON value at a position; return it and its end."""

_whitespace = re.compile(r"\s*").match
_commas = re.compile(r"[\s,]*").match
_key = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:', re.DOTALL).match
_word = re.compile(r'[^,\[\]{}":\n]*').match
_is_number = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?").fullmatch
_after_value = re.compile(r"\s*(?:[,}\]]|$)").match
_after_member = re.compile(r'\s*(?:\}|,\s*["}])').match
_after_escaped = re.compile(r'\s*(?:\}|,\s*(?:\}|"[^"\\]*"\s*:))').match
_after_element = re.compile(r"\s*[,\]]").match

_WORDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "": None,
    "nan": float("nan"),
    "-nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "infinity": float("inf"),
    "-infinity": float("-inf"),
}


class Mender:
    """Reads damaged objects; it gives up once too much work was in vain."""

    def __init__(self) -> None:
        self._waste = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether too much work was in vain."""
        return self._waste > _MAX_WASTE

    def count_failure(self, position: int) -> None:
        """Count a failure of ``decode`` that much text behind the beginning."""
        self._waste += 1 + position // _DECODING_SHARE

    def mend(self, text: str) -> dict[str, Any] | None:
        """Return the object that a text contains; None if it makes no sense as one object.

        The text begins with its opening brace and ends with its closing one.
        """
        skips: dict[int, int] = {}
        for _ in range(_MAX_ATTEMPTS if len(text) <= _MAX_LENGTH else 0):
            if self.is_exhausted:
                return None
            attempt = _Attempt(text, skips)
            try:
                value, end = attempt.object(1)
            except _SenselessError:
                value, end = {}, 0
            if end == len(text):
                return value
            self._waste += attempt.position + attempt.failures // _DECODING_SHARE
            if not attempt.strings:
                return None
            skips = {start: skip for start, skip in skips.items() if start in attempt.strings}
            skips[attempt.strings[-1]] = skips.get(attempt.strings[-1], 0) + 1
        return None


class _SenselessError(Exception):
    """The text does not make sense in this reading."""


class _Attempt:
    """One reading of a text.

    Args:
        text: the text.
        skips: the number of possible ends that a string leaves out, by its start.

    Attributes:
        strings: the starts of the strings that may have another end.
        position: how far the attempt came.
        failures: the sum of the positions where ``decode`` failed.
    """

    def __init__(self, text: str, skips: dict[int, int]) -> None:
        self.strings: list[int] = []
        self.position = self.failures = 0
        self._text = text
        self._skips = skips

    def _value(self, at: int, depth: int, follower: Any) -> tuple[Any, int]:
        at = self._skip_space(at)
        first = self._text[at : at + 1]
        if first == '"':
            return self._string(at, follower)
        try:
            value, end = decode(self._text, at)
        except (ValueError, ArithmeticError, RecursionError):
            self.failures += at
        else:
            if _after_value(self._text, end):
                return value, end
        if first in ("{", "["):
            if depth == _MAX_DEPTH:
                raise _SenselessError
            return self.object(at + 1, depth) if first == "{" else self._list(at + 1, depth)
        found = _word(self._text, at)
        return _bare(found[0].strip()), found.end()  # type: ignore[index,union-attr] # it matches ""

    def object(self, at: int, depth: int = 0) -> tuple[dict[str, Any], int]:
        """Return the object whose members begin at a position, and its end."""
        found: dict[str, Any] = {}
        while True:
            at = self._skip_commas(at)
            if self._text[at : at + 1] == "}":
                return found, at + 1
            key = _key(self._text, at)
            if not key:
                raise _SenselessError
            found[key[1]], at = self._value(key.end(), depth + 1, _after_member)
            self._check_follower(at, ",}")

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        while True:
            at = self._skip_commas(at)
            if self._text[at : at + 1] == "]":
                return found, at + 1
            value, at = self._value(at, depth + 1, _after_element)
            found.append(value)
            self._check_follower(at, ",]")

    def _check_follower(self, at: int, wanted: str) -> None:
        at = self._skip_space(at)
        if self._text[at : at + 1] not in tuple(wanted):
            raise _SenselessError

    def _skip_commas(self, at: int) -> int:
        return _commas(self._text, at).end()  # type: ignore[union-attr] # it matches "", too

    def _string(self, start: int, follower: Any) -> tuple[str, int]:
        text, skip = self._text, self._skips.get(start, 0)
        end = text.find('"', start + 1)
        while end > 0:
            first = end
            while text[first - 1] == "\\":
                first -= 1
            is_escaped = (end - first) % 2
            if (_after_escaped if is_escaped else follower)(text, end + 1):
                if not skip:
                    self.strings.append(start)
                    return _unescape(text[start + 1 : end]), end + 1
                skip -= 1
            end = text.find('"', end + 1)
        raise _SenselessError

    def _skip_space(self, at: int) -> int:
        self.position = at = _whitespace(self._text, at).end()  # type: ignore[union-attr] # it matches ""
        return at


def _unescape(text: str) -> str:
    """Return a string's text. If JSON would not allow it, it was written as it is."""
    try:
        value, end = decode(f'"{text}"')
    except ValueError:
        return text
    return str(value) if end == len(text) + 2 else text


def _bare(word: str) -> Any:
    """Return the value of a word without quotation marks: a number, or else its text."""
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if not _is_number(word):
        return word
    try:
        return Decimal(word)
    except ArithmeticError:  # the exponent is too large
        return float(word)
