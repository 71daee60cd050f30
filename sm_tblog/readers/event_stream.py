"""Decodes an event file that is fed in chunks of any size.

Intact records are decoded in batches. Where the bytes are not an intact record, the next header is
searched for, and some records are decoded one at a time, as batches cost too much where only few
records are intact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from sm_tblog.format import schema
from sm_tblog.format.crc32c import mask_one
from sm_tblog.format.range_checksums import RangeChecksums
from sm_tblog.format.record_scan import scan_records
from sm_tblog.format.records import (
    FOOTER,
    HEADER,
    NO_HEADER,
    WRONG_CHECKSUM,
    find_header,
    read_header,
)
from sm_tblog.readers.content_index import Place
from sm_tblog.readers.record_shape import SUFFIX

if TYPE_CHECKING:
    from sm_tblog.readers.columns import Columns

__all__ = ["Damage", "EventStream"]

_CAREFUL = 64
"""Records that are decoded one at a time after damage."""

_CAREFUL_BYTES = 1 << 13
"""Bytes of the first batch after that; each intact batch doubles the size of the next one."""

_NO_LIMIT = 1 << 40

_LONG = 1 << 16
"""After damage, records at least this long are decoded one at a time: the length may be wrong."""

_PADDING = bytes(SUFFIX)

_CUT_SHORT = "the record is cut short"
_NO_EVENT = "the record's data are not an event"


class Damage(NamedTuple):
    """Bytes of an event file that are not part of a complete event, or could not be read.

    Attributes:
        path: the file, or a folder that could not be listed.
        offset: offset of the first such byte in the file.
        size: number of bytes; 0 if it is not known, as the rest of the file could not be read.
        reason: why they could not be read.
    """

    path: str
    offset: int
    size: int
    reason: str

    def __str__(self) -> str:
        """Return a readable description."""
        if not self.size:
            return f"{self.path}: cannot be read from byte {self.offset:,} on: {self.reason}"
        return f"{self.path}: skipped {self.size:,} bytes at byte {self.offset}: {self.reason}"


class EventStream:
    """Adds the events of one file to the columns of its run.

    Args:
        path: the file's name in ``damages``.
        columns: receives the events.
        file: the number of the file in the columns.
    """

    def __init__(self, path: str, columns: Columns, file: int = 0) -> None:
        self.path = path
        self._damages: list[Damage] = []
        self._tail: Damage | None = None
        self._columns = columns
        self._file = file
        self._buffer = b""  # not decoded yet, from ``_start`` on
        self._start = 0
        self._is_lost = False  # whether a header is searched for
        self._careful = 0  # number of records to decode one at a time
        self._limit = _NO_LIMIT  # bytes of the next batch
        self._checksums: RangeChecksums | None = None  # after the first damage
        self._end = 0  # of the last complete event
        self._reason = ""  # why the bytes after it are skipped
        self._torn: _State | None = None  # before ``finish``

    @property
    def offset(self) -> int:
        """Offset in the file of the first byte that was not fed."""
        return self._start + len(self._buffer)

    @property
    def wanted(self) -> int:
        """Number of bytes that are worth feeding at once, 0 if any number will do.

        A record may claim more bytes than there are. So no more are asked for than were fed of it,
        which limits how often they are copied, and how much memory a wrong length costs.
        """
        if self._is_lost or len(self._buffer) < HEADER:
            return 0
        length = read_header(self._buffer, 0)
        missing = 0 if length is None else HEADER + length + FOOTER - len(self._buffer)
        return min(missing, len(self._buffer))

    def feed(self, data: bytes) -> None:
        """Decode the next bytes of the file."""
        joined = memoryview(b"".join((self._buffer, data, _PADDING)))
        self._buffer = b""
        end = self._decode(joined, is_last=False)
        self._buffer = bytes(joined[end : len(joined) - SUFFIX])
        self._start += end

    def finish(self) -> None:
        """Decode what is left, knowing that nothing follows."""
        self._torn = _State(
            self._start,
            self._buffer,
            self._is_lost,
            self._careful,
            self._limit,
            self._reason,
            self._end,
        )
        joined = memoryview(self._buffer + _PADDING)
        self._buffer = b""
        end = self._decode(joined, is_last=True)
        self._buffer = bytes(joined[end : len(joined) - SUFFIX])
        self._start += end
        size = self.offset - self._end
        if size:
            self._tail = Damage(self.path, self._end, size, self._reason or _CUT_SHORT)

    def fail(self, reason: str) -> None:
        """Note that the rest of the file cannot be read."""
        self._tail = Damage(self.path, self._end, 0, reason)

    def reopen(self) -> None:
        """Continue after ``finish`` or ``fail``, because the file may have grown."""
        self._tail = None
        torn = self._torn
        if torn is not None:
            self._start, self._buffer, self._is_lost = torn.start, torn.buffer, torn.is_lost
            self._careful, self._limit, self._reason = torn.careful, torn.limit, torn.reason
        self._torn = None

    @property
    def is_doubtful(self) -> bool:
        """Whether ``finish`` found events within a record that was cut short.

        If the file has grown, they may turn out to be part of that record's data.
        """
        return self._torn is not None and self._torn.end != self._end

    @property
    def has_failed(self) -> bool:
        """Whether the file could not be read to its end."""
        return self._tail is not None and not self._tail.size

    @property
    def damages(self) -> list[Damage]:
        """The bytes between complete events, and after ``finish`` or ``fail`` those at the end."""
        return self._damages if self._tail is None else [*self._damages, self._tail]

    def _decode(self, view: memoryview, *, is_last: bool) -> int:
        """Decode the intact records of a buffer that ends in padding.

        Args:
            view: the buffer, from ``_start`` on.
            is_last: whether nothing follows.

        Returns:
            Where the bytes begin that may be part of a record when more have been fed.
        """
        size = len(view) - SUFFIX
        position = 0
        while True:
            if self._is_lost:
                found = find_header(view[position:size])
                if found is None:
                    return max(position, size - HEADER + 1)
                position += found
                self._is_lost = False
            if size - position < HEADER:
                return position
            length = read_header(view, position)
            if length is None:
                self._lose(NO_HEADER.format(self._start + position))
                position += 1
            elif position + HEADER + length + FOOTER > size:
                if not is_last:
                    return position
                self._lose(_CUT_SHORT)
                position += 1
            elif self._careful or self._is_doubtful(length):
                position = self._decode_one(view, position, length)
            else:
                position = self._decode_batch(view, position)

    def _is_doubtful(self, length: int) -> bool:
        """Return whether a record of this length is not decoded in a batch after damage."""
        if HEADER + length + FOOTER > self._limit:
            return True
        return self._checksums is not None and length >= _LONG

    def _decode_one(self, view: memoryview, position: int, length: int) -> int:
        """Decode the complete record at a position; return the position after it."""
        offset = self._start + position
        begin = position + HEADER
        end = begin + length
        checksums = self._checksums = self._checksums or RangeChecksums()
        checksum = mask_one(checksums.of(view[begin:end], offset + HEADER))
        if checksum != int.from_bytes(view[end : end + FOOTER], "little"):
            # If bytes are missing, the data may extend into the next record.
            self._lose(WRONG_CHECKSUM.format(offset))
            return begin
        self._careful = max(self._careful - 1, 0)
        try:
            event = schema.Event.FromString(view[begin:end])
        except (DecodeError, UnicodeDecodeError):  # the latter of pure-Python protobuf
            self._reason = self._reason or _NO_EVENT
        else:
            self._columns.add_event(event, Place(self._file, offset + HEADER, length))
            self._complete(offset, offset + HEADER + length + FOOTER)
        return end + FOOTER

    def _decode_batch(self, view: memoryview, position: int) -> int:
        """Decode intact records at a position, where a short one is; return where they end."""
        part = view[position : position + self._limit + SUFFIX]
        offset = self._start + position
        end = self._columns.add_repeated(part)
        if end:
            self._complete(offset, offset + end)
            return position + end
        starts, lengths = scan_records(part[:-SUFFIX], self._columns.window)
        if self._checksums is not None:
            count = len(starts) if lengths.max() < _LONG else int((lengths >= _LONG).argmax())
            starts, lengths = starts[:count], lengths[:count]
        invalid, intact = self._columns.add_records(part, starts, lengths, self._file, offset)
        ends = starts + lengths + (HEADER + FOOTER)
        first = 0
        for stop in [*invalid, intact]:
            if stop > first:
                self._complete(offset + int(starts[first]), offset + int(ends[stop - 1]))
            if stop < intact:
                self._reason = self._reason or _NO_EVENT
            first = stop + 1
        if intact < len(starts):
            self._careful = _CAREFUL
            return position + int(starts[intact])
        self._limit = min(2 * self._limit, _NO_LIMIT)
        return position + int(ends[-1])

    def _lose(self, reason: str) -> None:
        """Note that the bytes at the current position are not an intact record."""
        self._is_lost = True
        self._careful = _CAREFUL
        self._limit = _CAREFUL_BYTES
        self._reason = self._reason or reason

    def _complete(self, offset: int, end: int) -> None:
        """Note that the bytes from ``offset`` to ``end`` are complete events."""
        if offset > self._end:
            self._damages.append(Damage(self.path, self._end, offset - self._end, self._reason))
        self._reason = ""
        self._end = end


class _State(NamedTuple):
    """What ``EventStream.reopen`` restores."""

    start: int
    buffer: bytes
    is_lost: bool
    careful: int
    limit: int
    reason: str
    end: int
