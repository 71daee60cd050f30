"""CRC-32C (Castagnoli) of bytes, and of many rows at once.

For bytes, the ``crc32c`` package uses the processor's instruction. For many rows, a vectorised form
never reads the bytes that the rows have in common. It relies on the CRC being affine over GF(2):
with ``Z`` the CRC of ``n`` zero bytes,

    crc(row) = Z  xor  T[n-1][row[0]]  xor  T[n-2][row[1]]  xor  …  xor  T[0][row[n-1]]

where ``T[k][b]`` is the contribution of a byte ``b`` with ``k`` bytes after it. So the CRC of a row
that differs from a known template in a few columns is the CRC of the template, changed by one table
look-up for each of these columns.

Record files store a *masked* CRC, because the CRC of data that contains its own CRC is degenerate:
the CRC is rotated right by 15 bits, and a constant is added (tensorflow/tsl/lib/hash/crc32c.h).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import crc32c as _crc32c
import numpy as np

if TYPE_CHECKING:
    from sm_tblog._types import Bytes, IndexArray, UInt8Array, UInt32Array

__all__ = [
    "MAX_ROW",
    "byte_contributions",
    "contributions",
    "crc32c",
    "crc32c_rows",
    "mask",
    "mask_one",
    "masked_crc32c",
    "table_starts",
]

MAX_ROW = 1024
"""Maximum row length in bytes; the tables need 1 KiB for each byte."""

_MASK_DELTA = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # reflected


def crc32c(data: Bytes) -> int:
    """Return the CRC-32C of ``data``."""
    crc: int = _crc32c.crc32c(data)
    return crc


def masked_crc32c(data: Bytes) -> int:
    """Return the masked CRC-32C of ``data``, as record files store it."""
    return mask_one(crc32c(data))


def mask_one(crc: int) -> int:
    """Return the masked form of a CRC."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def mask(crc: UInt32Array) -> UInt32Array:
    """Return the masked form of each CRC in a uint32 array."""
    masked: UInt32Array = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(_MASK_DELTA)
    return masked


def _byte_table() -> UInt32Array:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@lru_cache(maxsize=1)
def _tables() -> UInt32Array:
    """Return 256 zeros, then ``T[0]``, ``T[1]``, … of the module docstring, in one flat array."""
    tables = np.zeros((MAX_ROW + 1, 256), np.uint32)
    tables[1] = _byte_table()
    for position in range(2, MAX_ROW + 1):
        previous = tables[position - 1]
        tables[position] = previous >> 8 ^ tables[1].take(previous & 0xFF)
    return tables.ravel()


def table_starts(after: IndexArray) -> IndexArray:
    """Return the positions of bytes' tables, for ``contributions``.

    Args:
        after: number of bytes after each byte in its row, less than ``MAX_ROW``; -1 for a byte
            that is not part of its row and contributes nothing.
    """
    return (after + 1) * 256


def contributions(columns: UInt8Array, starts: IndexArray) -> UInt32Array:
    """Return the contribution of some bytes to the CRC of each row.

    The CRC of a row is the xor of this contribution and the CRC of the row with zeros in place of
    these bytes.

    Args:
        columns: the bytes; uint8, shape (columns, rows).
        starts: positions of their tables, from ``table_starts``; shape (columns, rows) or
            (columns, 1).

    Returns:
        uint32, shape (rows,).
    """
    contributed = _tables().take(starts + columns)
    changed: UInt32Array = np.bitwise_xor.reduce(contributed, axis=0)
    return changed


def byte_contributions(column: UInt8Array, after: int) -> UInt32Array:
    """Return the contribution of one byte to the CRC of each row.

    Args:
        column: the byte of each row; uint8, shape (rows,).
        after: number of bytes after it in its row, less than ``MAX_ROW``.

    Returns:
        uint32, shape (rows,) or, if all bytes are equal, (1,).
    """
    start = (after + 1) * 256
    column = np.ascontiguousarray(column)
    if len(column) and (column == column[0]).all():
        column = column[:1]
    return _tables()[start : start + 256].take(column, mode="clip")


def crc32c_rows(rows: UInt8Array) -> UInt32Array:
    """Return the CRC-32C of each row of a matrix with at most ``MAX_ROW`` columns.

    Returns:
        uint32, shape (rows,).
    """
    length = rows.shape[1]
    starts = table_starts(np.arange(length)[::-1, np.newaxis])
    crc: UInt32Array = contributions(rows.T, starts) ^ np.uint32(crc32c(bytes(length)))
    return crc
