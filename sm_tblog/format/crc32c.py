"""CRC-32C (Castagnoli), of bytes and of many rows at once.

Bytes go through the ``crc32c`` package, which uses the processor's instruction. For rows of equal
length there is a vectorised form that never visits the bytes that rows have in common. It rests on
the CRC being affine over GF(2): with ``Z`` the CRC of ``n`` zero bytes,

    crc(row) = Z  xor  T[n-1][row[0]]  xor  T[n-2][row[1]]  xor  …  xor  T[0][row[n-1]]

where ``T[k][b]`` is what a byte ``b`` with ``k`` bytes after it contributes. So the CRC of a row
that differs from a known template in a few columns is the template's CRC, changed by one table
look-up for each of these columns.

Record files store a *masked* CRC, because the CRC of data that holds its own CRC is degenerate:
rotate right by 15 bits and add a constant (tensorflow/tsl/lib/hash/crc32c.h).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import crc32c as _crc32c
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sm_tblog._types import Bytes, UInt8Array, UInt32Array

__all__ = ["MAX_ROW", "crc32c", "crc32c_rows", "mask", "masked_crc32c"]

MAX_ROW = 1024
"""The longest row that ``crc32c_rows`` takes, in bytes: its tables need 1 KiB for each byte."""

_MANY = 256
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


_lock = threading.Lock()
_tables: list[UInt32Array] = [_byte_table()]


def _contributions(length: int) -> list[UInt32Array]:
    """Return ``T`` of the module's docstring for at least ``length`` positions."""
    if len(_tables) < length:
        with _lock:
            while len(_tables) < length:
                last = _tables[-1]
                _tables.append(last >> 8 ^ _tables[0][last & 0xFF])
    return _tables


def crc32c_rows(
    rows: UInt8Array, columns: Iterable[int] | None = None, base: UInt32Array | int | None = None
) -> UInt32Array:
    """Return the CRC-32C of each row.

    Args:
        rows: uint8, shape (rows, length), length at most ``MAX_ROW``.
        columns: the columns that may be other than zero in what ``base`` was computed from;
            all by default.
        base: the CRC of each row, or of every row, with zeros in ``columns``. By default that of
            a row of zeros.

    Returns:
        uint32, shape (rows,).
    """
    count, length = rows.shape
    tables = _contributions(length)
    crc = np.empty(count, np.uint32)
    crc[:] = crc32c(bytes(length)) if base is None else base
    for position in range(length) if columns is None else columns:
        column = rows[:, position]
        table = tables[length - 1 - position]
        # The high bytes of times and steps rarely change; to look is worth it for many rows.
        if count > _MANY and (column == column[0]).all():
            crc ^= table[column[0]]
        else:
            crc ^= table[column]
    return crc
