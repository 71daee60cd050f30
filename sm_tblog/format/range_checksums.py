"""Checksums of overlapping ranges of a stream, each byte read about once.

Damaged or hostile headers may claim data that reach far beyond the next headers, and the checksum
of each range has to be known. The checksum of a range follows from those of two prefixes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import crc32c as _crc32c

if TYPE_CHECKING:
    from sm_tblog._types import Bytes

__all__ = ["RangeChecksums"]

_BLOCK = 1 << 14
"""Bytes between the prefixes whose checksums are kept."""


class RangeChecksums:
    """CRC-32C of ranges of a stream, whose starts ascend."""

    def __init__(self) -> None:
        self._base = 0  # number of the block that begins where the prefixes begin
        self._prefixes = [0]  # checksums from there to the start of each later block

    def of(self, data: Bytes, offset: int) -> int:
        """Return the CRC-32C of a range.

        Args:
            data: the range.
            offset: its offset in the stream.
        """
        end = offset + len(data)
        first, last = -(-offset // _BLOCK), end // _BLOCK
        view = memoryview(data)
        if last <= first:
            return int(_crc32c.crc32c(view))
        if not self._base <= first < self._base + len(self._prefixes):
            self._base, self._prefixes = first, [0]
        for block in range(self._base + len(self._prefixes) - 1, last):
            begin = block * _BLOCK - offset
            checksum = _crc32c.crc32c(view[begin : begin + _BLOCK], self._prefixes[-1])
            self._prefixes.append(int(checksum))
        checksum = _crc32c.crc32c(view[: first * _BLOCK - offset])
        checksum ^= self._prefixes[first - self._base]
        checksum = _after_zeros(checksum, (last - first) * _BLOCK)
        checksum ^= self._prefixes[last - self._base]
        return int(_crc32c.crc32c(view[last * _BLOCK - offset :], checksum))


def _after_zeros(register: int, count: int) -> int:
    """Return a register of the CRC after ``count`` zero bytes."""
    power = 0
    while count >> power:
        if count >> power & 1:
            register = _apply(_zeros(power), register)
        power += 1
    return register


@lru_cache(maxsize=64)
def _zeros(power: int) -> tuple[int, ...]:
    """Return what 2 ** power zero bytes do to each bit of a register."""
    if power:
        half = _zeros(power - 1)
        return tuple(_apply(half, column) for column in half)
    # Without the final inversion, a CRC that starts with inverted bits is the register itself.
    ones = 0xFFFFFFFF
    return tuple(_crc32c.crc32c(b"\0", 1 << bit ^ ones) ^ ones for bit in range(32))


def _apply(columns: tuple[int, ...], register: int) -> int:
    product = 0
    for column in columns:
        if register & 1:
            product ^= column
        register >>= 1
    return product
