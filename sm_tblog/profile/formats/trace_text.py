"""The text of a trace file, with bounded memory and with positions for messages."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from typing import TYPE_CHECKING, Any, NoReturn, cast

from sm_tblog._errors import InvalidValueError

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["TraceText"]

_CHUNK = 1 << 20

_whitespace = re.compile(r"[ \t\r\n]*").match


class TraceText:
    """A buffer with a part of a file's text, which is read from the current position on.

    Args:
        file: a binary file. Compression is detected.
        name: the name of the file, for messages.

    Attributes:
        events_read: the number of events read so far.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.events_read = 0
        self._name = name
        buffered: Any = file if hasattr(file, "peek") else io.BufferedReader(cast("Any", file))
        packed = buffered.peek(2)[:2] == b"\x1f\x8b"
        self._file = gzip.GzipFile(fileobj=buffered) if packed else buffered
        self._text = ""
        self._position = 0
        self._bytes_before, self._lines_before = 0, 1  # before the buffer
        self._bytes_read = 0
        self._ended = False
        # Invalid UTF-8 is kept, so that positions match those in the file.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._damage = ""  # the first

    def fail(self, reason: str) -> NoReturn:
        """Raise an error that gives the position in the file.

        Raises:
            InvalidValueError: always.
        """
        raise InvalidValueError(self.describe(reason))

    def describe(self, reason: str, offset: int = 0) -> str:
        """Return a message with the position in the file.

        Args:
            reason: the description of the error.
            offset: how far behind the current position the error is, in characters.
        """
        before = self._text[: self._position + offset]
        line = self._lines_before + before.count("\n")
        at = self._bytes_before + len(before.encode("utf-8", "surrogateescape"))
        return (
            f"trace {self._name}: line {line}, byte {at:,}, after {self.events_read:,} events: "
            f"{reason}"
        )

    def _note(self, reason: str, offset: int = 0) -> None:
        """Remember the first damage; the others are only counted."""
        if not self._damage:
            self._damage = self.describe(reason, offset)

    def _fill(self, length: int) -> None:
        """Read until the buffer contains so many characters after the current position."""
        while len(self._text) - self._position < length and self._read_more():
            pass

    def _peek(self) -> str:
        """Return the next non-whitespace character; "" at the end."""
        while True:
            space = _whitespace(self._text, self._position)
            self._position = space.end()  # type: ignore[union-attr] # it matches "", too
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more():
                return ""

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
            self._bytes_read += len(data)
            self._ended = not data
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            data = self._read_damaged()
            self._ended = True
            self._text += self._utf8.decode(data, final=True)
            self._note(f"the compressed file is damaged or truncated: {error}", len(self._text))
            return bool(data)
        self._text += self._utf8.decode(data, final=self._ended)
        return True

    def _read_damaged(self) -> bytes:
        """Return what can still be read of a damaged compressed file."""
        parts: list[bytes] = []
        try:
            self._file.seek(self._bytes_read)  # decompresses it again
            while part := self._file.read1():
                parts.append(part)
        except (OSError, EOFError, zlib.error):
            pass
        return b"".join(parts)
