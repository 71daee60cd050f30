"""Sequences of records that a file repeats, and how far it does.

A training loop logs the same tags at each step, so its file repeats a sequence of templates. All
bytes but the wall times, steps, values and checksums are then known before they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog._types import IndexArray
    from sm_tblog.readers.record_shape import Shape

__all__ = ["Period", "find_period"]

_MIN_TILE = 1 << 14
"""A sequence shorter than this many bytes is compared several times at once."""

_BLOCK = 1 << 18
"""Bytes compared at a time, so that intermediate arrays stay in the processor's cache."""


class Period(NamedTuple):
    """A sequence of records.

    Attributes:
        octets: the records, with zeros in place of the bytes that vary; uint8, shape (bytes,).
        mask: 255 for bytes that do not vary, 128 for those of steps, else 0; uint8, shape (bytes,).
        sizes: bytes of each record; intp, shape (records,).
        templates: the number of each record's template; intp, shape (records,).
        shapes: the number of each record's shape; intp, shape (records,).
        positions: the position of the template in its shape; intp, shape (records,).
    """

    octets: Any
    mask: Any
    sizes: IndexArray
    templates: IndexArray
    shapes: IndexArray
    positions: IndexArray

    @classmethod
    def of(
        cls, templates: IndexArray, owners: IndexArray, positions: IndexArray, all_: Sequence[Shape]
    ) -> Period:
        """Return the sequence of some templates.

        Args:
            templates: their numbers; intp, shape (n,).
            owners: the number of each one's shape; intp, shape (n,).
            positions: the position in the shape; intp, shape (n,).
            all_: the shapes by number.
        """
        parts = {
            number: all_[number].records(positions[owners == number])
            for number in np.unique(owners).tolist()
        }
        sizes = np.zeros(len(templates), np.intp)
        for number, (records, _) in parts.items():
            sizes[owners == number] = records.shape[1]
        begins = np.cumsum(sizes) - sizes
        octets, mask = np.empty((2, int(sizes.sum())), np.uint8)
        for number, (records, shared) in parts.items():
            places = begins[owners == number, np.newaxis] + np.arange(records.shape[1])
            octets[places] = records & shared
            mask[places] = shared
        return cls(octets, mask, sizes, templates, owners, positions)

    def rotated(self, count: int) -> Period:
        """Return the same sequence, beginning ``count`` records later."""
        count %= len(self.sizes)
        if not count:
            return self
        size = int(self.sizes[:count].sum())
        octets, mask = np.roll(self.octets, -size), np.roll(self.mask, -size)
        return Period(octets, mask, *(np.roll(column, -count) for column in self[2:]))

    def match(self, octets: Any) -> int:
        """Return the number of records at the start of a buffer that repeat the sequence.

        Args:
            octets: the buffer; uint8, shape (n,).
        """
        cycles, rest = divmod(self._match_bytes(octets), len(self.octets))
        more = np.searchsorted(np.cumsum(self.sizes), rest, "right")
        return cycles * len(self.sizes) + int(more)

    def end_of(self, count: int) -> int:
        """Return where the first ``count`` records end."""
        cycles, more = divmod(count, len(self.sizes))
        return cycles * len(self.octets) + int(self.sizes[:more].sum())

    def select(self, shape: int, count: int) -> tuple[IndexArray, IndexArray, IndexArray]:
        """Return which of the first ``count`` records are of a shape.

        Returns:
            Their numbers, their offsets and the positions of their templates; each shape (n,).
        """
        slots = np.flatnonzero(self.shapes == shape)
        cycles = np.arange(-(-count // len(self.sizes)))[:, np.newaxis]
        records = (cycles * len(self.sizes) + slots).ravel()
        number = int(np.searchsorted(records, count))
        begins = np.cumsum(self.sizes) - self.sizes
        starts = (cycles * len(self.octets) + begins[slots]).ravel()
        positions = np.tile(self.positions[slots], len(cycles))
        return records[:number], starts[:number], positions[:number]

    def _match_bytes(self, octets: Any) -> int:
        """Return the number of bytes before the first that cannot belong to the sequence."""
        tiles = -(-_MIN_TILE // len(self.octets))
        expected, mask = np.tile(self.octets, tiles), np.tile(self.mask, tiles)
        width = len(expected)
        rows = len(octets) // width
        matrix = octets[: rows * width].reshape(rows, width)
        step = max(_BLOCK // width, 1)
        for begin in range(0, rows, step):
            differ = (matrix[begin : begin + step] ^ expected) & mask
            if differ.any():
                return begin * width + int(np.flatnonzero(differ.ravel())[0])
        rest = octets[rows * width :]
        differ = np.flatnonzero((rest ^ expected[: len(rest)]) & mask[: len(rest)])
        return rows * width + (int(differ[0]) if len(differ) else len(rest))


def find_period(history: IndexArray) -> int:
    """Return after how many records the end of a sequence repeats, 0 if it does not.

    Args:
        history: the numbers of templates, negative for records without one; intp, shape (n,).
    """
    known = np.flatnonzero(history >= 0)
    if not len(known) or known[-1] != len(history) - 1:
        return 0
    # Of several assignments to one place, the last holds.
    last = np.full(int(history.max()) + 1, -1)
    last[history[known]] = known
    earlier = known[last[history[known]] != known]
    if not len(earlier):
        return 0
    before = np.full(len(last), -1)
    before[history[earlier]] = earlier
    gaps = np.where(before >= 0, last - before, 0)
    # The rarest template tells the period of a loop that logs some tags at every tenth step.
    for period in (int(gaps.max()), int(gaps[history[-1]])):
        if 0 < 2 * period <= len(history) and np.array_equal(
            history[-period:], history[-2 * period : -period]
        ):
            return period
    return 0
