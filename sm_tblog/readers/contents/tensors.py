"""Arrays and strings of a ``TensorProto``.

The elements are packed in ``tensor_content``, or in a field for their type. In such a field, the
last element stands for all that follow, and no element for zeros, as in TensorFlow. PyTorch's
writer uses two fields in its own way: ``uint32_val`` for uint8, and in ``half_val`` the bits of a
float32 for float16 and bfloat16. All such numbers but zero are larger than 16 bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError, MissingDependencyError
from sm_tblog.format import schema

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["array_of", "strings_of", "text_of"]

_MAX_PADDED, _MAX_PADDED_STRINGS = 1 << 24, 1 << 16
"""Numbers and strings of an array that may be longer than what its message contains."""


class _Layout(NamedTuple):
    """How the elements of a type are stored.

    Attributes:
        dtype: NumPy's dtype, or the name of one of ml_dtypes.
        field: the field that may contain the elements.
        stored: the dtype of what is in the field, if it is a part of an element.
    """

    dtype: str
    field: str
    stored: str = ""


_INT8, _UINT8, _INT16 = _Layout("i1", "int_val"), _Layout("u1", "int_val"), _Layout("i2", "int_val")
_INT32, _UINT16 = _Layout("i4", "int_val"), _Layout("u2", "int_val")

_LAYOUTS = {
    schema.DT_FLOAT: _Layout("f4", "float_val"),
    schema.DT_DOUBLE: _Layout("f8", "double_val"),
    schema.DT_HALF: _Layout("f2", "half_val"),
    schema.DT_BFLOAT16: _Layout("bfloat16", "half_val"),
    schema.DT_FLOAT8_E5M2: _Layout("float8_e5m2", "float8_val"),
    schema.DT_FLOAT8_E4M3FN: _Layout("float8_e4m3fn", "float8_val"),
    schema.DT_INT8: _INT8,
    schema.DT_INT16: _INT16,
    schema.DT_INT32: _INT32,
    schema.DT_INT64: _Layout("i8", "int64_val"),
    schema.DT_UINT8: _UINT8,
    schema.DT_UINT16: _UINT16,
    schema.DT_UINT32: _Layout("u4", "uint32_val"),
    schema.DT_UINT64: _Layout("u8", "uint64_val"),
    schema.DT_BOOL: _Layout("?", "bool_val"),
    schema.DT_COMPLEX64: _Layout("c8", "scomplex_val", "f4"),
    schema.DT_COMPLEX128: _Layout("c16", "dcomplex_val", "f8"),
    # TensorFlow's quantized types: QINT8, QUINT8, QINT32, QINT16, QUINT16.
    11: _INT8,
    12: _UINT8,
    13: _INT32,
    15: _INT16,
    16: _UINT16,
}


def array_of(tensor: Any) -> npt.NDArray[Any]:
    """Return a ``TensorProto`` as an array of its shape and dtype.

    Strings become an array of ``bytes`` objects. bfloat16 and float8 are the dtypes of ml_dtypes.
    The array may be read-only.

    Raises:
        InvalidValueError: the message is not a tensor of a known type.
        MissingDependencyError: ml_dtypes is required and not installed.
    """
    if tensor.dtype == schema.DT_STRING:
        return strings_of(tensor)
    if tensor.dtype not in _LAYOUTS:
        message = f"tensors of TensorFlow's type number {tensor.dtype} are not supported"
        raise InvalidValueError(message)
    layout = _LAYOUTS[tensor.dtype]
    dtype = _dtype(layout.dtype)
    shape = _shape(tensor)
    if tensor.tensor_content:
        packed = np.frombuffer(tensor.tensor_content, np.uint8 if dtype.kind == "b" else dtype)
        array = packed.astype(dtype.newbyteorder("="))
        if array.size != math.prod(shape):
            message = f"a tensor of shape {shape} contains {array.size:,} elements"
            raise InvalidValueError(message)
        return array.reshape(shape)
    return _shaped(_elements(tensor, layout, dtype), shape)


def _elements(tensor: Any, layout: _Layout, dtype: Any) -> Any:
    """Return the elements in the field for their type."""
    used = {field.name for field, _ in tensor.ListFields() if field.name.endswith("_val")}
    name = layout.field
    if layout is _UINT8 and used == {"uint32_val"}:
        name = "uint32_val"
    if used - {name}:
        message = f"a tensor of {dtype} has elements in {', '.join(sorted(used - {name}))}"
        raise InvalidValueError(message)
    field = getattr(tensor, name)
    if isinstance(field, bytes):
        return np.frombuffer(field, dtype)
    if name == "half_val":
        bits: Any = np.array(field, np.int32)
        if ((bits < 0) | (bits >= 1 << 16)).any():
            return bits.view(np.float32).astype(dtype)
        return bits.astype(np.uint16).view(dtype)
    if layout.stored:
        parts: Any = np.array(field, layout.stored)
        return parts.view(dtype)
    wide: Any = np.array(field, np.int64 if name.startswith(("int_", "uint32")) else dtype)
    return wide.astype(dtype)


def strings_of(tensor: Any) -> npt.NDArray[Any]:
    """Return a ``TensorProto`` of strings as an array of ``bytes`` objects.

    Raises:
        InvalidValueError: the message is not a tensor of strings.
    """
    if tensor.dtype != schema.DT_STRING:
        message = "expected a tensor of strings, got one of numbers"
        raise InvalidValueError(message)
    return _shaped(_objects(tensor.string_val), _shape(tensor))


def text_of(tensor: Any) -> Any:
    """Return a ``TensorProto`` of strings as a str or an array of them.

    Returns:
        A str for a single string of shape () or (1,); else an array of str objects.

    Raises:
        InvalidValueError: the message is not a tensor of strings.
    """
    raw = strings_of(tensor)
    if raw.size == 1 and raw.ndim <= 1:
        return raw.reshape(-1)[0].decode(errors="replace")
    return _objects([text.decode(errors="replace") for text in raw.flat]).reshape(raw.shape)


def _dtype(name: str) -> Any:
    if not name.startswith(("bfloat", "float8")):
        return np.dtype(name).newbyteorder("<")
    try:
        import ml_dtypes
    except ImportError as error:
        message = f"tensors of {name} need ml_dtypes: pip install ml_dtypes"
        raise MissingDependencyError(message) from error
    return np.dtype(getattr(ml_dtypes, name))


def _shape(tensor: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(length < 0 for length in shape):
        message = f"a tensor of unknown shape {shape}"
        raise InvalidValueError(message)
    return shape


def _objects(items: Any) -> npt.NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _shaped(elements: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return elements as an array, which the last of them fills."""
    size = math.prod(shape)
    missing = size - len(elements)
    if missing == 0:
        return elements.reshape(shape)
    if missing < 0 or size > (_MAX_PADDED_STRINGS if elements.dtype == object else _MAX_PADDED):
        message = f"a tensor of shape {shape} contains {len(elements):,} elements"
        raise InvalidValueError(message)
    if len(elements):
        last = elements[-1]
    else:
        last = b"" if elements.dtype == object else elements.dtype.type(0)
    array = np.full(size, last, elements.dtype)
    array[: len(elements)] = elements
    return array.reshape(shape)
