"""A streaming reader for traces in Chrome's JSON format, with bounded memory.

A trace is an object with a list ``traceEvents`` and some other values, or just that list. It may be
compressed with gzip. The C scanner of the standard library decodes it one event at a time from a
buffer that only grows to fit the longest event. This is faster than the available streaming
parsers, needs no package, and allows messages to give positions in the file.

An event that is not valid JSON is repaired if possible and left out otherwise, and a trace that is
truncated ends where its data ends. ``TraceReader.warnings`` describes both.

Numbers with a fraction are decoded as ``Decimal``, because a time in microseconds since the epoch
with a precision of nanoseconds has more digits than a float.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.profile.formats.mending import Mender, decode
from sm_tblog.profile.formats.trace_text import TraceText

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["TraceReader"]

_MAX_VALUE_LENGTH = 64 << 20
"""Characters. A longer value counts as damage; events have a few hundred."""

_END_MARGIN = 16
"""An error this near the end of the buffer, in characters, may just mean that it ends there."""

_MAX_GAP = 1000
"""Characters. The maximum distance of two events, with white space."""

_MAX_DAMAGE = 1 << 18
"""Characters. How far the end of a damaged event is searched for."""

_MAX_ENDS = 8
"""How many possible ends of a damaged event are tried."""

_EVENT_KEYS = frozenset({"ph", "ts", "name"})

_event_ends = re.compile(r"\}(?=\s*(?:,\s*\{|\]\s*(?:[,\[{]|\}?\s*\Z)|\Z))").finditer
_after_event = re.compile(r"\s*(?:[,{]|\]\s*(?:[,\[{]|\}?\s*\Z)|\Z)").match
_after_member = re.compile(r"\s*(?:[,}]|\Z)").match
_separator = re.compile(r"\s*,\s*(?=\{)").match
_next_events = re.compile(r"\}\s*,\s*(?=\{)").finditer
_kineto_event = re.compile(r'\{\s*"ph"\s*:').match
_list_start = re.compile(r'"traceEvents"\s*:\s*(?=\[)').search
_base_time = re.compile(r'"baseTimeNanoseconds"\s*:\s*(\d{1,19})\b').search


class _DamageError(Exception):
    """The value at the current position is not valid JSON.

    Its arguments are the reason, and how far behind the position the error is.
    """


class TraceReader(TraceText):
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
        super().__init__(file, name)
        self.header: dict[str, Any] = {}
        self._begin = 0  # of the last value
        self._mender = Mender()
        self._repaired = self._left_out = 0

    def events(self) -> Iterator[dict[str, Any]]:
        """Iterate over the events that can be read.

        Raises:
            InvalidValueError: the file is not a trace, or none of its events can be read. The
                message gives the position.
        """
        if self._peek() == "\ufeff":
            self._position += 1
        first = self._peek()
        if first == "[":
            yield from self._list()
        elif first == "{":
            yield from self._object()
        elif not self._damage:
            self.fail("a trace must begin with { or [" if first else "the file is empty")
        while following := self._peek():
            self._note("there is more data after the end of the trace")
            # A name may have imitated the end. Another trace is left out.
            if following in ("{", "[") or not self._find_event():
                break
            self._position -= 1
            yield from self._list()
        if self._damage and not self.events_read:
            raise InvalidValueError(self._damage)

    def warnings(self) -> list[str]:
        """Return what was repaired and what was left out, after reading the events."""
        found = [self._damage] if self._damage else []
        if self._left_out:
            found.append(f"{self._left_out:,} damaged events were left out")
        if self._repaired:
            found.append(
                f"{self._repaired:,} events were not valid JSON, such as a name with a quotation "
                f"mark, and were repaired"
            )
        return found

    def _object(self) -> Iterator[dict[str, Any]]:
        """Read the members of the trace, and yield its events."""
        self._position += 1
        found = False
        while self._skip_comma() not in ("", "}"):
            if self._read_member(is_before=not found):
                found = True
                yield from self._list()
        if self._peek():
            self._position += 1
        else:
            self._note("the trace is truncated")
        if not found and not self._damage:
            self.fail('it has no list "traceEvents", so it is not a trace')

    def _read_member(self, *, is_before: bool) -> bool:
        """Read a member of the trace; return whether its events follow, at the current position."""
        key = ""
        try:
            self._expect('"', "expected a key in quotes")
            key = self._value()
            self._expect(":", "expected :")
            self._position += 1
            first = self._expect("", "")
            if key == "traceEvents" and first == "[":
                return True
            value = self._value()
            if not _after_member(self._text, self._position):
                self._position = self._begin
                self._expect(",", "expected , or }")
            self.header[key] = value
        except _DamageError as damage:
            return self._mend_header(key, damage, is_before=is_before)
        return False

    def _expect(self, wanted: str, reason: str) -> str:
        """Return the next character. It must be the wanted one, or any if that is empty.

        Raises:
            _DamageError: the next character is another one, or the trace ends here.
        """
        found = self._peek()
        if not found:
            raise _DamageError("the trace is truncated", 0)  # noqa: EM101, TRY003 - internal
        if wanted and found != wanted:
            raise _DamageError(reason, 0)
        return found

    def _skip_comma(self) -> str:
        """Return the next character behind an optional comma; "" at the end."""
        if self._peek() == ",":
            self._position += 1
        return self._peek()

    def _list(self) -> Iterator[dict[str, Any]]:
        """Yield the events. Commas may be missing."""
        self._position += 1
        while True:
            first = self._skip_comma()
            if first == "{":
                event = self._event()
                if event is not None:
                    yield event
                    self.events_read += 1
            elif first == ",":
                continue
            elif first == "]":
                self._position += 1
                return
            elif not first:
                self._note("the trace is truncated")
                return
            else:
                self._skip_value()

    def _event(self) -> dict[str, Any] | None:
        """Return the event at the current position; None if it is left out."""
        try:
            event: dict[str, Any] = self._value()
        except _DamageError as damage:
            mended = self._mend_event()
            if mended is None:
                self._skip_event(damage)
            return mended
        if _after_event(self._text, self._position):
            return event
        end, self._position = self._position, self._begin  # a name may contain '"}'
        mended = self._mend_event()
        if mended is None:
            self._position += end - self._begin
        return mended or event

    def _skip_value(self) -> None:
        """Leave out a value in the list of events that is not an event."""
        try:
            found = self._value()
            self._note(f"an event must be an object, not {found!r:.60}")
            self._left_out += 1
        except _DamageError as damage:
            self._skip_event(damage)

    def _mend_event(self) -> dict[str, Any] | None:
        """Return the damaged event at the current position, and go behind it; None if it fails."""
        self._fill(_MAX_DAMAGE)
        begin, limit = self._position, self._position + _MAX_DAMAGE
        likely, others = [], []
        for match in islice(_event_ends(self._text, begin, limit), _MAX_ENDS):
            following = _separator(self._text, match.end())
            # Names contain no line breaks, but kineto puts one between two events.
            if following and "\n" not in following[0] and not self._is_event(following.end()):
                others.append(match.end())
                continue
            likely.append(match.end())
            if following:
                break  # a longer text would swallow that event
        for end in likely + others:
            event = self._mender.mend(self._text[begin:end])
            if event is not None:
                self._position = end
                self._repaired += 1
                return event
        return None

    def _skip_event(self, damage: _DamageError) -> None:
        """Go to the next event, or to the end of the file."""
        self._note(*damage.args)
        self._left_out += 1
        while not self._find_event():
            self._position = max(self._position + 1, len(self._text) - _MAX_GAP)
            if not self._read_more():
                self._position = len(self._text)
                return

    def _find_event(self) -> bool:
        """Go to the next event in the buffer; return whether there is one."""
        self._fill(_MAX_DAMAGE)
        for match in _next_events(self._text, self._position):
            if self._is_event(match.end()):
                self._position = match.end()
                return True
        return False

    def _is_event(self, at: int) -> bool:
        """Return whether an event begins at a position of the buffer."""
        if _kineto_event(self._text, at):  # it may be damaged, too
            return True
        if self._mender.is_exhausted:
            return False
        try:
            found = decode(self._text, at)[0]
        except (ValueError, ArithmeticError, RecursionError):
            self._mender.count_failure(at)
            return False
        return not _EVENT_KEYS.isdisjoint(found)

    def _mend_header(self, key: str, damage: _DamageError, *, is_before: bool) -> bool:
        """Read damaged members of the trace, up to its events if they follow.

        Returns:
            Whether the events follow, at the current position.
        """
        if not is_before and self._find_event():  # the list has not ended, then
            self._position -= 1
            self._note(*damage.args)
            return True
        length = 2 * _MAX_DAMAGE
        begin = "{" + (json.dumps(key) + ":" if key else "")
        self._fill(length)
        events = _list_start(self._text, self._position) if is_before else None
        while is_before and not events and length < _MAX_VALUE_LENGTH and not self._ended:
            length *= 2
            self._fill(length)
            events = _list_start(self._text, self._position)
        rest = self._text[self._position : events.start() if events else None].strip(" \t\r\n,")
        mended = self._mender.mend(begin + rest + ("}" if events else ""))
        if mended is None:
            self._note(*damage.args)
            base = _base_time(rest)
            mended = {"baseTimeNanoseconds": int(base[1])} if base else {}
            self._position = len(self._text)
        else:
            self._position = len(self._text.rstrip()) - 1  # at the closing brace
        self.header.update(mended)
        if events:
            self._position = events.end()
        return bool(events)

    def _value(self) -> Any:
        """Read the next value.

        Raises:
            _DamageError: the value is not valid JSON. The position stays at its start.
        """
        while True:
            self._begin = self._position
            try:
                value, end = decode(self._text, self._position)
            except json.JSONDecodeError as error:
                is_near_end = error.pos > len(self._text) - _END_MARGIN
                may_continue = is_near_end or error.msg.startswith("Unterminated")
                if not may_continue or len(self._text) - self._position > _MAX_VALUE_LENGTH:
                    raise _DamageError(error.msg, error.pos - self._position) from None
                if not self._read_more():
                    reason = "the trace is truncated or damaged in the value that begins here"
                    raise _DamageError(reason, 0) from None
            except (ValueError, ArithmeticError, RecursionError) as error:
                # A huge number, or deep nesting.
                raise _DamageError(str(error), 0) from None
            else:
                is_near_end = end > len(self._text) - _END_MARGIN
                may_continue = is_near_end and isinstance(value, (int, Decimal))
                if not (may_continue and self._read_more()):
                    self._position = end
                    return value
