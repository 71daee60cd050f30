"""Any library's numbers and arrays, by protocol, without importing the library.

A caller must be able to change its array as soon as a call returns, and must not wait for a
device. So host memory is copied at once; a value on an accelerator is copied on its own device's
stream into host memory without waiting, and read by the worker, as a ``Deferred``.

What decides is what the type offers, never its name:

==========================  =====================================================
``detach``                  PyTorch
``copy_to_host_async``      JAX; its arrays cannot change, so keeping one is a copy
``__cuda_array_interface__``  CuPy, Numba: copied on the device
``__array__``, buffers      NumPy, Pillow, pandas, lists of numbers, TensorFlow …
``__float__``, ``__index__``  Python's numbers, Decimal, Fraction
==========================  =====================================================
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["Deferred", "as_number", "as_step", "snapshot"]


class Deferred:
    """A value that is on its way from a device. Reading it waits until it has arrived.

    ``float`` of it works, so a column of numbers may hold some.

    Attributes:
        shape: of the array that ``array`` will return.
        ndim: how many dimensions that are.
        dtype: of that array; None where the device's library does not tell.
        nbytes: the memory that it keeps until then.
    """

    __slots__ = ("_read", "dtype", "nbytes", "shape")

    def __init__(
        self,
        read: Callable[[], Any],
        shape: tuple[int, ...] = (),
        dtype: np.dtype[Any] | None = None,
        nbytes: int = 8,
    ) -> None:
        self._read = read
        self.shape = shape
        self.dtype = dtype
        self.nbytes = nbytes

    @property
    def ndim(self) -> int:
        """How many dimensions the array has."""
        return len(self.shape)

    def array(self) -> npt.NDArray[Any]:
        """Return the value as an array in host memory."""
        return np.asarray(self._read())

    def __float__(self) -> float:
        """Return the only element."""
        return float(self.array().item())


def as_number(value: Any, tag: str) -> float | Deferred:
    """Return a number-like value as a float, or as a ``Deferred`` if it is on a device.

    Args:
        value: a number of any kind or an array with one element.
        tag: named in errors.

    Raises:
        InvalidTypeError: it is not a number.
        InvalidValueError: it has more or fewer elements than one, or is too large for a float64.
    """
    if type(value) is float:
        return value
    kind = type(value)
    shape = tuple(getattr(value, "shape", ()))
    if math.prod(shape) != 1:
        message = (
            f"{tag!r}: a scalar has one element, got shape {shape}; log its mean, or use "
            "add_histogram"
        )
        raise InvalidValueError(message)
    try:
        if (deferred := _maybe_deferred(value)) is not None:
            return deferred
        if hasattr(kind, "numpy") and not hasattr(kind, "item"):  # TensorFlow
            value = value.numpy()
        if hasattr(type(value), "item"):
            value = value.item()
        if hasattr(type(value), "__float__") or hasattr(type(value), "__index__"):
            return float(value)
    except OverflowError as error:
        message = f"{tag!r}: the value is too large for a float64"
        raise InvalidValueError(message) from error
    except Exception as error:
        message = f"{tag!r}: cannot read a number from {_name(kind)}: {error}"
        raise InvalidTypeError(message) from error
    message = f"{tag!r}: a scalar is a number or an array with one element, got {_name(kind)}"
    if isinstance(value, str):
        message += f" {value[:40]!r}; use add_text for text"
    raise InvalidTypeError(message)


def as_step(step: Any, tag: str) -> int:
    """Return a step of any integer type as an int; a float is cut to an integer, as by the peers.

    Raises:
        InvalidTypeError: it is not a number.
        InvalidValueError: it does not fit an int64, or is NaN.
    """
    try:
        number = (
            step.__index__()
            if hasattr(type(step), "__index__")
            else int(float(as_number(step, tag)))
        )
    except (InvalidTypeError, InvalidValueError, OverflowError, ValueError, TypeError) as error:
        message = f"{tag!r}: a step is an integer, got {step!r:.60}"
        kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind(message) from error
    if not -(2**63) <= number < 2**63:
        message = f"{tag!r}: the step {number} does not fit an int64"
        raise InvalidValueError(message)
    return int(number)


def snapshot(values: Any, tag: str, *, kinds: str = "biuf") -> npt.NDArray[Any] | Deferred:
    """Return a copy of an array-like that later changes do not reach.

    Args:
        values: anything that NumPy can read, a PyTorch, JAX or CuPy array on any device, or a
            list of such.
        tag: named in errors.
        kinds: what the array may hold, as NumPy's ``dtype.kind``: by default bools and real
            numbers, where bfloat16 and float8 count as ``"f"``. ``"c"`` adds complex numbers,
            ``"U"`` and ``"S"`` strings.

    Returns:
        An array of these kinds, or a ``Deferred`` if the values are on a device; its ``shape``
        and ``dtype`` can be checked without waiting.

    Raises:
        InvalidTypeError: it is not an array of these kinds.
    """
    try:
        if (deferred := _maybe_deferred(values)) is not None:
            return deferred
        if hasattr(type(values), "detach"):
            values = _torch_on_host(values)
        if isinstance(values, (list, tuple)):
            values = [_torch_on_host(v) if hasattr(type(v), "detach") else v for v in values]
        array = np.array(values)
    except Exception as error:
        message = f"{tag!r}: cannot read an array from {_name(type(values))}: {error}"
        raise InvalidTypeError(message) from error
    return check_kind(array, tag, kinds)


def check_kind(array: npt.NDArray[Any], tag: str, kinds: str = "biuf") -> npt.NDArray[Any]:
    """Return the array if it holds what ``kinds`` says, as in ``snapshot``.

    Raises:
        InvalidTypeError: it holds anything else.
    """
    if array.dtype.kind in kinds:
        return array
    if array.dtype.kind == "V" and np.can_cast(array.dtype, np.float64):  # bfloat16, float8
        return array
    if array.dtype.kind == "O":
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            pass
    wanted = "real numbers" if kinds == "biuf" else f"dtype kinds {kinds!r}"
    message = f"{tag!r}: an array of {wanted} is needed, got dtype {array.dtype}"
    raise InvalidTypeError(message)


def _maybe_deferred(value: Any) -> Deferred | None:
    kind = type(value)
    if hasattr(kind, "detach"):
        if value.device.type == "cpu":
            return None
        return _defer_torch(value)
    if hasattr(kind, "copy_to_host_async"):
        value.copy_to_host_async()
        return Deferred(lambda: np.asarray(value), *_layout(value))
    if hasattr(kind, "__cuda_array_interface__"):
        copy = value.copy()
        return Deferred(copy.get if hasattr(copy, "get") else copy.copy_to_host, *_layout(copy))
    return None


def _layout(array: Any) -> tuple[tuple[int, ...], np.dtype[Any] | None, int]:
    """Return the shape, dtype and size of an array whose dtype, if it tells it, is NumPy's."""
    dtype = getattr(array, "dtype", None)
    return tuple(array.shape), None if dtype is None else np.dtype(dtype), int(array.nbytes)


