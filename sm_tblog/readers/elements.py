"""The number in a ``TensorProto`` of one element, of any type."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from sm_tblog.format import schema

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["maybe_number"]


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
