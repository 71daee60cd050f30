"""Scalars to records, one at a time and by the batch.

A scalar's record is its series' template with four places filled in: the wall time, the step (a
varint, of 0 to 10 bytes), the value and the checksum. ``encode_scalar`` fills one; where there are
many, ``encode_scalars`` fills a matrix of uint8 in which every row is a record, column by column.
Both give the same bytes in the same order; a property test holds them to it.

The encoding of the messages is that of protobuf (https://protobuf.dev/programming-guides/encoding),
field by field in ascending order as protobuf itself writes them::

    Event          09 <wall_time>   10 <step>   2a <length> Summary
    Summary        0a <length> Value
    Value          0a <length> tag   15 <float32>                     [4a <length> metadata]
                   0a <length> tag   42 <length> TensorProto           4a <length> metadata
    TensorProto    08 01   12 00   2a 04 <float32>
                   08 02   12 00   32 08 <float64>
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sm_tblog.format.crc32c import MAX_ROW, crc32c, crc32c_rows, mask
from sm_tblog.format.records import FOOTER, HEADER, frame, frame_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog._types import Float64Array, IndexArray, Int64Array, Series, UInt8Array

__all__ = ["encode_scalar", "encode_scalars", "encode_varint"]

_FEW = 24
"""Below so many records of one shape, one at a time is faster than by columns."""

_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_VARINT_WIDTHS = np.array([1 << 7 * i for i in range(10)], np.uint64)
_VARINT_WIDTHS[0] = 1  # zero is the default of the field and takes no bytes at all
_DATA_CLASS_SCALAR = 1
_BEFORE_SUMMARY = 9 + 11 + 11
"""The most bytes of an ``Event`` before its ``Summary``: the time, the step and the length."""


def encode_varint(number: int) -> bytes:
    """Return the varint of an int64; negative numbers take ten bytes, as in protobuf."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(key: int, data: bytes) -> bytes:
    return bytes((key,)) + encode_varint(len(data)) + data


class _Template(NamedTuple):
    """A scalar's ``Summary``: what stands before the value, after it, and the value's bytes."""

    head: bytes
    tail: bytes
    width: int

    @property
    def size(self) -> int:
        return len(self.head) + self.width + len(self.tail)


@lru_cache(maxsize=65536)
def _template(series: Series) -> _Template:
    metadata = b""
    if series.tensor or series.double:
        metadata += _field(0x0A, _field(0x0A, b"scalars"))
    if series.display_name:
        metadata += _field(0x12, series.display_name.encode(errors="replace"))
    if series.description:
        metadata += _field(0x1A, series.description.encode(errors="replace"))
    if series.tensor or series.double:
        metadata += bytes((0x20, _DATA_CLASS_SCALAR))
    tail = _field(0x4A, metadata) if metadata else b""
    if series.double:
        head, width = b"\x42\x0e\x08\x02\x12\x00\x32\x08", 8
    elif series.tensor:
        head, width = b"\x42\x0a\x08\x01\x12\x00\x2a\x04", 4
    else:
        head, width = b"\x15", 4
    if series.tag:
        head = _field(0x0A, series.tag.encode(errors="replace")) + head
    length = encode_varint(len(head) + width + len(tail))
    return _Template(b"\x0a" + length + head, tail, width)


def encode_scalar(series: Series, step: int, wall_time: float, value: float) -> bytes:
    """Return one scalar as one record.

    Args:
        series: the curve.
        step: the global step, an int64.
        wall_time: seconds since the epoch.
        value: rounded to float32, to ±Inf beyond its range, unless ``series.double``.
    """
    template = _template(series)
    if template.width == 8:
        number = _DOUBLE.pack(value)
    else:
        try:
            number = _FLOAT.pack(value)
        except OverflowError:
            number = _FLOAT.pack(float("inf") if value > 0 else float("-inf"))
    return frame(
        b"".join(
            (
                b"\x09",
                _DOUBLE.pack(wall_time),
                b"\x10" + encode_varint(step) if step else b"",
                b"\x2a",
                encode_varint(template.size),
                template.head,
                number,
                template.tail,
            )
        )
    )


