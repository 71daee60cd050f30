"""Decodes many records of scalars at once.

The records of one curve differ only in the wall time, the step, the value and the checksum. Records
whose data have the same length, and whose steps have varints of the same width, form a group: a
matrix with one row for each record. A record of the group that no known *shape* fits is decoded
field by field, which gives a new shape: the columns that hold the wall time, the step, the values
and texts (tags and metadata). All other columns are equal in every record of the shape. The texts
are looked up among those seen before, the shape's *templates*. The first record of a template is
decoded with protobuf, so tags and plugins are what protobuf says. The checksum of a record is the
checksum of its template, changed by one table look-up for each byte of wall time, step and value.

Records that fit no shape are left to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.format.crc32c import MAX_ROW, contributions, crc32c, mask, table_starts
from sm_tblog.format.records import FOOTER, HEADER
from sm_tblog.readers.record_layout import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog._types import Bytes, Float64Array, IndexArray, Int64Array
    from sm_tblog.readers.record_layout import Layout, Value

__all__ = ["RecordShapes", "Rows"]

_MAX_WIDTH = 10
"""Bytes of the longest varint."""

_MIN_ROWS = 8
"""Smallest group worth decoding at once."""

_MAX_NEW_SHAPES = 4
"""Maximum number of shapes that a group may add in one batch."""

_MAX_TEMPLATES = 1 << 18
"""Maximum number of templates that are remembered."""

_BLOCK = 2048
"""Rows checked at a time, so that intermediate arrays stay in the processor's cache."""

_SUFFIX = 16
"""Bytes that may be read after a record's checksum."""

