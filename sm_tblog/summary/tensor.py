"""Tensors: arrays with their shapes, dtypes and all their elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._types import as_utf8
from sm_tblog.arrays.convert import resolve
from sm_tblog.format import schema

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog.arrays.convert import Deferred

__all__ = ["tensor_proto", "tensor_value"]

_DTYPES = {
    "b1": schema.DT_BOOL,
    "i1": schema.DT_INT8,
    "i2": schema.DT_INT16,
    "i4": schema.DT_INT32,
    "i8": schema.DT_INT64,
    "u1": schema.DT_UINT8,
    "u2": schema.DT_UINT16,
    "u4": schema.DT_UINT32,
    "u8": schema.DT_UINT64,
    "f2": schema.DT_HALF,
    "f4": schema.DT_FLOAT,
    "f8": schema.DT_DOUBLE,
    "c8": schema.DT_COMPLEX64,
    "c16": schema.DT_COMPLEX128,
}
"""TensorBoard's dtype by the kind and size in bytes of an element, as in NumPy's ``dtype.str``."""


def tensor_value(
    tag: str,
    values: npt.NDArray[Any] | Deferred,
    kinds: str,
    plugin: str | None = None,
    content: bytes = b"",
) -> Any:
    """Return a ``Summary.Value`` of a tensor.

    Args:
        tag: the tag, used unchanged.
        values: an array, as for ``tensor_proto``.
        kinds: the allowed dtype kinds, as for ``convert.snapshot``.
        plugin: the plugin that shows the tensor; by default "tensor", as in PyTorch's writer.
        content: the content of the plugin's data.

    Raises:
        InvalidTypeError: values from a device are not of these kinds.
    """
    array = resolve(values, tag, kinds)
    value = schema.Value(tag=tag, tensor=tensor_proto(array))
    value.metadata.plugin_data.plugin_name = as_utf8(plugin or "tensor")
    value.metadata.plugin_data.content = content
    if plugin is None:  # other plugins recognise their data by plugin name
        value.metadata.data_class = schema.DATA_CLASS_TENSOR
    return value


def tensor_proto(array: npt.NDArray[Any]) -> Any:
    """Return an array as a ``TensorProto``.

    Elements are packed, little-endian, as in TensorFlow (``tensor_content``); strings are separate
    fields in UTF-8.

    Args:
        array: bools, numbers or strings of any shape and byte order. bfloat16 and float8 are
            written as float32, which holds them exactly; ``longdouble`` as float64.
    """
    tensor = schema.TensorProto()
    tensor.tensor_shape.SetInParent()
    for length in array.shape:
        tensor.tensor_shape.dim.add(size=length)
    if array.dtype.kind in "US":
        tensor.dtype = schema.DT_STRING
        tensor.string_val.extend(
            text if isinstance(text, bytes) else text.encode(errors="replace")
            for text in array.reshape(-1).tolist()
        )
        return tensor
    element = array.dtype.str[1:]
    if element not in _DTYPES:
        # TensorBoard without TensorFlow cannot read the message's bfloat16 and float8 types.
        large = "c16" if array.dtype.kind == "c" else "f8"
        element = large if array.dtype.itemsize > 8 else "f4"
    tensor.dtype = _DTYPES[element]
    tensor.tensor_content = array.astype(f"<{element}", copy=False).tobytes()
    return tensor