def _defer_torch(tensor: Any) -> Deferred:
    """Copy a tensor to pinned host memory on its device's current stream, without waiting."""
    device = tensor.device
    tensor = tensor.detach()
    as_numpy = _torch_on_host(
        tensor.new_empty(0, device="cpu", layout=sys.modules["torch"].strided)
    )
    layout = tuple(tensor.shape), as_numpy.dtype, tensor.numel() * tensor.element_size()
    if tensor.numel() > 1:
        tensor = tensor.clone()  # so that a later change in place does not overtake the copy
    host = tensor.to("cpu", non_blocking=True)
    backend = getattr(sys.modules["torch"], device.type, None)
    if backend is None or not hasattr(backend, "current_stream"):  # no streams: the copy was made
        return Deferred(lambda: _torch_on_host(host), *layout)
    arrived = backend.current_stream(device).record_event()

    def read() -> npt.NDArray[Any]:
        arrived.synchronize()
        return _torch_on_host(host)

    return Deferred(read, *layout)


def _torch_on_host(tensor: Any) -> npt.NDArray[Any]:
    """Return a CPU tensor as an array that shares its memory where NumPy has the dtype."""
    tensor = tensor.detach()
    if tensor.layout is not sys.modules["torch"].strided:
        tensor = tensor.to_dense()
    try:
        array: npt.NDArray[Any] = tensor.resolve_conj().resolve_neg().numpy()
    except TypeError:  # bfloat16, float8
        array = tensor.float().numpy()
    return array


def _name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
