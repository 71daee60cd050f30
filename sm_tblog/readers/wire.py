"""Finds the fields of a protocol buffer without decoding them.

Source of the format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog._types import Bytes

__all__ = ["Field", "fields_of"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: the field's number in the schema.
        kind: its wire type: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
        start: offset of its contents.
        end: offset after its contents.
        value: the number of a varint, 0 for other kinds.
    """

    number: int
    kind: int
    start: int
    end: int
    value: int


def fields_of(data: Bytes, start: int, end: int) -> Iterator[Field]:
    """Iterate over the fields of the message in ``data[start:end]``.

    Raises:
        ValueError: the bytes are not a message.
    """
    while start < end:
        key, start = _varint(data, start, end)
        kind = key & 7
        value = 0
        if kind == _VARINT:
            begin = start
            value, start = _varint(data, start, end)
        elif kind == _BYTES:
            size, begin = _varint(data, start, end)
            start = begin + size
        elif kind in _FIXED:
            begin, start = start, start + _FIXED[kind]
        else:
            message = f"unknown wire type {kind}"
            raise ValueError(message)
        if start > end:
            message = "a field is cut short"
            raise ValueError(message)
        yield Field(key >> 3, kind, begin, start, value)


def _varint(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return a varint and the offset after it."""
    value = 0
    for digit, position in enumerate(range(start, min(end, start + 10))):
        octet = data[position]
        value |= (octet & 0x7F) << 7 * digit
        if octet < 0x80:
            return value, position + 1
    message = "a varint is cut short"
    raise ValueError(message)
