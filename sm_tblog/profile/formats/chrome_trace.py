"""Reads traces in Chrome's JSON format, event by event, in bounded memory.

A trace is an object with a list ``traceEvents`` and a few values beside it, or that list alone;
plain or compressed by gzip. It is decoded by the standard library's C scanner, an event at a time,
from a buffer that grows only as far as the longest event needs. That is faster than the streaming
parsers there are, takes no package, and knows where in the file it is when something is wrong.

Numbers with a fraction are ``Decimal``: nanoseconds in microseconds since the epoch have more
digits than a float.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, cast

from sm_tblog._errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["TraceReader"]

_CHUNK = 1 << 20
_LONGEST = 64 << 20
"""Characters of one value beyond which it is taken for damage. Events have a few hundred."""

_NEAR = 16
"""An error so near the end of the text may come from its being cut there."""

_decode = json.JSONDecoder(parse_float=Decimal, strict=False).raw_decode
_space = re.compile(r"[ \t\r\n]*").match


class TraceReader:
    """Reads one trace.

    Args:
        file: opened for reading bytes; compressed or not is found out.
        name: the file's, for messages.

    Attributes:
        header: the values beside the events, filled as they are read. PyTorch's profiler writes
            most of them first.
        read: how many events have been read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.header: dict[str, Any] = {}
        self.read = 0
        self._name = name
        buffered: Any = file if hasattr(file, "peek") else io.BufferedReader(cast("Any", file))
        packed = buffered.peek(2)[:2] == b"\x1f\x8b"
        self._file = gzip.GzipFile(fileobj=buffered) if packed else buffered
        self._text = ""
        self._at = 0
        self._bytes, self._lines = 0, 1  # before the text
        self._ended = False
        # What is no UTF-8 is kept, so that positions are those in the file.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def events(self) -> Iterator[dict[str, Any]]:
        """Iterate over the events.

        Raises:
            InvalidValueError: the file is no such trace, damaged or cut off; says where.
        """
        first = self._peek()
        if first == "[":
            yield from self._list()
        elif first == "{":
            found = False
            for key in self._keys():
                if key == "traceEvents" and self._peek() == "[":
                    found = True
                    yield from self._list()
                else:
                    self.header[key] = self._value()
            if not found:
                self.fail('there is no list "traceEvents" in it, so this is not a trace')
        else:
            self.fail("a trace begins with { or [" if first else "the file is empty")
        if self._peek():
            self.fail("something stands behind the end of the trace")

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        """Raise an error that says where reading has come to.

        Args:
            reason: what is wrong.
            at: where in the text, if not where reading has come to.

        Raises:
            InvalidValueError: always.
        """
        before = self._text[: self._at if at is None else at]
        line = self._lines + before.count("\n")
        place = self._bytes + len(before.encode("utf-8", "surrogateescape"))
        message = (
            f"trace {self._name}: line {line}, byte {place:,}, after {self.read:,} events: {reason}"
        )
        raise InvalidValueError(message)

    def _list(self) -> Iterator[dict[str, Any]]:
        self._at += 1
        separator = "" if self._peek() == "]" else ","
        while separator == ",":
            event = self._value()
            if not isinstance(event, dict):
                self.fail(f"an event is an object, not {event!r:.60}")
            yield event
            self.read += 1
            separator = self._take(",]")
        if not separator:
            self._at += 1

    def _keys(self) -> Iterator[str]:
        self._at += 1
        separator = "" if self._peek() == "}" else ","
        while separator == ",":
            if self._peek() not in ("", '"'):
                self.fail("a key in quotes is needed")
            key = self._value()
            self._take(":")
            yield key
            separator = self._take(",}")
        if not separator:
            self._at += 1

    def _take(self, wanted: str) -> str:
        found = self._peek()
        if not found:
            self.fail("the trace is cut off")
        if found not in wanted:
            self.fail(f"{' or '.join(wanted)} is needed, not {found!r}")
        self._at += 1
        return found

    def _peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            self._at = _space(self._text, self._at).end()  # type: ignore[union-attr] # matches ""
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        """Return the value that comes next."""
        if not self._peek():
            self.fail("the trace is cut off")
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:  # noqa: PERF203 - there is one value to read
                cut = error.pos > len(self._text) - _NEAR or error.msg.startswith("Unterminated")
                if not cut or len(self._text) - self._at > _LONGEST:
                    self.fail(error.msg, error.pos)
                if not self._more():
                    self.fail("the trace is cut off or damaged in the value that begins here")
            except (ValueError, RecursionError) as error:  # an endless number, a thousand brackets
                self.fail(str(error))
            else:
                may_go_on = end > len(self._text) - _NEAR and isinstance(value, (int, Decimal))
                if not (may_go_on and self._more()):  # as "0." does
                    self._at = end
                    return value

    def _more(self) -> bool:
        """Read on; return whether there was anything."""
        if self._ended:
            return False
        done = self._text[: self._at]
        self._bytes += len(done.encode("utf-8", "surrogateescape"))
        self._lines += done.count("\n")
        self._text, self._at = self._text[self._at :], 0
        try:
            # As much as there is already, so that a long value is not decoded many times.
            data = self._file.read(max(_CHUNK, len(self._text)))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.fail(f"the compressed file is damaged or cut off: {error}", len(self._text))
        self._ended = not data
        self._text += self._utf8.decode(data, final=self._ended)
        return True
