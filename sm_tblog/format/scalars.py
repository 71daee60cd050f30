"""Encodes scalars as records, one at a time or in batches.

The record of a scalar is the template of its series with four fields filled in: the wall time, the
step (a varint of 0 to 10 bytes), the value and the checksum. ``encode_scalar`` fills one record.
``encode_scalars`` builds a matrix with one row for each record, in which every field is as wide as
the widest record needs, fills it column by column, and removes the padding. Series with long texts
would widen the whole matrix, so their records are encoded one at a time. Both functions return the
same bytes in the same order, which a property test checks.

The messages are encoded as by protobuf (https://protobuf.dev/programming-guides/encoding), with the
fields in ascending order::

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
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sm_tblog.format.crc32c import MAX_ROW, contributions, crc32c, mask, table_starts
from sm_tblog.format.records import FOOTER, HEADER, frame, frame_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sm_tblog._types import Float64Array, IndexArray, Int64Array, Series, UInt32Array

__all__ = ["encode_scalar", "encode_scalars", "encode_varint"]

_MIN_VECTORISED = 24
"""Minimum number of records for which encoding by columns is faster than one at a time."""

_BLOCK_SIZE = 1024
"""Records filled at a time, so that intermediate arrays stay in the processor's cache."""

_MAX_TEMPLATE_SIZE = (MAX_ROW - 64) // 2
"""Bytes of the longest template in a matrix: its parts before and after the value may both be as
wide, besides the other fields."""

_MAX_CACHED_KINDS = 1024
"""Kinds of record of the largest layout that is kept; each takes about 450 bytes."""

_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_VARINT_WIDTHS = np.array([1 << 7 * i for i in range(10)], np.uint64)
_VARINT_WIDTHS[0] = 1  # zero is the field's default and is not written
_DATA_CLASS_SCALAR = 1
_VARIABLE = {"wall_time": "<f8", "step": "u1", "single": "<f4", "double": "<f8"}
"""The fields that depend on the scalar, without the checksum."""


def encode_varint(number: int) -> bytes:
    """Return the varint of an int64; negative numbers have ten bytes, as in protobuf."""
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
    """A scalar's ``Summary``: the bytes before and after the value, and the value's width."""

    head: bytes
    tail: bytes
    width: int

    @property
    def size(self) -> int:
        return len(self.head) + self.width + len(self.tail)


def _uncached_template(series: Series) -> _Template:
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


# About 450 bytes each, for a writer that logs ever new tags.
_template = lru_cache(maxsize=16_384)(_uncached_template)


def _text_length(series: Series) -> int:
    return len(series.tag) + len(series.display_name) + len(series.description)


def _has_long_texts(series: Series) -> bool:
    return _text_length(series) > _MAX_TEMPLATE_SIZE


def _is_long(series: Series) -> bool:
    """Return whether the records of a series are too long for a matrix."""
    longest = 4 * _text_length(series) + 64  # in UTF-8, with everything else
    if longest <= _MAX_TEMPLATE_SIZE:
        return False
    return _has_long_texts(series) or _template(series).size > _MAX_TEMPLATE_SIZE


def encode_scalar(series: Series, step: int, wall_time: float, value: float) -> bytes:
    """Return the record of one scalar.

    Args:
        series: the curve.
        step: the global step, an int64.
        wall_time: seconds since the epoch.
        value: the value; unless ``series.double``, rounded to float32, or to ±Inf beyond its range.
    """
    template = _uncached_template(series) if _has_long_texts(series) else _template(series)
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
    """Return the records of many scalars, in the given order.

    Args:
        series: the curves.
        codes: the index of each scalar's curve in ``series``; intp, shape (n,).
        steps: the global steps; int64, shape (n,).
        wall_times: seconds since the epoch; float64, shape (n,).
        values: the values, rounded as by ``encode_scalar``; float64, shape (n,).
    """
    is_long = np.fromiter(map(_is_long, series), bool, len(series))
    if not is_long.any():
        return _encode_short(series, codes, steps, wall_times, values)
    changes = np.flatnonzero(np.diff(is_long[codes])) + 1
    edges = [0, *changes.tolist(), len(codes)]
    parts = []
    for begin, end in pairwise(edges):
        rows = slice(begin, end)
        columns = codes[rows], steps[rows], wall_times[rows], values[rows]
        encode = _encode_singly if begin < end and is_long[codes[begin]] else _encode_short
        parts.append(encode(series, *columns))
    return b"".join(parts)


def _encode_singly(
    series: Sequence[Series],
    codes: IndexArray,
    steps: Int64Array,
    wall_times: Float64Array,
    values: Float64Array,
) -> bytes:
    """Return the records of scalars, encoded one at a time."""
    columns = (codes, steps, wall_times, values)
    return b"".join(
        encode_scalar(series[code], step, wall_time, value)
        for code, step, wall_time, value in zip(*(c.tolist() for c in columns), strict=True)
    )


