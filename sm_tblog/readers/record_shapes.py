"""Decodes many records of scalars at once.

The records of one curve differ only in the wall time, the step, the value and the checksum. Records
whose data have the same length, and whose steps have varints of the same width, form a group: a
matrix with one row for each record. A record of the group that no known *shape* fits is decoded
field by field, which gives a new shape. The first record of each of its templates is decoded with
protobuf, so tags and plugins are what protobuf says.

Most files repeat a sequence of templates. Where they do, ``decode_repeated`` expects the sequence
to go on, and compares, which costs less than looking for records and grouping them.

Records that fit no shape are left to the caller.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog.format.crc32c import MAX_ROW
from sm_tblog.format.records import FOOTER, HEADER
from sm_tblog.readers.record_layout import layout_of
from sm_tblog.readers.record_period import Period, find_period
from sm_tblog.readers.record_shape import SUFFIX, Shape, gather_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog._types import Bytes, IndexArray
    from sm_tblog.readers.record_layout import Value
    from sm_tblog.readers.record_shape import Rows

__all__ = ["RecordShapes"]

_MAX_WIDTH = 10
"""Bytes of the longest varint."""

_MIN_ROWS = 8
"""Smallest group worth decoding at once."""

_MAX_NEW_SHAPES = 4
"""Maximum number of shapes that a group may add in one batch."""

_MAX_SHAPES = 64
"""Maximum number of shapes of records with one length and width of the step."""

_MAX_TEMPLATES = 1 << 18
"""Maximum number of templates that are remembered."""

_MAX_HISTORY = 1 << 16
"""Records in which a period is looked for."""

_MIN_WINDOW, _MAX_WINDOW = 1 << 16, 1 << 22
"""Bytes decoded without expecting a period, before one is looked for."""

_WORTHWHILE = 4
"""A period that lasts for this many windows makes up for looking for it."""


class RecordShapes:
    """Decodes batches of records of one run, and learns shapes and templates from them.

    Buffers have ``SUFFIX`` bytes of any value after the last record.

    Args:
        values_of: decodes an event with protobuf; returns its scalars in order, or None if the
            data are not an event or contain anything else.

    Attributes:
        templates: the scalars of each template, by number.
        window: number of bytes to decode before ``decode_repeated`` is worth another attempt.
    """

    def __init__(self, values_of: Callable[[bytes], list[Value] | None]) -> None:
        self.templates: list[list[Value]] = []
        self.window = _MIN_WINDOW
        self._values_of = values_of
        self._by_key: dict[int, list[int]] = {}
        self._shapes: list[Shape] = []
        self._owners = array("q")  # of each template, the number of its shape
        self._positions = array("q")  # of each template, the position in its shape
        self._by_tail: dict[bytes, list[Value]] = {}
        self._history = np.empty(0, np.intp)  # templates of the last records, negative for others
        self._is_new = False  # whether records were added to it since a period was looked for
        self._period: Period | None = None
        self._gain = 0  # bytes that repeated the period

    def decode(self, data: Bytes, starts: IndexArray, lengths: IndexArray) -> list[Rows]:
        """Return the scalars of the records that have a known shape.

        Args:
            data: a buffer.
            starts: offsets of records in the buffer; intp, shape (n,).
            lengths: lengths of their data; intp, shape (n,).
        """
        octets = np.frombuffer(data, np.uint8)
        keys = _group_keys(octets, starts, lengths)
        order = np.argsort(keys, kind="stable")
        found: list[Rows] = []
        ends = np.cumsum(np.bincount(keys))
        for key in np.flatnonzero(np.diff(ends, prepend=0)).tolist():
            begin, end = int(ends[key - 1]) if key else 0, int(ends[key])
            if key and end - begin >= _MIN_ROWS:
                found += self._decode_group(octets, starts, order[begin:end], key)
        self._remember(found, len(starts))
        return found

    def decode_repeated(self, data: Bytes) -> tuple[list[Rows], int, int]:
        """Return the scalars of the first records, as far as they repeat earlier ones.

        Args:
            data: a buffer.

        Returns:
            The rows of consecutive, undamaged records, their number, and where they end.
        """
        period = self._period or self._find_period()
        if period is None:
            return [], 0, 0
        octets = np.frombuffer(data, np.uint8)
        count = period.match(octets[:-SUFFIX])
        if not count:
            self._drop(period)
            return [], 0, 0
        found = []
        for shape in np.unique(period.shapes).tolist():
            records, starts, positions = period.select(shape, count)
            if len(records):
                rows, _ = gather_rows(octets, starts, self._shapes[shape].itemsize)
                found.append(self._shapes[shape].read(records, rows, positions))
        damaged = [rows.records[np.flatnonzero(rows.is_damaged)[:1]] for rows in found]
        intact = int(np.concatenate(damaged).min(initial=count))
        if intact < count:
            found = [rows.before(intact) for rows in found]
        end = period.end_of(intact)
        self._gain += end
        self._period = period.rotated(intact)
        return found, intact, end

    def _find_period(self) -> Period | None:
        """Look for a period at the end of the history."""
        if not self._is_new:
            return None
        self._is_new = False
        size = find_period(self._history)
        if not size:
            self.window = min(2 * self.window, _MAX_WINDOW)
            return None
        templates = self._history[-size:]
        self._gain = 0
        owners, positions = np.array(self._owners), np.array(self._positions)
        return Period.of(templates, owners[templates], positions[templates], self._shapes)

    def _drop(self, period: Period) -> None:
        """Note that the next record does not continue the period."""
        self._period = None
        self._history = np.tile(period.templates, 2)
        is_worthwhile = self._gain >= _WORTHWHILE * self.window
        self.window = _MIN_WINDOW if is_worthwhile else min(2 * self.window, _MAX_WINDOW)

    def _decode_group(
        self, octets: Any, starts: IndexArray, records: IndexArray, key: int
    ) -> list[Rows]:
        length, width = divmod(key, 16)
        width = 0 if width == 15 else width
        rows, words = gather_rows(octets, starts.take(records), -(-(length + FOOTER) // 8) * 8)
        known = self._by_key.setdefault(key, [])
        found = []
        for new in range(min(len(known) + _MAX_NEW_SHAPES, _MAX_SHAPES)):
            if len(records) < (1 if new < len(known) else _MIN_ROWS):
                break
            if new == len(known):
                data = rows[0, :length].tobytes()
                layout = layout_of(data, width)
                if layout is None or self._values_of(data) is None:
                    break
                known.append(len(self._shapes))
                self._shapes.append(Shape(rows[0], layout, length, width))
            fits = self._shapes[known[new]].fits(words)
            if not fits.all():
                inside = np.flatnonzero(fits)
                if not len(inside):
                    continue
                chosen = records[inside], rows[inside], words[inside]
            else:
                chosen = records, rows, words
            matched = self._match(known[new], *chosen)
            if matched is not None:
                found.append(matched)
            if fits.all():
                break
            outside = np.flatnonzero(~fits)
            records, rows, words = records[outside], rows[outside], words[outside]
        return found

    def _match(self, number: int, records: IndexArray, rows: Any, words: Any) -> Rows | None:
        """Return the scalars of the records of a shape, learning new templates."""
        shape = self._shapes[number]
        hashes = shape.hashes(words)
        positions, known = shape.find(words, hashes)
        if not known.all():
            unknown = np.flatnonzero(~known)
            self._learn(number, rows[unknown], words[unknown], hashes[unknown])
            positions, known = shape.find(words, hashes)
        if not known.all():
            inside = np.flatnonzero(known)
            if not len(inside):
                return None
            records, rows, positions = records[inside], rows[inside], positions[inside]
        return shape.read(records, rows, positions)

    def _learn(self, number: int, rows: Any, words: Any, hashes: Any) -> None:
        shape = self._shapes[number]
        _, firsts = np.unique(hashes, return_index=True)
        firsts = np.sort(firsts)[: _MAX_TEMPLATES - len(self.templates)]
        rows = rows[firsts]
        chosen: list[int] = []
        before = len(self.templates)
        for index, tail in enumerate(shape.tails_of(rows)):
            # The values of a template are examples, so those of another width of the step will do.
            values = self._by_tail.get(tail) or self._values_of_row(shape, rows[index])
            if values is not None:
                self._by_tail[tail] = values
                self.templates.append(values)
                chosen.append(index)
        if chosen:
            numbers = np.arange(before, len(self.templates))
            self._positions.extend(range(shape.count, shape.count + len(chosen)))
            self._owners.extend([number] * len(chosen))
            firsts = firsts[chosen]
            shape.add(rows[chosen], words[firsts], hashes[firsts], numbers)

    def _values_of_row(self, shape: Shape, row: Any) -> list[Value] | None:
        """Return the scalars of a record, None if protobuf does not find those of the layout."""
        values = self._values_of(row[: shape.length].tobytes())
        return values if values is not None and shape.layout.agrees(values, row) else None

    def _remember(self, found: Sequence[Rows], count: int) -> None:
        """Add consecutive records to the history."""
        templates = -1 - np.arange(count)
        for rows in found:
            templates[rows.records] = rows.templates
        self._history = np.concatenate([self._history, templates])[-_MAX_HISTORY:]
        self._is_new = True


def _group_keys(octets: Any, starts: IndexArray, lengths: IndexArray) -> Any:
    """Return 16 * length + width of the step for each record; uint16, 0 for others.

    The width is 15 for a record without a step.
    """
    begins = starts + HEADER
    fits = (lengths >= 11) & (lengths < MAX_ROW - FOOTER - 8)
    fits &= octets.take(begins, mode="clip") == 0x09
    second = octets.take(begins + 9, mode="clip")
    stepless = second == 0x2A
    widths = np.where(stepless, 15, 1)
    going_on = np.flatnonzero(fits & (second == 0x10))
    fits &= stepless | (second == 0x10)
    for digit in range(_MAX_WIDTH):
        more = octets.take(begins[going_on] + 10 + digit, mode="clip") >= 0x80
        going_on = going_on[more]
        if not len(going_on):
            break
        widths[going_on] += 1
    fits[going_on] = False
    return np.where(fits, lengths * 16 + widths, 0).astype(np.uint16)
