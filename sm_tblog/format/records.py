"""Framing of messages as the records of an event file.

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
    "NO_HEADER",
    "WRONG_CHECKSUM",
    "Record",
    "Unframer",
    "find_header",
    "frame",
    "frame_header",
    "padding",
    "read_header",
]

HEADER = 12
"""Bytes before the data of a record."""
FOOTER = 4
"""Bytes after the data of a record."""
MAX_LENGTH = 1 << 31
"""Protocol buffers are shorter than this."""

NO_HEADER = "the bytes at offset {} are not a valid record header"
WRONG_CHECKSUM = "the data of the record at byte {} do not match their checksum"

_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<QI")


def frame_header(length: int) -> bytes:
    """Return the twelve bytes that precede ``length`` bytes of data."""
    return _HEADER.pack(length, masked_crc32c(_LENGTH.pack(length)))


def frame(data: Bytes) -> bytes:
    """Return ``data`` as one record."""
    return b"".join((frame_header(len(data)), data, _CRC.pack(masked_crc32c(data))))


def read_header(data: Bytes, offset: int) -> int | None:
    """Return the length in the record header at ``offset``, None if it is not a valid header.

    No header is valid whose record is longer than a protocol buffer may be.
    """
    length, expected = _HEADER.unpack_from(data, offset)
    if length >= MAX_LENGTH or masked_crc32c(_LENGTH.pack(length)) != expected:
        return None
    return int(length)


def padding(nbytes: int) -> bytes:
    """Return a record of ``nbytes`` bytes, at least 64, that every reader of event files skips.

    Its message has one field, with a number that does not occur in TensorBoard's schemas.
    """
    key = b"\xc2\x3e"  # field 1000, length-delimited
    room = nbytes - HEADER - FOOTER - len(key)
    digits = next(n for n in range(1, 6) if room - n < 1 << (7 * n))
    length = room - digits
    varint = bytes(
        (length >> (7 * i) & 0x7F) | (0x80 if i < digits - 1 else 0) for i in range(digits)
    )
    return frame(key + varint + bytes(length))


class Record(NamedTuple):
    """The data of a record and the record's offset in the stream, in bytes."""

    offset: int
    data: bytes


class Unframer:
    """Parses the records of a stream that is fed in chunks of any size.

    ::

        unframer = Unframer()
        unframer.feed(first_chunk)
        for record in unframer:
            ...
        unframer.feed(next_chunk)

    Iteration stops when the bytes fed so far contain no further complete record, and continues
    after the next ``feed``. A record with a wrong checksum raises ``CorruptRecordError`` once;
    iterating again continues at the next twelve bytes that are a valid header.

    Attributes:
        offset: offset of the next record in the stream, in bytes.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._buffer = bytearray()
        self._start = 0
        self._out_of_sync = False

    @property
    def pending(self) -> int:
        """Number of bytes fed that are not part of a record returned so far."""
        return len(self._buffer) - self._start

    def feed(self, data: Bytes) -> None:
        """Add the next chunk of the stream."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the complete records among the bytes fed so far."""
        while self.pending >= HEADER:
            if self._out_of_sync and not self._resynchronise():
                return
            length = self._length()
            end = self._start + HEADER + length + FOOTER
            if end > len(self._buffer):
                return
            data = bytes(memoryview(self._buffer)[self._start + HEADER : end - FOOTER])
            (expected,) = _CRC.unpack_from(self._buffer, end - FOOTER)
            offset = self.offset
            if masked_crc32c(data) != expected:
                # If bytes are missing, the data may extend into the next record.
                self._out_of_sync = True
                self._advance(HEADER)
                raise CorruptRecordError(WRONG_CHECKSUM.format(offset), offset)
            self._advance(end - self._start)
            yield Record(offset, data)

    def skip(self) -> None:
        """Skip the record of which only a part has been fed.

        At the end of a stream it will never be complete, but complete records may lie within the
        length that it claims.
        """
        if self.pending:
            self._out_of_sync = True
            self._advance(1)

    def _length(self) -> int:
        length = read_header(self._buffer, self._start)
        if length is None:
            offset = self.offset
            self._out_of_sync = True
            self._advance(1)
            raise CorruptRecordError(NO_HEADER.format(offset), offset)
        return length

    def _resynchronise(self) -> bool:
        found = find_header(memoryview(self._buffer)[self._start :])
        self._out_of_sync = found is None
        # A header may begin within the last bytes, so they are kept for the next chunk.
        self._advance(self.pending - HEADER + 1 if found is None else found)
        return not self._out_of_sync

    def _advance(self, count: int) -> None:
        self._start += count
        self.offset += count


def find_header(data: Bytes) -> int | None:
    """Return the offset of the first valid record header in ``data``, or None.

    Twelve random bytes are mistaken for a header with probability 2^-64.
    """
    if len(data) >= HEADER and read_header(data, 0) is not None:
        return 0
    view = np.frombuffer(data, np.uint8)
    start, chunk = 0, 1 << 8  # small at first, as headers often follow each other closely
    while start + HEADER <= len(view):
        part = view[start : start + chunk + HEADER - 1]
        zero = part == 0
        two = zero[:-1] & zero[1:]
        four = two[:-2] & two[2:]
        candidates = np.flatnonzero(four[4 : len(part) - HEADER + 5])
        begin, start, chunk = start, start + chunk, min(2 * chunk, 1 << 16)
        if not len(candidates):
            continue
        windows = np.lib.stride_tricks.sliding_window_view(part, HEADER)[candidates]
        stored = np.ascontiguousarray(windows[:, 8:]).view("<u4").ravel()
        valid = (mask(crc32c_rows(windows[:, :8])) == stored) & (windows[:, 3] < 0x80)
        found = np.flatnonzero(valid)
        if len(found):
            return begin + int(candidates[found[0]])
    return None
