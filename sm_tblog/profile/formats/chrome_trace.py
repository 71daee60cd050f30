"""A streaming reader for traces in Chrome's JSON format, with bounded memory.

A trace is an object with a list ``traceEvents`` and some other values, or just that list. It may be
compressed with gzip. The C scanner of the standard library decodes it one event at a time from a
buffer that only grows to fit the longest event. This is faster than the available streaming
parsers, needs no package, and allows errors to give their position in the file.

Numbers with a fraction are decoded as ``Decimal``, because a time in microseconds since the epoch
with a precision of nanoseconds has more digits than a float.
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
_MAX_VALUE_LENGTH = 64 << 20
"""Characters. A longer value counts as damage; events have a few hundred."""

_END_MARGIN = 16
"""An error this near the end of the buffer, in characters, may just mean that it ends there."""

_decode = json.JSONDecoder(parse_float=Decimal, strict=False).raw_decode
_whitespace = re.compile(r"[ \t\r\n]*").match


class TraceReader:
    """Reads one trace.

    Args:
        file: a binary file. Compression is detected.
        name: the name of the file, for messages.

    Attributes:
        header: the values other than the events, filled while reading. PyTorch's profiler writes
            most of them first.
        events_read: the number of events read so far.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.header: dict[str, Any] = {}
        self.events_read = 0
        self._name = name
        buffered: Any = file if hasattr(file, "peek") else io.BufferedReader(cast("Any", file))
        packed = buffered.peek(2)[:2] == b"\x1f\x8b"
        self._file = gzip.GzipFile(fileobj=buffered) if packed else buffered
        self._text = ""
        self._position = 0
        self._bytes_before, self._lines_before = 0, 1  # before the buffer
        self._ended = False
        # Invalid UTF-8 is kept, so that positions match those in the file.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def events(self) -> Iterator[dict[str, Any]]:
        """Iterate over the events.

        Raises:
            InvalidValueError: the file is not a trace, damaged, or truncated. The message gives the
                position.
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
                self.fail('it has no list "traceEvents", so it is not a trace')
        else:
            self.fail("a trace must begin with { or [" if first else "the file is empty")
        if self._peek():
            self.fail("there is more data after the end of the trace")

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        """Raise an error that gives the position in the file.

        Args:
            reason: the description of the error.
            at: the position of the error in the buffer; by default the current position.

        Raises:
            InvalidValueError: always.
        """
        before = self._text[: self._position if at is None else at]
        line = self._lines_before + before.count("\n")
        offset = self._bytes_before + len(before.encode("utf-8", "surrogateescape"))
        message = (
            f"trace {self._name}: line {line}, byte {offset:,}, after {self.events_read:,} events: "
            f"{reason}"
        )
        raise InvalidValueError(message)

    def _list(self) -> Iterator[dict[str, Any]]:
        self._position += 1
        separator = "" if self._peek() == "]" else ","
        while separator == ",":
            event = self._value()
            if not isinstance(event, dict):
                self.fail(f"an event must be an object, not {event!r:.60}")
            yield event
            self.events_read += 1
            separator = self._expect(",]")
        if not separator:
            self._position += 1

    def _keys(self) -> Iterator[str]:
        self._position += 1
        separator = "" if self._peek() == "}" else ","
        while separator == ",":
            if self._peek() not in ("", '"'):
                self.fail("expected a key in quotes")
            key = self._value()
            self._expect(":")
            yield key
            separator = self._expect(",}")
        if not separator:
            self._position += 1

    def _expect(self, wanted: str) -> str:
        found = self._peek()
        if not found:
            self.fail("the trace is truncated")
        if found not in wanted:
            self.fail(f"expected {' or '.join(wanted)}, got {found!r}")
        self._position += 1
        return found

    def _peek(self) -> str:
        """Return the next non-whitespace character; "" at the end."""
        while True:
            space = _whitespace(self._text, self._position)
            self._position = space.end()  # type: ignore[union-attr] # it matches "", too
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more():
                return ""

    def _value(self) -> Any:
        """Read the next value."""
        if not self._peek():
            self.fail("the trace is truncated")
        while True:
            try:
                value, end = _decode(self._text, self._position)
            except json.JSONDecodeError as error:  # noqa: PERF203 - rarely more than once
                is_near_end = error.pos > len(self._text) - _END_MARGIN
                may_continue = is_near_end or error.msg.startswith("Unterminated")
                if not may_continue or len(self._text) - self._position > _MAX_VALUE_LENGTH:
                    self.fail(error.msg, error.pos)
                if not self._read_more():
                    self.fail("the trace is truncated or damaged in the value that begins here")
            except (ValueError, RecursionError) as error:  # a huge number, deep nesting
                self.fail(str(error))
            else:
                is_near_end = end > len(self._text) - _END_MARGIN
                may_continue = is_near_end and isinstance(value, (int, Decimal))
                if not (may_continue and self._read_more()):
                    self._position = end
                    return value

    def _read_more(self) -> bool:
        """Read more data into the buffer; return whether there was any."""
        if self._ended:
            return False
        done = self._text[: self._position]
        self._bytes_before += len(done.encode("utf-8", "surrogateescape"))
        self._lines_before += done.count("\n")
        self._text, self._position = self._text[self._position :], 0
        try:
            # At least doubles the buffer, so that a long value is decoded only a few times.
            data = self._file.read(max(_CHUNK, len(self._text)))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.fail(f"the compressed file is damaged or truncated: {error}", len(self._text))
        self._ended = not data
        self._text += self._utf8.decode(data, final=self._ended)
        return True
