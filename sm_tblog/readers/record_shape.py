"""One layout of records, and the templates that have it.

The records of a shape are rows of a matrix. Their columns hold the wall time, the step, the values
and texts (tags and metadata); all other columns are equal in every record. The texts are looked up
among those seen before, the shape's *templates*. The checksum of a record is the checksum of its
template, changed by one table look-up for each byte of wall time, step and value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.format.crc32c import MAX_ROW, byte_contributions, crc32c, mask
from sm_tblog.format.records import FOOTER, HEADER, frame_header

if TYPE_CHECKING:
    from sm_tblog._types import Float64Array, IndexArray, Int64Array
    from sm_tblog.readers.record_layout import Layout

__all__ = ["SUFFIX", "Rows", "Shape", "gather_rows"]

_BLOCK = 8192
"""Rows checked at a time, so that intermediate arrays stay in the processor's cache."""

SUFFIX = 16
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


class Shape:
    """The templates of one layout, and how to recognise its records.

    Args:
        row: the data of a record that has the layout, and some bytes more; uint8.
        layout: where its fields lie.
        length: bytes of its data.
        width: bytes of the step's varint, 0 if there is no step.

    Attributes:
        layout: where the fields lie.
        length: bytes of the data.
        itemsize: bytes of a row: the data and the checksum, padded to whole words.
    """

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
        self.length = length
        self.itemsize = size
        self._width = width
        self._fixed_mask = _words(np.where(fixed, 0xFF, 0).astype(np.uint8))
        self._fixed = _words(np.where(fixed, row, 0).astype(np.uint8))
        self._fixed_words = np.flatnonzero(self._fixed_mask).tolist()
        self._text_mask = _words(np.where(text, 0xFF, 0).astype(np.uint8))
        self._text_words = np.flatnonzero(self._text_mask).tolist()
        columns = np.flatnonzero(variable[:length]).tolist()
        self._variable = [(column, length - 1 - column) for column in columns]
        self._blank = np.where(variable, 0, 0xFF).astype(np.uint8)[:length]
        self._hashes = np.empty(0, np.uint64)
        self._order = np.empty(0, np.intp)
        self._texts = np.empty((0, len(self._text_words)), np.uint64)
        self._crcs = np.empty(0, np.uint32)
        self._numbers = np.empty(0, np.intp)

    @property
    def count(self) -> int:
        """Number of templates."""
        return len(self._numbers)

    def tails_of(self, rows: Any) -> list[bytes]:
        """Return the data of records after the step, without the values."""
        blank = (rows[:, : self.length] & self._blank).tobytes()
        begin = 10 + self._width if self._width else 9
        ends = range(self.length, len(blank) + 1, self.length)
        return [blank[end - self.length + begin : end] for end in ends]

    def records(self, positions: IndexArray) -> tuple[Any, Any]:
        """Return records of some templates, and a mask of the bytes that all such records share.

        Args:
            positions: positions of the templates; shape (n,).

        Returns:
            Two uint8 arrays: the records, shape (n, bytes of a record), and the mask, shape
            (bytes of a record,).
        """
        rows = np.repeat(self._fixed[np.newaxis], len(positions), axis=0)
        rows[:, self._text_words] |= self._texts.take(positions, axis=0)
        end = HEADER + self.length
        records = np.zeros((len(positions), end + FOOTER), np.uint8)
        records[:, :HEADER] = np.frombuffer(frame_header(self.length), np.uint8)
        records[:, HEADER:end] = rows.view(np.uint8)[:, : self.length]
        shared = np.zeros(end + FOOTER, np.uint8)
        shared[:HEADER] = 0xFF
        shared[HEADER:end] = self._blank
        if self._width:  # the high bit of a byte of a varint says whether another one follows
            step = HEADER + 10
            shared[step : step + self._width] = 0x80
            records[:, step : step + self._width - 1] = 0x80
        return records, shared

    def fits(self, words: Any) -> Any:
        """Return which rows have the layout; bool, shape (n,)."""
        differ = np.zeros(len(words), np.uint64)
        for word in self._fixed_words:
            differ |= (words[:, word] ^ self._fixed[word]) & self._fixed_mask[word]
        return differ == 0

    def hashes(self, words: Any) -> Any:
        """Return a hash of the texts of each row; uint64, shape (n,)."""
        hashed = np.zeros(len(words), np.uint64)
        for word in self._text_words:
            hashed += (words[:, word] & self._text_mask[word]) * _FACTORS[word]
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
        for column, word in enumerate(self._text_words):
            expected = self._texts[:, column].take(positions)
            differ |= (words[:, word] & self._text_mask[word]) ^ expected
        return positions, differ == 0

    def add(self, rows: Any, words: Any, hashes: Any, numbers: IndexArray) -> None:
        """Add templates: the rows of their first records and their numbers."""
        texts = words[:, self._text_words] & self._text_mask[self._text_words]
        blank = memoryview((rows[:, : self.length] & self._blank).tobytes())
        ends = range(self.length, len(blank) + 1, self.length)
        crcs = np.array([crc32c(blank[end - self.length : end]) for end in ends], np.uint32)
        all_hashes = np.concatenate([self._hashes[np.argsort(self._order)], hashes])
        self._order = np.argsort(all_hashes, kind="stable")
        self._hashes = all_hashes[self._order]
        self._texts = np.concatenate([self._texts, texts])
        self._crcs = np.concatenate([self._crcs, crcs])
        self._numbers = np.concatenate([self._numbers, numbers])

    def read(self, records: IndexArray, rows: Any, positions: IndexArray) -> Rows:
        """Return the scalars of rows of known templates."""
        damaged = np.empty(len(rows), bool)
        stored = _column(rows, self.length, "<u4")
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            crcs = self._crcs.take(positions[block])
            for column, after in self._variable:
                crcs ^= byte_contributions(rows[block, column], after)
            damaged[block] = mask(crcs) != stored[block]
        steps = np.zeros(len(rows), np.uint64)
        for digit in range(self._width):
            low = (rows[:, 10 + digit] & np.uint8(0x7F)).astype(np.uint64)
            steps |= low << np.uint64(7 * digit)
        values = np.empty((len(rows), len(self.layout.numbers)))
        for column, (start, dtype) in enumerate(self.layout.numbers):
            values[:, column] = _column(rows, start, dtype)
        wall_times = _column(rows, 1, "<f8").astype(np.float64)
        numbers = self._numbers.take(positions)
        return Rows(records, numbers, steps.view(np.int64), wall_times, values, damaged)


def gather_rows(octets: Any, starts: IndexArray, itemsize: int) -> tuple[Any, Any]:
    """Return the data of records, and what follows, as a matrix.

    Args:
        octets: a buffer; uint8.
        starts: offsets of the records in the buffer; shape (n,).
        itemsize: bytes of a row, divisible by 8.

    Returns:
        The rows as uint8 and as uint64.
    """
    count = len(octets) - HEADER - itemsize + 1
    source = np.ndarray((max(count, 0),), f"V{itemsize}", octets.data, HEADER, (1,))
    packed = source[starts]
    rows = packed.view(np.uint8).reshape(len(starts), itemsize)
    return rows, packed.view("<u8").reshape(len(starts), itemsize // 8)


def _words(row: Any) -> Any:
    return row.view("<u8")


def _column(rows: Any, start: int, dtype: str) -> Any:
    """Return the numbers that begin at a column; shape (rows,)."""
    return np.ndarray((len(rows),), dtype, rows.data, start, (rows.shape[1],))