def _encode_short(
    series: Sequence[Series],
    codes: IndexArray,
    steps: Int64Array,
    wall_times: Float64Array,
    values: Float64Array,
) -> bytes:
    """Return the records of scalars whose series are not long."""
    if len(codes) < _MIN_VECTORISED:
        return _encode_singly(series, codes, steps, wall_times, values)
    step_widths = np.searchsorted(_VARINT_WIDTHS, steps.view(np.uint64), side="right")
    keys = codes * 16 + step_widths
    present = np.flatnonzero(np.bincount(keys))
    layout = _layout(tuple((series[key // 16], key % 16) for key in present.tolist()))
    kind_of = np.empty(present[-1] + 1, np.intp)
    kind_of[present] = np.arange(len(present))
    kinds = kind_of[keys]
    blocks = (slice(start, start + _BLOCK_SIZE) for start in range(0, len(keys), _BLOCK_SIZE))
    return b"".join(
        _fill(layout, kinds[rows], steps[rows], wall_times[rows], values[rows]) for rows in blocks
    )


class _Layout(NamedTuple):
    """Several kinds of record, each field padded to the width that the widest kind needs.

    Attributes:
        patterns: a record of each kind, with zeros in the variable fields; structured, shape
            (kinds,).
        kept: whether each byte is not padding; bool, shape (kinds, columns).
        crcs: CRCs of the patterns' data; uint32, shape (kinds,).
        variable: the columns of ``_VARIABLE``; intp, shape (variable,).
        starts: table positions of these columns, for ``contributions``; intp, shape (variable,
            kinds).
    """

    patterns: npt.NDArray[np.void]
    kept: npt.NDArray[np.bool_]
    crcs: UInt32Array
    variable: IndexArray
    starts: IndexArray


def _layout(kinds: tuple[tuple[Series, int], ...]) -> _Layout:
    """Return the layout of records of these series and step widths."""
    return (_cached_layout if len(kinds) <= _MAX_CACHED_KINDS else _uncached_layout)(kinds)


def _uncached_layout(kinds: tuple[tuple[Series, int], ...]) -> _Layout:
    records = [_fields(series, step_width) for series, step_width in kinds]
    lengths = np.array([[len(field) for field in fields.values()] for fields in records])
    widths = lengths.max(axis=0)
    begins = widths.cumsum() - widths
    field_of = np.repeat(np.arange(len(widths)), widths)  # the field of each column
    kept = np.arange(len(field_of)) - begins[field_of] < lengths[:, field_of]
    after = kept[:, ::-1].cumsum(axis=1)[:, ::-1] - 1 - FOOTER

    names = list(records[0])
    variable = np.flatnonzero(np.isin(field_of, [names.index(name) for name in _VARIABLE]))
    formats = {**_VARIABLE, "step": f"({widths[names.index('step')]},)u1", "crc": "<u4"}
    present = [name for name, width in zip(names, widths, strict=True) if width and name in formats]
    dtype = np.dtype(
        {
            "names": present,
            "formats": [formats[name] for name in present],
            "offsets": [int(begins[names.index(name)]) for name in present],
            "itemsize": len(field_of),
        }
    )
    padded = [
        field.ljust(width, b"\0")
        for fields in records
        for field, width in zip(fields.values(), widths.tolist(), strict=True)
    ]
    data = [b"".join(fields.values())[HEADER:-FOOTER] for fields in records]
    return _Layout(
        np.frombuffer(b"".join(padded), dtype),
        kept,
        np.array([crc32c(one) for one in data], np.uint32),
        variable,
        table_starts(np.where(kept, after, -1)[:, variable].T.copy()),
    )


# A loop logs the same series at every step, so few layouts are needed repeatedly.
_cached_layout = lru_cache(maxsize=16)(_uncached_layout)


def _fields(series: Series, step_width: int) -> dict[str, bytes]:
    """Return the fields of a record, with zeros in the variable ones."""
    template = _template(series)
    fields = {
        "start": b"\x09",
        "wall_time": bytes(8),
        "key": b"\x10" if step_width else b"",
        "step": bytes(step_width),
        "head": b"\x2a" + encode_varint(template.size) + template.head,
        "single": bytes(4 if template.width == 4 else 0),
        "double": bytes(8 if template.width == 8 else 0),
        "tail": template.tail,
    }
    length = sum(len(field) for field in fields.values())
    return {"header": frame_header(length), **fields, "crc": bytes(FOOTER)}


def _fill(
    layout: _Layout,
    kinds: IndexArray,
    steps: Int64Array,
    wall_times: Float64Array,
    values: Float64Array,
) -> bytes:
    """Return records, each of one kind of the layout."""
    records = layout.patterns.take(kinds)
    fields = records.dtype.names or ()
    records["wall_time"] = wall_times
    if "step" in fields:
        remaining = steps.view(np.uint64)
        for digit in records["step"].T:
            low = remaining.astype(np.uint8) & np.uint8(0x7F)
            remaining = remaining >> np.uint64(7)
            digit[:] = low | (remaining > 0).view(np.uint8) << np.uint8(7)
    with np.errstate(over="ignore", invalid="ignore"):
        for name in ("single", "double"):
            if name in fields:
                records[name] = values
    octets = records.view(np.uint8).reshape(len(records), -1)
    changed = contributions(octets.T[layout.variable], layout.starts.take(kinds, axis=1))
    records["crc"] = mask(layout.crcs.take(kinds) ^ changed)
    if not layout.kept.all():
        octets = octets[layout.kept.take(kinds, axis=0)]
    return octets.tobytes()
