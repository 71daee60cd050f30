"""Decodes an event file that is fed in chunks of any size.

Intact records are decoded in batches, by ``Columns.add_records``. Where the bytes are not an intact
record, an ``Unframer`` looks for the next one, and decodes record by record until it has found it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from sm_tblog._errors import CorruptRecordError
from sm_tblog.format import schema
from sm_tblog.format.record_scan import scan_records
from sm_tblog.format.records import FOOTER, HEADER, Unframer, read_header
from sm_tblog.readers.content_index import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog.format.records import Record
    from sm_tblog.readers.columns import Columns

__all__ = ["Damage", "EventStream"]

_PIECE = 1 << 16
"""Bytes given to the ``Unframer`` at a time."""

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
        self._buffer: bytes | memoryview = b""  # not decoded yet, from ``_start`` on
        self._start = 0
        self._unframer: Unframer | None = None  # while it looks for a record
        self._searched_from = 0
        self._end = 0  # of the last complete event
        self._reasons: list[str] = []  # why the bytes after it are skipped
        self._torn: tuple[int, bytes, int] | None = None  # the buffer before ``finish``

    @property
    def offset(self) -> int:
        """Offset in the file of the first byte that was not fed."""
        if self._unframer is not None:
            return self._unframer.offset + self._unframer.pending
        return self._start + len(self._buffer)

    @property
    def missing(self) -> int:
        """Number of bytes that complete the next record, 0 if unknown."""
        if self._unframer is not None or len(self._buffer) < HEADER:
            return 0
        length = read_header(self._buffer, 0)
        return 0 if length is None else HEADER + length + FOOTER - len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Decode the next bytes of the file."""
        view = memoryview(b"".join((self._buffer, data)) if self._buffer else data)
        start = self._start if self._unframer is None else self.offset
        position = 0
        while True:
            if self._unframer is None:
                position, may_go_on = self._decode(view, position, start)
                if may_go_on:
                    break
                self._search(start + position)
            unframer = self._search(start + position)
            piece = view[position : position + _PIECE]
            if not piece:
                break
            unframer.feed(piece)
            position += len(piece)
            self._drain(unframer)
            if unframer.in_sync and unframer.offset > self._searched_from:
                start_of_rest = unframer.offset
                view = memoryview(b"".join((unframer.take(), view[position:])))
                start, position = start_of_rest, 0
                self._unframer = None
        self._buffer = bytes(view[position:])
        self._start = start + position

    def skip(self) -> None:
        """Give up the record that is not complete: it will never be."""
        unframer = self._search(self._start)
        unframer.feed(self._buffer)
        self._buffer = b""
        unframer.skip()
        self._reasons.append(_CUT_SHORT)

    def finish(self) -> None:
        """Decode what is left, knowing that nothing follows."""
        self._torn = None
        if self._unframer is None:
            self._torn = self._start, bytes(self._buffer), self._end
        unframer = self._search(self._start)
        unframer.feed(self._buffer)
        self._buffer = b""
        self._drain(unframer)
        while unframer.pending >= HEADER:
            unframer.skip()
            self._reasons.append(_CUT_SHORT)
            self._drain(unframer)
        size = self.offset - self._end
        if size:
            self._tail = Damage(self.path, self._end, size, [*self._reasons, _CUT_SHORT][0])

    def fail(self, reason: str) -> None:
        """Note that the rest of the file cannot be read."""
        self._tail = Damage(self.path, self._end, 0, reason)

    def reopen(self) -> None:
        """Continue after ``finish`` or ``fail``, because the file may have grown."""
        self._tail = None
        if self._torn is not None and self._torn[2] == self._end:
            self._start, self._buffer, _ = self._torn
            self._torn = None
            self._unframer = None
            self._reasons.clear()

    @property
    def has_failed(self) -> bool:
        """Whether the file could not be read to its end."""
        return self._tail is not None and not self._tail.size

    @property
    def damages(self) -> list[Damage]:
        """The bytes between complete events, and after ``finish`` or ``fail`` those at the end."""
        return self._damages if self._tail is None else [*self._damages, self._tail]

    def _search(self, offset: int) -> Unframer:
        """Return the ``Unframer``; begin a search at ``offset`` if there is none."""
        if self._unframer is None:
            self._unframer = Unframer(offset)
            self._searched_from = offset
        return self._unframer

    def _decode(self, view: memoryview, position: int, start: int) -> tuple[int, bool]:
        """Decode the intact records at a position.

        Returns:
            The position after them, and whether what follows may become an intact record.
        """
        part = view[position:]
        offset = start + position
        starts, lengths = scan_records(part)
        end = 0
        if len(starts):
            invalid, intact = self._columns.add_records(part, starts, lengths, self._file, offset)
            ends = starts + lengths + (HEADER + FOOTER)
            first = 0
            for stop in [*invalid, intact]:
                if stop > first:
                    self._complete(offset + int(starts[first]), offset + int(ends[stop - 1]))
                if stop < intact:
                    self._reasons.append(_NO_EVENT)
                first = stop + 1
            if intact < len(starts):
                return position + int(starts[intact]), False
            end = int(ends[-1])
        rest = part[end:]
        return position + end, len(rest) < HEADER or read_header(rest, 0) is not None

    def _drain(self, unframer: Unframer) -> None:
        """Decode the records of the ``Unframer``, one at a time."""
        for offset, data in self._records(unframer):
            try:
                event = schema.Event.FromString(data)
            except (DecodeError, UnicodeDecodeError):  # the latter of pure-Python protobuf
                self._reasons.append(_NO_EVENT)
                continue
            self._columns.add_event(event, Place(self._file, offset + HEADER, len(data)))
            self._complete(offset, offset + HEADER + len(data) + FOOTER)

    def _records(self, unframer: Unframer) -> Iterator[Record]:
        while True:
            try:
                yield from unframer
            except CorruptRecordError as error:  # noqa: PERF203 - rare
                self._reasons.append(str(error))
            else:
                return

    def _complete(self, offset: int, end: int) -> None:
        """Note that the bytes from ``offset`` to ``end`` are complete events."""
        if offset > self._end:
            damage = Damage(self.path, self._end, offset - self._end, self._reasons[0])
            self._damages.append(damage)
        self._reasons.clear()
        self._end = end
