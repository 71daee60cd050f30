"""Scalars to records, one at a time and by the batch.

A scalar's record is its series' template with four places filled in: the wall time, the step (a
varint, of 0 to 10 bytes), the value and the checksum. ``encode_scalar`` fills one. Where there are
many, ``encode_scalars`` makes a matrix of them, one row a record, in which every field has the
columns that the widest record needs; fills it column by column; and leaves out the padding. Both
give the same bytes in the same order; a property test holds them to it.

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

from sm_tblog.format.crc32c import MAX_ROW, contributions, crc32c, mask, table_starts
from sm_tblog.format.records import FOOTER, HEADER, frame, frame_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sm_tblog._types import Float64Array, IndexArray, Int64Array, Series, UInt32Array

__all__ = ["encode_scalar", "encode_scalars", "encode_varint"]

_FEW = 24
"""Below so many records, one at a time is faster than by columns."""

_BLOCK = 1024
"""Records filled at a time: what is computed on the way stays in the processor's cache."""

_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_VARINT_WIDTHS = np.array([1 << 7 * i for i in range(10)], np.uint64)
_VARINT_WIDTHS[0] = 1  # zero is the default of the field and takes no bytes at all
_DATA_CLASS_SCALAR = 1
_CHANGING = {"wall_time": "<f8", "step": "u1", "single": "<f4", "double": "<f8"}
"""The fields whose bytes are not known before the scalar is, but for the checksum."""


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
    step_widths = np.searchsorted(_VARINT_WIDTHS, steps.view(np.uint64), side="right")
    keys = codes * 16 + step_widths
    present = np.flatnonzero(np.bincount(keys))
    layout = _layout(tuple((series[key // 16], key % 16) for key in present.tolist()))
    if len(keys) < _FEW or layout.patterns.itemsize > MAX_ROW:
        columns = (codes, steps, wall_times, values)
        return b"".join(
            encode_scalar(series[code], step, wall_time, value)
            for code, step, wall_time, value in zip(*(c.tolist() for c in columns), strict=True)
        )
    place = np.empty(present[-1] + 1, np.intp)
    place[present] = np.arange(len(present))
    kinds = place[keys]
    return b"".join(
        _fill(layout, kinds[rows], steps[rows], wall_times[rows], values[rows])
        for rows in (slice(start, start + _BLOCK) for start in range(0, len(keys), _BLOCK))
    )


class _Layout(NamedTuple):
    """Several kinds of record, each field padded to the width that the widest kind needs.

    Attributes:
        patterns: a record of each kind, with zeros for what changes; structured, shape (kinds,).
        kept: the bytes that are no padding; shape (kinds, columns).
        crcs: of the patterns' data; shape (kinds,).
        changing: the columns of ``_CHANGING``; shape (changing,).
        starts: of these columns' tables, for ``contributions``; shape (changing, kinds).
    """

    patterns: npt.NDArray[np.void]
    kept: npt.NDArray[np.bool_]
    crcs: UInt32Array
    changing: IndexArray
    starts: IndexArray


# A loop logs the same series at every step, so the worker asks for few layouts again and again.
@lru_cache(maxsize=16)
def _layout(kinds: tuple[tuple[Series, int], ...]) -> _Layout:
    """Return the layout of records of these series and step widths."""
    records = [_fields(series, step_width) for series, step_width in kinds]
    lengths = np.array([[len(field) for field in fields.values()] for fields in records])
    widths = lengths.max(axis=0)
    begins = widths.cumsum() - widths
    field_of = np.repeat(np.arange(len(widths)), widths)  # of each column
    kept = np.arange(len(field_of)) - begins[field_of] < lengths[:, field_of]
    after = kept[:, ::-1].cumsum(axis=1)[:, ::-1] - 1 - FOOTER

    names = list(records[0])
    changing = np.flatnonzero(np.isin(field_of, [names.index(name) for name in _CHANGING]))
    formats = {**_CHANGING, "step": f"({widths[names.index('step')]},)u1", "crc": "<u4"}
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
        changing,
        table_starts(np.where(kept, after, -1)[:, changing].T.copy()),
    )


def _fields(series: Series, step_width: int) -> dict[str, bytes]:
    """Return a record by its fields, with zeros for what changes."""
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
    """Return records, each of one of the layout's kinds."""
    records = layout.patterns.take(kinds)
    fields = records.dtype.names or ()
    records["wall_time"] = wall_times
    if "step" in fields:
        rest = steps.view(np.uint64)
        for digit in records["step"].T:
            low = rest.astype(np.uint8) & np.uint8(0x7F)
            rest = rest >> np.uint64(7)
            digit[:] = low | (rest > 0).view(np.uint8) << np.uint8(7)
    with np.errstate(over="ignore", invalid="ignore"):
        for name in ("single", "double"):
            if name in fields:
                records[name] = values
    octets = records.view(np.uint8).reshape(len(records), -1)
    changed = contributions(octets.T[layout.changing], layout.starts.take(kinds, axis=1))
    records["crc"] = mask(layout.crcs.take(kinds) ^ changed)
    if not layout.kept.all():
        octets = octets[layout.kept.take(kinds, axis=0)]
    return octets.tobytes()