def encode_scalars(
    series: Sequence[Series],
    codes: IndexArray,
    steps: Int64Array,
    wall_times: Float64Array,
    values: Float64Array,
) -> bytes:
    """Return many scalars as records, in the order given.

    Args:
        series: the curves.
        codes: for each scalar the position of its curve in ``series``; shape (n,).
        steps: shape (n,).
        wall_times: seconds since the epoch; shape (n,).
        values: shape (n,); rounded as by ``encode_scalar``.
    """
    # Records are filled together that are of one shape: as many bytes before the value and after
    # it, the value and the step of equal width.
    templates = [_template(s) for s in series]
    shapes: dict[tuple[int, int, int], list[int]] = {}
    for position, template in enumerate(templates):
        shape = len(template.head), len(template.tail), template.width
        shapes.setdefault(shape, []).append(position)
    shape_of = np.empty(len(series), np.intp)
    place = np.empty(len(series), np.intp)  # of a series among those of its shape
    for number, members in enumerate(shapes.values()):
        shape_of[members] = number
        place[members] = np.arange(len(members))
    members_of = list(shapes.values())

    step_widths = np.searchsorted(_VARINT_WIDTHS, steps.view(np.uint64), side="right")
    groups = shape_of[codes] * 16 + step_widths
    present = np.flatnonzero(np.bincount(groups)).tolist()
    records = np.empty(len(groups), object)
    for group in present:
        members = members_of[group // 16]
        rows = slice(None) if len(present) == 1 else np.flatnonzero(groups == group)
        chosen = codes[rows]
        if len(chosen) < _FEW or templates[members[0]].size > MAX_ROW - _BEFORE_SUMMARY:
            columns = (steps[rows], wall_times[rows], values[rows])
            records[rows] = [
                encode_scalar(series[i], step, wall_time, value)
                for i, step, wall_time, value in zip(
                    chosen.tolist(), *(column.tolist() for column in columns), strict=True
                )
            ]
            continue
        matrix = _fill(
            [templates[i] for i in members],
            place[chosen],
            steps[rows],
            wall_times[rows],
            values[rows],
            group % 16,
        )
        if len(present) == 1:
            return matrix.tobytes()
        records[rows] = matrix.view(f"V{matrix.shape[1]}").ravel().tolist()
    return b"".join(records.tolist())


def _fill(
    templates: Sequence[_Template],
    codes: IndexArray,
    steps: Int64Array,
    wall_times: Float64Array,
    values: Float64Array,
    step_width: int,
) -> UInt8Array:
    """Return records of one shape as the rows of a uint8 matrix."""
    patterns, sums = zip(*[_pattern(template, step_width) for template in templates], strict=True)
    template = templates[0]
    length = len(patterns[0])
    rows = np.frombuffer(b"".join(patterns), np.uint8).reshape(-1, length)[codes]

    time_at = HEADER + 1
    rows[:, time_at : time_at + 8] = _octets(wall_times.astype("<f8"))
    step_at = time_at + 9
    digits = steps.view(np.uint64)
    for position in range(step_width):
        more = 0x80 if position < step_width - 1 else 0
        digit = (digits >> np.uint64(7 * position)).astype(np.uint8) & np.uint8(0x7F)
        rows[:, step_at + position] = digit | np.uint8(more)
    value_at = length - FOOTER - len(template.tail) - template.width
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = values.astype("<f8" if template.width == 8 else "<f4")
    rows[:, value_at : value_at + template.width] = _octets(numbers)

    changing = [
        *range(time_at, time_at + 8),
        *range(step_at, step_at + step_width),
        *range(value_at, value_at + template.width),
    ]
    base = np.array(sums, np.uint32)
    crc = crc32c_rows(rows[:, HEADER:-FOOTER], [c - HEADER for c in changing], base[codes])
    rows[:, -FOOTER:] = _octets(mask(crc).astype("<u4"))
    return rows


@lru_cache(maxsize=65536)
def _pattern(template: _Template, step_width: int) -> tuple[bytes, int]:
    """Return a record with zeros for the time, the step, the value and the checksum.

    And the CRC of its data.
    """
    body = b"".join(
        (
            b"\x09" + bytes(8),
            b"\x10" + bytes(step_width) if step_width else b"",
            b"\x2a",
            encode_varint(template.size),
            template.head,
            bytes(template.width),
            template.tail,
        )
    )
    return frame_header(len(body)) + body + bytes(FOOTER), crc32c(body)


def _octets(array: np.ndarray[tuple[int], np.dtype[np.generic]]) -> UInt8Array:
    return array.view(np.uint8).reshape(len(array), array.itemsize)
