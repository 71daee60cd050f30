"""Collects the events of a run into numpy columns, as TensorBoard would show them.

All scalars of a run are appended in file order to four growing columns: index of the tag, step,
wall time, value. At the end, numpy removes the superseded scalars and sorts the rest by tag.

A scalar may be written as a ``simple_value``, or as a tensor of one element whose tag belongs to
the scalars plugin. The plugin may be given only with a tag's first value.

``SessionLog.START`` at a step supersedes earlier points at and after this step, as in TensorBoard's
``EventAccumulator``. The latter has another rule for files without a version or with a version
below 2: a decreasing step supersedes earlier points. All writers in use write version 2, but a
damaged first record makes any file look older; so this rule is not implemented here.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.format import schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog._types import Float64Array, Int64Array

__all__ = ["Columns", "Scalars"]

_SCALARS = "scalars"

_KINDS = {
    "simple_value": _SCALARS,
    "histo": "histograms",
    "image": "images",
    "audio": "audio",
    "tensor": "tensors",
}
"""The plugin of a value, by its field, if its metadata names none."""


def _half(bits: int) -> float:
    return float(struct.unpack("<e", struct.pack("<H", bits & 0xFFFF))[0])


def _bfloat16(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", (bits & 0xFFFF) << 16))[0])


_ELEMENTS: dict[str, tuple[str, str, Callable[[Any], float]]] = {
    "DT_FLOAT": ("<f", "float_val", float),
    "DT_DOUBLE": ("<d", "double_val", float),
    "DT_HALF": ("<H", "half_val", _half),
    "DT_BFLOAT16": ("<H", "half_val", _bfloat16),
    "DT_INT8": ("<b", "int_val", float),
    "DT_INT16": ("<h", "int_val", float),
    "DT_INT32": ("<i", "int_val", float),
    "DT_INT64": ("<q", "int64_val", float),
    "DT_UINT8": ("<B", "int_val", float),
    "DT_UINT16": ("<H", "int_val", float),
    "DT_UINT32": ("<I", "uint32_val", float),
    "DT_UINT64": ("<Q", "uint64_val", float),
    "DT_BOOL": ("<?", "bool_val", float),
}
"""For each data type: the layout of an element in ``tensor_content``, the field that may hold it
instead, and the conversion to float."""

_DTYPES = schema.TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name
_LAYOUTS = {
    _DTYPES[name].number: (struct.Struct(layout), field, decode)
    for name, (layout, field, decode) in _ELEMENTS.items()
}


class Scalars(NamedTuple):
    """The points of one curve, in the order in which they were written.

    Attributes:
        step: the global step; int64, shape (n,).
        wall_time: seconds since the epoch; float64, shape (n,).
        value: float64, shape (n,); values written as float32 are converted exactly.
    """

    step: Int64Array
    wall_time: Float64Array
    value: Float64Array


class Columns:
    """Collects the events of one run, added in order.

    Attributes:
        tags: the plugin that shows each tag, in the order in which the tags first appear.
    """

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._index = array("q")
        self._steps = array("q")
        self._wall_times = array("d")
        self._values = array("d")
        self._starts: list[tuple[int, int]] = []  # number of points before, and the step

    def add(self, event: Any) -> None:
        """Add the next event."""
        what = event.WhichOneof("what")
        if what == "summary":
            for value in event.summary.value:
                self._add_value(value, event.step, event.wall_time)
        elif what == "session_log" and event.session_log.status == schema.SessionLog.START:
            self._starts.append((len(self._steps), event.step))

    def scalars(self) -> dict[str, Scalars]:
        """Return the points of each scalar tag, without the superseded ones."""
        index = np.frombuffer(self._index, np.int64)
        steps = np.frombuffer(self._steps, np.int64)
        wall_times = np.frombuffer(self._wall_times, np.float64)
        values = np.frombuffer(self._values, np.float64)

        keep = np.ones(len(steps), bool)
        for before, step in self._starts:
            keep[:before] &= steps[:before] < step
        rows = np.flatnonzero(keep)
        rows = rows[np.argsort(index[rows], kind="stable")]
        steps, wall_times, values = steps[rows], wall_times[rows], values[rows]
        ends = np.cumsum(np.bincount(index[rows], minlength=len(self._numbers))).tolist()
        return {
            tag: Scalars(steps[begin:end], wall_times[begin:end], values[begin:end])
            for tag, begin, end in zip(self._numbers, [0, *ends], ends, strict=False)
        }

    def _add_value(self, value: Any, step: int, wall_time: float) -> None:
        tag = value.tag or value.node_name  # TensorFlow 1 writes the latter
        field = value.WhichOneof("value")
        plugin = value.metadata.plugin_data.plugin_name if value.HasField("metadata") else ""
        first = self.tags.setdefault(tag, plugin or _KINDS.get(field, ""))
        if field == "simple_value":
            number = value.simple_value
        elif field == "tensor" and (plugin or first) == _SCALARS:
            number = maybe_number(value.tensor)
        else:
            return
        if number is not None:
            self._index.append(self._numbers.setdefault(tag, len(self._numbers)))
            self._steps.append(step)
            self._wall_times.append(wall_time)
            self._values.append(number)


def maybe_number(tensor: Any) -> float | None:
    """Return the value of a ``TensorProto`` with one number, None for any other."""
    if tensor.dtype not in _LAYOUTS or any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    layout, field, decode = _LAYOUTS[tensor.dtype]
    elements = getattr(tensor, field)
    if tensor.tensor_content:
        content = tensor.tensor_content
        elements = layout.unpack(content) if len(content) == layout.size else ()
    return decode(elements[0]) if len(elements) == 1 else None
