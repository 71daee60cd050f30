"""Events to columns: what TensorBoard would show of a run, as numpy arrays.

All scalars of a run go, in the order of the files, into four growing columns: number of the tag,
step, wall time, value. Only at the end are the superseded ones taken out and the rest sorted by
tag, with numpy.

A number is one however it was written: as a ``simple_value``, or as a tensor of one element whose
tag belongs to the scalars plugin. A tag's first value may be the only one that says so.

``SessionLog.START`` at a step supersedes what came before it at this step and after, as in
TensorBoard's ``EventAccumulator``. That also has a rule for files without a version or of a version
below 2, in which a step that goes back supersedes. The writers in use all name version 2, but
damage to its first record makes any file look older; so the rule is left out here.
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
"""What a value is shown as if no plugin is named."""


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
"""By data type: an element's layout in ``tensor_content``, the field that it may be in instead, and
its value."""

_DTYPES = schema.TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name
_LAYOUTS = {
    _DTYPES[name].number: (struct.Struct(layout), field, decode)
    for name, (layout, field, decode) in _ELEMENTS.items()
}


class Scalars(NamedTuple):
    """The points of one curve, in the order in which they were written.

    Attributes:
        step: int64, shape (n,).
        wall_time: seconds since the epoch; float64, shape (n,).
        value: float64, shape (n,); a value that was written as float32 is that float32.
    """

    step: Int64Array
    wall_time: Float64Array
    value: Float64Array


class Columns:
    """Takes the events of one run, in order.

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
        self._starts: list[tuple[int, int]] = []  # how many points came before, and the step

    def add(self, event: Any) -> None:
        """Take the next event."""
        what = event.WhichOneof("what")
        if what == "summary":
            for value in event.summary.value:
                self._add_value(value, event.step, event.wall_time)
        elif what == "session_log" and event.session_log.status == schema.SessionLog.START:
            self._starts.append((len(self._steps), event.step))

    def scalars(self) -> dict[str, Scalars]:
        """Return the points of each tag that has had any, less the superseded ones."""
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
        tag = value.tag or value.node_name  # the latter in files of TensorFlow 1
        held = value.WhichOneof("value")
        plugin = value.metadata.plugin_data.plugin_name if value.HasField("metadata") else ""
        first = self.tags.setdefault(tag, plugin or _KINDS.get(held, ""))
        if held == "simple_value":
            number = value.simple_value
        elif held == "tensor" and (plugin or first) == _SCALARS:
            number = maybe_number(value.tensor)
        else:
            return
        if number is not None:
            self._index.append(self._numbers.setdefault(tag, len(self._numbers)))
            self._steps.append(step)
            self._wall_times.append(wall_time)
            self._values.append(number)


def maybe_number(tensor: Any) -> float | None:
    """Return the only element of a ``TensorProto``, or None if it is not one number."""
    if tensor.dtype not in _LAYOUTS or any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    layout, field, decode = _LAYOUTS[tensor.dtype]
    elements = getattr(tensor, field)
    if tensor.tensor_content:
        content = tensor.tensor_content
        elements = layout.unpack(content) if len(content) == layout.size else ()
    return decode(elements[0]) if len(elements) == 1 else None
