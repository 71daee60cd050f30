"""Finds the records of a buffer without a step of Python for each.

The length of a record shorter than 64 KiB ends in six zero bytes, which are rare elsewhere. All
places with six zeros are found at once. The header's checksum, looked up in a table of all such
lengths, leaves the true headers, and headers within the data of a record. Following the lengths
from a known header skips the latter: where the chain of neighbours breaks, a binary search finds
its continuation. Longer records are stepped over one at a time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog.format.crc32c import crc32c_rows, mask
from sm_tblog.format.records import FOOTER, HEADER, read_header

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog._types import Bytes, IndexArray, UInt8Array, UInt32Array

__all__ = ["scan_records"]

_WINDOW = 1 << 18
"""Bytes scanned at a time, so that intermediate arrays stay in the processor's cache."""

_SHORT = 1 << 16
"""Records shorter than this are found by scanning."""

_LONG_ENOUGH_TO_STEP = 1 << 12
"""A record at least this long is stepped over without scanning its data."""


def scan_records(data: Bytes, limit: int | None = None) -> tuple[IndexArray, IndexArray]:
    """Return where the records of a buffer start, and the lengths of their data.

    Only headers are checked, not the checksums of the data. The first record starts at the
    buffer's first byte; the list ends before the first header that is invalid and before a record
    that is not complete.

    Args:
        data: the buffer.
        limit: number of bytes after which no more records are needed; by default all.

    Returns:
        Two arrays, intp, shape (records,).
    """
    size = len(data)
    starts, lengths = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    position = 0
    limit = size if limit is None else limit
    while position < limit and position + HEADER + FOOTER <= size:
        length = read_header(data, position)
        if length is None or position + HEADER + length + FOOTER > size:
            break
        if length >= _LONG_ENOUGH_TO_STEP:
            starts.append(np.array([position], np.intp))
            lengths.append(np.array([length], np.intp))
            position += HEADER + length + FOOTER
            continue
        found, found_lengths = _scan_window(data, position, min(_WINDOW, limit - position))
        starts.append(found)
        lengths.append(found_lengths)
        position = int(found[-1] + found_lengths[-1]) + HEADER + FOOTER
    if position > size:  # the last record of a window may be cut short
        starts[-1], lengths[-1] = starts[-1][:-1], lengths[-1][:-1]
    return np.concatenate(starts), np.concatenate(lengths)


@lru_cache(maxsize=1)
def _header_crcs() -> UInt32Array:
    """Return the masked CRC of each short length; uint32, shape (65536,)."""
    lengths = np.arange(_SHORT, dtype="<u8").view(np.uint8).reshape(-1, 8)
    return mask(crc32c_rows(lengths))


def _scan_window(data: Bytes, position: int, window: int) -> tuple[IndexArray, IndexArray]:
    """Return the records that start in a window; a valid, short one starts at ``position``."""
    size = min(window + HEADER, len(data) - position)
    octets = np.frombuffer(data, np.uint8, size, position)
    zero = octets == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    six = four[:-2] & two[4:]
    candidates = np.flatnonzero(six[2 : size - HEADER + 3])  # relative to the header's start
    lengths = _unaligned(octets, "<u2", size - 1)[candidates].astype(np.intp)
    crcs = _unaligned(octets, "<u4", size - 3)[candidates + 8]
    valid = crcs == _header_crcs().take(lengths)
    if not valid.all():
        candidates, lengths = candidates[valid], lengths[valid]
    chained = _chain(candidates, candidates + lengths + (HEADER + FOOTER))
    return candidates[chained] + position, lengths[chained]


def _unaligned(octets: UInt8Array, layout: str, count: int) -> npt.NDArray[Any]:
    """Return the number at each of the first ``count`` bytes."""
    numbers: npt.NDArray[Any] = np.ndarray((count,), layout, octets.data, strides=(1,))
    return numbers


def _chain(starts: IndexArray, ends: IndexArray) -> IndexArray | slice:
    """Return which of the candidates follow each other without a gap, beginning with the first."""
    breaks = np.flatnonzero(starts[1:] != ends[:-1])
    if not len(breaks):
        return slice(None)
    parts = []
    first = 0
    while True:
        at = int(np.searchsorted(breaks, first))
        last = int(breaks[at]) if at < len(breaks) else len(starts) - 1
        parts.append(np.arange(first, last + 1))
        first = int(np.searchsorted(starts, ends[last]))
        if first == len(starts) or starts[first] != ends[last]:
            return np.concatenate(parts)
