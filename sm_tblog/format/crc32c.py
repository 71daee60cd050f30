"""CRC-32C (Castagnoli), of bytes and of many rows at once.

Bytes go through the ``crc32c`` package, which uses the processor's instruction. For many rows there
is a vectorised form that never visits the bytes that rows have in common. It rests on
the CRC being affine over GF(2): with ``Z`` the CRC of ``n`` zero bytes,

    crc(row) = Z  xor  T[n-1][row[0]]  xor  T[n-2][row[1]]  xor  …  xor  T[0][row[n-1]]

where ``T[k][b]`` is what a byte ``b`` with ``k`` bytes after it contributes. So the CRC of a row
that differs from a known template in a few columns is the template's CRC, changed by one table
look-up for each of these columns.

Record files store a *masked* CRC, because the CRC of data that holds its own CRC is degenerate:
rotate right by 15 bits and add a constant (tensorflow/tsl/lib/hash/crc32c.h).
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
    "contributions",
    "crc32c",
    "crc32c_rows",
    "mask",
    "masked_crc32c",
    "table_starts",
]

MAX_ROW = 1024
"""The longest row that has tables, in bytes: they take 1 KiB for each byte."""

_MASK_DELTA = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # reflected


def crc32c(data: Bytes) -> int:
    """Return the CRC-32C of ``data``."""
    crc: int = _crc32c.crc32c(data)
    return crc


def masked_crc32c(data: Bytes) -> int:
    """Return the masked CRC-32C of ``data``, as record files store it."""
    crc = crc32c(data)
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
    """Return 256 zeros, then ``T[0]``, ``T[1]``, … of the module's docstring; flat."""
    tables = np.zeros((MAX_ROW + 1, 256), np.uint32)
    tables[1] = _byte_table()
    for position in range(2, MAX_ROW + 1):
        last = tables[position - 1]
        tables[position] = last >> 8 ^ tables[1].take(last & 0xFF)
    return tables.ravel()


def table_starts(after: IndexArray) -> IndexArray:
    """Return where ``contributions`` finds the tables of some bytes.

    Args:
        after: how many bytes stand after each in its row, less than ``MAX_ROW``; -1 for a byte
            that is no part of its row and contributes nothing.
    """
    return (after + 1) * 256


def contributions(columns: UInt8Array, starts: IndexArray) -> UInt32Array:
    """Return what some bytes of each row make, by xor, of the CRC of the row with zeros there.

    Args:
        columns: the bytes; shape (columns, rows).
        starts: of their tables, from ``table_starts``; shape (columns, rows) or (columns, 1).

    Returns:
        uint32, shape (rows,).
    """
    contributed = _tables().take(starts + columns)
    changed: UInt32Array = np.bitwise_xor.reduce(contributed, axis=0)
    return changed


def crc32c_rows(rows: UInt8Array) -> UInt32Array:
    """Return the CRC-32C of each row of a matrix whose rows are no longer than ``MAX_ROW``.

    Returns:
        uint32, shape (rows,).
    """
    length = rows.shape[1]
    starts = table_starts(np.arange(length)[::-1, np.newaxis])
    crc: UInt32Array = contributions(rows.T, starts) ^ np.uint32(crc32c(bytes(length)))
    return crc