_FACTORS = np.random.default_rng().integers(0, 1 << 63, MAX_ROW // 8 + 4, np.uint64) * 2 + 1
"""Random odd factors of the words in a hash. Equal hashes are verified."""


class Rows(NamedTuple):
    """The scalars of some records of one shape.

    Attributes:
        records: the records' numbers in the batch, ascending; intp, shape (n,).
        templates: the number of each record's template; intp, shape (n,).
        steps: int64, shape (n,).
        wall_times: float64, shape (n,).
        values: float64, shape (n, values of a record).
        is_damaged: whether the checksum differs; bool, shape (n,).
    """

    records: IndexArray
    templates: IndexArray
    steps: Int64Array
    wall_times: Float64Array
    values: Float64Array
    is_damaged: Any

    def before(self, end: int) -> Rows:
        """Return the rows of the records before ``end``."""
        count = int(np.searchsorted(self.records, end))
        return Rows(*(array[:count] for array in self))  # type: ignore[arg-type]


class _Shape:
    """The templates of one layout, and how to recognise its records."""

    def __init__(self, row: Any, layout: Layout, length: int, width: int) -> None:
        size = len(row)
        variable = np.zeros(size, bool)
        variable[1:9] = True
        variable[10 : 10 + width] = True
        for start, dtype in layout.numbers:
            variable[start : start + np.dtype(dtype).itemsize] = True
        text = np.zeros(size, bool)
        for start, end in layout.texts:
            text[start:end] = True
        fixed = ~(variable | text)
        fixed[length:] = False
        self.layout = layout
        self.fixed_mask = _words(np.where(fixed, 0xFF, 0).astype(np.uint8))
        self.fixed = _words(np.where(fixed, row, 0).astype(np.uint8))
        self.fixed_words = np.flatnonzero(self.fixed_mask).tolist()
        self.text_mask = _words(np.where(text, 0xFF, 0).astype(np.uint8))
        self.text_words = np.flatnonzero(self.text_mask).tolist()
        self.variable = np.flatnonzero(variable[:length])
        self.starts = table_starts(length - 1 - self.variable[:, np.newaxis])
        self._blank = np.where(variable, 0, 0xFF).astype(np.uint8)[:length]
        self.known: dict[bytes, int] = {}
        self._hashes = np.empty(0, np.uint64)
        self._order = np.empty(0, np.intp)
        self._texts = np.empty((0, len(self.text_words)), np.uint64)
        self._crcs = np.empty(0, np.uint32)
        self._numbers = np.empty(0, np.intp)

    def fits(self, words: Any) -> Any:
        """Return which rows have the layout; bool, shape (n,)."""
        differ = np.zeros(len(words), np.uint64)
        for word in self.fixed_words:
            differ |= (words[:, word] ^ self.fixed[word]) & self.fixed_mask[word]
        return differ == 0

    def hashes(self, words: Any) -> Any:
        """Return a hash of the texts of each row; uint64, shape (n,)."""
        hashed = np.zeros(len(words), np.uint64)
        for word in self.text_words:
            hashed += (words[:, word] & self.text_mask[word]) * _FACTORS[word]
        return hashed ^ hashed >> np.uint64(32)

    def find(self, words: Any, hashes: Any) -> tuple[IndexArray, Any]:
        """Return the position of each row's template, and whether it is one."""
        if not len(self._hashes):
            return np.zeros(len(words), np.intp), np.zeros(len(words), bool)
        if len(self._hashes) == 1:
            positions = np.zeros(len(words), np.intp)
        else:
            found = np.searchsorted(self._hashes, hashes)
            positions = self._order.take(found, mode="clip")
        differ = np.zeros(len(words), np.uint64)
        for column, word in enumerate(self.text_words):
            expected = self._texts[:, column].take(positions)
            differ |= (words[:, word] & self.text_mask[word]) ^ expected
        return positions, differ == 0

    def add(self, rows: Any, words: Any, hashes: Any, numbers: list[int]) -> None:
        """Add templates: the rows of their first records and their numbers."""
        texts = words[:, self.text_words] & self.text_mask[self.text_words]
        blank = rows[:, : len(self._blank)] & self._blank
        crcs = np.array([crc32c(row.tobytes()) for row in blank], np.uint32)
        all_hashes = np.concatenate([self._hashes[np.argsort(self._order)], hashes])
        self._order = np.argsort(all_hashes, kind="stable")
        self._hashes = all_hashes[self._order]
        self._texts = np.concatenate([self._texts, texts])
        self._crcs = np.concatenate([self._crcs, crcs])
        self._numbers = np.concatenate([self._numbers, np.array(numbers, np.intp)])

    def read(self, records: IndexArray, rows: Any, positions: IndexArray, width: int) -> Rows:
        """Return the scalars of rows of known templates."""
        damaged = np.empty(len(rows), bool)
        length = len(self._blank)
        stored = _column(rows, length, "<u4")
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            changed = contributions(rows[block].T[self.variable], self.starts)
            crcs = mask(self._crcs.take(positions[block]) ^ changed)
            damaged[block] = crcs != stored[block]
        steps = np.zeros(len(rows), np.uint64)
        for digit in range(width):
            low = (rows[:, 10 + digit] & np.uint8(0x7F)).astype(np.uint64)
            steps |= low << np.uint64(7 * digit)
        values = np.empty((len(rows), len(self.layout.numbers)))
        for column, (start, dtype) in enumerate(self.layout.numbers):
            values[:, column] = _column(rows, start, dtype)
        wall_times = _column(rows, 1, "<f8").astype(np.float64)
        numbers = self._numbers.take(positions)
        return Rows(records, numbers, steps.view(np.int64), wall_times, values, damaged)


class RecordShapes:
    """Decodes batches of records of one run, and learns shapes and templates from them.

    Args:
        values_of: decodes an event with protobuf; returns its scalars in order, or None if the
            data are not an event or contain anything else.

    Attributes:
        templates: the scalars of each template, by number.
    """

    def __init__(self, values_of: Callable[[bytes], list[Value] | None]) -> None:
        self.templates: list[list[Value]] = []
        self._values_of = values_of
        self._shapes: dict[int, list[_Shape]] = {}

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
        return found

    def _decode_group(
        self, octets: Any, starts: IndexArray, records: IndexArray, key: int
    ) -> list[Rows]:
        length, width = divmod(key, 16)
        width = 0 if width == 15 else width
        itemsize = -(-(length + FOOTER) // 8) * 8
        count = len(octets) - HEADER - itemsize + 1
        source = np.ndarray((max(count, 0),), f"V{itemsize}", octets.data, HEADER, (1,))
        offsets = starts.take(records)
        if int(offsets[-1]) >= count:  # too close to the end of the buffer
            records, offsets = records[:-1], offsets[:-1]
        packed = source[offsets]
        rows = packed.view(np.uint8).reshape(len(records), itemsize)
        words = packed.view("<u8").reshape(len(records), itemsize // 8)
        shapes = self._shapes.setdefault(key, [])
        found = []
        for new in range(len(shapes) + _MAX_NEW_SHAPES):
            if len(records) < (1 if new < len(shapes) else _MIN_ROWS):
                break
            if new == len(shapes):
                data = rows[0, :length].tobytes()
                layout = layout_of(data, width)
                if layout is None or self._values_of(data) is None:
                    break
                shapes.append(_Shape(rows[0], layout, length, width))
            shape = shapes[new]
            fits = shape.fits(words)
            if not fits.all():
                inside = np.flatnonzero(fits)
                if not len(inside):
                    continue
                chosen = records[inside], rows[inside], words[inside]
            else:
                chosen = records, rows, words
            matched = self._match(shape, *chosen, length, width)
            if matched is not None:
                found.append(matched)
            if fits.all():
                break
            outside = np.flatnonzero(~fits)
            records, rows, words = records[outside], rows[outside], words[outside]
        return found

    def _match(
        self, shape: _Shape, records: IndexArray, rows: Any, words: Any, length: int, width: int
    ) -> Rows | None:
        """Return the scalars of the records of a shape, learning new templates."""
        hashes = shape.hashes(words)
        positions, known = shape.find(words, hashes)
        if not known.all():
            unknown = np.flatnonzero(~known)
            self._learn(shape, rows[unknown], words[unknown], hashes[unknown], length)
            positions, known = shape.find(words, hashes)
        if not known.all():
            inside = np.flatnonzero(known)
            if not len(inside):
                return None
            records, rows, positions = records[inside], rows[inside], positions[inside]
        return shape.read(records, rows, positions, width)

    def _learn(self, shape: _Shape, rows: Any, words: Any, hashes: Any, length: int) -> None:
        _, firsts = np.unique(hashes, return_index=True)
        chosen, numbers = [], []
        for first in np.sort(firsts).tolist():
            if len(self.templates) >= _MAX_TEMPLATES:
                break
            values = self._values_of(rows[first, :length].tobytes())
            if values is not None and shape.layout.agrees(values, rows[first]):
                chosen.append(first)
                numbers.append(len(self.templates))
                self.templates.append(values)
        if chosen:
            shape.add(rows[chosen], words[chosen], hashes[chosen], numbers)


def _words(row: Any) -> Any:
    return row.view("<u8")


def _column(rows: Any, start: int, dtype: str) -> Any:
    """Return the numbers that begin at a column; shape (rows,)."""
    return np.ndarray((len(rows),), dtype, rows.data, start, (rows.shape[1],))


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
