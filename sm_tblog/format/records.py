"""Framing: the record file that holds an event file's messages.

A record is (tensorflow/tsl/lib/io/record_writer.h)::

    uint64    length of the data, little-endian
    uint32    masked CRC-32C of these eight bytes
    byte      data[length]
    uint32    masked CRC-32C of the data
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sm_tblog._errors import CorruptRecordError
from sm_tblog.format.crc32c import crc32c_rows, mask, masked_crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog._types import Bytes

__all__ = [
    "FOOTER",
    "HEADER",
    "Record",
    "Unframer",
    "find_header",
    "frame",
    "frame_header",
    "padding",
]

HEADER = 12
"""Bytes before a record's data."""
FOOTER = 4
"""Bytes after a record's data."""

_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<QI")


def frame_header(length: int) -> bytes:
    """Return the twelve bytes that stand before ``length`` bytes of data."""
    return _HEADER.pack(length, masked_crc32c(_LENGTH.pack(length)))


def frame(data: Bytes) -> bytes:
    """Return ``data`` as one record."""
    return b"".join((frame_header(len(data)), data, _CRC.pack(masked_crc32c(data))))


def padding(nbytes: int) -> bytes:
    """Return a record of so many bytes, 64 or more, that every reader of event files passes over.

    Its message has one field, of a number that no schema of TensorBoard's has.
    """
    key = b"\xc2\x3e"  # field 1000, of a given length
    room = nbytes - HEADER - FOOTER - len(key)
    digits = next(n for n in range(1, 6) if room - n < 1 << (7 * n))
    length = room - digits
    varint = bytes(
        (length >> (7 * i) & 0x7F) | (0x80 if i < digits - 1 else 0) for i in range(digits)
    )
    return frame(key + varint + bytes(length))


class Record(NamedTuple):
    """A record's data and where the record begins in the stream, in bytes."""

    offset: int
    data: bytes


class Unframer:
    """Takes a stream in pieces of any size and gives back its records.

    ::

        unframer = Unframer()
        unframer.feed(first_piece)
        for record in unframer:
            ...
        unframer.feed(next_piece)

    Iteration stops where the bytes fed so far hold no further whole record and goes on after the
    next ``feed``. A record whose checksum is wrong raises ``CorruptRecordError`` once; iterating
    again goes on with the next twelve bytes that are a valid header.

    Attributes:
        offset: where the next record begins, in bytes from the start of the stream.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._buffer = bytearray()
        self._start = 0
        self._lost = False

    @property
    def pending(self) -> int:
        """Bytes fed that are not part of a record given back yet."""
        return len(self._buffer) - self._start

    def feed(self, data: Bytes) -> None:
        """Take the next piece of the stream."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the whole records among the bytes fed so far."""
        while self.pending >= HEADER:
            if self._lost and not self._resynchronise():
                return
            length = self._length()
            end = self._start + HEADER + length + FOOTER
            if end > len(self._buffer):
                return
            data = bytes(memoryview(self._buffer)[self._start + HEADER : end - FOOTER])
            (expected,) = _CRC.unpack_from(self._buffer, end - FOOTER)
            offset = self.offset
            if masked_crc32c(data) != expected:
                # Bytes may be missing, and what stands behind the data be inside another record.
                self._lost = True
                self._advance(HEADER)
                message = f"the data of the record at byte {offset} do not match their checksum"
                raise CorruptRecordError(message, offset)
            self._advance(end - self._start)
            yield Record(offset, data)

    def skip(self) -> None:
        """Give up the record that the bytes fed so far hold a part of.

        At the end of a stream it will never be whole, but whole ones may stand in what it claims.
        """
        if self.pending:
            self._lost = True
            self._advance(1)

    def _length(self) -> int:
        length, expected = _HEADER.unpack_from(self._buffer, self._start)
        if masked_crc32c(_LENGTH.pack(length)) != expected:
            offset = self.offset
            self._lost = True
            self._advance(1)
            message = f"the bytes at {offset} are not a record's header"
            raise CorruptRecordError(message, offset)
        return int(length)

    def _resynchronise(self) -> bool:
        found = find_header(memoryview(self._buffer)[self._start :])
        self._lost = found is None
        # A header may begin among the last bytes: they wait for the next piece.
        self._advance(self.pending - HEADER + 1 if found is None else found)
        return not self._lost

    def _advance(self, count: int) -> None:
        self._start += count
        self.offset += count


def find_header(data: Bytes) -> int | None:
    """Return where the first valid record header in ``data`` begins, or None.

    Twelve arbitrary bytes pass for a header once in 2^32.
    """
    view = np.frombuffer(data, np.uint8)
    piece = 1 << 13
    for start in range(0, len(view) - HEADER + 1, piece):
        windows = np.lib.stride_tricks.sliding_window_view(
            view[start : start + piece + HEADER - 1], HEADER
        )
        stored = np.ascontiguousarray(windows[:, 8:]).view("<u4").ravel()
        found = np.flatnonzero(mask(crc32c_rows(windows[:, :8])) == stored)
        if len(found):
            return start + int(found[0])
    return None
