"""Read numbers and arrays of any library by protocol, without importing the library.

The caller may change its array as soon as a call returns, and never waits for a device. So host
memory is copied immediately, and only once; a value on a device is copied later by the device (see
``deferred``). The protocol that a type implements decides, never its name.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError, TBLogError
from sm_tblog.arrays.deferred import Deferred, maybe_deferred, on_host, protocol, usable

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Deferred",
    "as_number",
    "as_step",
    "check_kind",
    "resolve",
    "snapshot",
    "unreadable",
    "unwrapped",
]

_MAX_AXES = 64
"""The maximum number of axes of a NumPy array."""

REAL = "biuf"
"""The NumPy dtype kinds of bools and real numbers."""

_TIMES: tuple[type, ...] = (np.datetime64, np.timedelta64)
"""The latter is an integer for NumPy."""

_MAX_VARIABLES = 8
"""Variables around a variable, beyond which one is assumed to return itself."""


def as_number(value: Any, tag: str, what: str = "") -> float | Deferred:
    """Return a number-like value as a float, or as a ``Deferred`` if it is on a device.

    Args:
        value: a number of any type or an array with one element.
        tag: the tag, for error messages.
        what: the argument, for error messages; "" for the scalar that is logged.

    Raises:
        InvalidTypeError: ``value`` is not a number.
        InvalidValueError: ``value`` does not have exactly one element, or is too large for a
            float64.
    """
    if type(value) is float:
        return value
    try:
        return _number(value, tag, what)
    except TBLogError:
        raise
    except OverflowError as error:
        message = f"{tag!r}: {what or 'the value'} is too large for a float64"
        raise InvalidValueError(message) from error
    except Exception as error:
        raise unreadable(value, tag, error) from error


def _number(value: Any, tag: str, what: str) -> float | Deferred:
    if isinstance(value, (float, int, np.floating, np.integer)) and not isinstance(value, _TIMES):
        return float(value)
    value = unwrapped(value)
    shape = tuple(getattr(value, "shape", ()))
    if math.prod(shape) != 1:
        message = f"{tag!r}: {what or 'a scalar'} must have one element, got shape {shape}"
        if not what:
            message += "; log its mean, or use add_histogram"
        raise InvalidValueError(message)
    deferred = maybe_deferred(value)
    if deferred is None:
        if protocol(value) == "jax":
            value = np.asarray(value)
        elif isinstance(value, np.ma.MaskedArray):
            value = _unmasked(value)
        if hasattr(type(value), "item") and not _is_time(value):
            value = value.item()
        is_number = hasattr(type(value), "__float__") or hasattr(type(value), "__index__")
        if is_number and not _is_time(value):
            return float(value)
    elif deferred.dtype is None or _is_of_kind(deferred.dtype, REAL):
        return deferred
    raise InvalidTypeError(_not_a_number(value, tag, what))


def _not_a_number(value: Any, tag: str, what: str) -> str:
    """Return the message for a value that is not a number, with what to use instead."""
    if what:
        return f"{tag!r}: {what} must be a number, got {value!r:.60} ({_describe(value)})"
    message = f"{tag!r}: a scalar must be a number or have one element, got {_describe(value)}"
    if isinstance(value, str):
        message += f" {value[:40]!r}; use add_text for text"
    elif isinstance(value, (list, tuple)):
        message += "; log its mean, add_scalars with a name for each, or add_histogram"
    elif isinstance(value, Mapping):
        message += "; use log or add_scalars for several values"
    return message


def _is_time(value: Any) -> bool:
    """Return whether a value is a moment or duration of NumPy, whose item may be a bare count."""
    return getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M")


def as_step(step: Any, tag: str) -> int:
    """Return a step of any integer type as an int.

    A float is truncated and the text of an integer is read, as in torch's and tensorboardX's
    writers.

    Raises:
        InvalidTypeError: ``step`` is not a number.
        InvalidValueError: ``step`` does not fit an int64, or is NaN.
    """
    try:
        number = _maybe_index(step)
        if number is None:
            number = int(float(as_number(step, tag)))
    except (InvalidTypeError, InvalidValueError, OverflowError, ValueError, TypeError) as error:
        message = f"{tag!r}: a step must be an integer, got {step!r:.60}"
        kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind(message) from error
    if not -(2**63) <= number < 2**63:
        shown = number if abs(number) < 10**40 else f"one of {number.bit_length():,} bits"
        message = f"{tag!r}: a step must be an integer that fits an int64, got {shown}"
        raise InvalidValueError(message)
    return number


def _maybe_index(step: Any) -> int | None:
    """Return an integer of any type, or the text of one, as an int; None if it is not one."""
    if isinstance(step, (str, bytes)):
        try:
            return int(step)
        except ValueError:
            return None
    if isinstance(step, np.bool_):
        return int(bool(step))  # NumPy warns that it will not be an index one day
    if not hasattr(type(step), "__index__") or isinstance(step, _TIMES):
        return None
    try:
        return int(step.__index__())
    except TypeError:  # of arrays and tensors that are not integer
        return None


def snapshot(values: Any, tag: str, *, kinds: str = REAL) -> npt.NDArray[Any] | Deferred:
    """Return a copy of an array-like that is unaffected by later changes to it.

    The values are copied only once. Immutable arrays, those of JAX and TensorFlow, are not copied;
    the array returned for them is read-only.

    Args:
        values: an array or tensor of any library on any device, or nested lists of these and of
            numbers. Masked and missing elements become NaN.
        tag: the tag, for error messages.
        kinds: the allowed values of NumPy's ``dtype.kind``: by default bools and real numbers,
            where bfloat16 and float8 count as ``"f"``. ``"c"`` adds complex numbers, ``"U"`` and
            ``"S"`` strings.

    Returns:
        An array of one of these kinds in native byte order, or a ``Deferred`` if the values are on
        a device; its ``shape`` and ``dtype`` can be checked without waiting.

    Raises:
        InvalidTypeError: ``values`` is not an array of one of these kinds.
    """
    try:
        array = _array(values, copy=True)
    except Exception as error:
        raise unreadable(values, tag, error) from error
    if isinstance(array, Deferred):
        if array.dtype is None or _is_of_kind(array.dtype, kinds):
            return array
        raise InvalidTypeError(_wrong_kind(tag, kinds, array))
    return check_kind(array, tag, kinds)


def check_kind(array: npt.NDArray[Any], tag: str, kinds: str = REAL) -> npt.NDArray[Any]:
    """Return an array if its dtype is of one of the ``kinds``, as in ``snapshot``.

    Number objects, such as ``Decimal``, become float64.

    Raises:
        InvalidTypeError: the array is of another kind.
    """
    if _is_of_kind(array.dtype, kinds):
        return array
    try:
        if array.dtype.kind == "O":
            return _floats(array)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidTypeError(_wrong_kind(tag, kinds, array))


def resolve(values: npt.NDArray[Any] | Deferred, tag: str, kinds: str = REAL) -> npt.NDArray[Any]:
    """Return the result of ``snapshot`` as an array, waiting for a device; for the worker thread.

    Raises:
        InvalidTypeError: the array is not of these kinds, and its library did not report the dtype
            earlier.
    """
    return check_kind(values.array(), tag, kinds) if isinstance(values, Deferred) else values


def unwrapped(value: Any) -> Any:
    """Return the current value of a variable; return anything else unchanged."""
    for _ in range(_MAX_VARIABLES):
        if protocol(value) != "variable":
            break
        if hasattr(type(value), "__jax_array__"):
            value = value.__jax_array__()
        else:  # a method in TensorFlow, a property in Keras
            value = value.value() if callable(value.value) else value.value
    return value


def _array(values: Any, *, copy: bool) -> npt.NDArray[Any] | Deferred:
    """Return an array, copied if requested and necessary, or a ``Deferred``."""
    if isinstance(values, (list, tuple)):
        return _stacked(values)
    values = unwrapped(values)
    deferred = values if isinstance(values, Deferred) else maybe_deferred(values)
    return _host_array(values, copy=copy) if deferred is None else deferred


def _host_array(values: Any, *, copy: bool) -> npt.NDArray[Any]:
    how = protocol(values)
    if how == "torch":
        return on_host(usable(values), copy=copy)
    if how == "sparse":
        values, copy = values.toarray(), False
    elif isinstance(values, np.ma.MaskedArray):
        values, copy = _unmasked(values), False
    array: npt.NDArray[Any] = np.from_dlpack(values) if how == "dlpack" else np.asarray(values)
    if array.dtype == object and array.ndim == 0 and not hasattr(type(values), "__float__"):
        if values is None:
            message = "there is no array"
        elif isinstance(values, Mapping):
            message = "it is not an array; log its values one by one"
        elif isinstance(values, Iterable):
            message = "it is not an array; convert it to a list"
        else:
            message = "it is not an array of numbers"
        raise TypeError(message)
    native = array.dtype.newbyteorder("=")
    return array.astype(native, order="K", copy=copy and how != "jax")


def _unmasked(masked: Any) -> npt.NDArray[Any]:
    """Return a copy in which masked elements are NaN."""
    array: npt.NDArray[Any] = np.array(masked.data)
    if np.ma.is_masked(masked):
        array = array.astype(np.float64) if array.dtype.kind in "biu" else array
        array[np.ma.getmaskarray(masked)] = np.nan
    return array


def _stacked(values: list[Any] | tuple[Any, ...]) -> npt.NDArray[Any] | Deferred:
    """Stack numbers or arrays into a new array, which is deferred if one of them is."""
    first: Any = values
    for _ in range(_MAX_AXES):
        if not isinstance(first, (list, tuple)) or not first:
            break
        first = first[0]
    else:
        message = f"it is nested more than {_MAX_AXES} levels deep; does it contain itself?"
        raise ValueError(message)
    if isinstance(first, np.generic) or not hasattr(type(first), "shape"):
        return np.array(values)
    parts = [_array(value, copy=False) for value in values]
    if not any(isinstance(part, Deferred) for part in parts):
        return _stack(parts)
    if len({part.shape for part in parts}) > 1:
        message = f"its arrays have several shapes, {[part.shape for part in parts]!s:.60}"
        raise ValueError(message)
    kept = [part if isinstance(part, Deferred) else part.copy() for part in parts]
    dtypes = [part.dtype for part in kept if part.dtype is not None]
    return Deferred(
        partial(_stack, kept),
        (len(kept), *kept[0].shape),
        np.result_type(*dtypes) if len(dtypes) == len(kept) else None,
        sum(part.nbytes for part in kept),
    )


def _stack(parts: list[Any]) -> npt.NDArray[Any]:
    return np.stack([part.array() if isinstance(part, Deferred) else part for part in parts])


def _is_of_kind(dtype: np.dtype[Any], kinds: str) -> bool:
    if dtype.kind == "V":  # bfloat16, float8, int4, and structured dtypes
        return "f" in kinds and dtype.names is None and np.can_cast(dtype, np.float64)
    return dtype.kind in kinds


def _floats(objects: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return number objects as float64; missing ones become NaN."""
    missing = None, getattr(sys.modules.get("pandas"), "NA", None)
    if any(isinstance(one, (str, bytes)) for one in objects.flat):
        message = "it holds strings, which NumPy would parse as numbers"
        raise TypeError(message)
    floats = [math.nan if any(one is m for m in missing) else float(one) for one in objects.flat]
    return np.array(floats).reshape(objects.shape)


def unreadable(value: Any, tag: str, error: Exception) -> InvalidTypeError:
    """Return the exception to raise for a value that could not be read because of ``error``."""
    jax = sys.modules.get("jax")
    reason = str(error).partition("\n")[0] or type(error).__name__
    if jax is not None and isinstance(error, jax.errors.JAXTypeError):
        reason = "it is being traced; log outside jit, or through jax.debug.callback"
    message = f"{tag!r}: cannot read numbers from {_describe(value)}: {reason}"
    return InvalidTypeError(message)


def _wrong_kind(tag: str, kinds: str, array: npt.NDArray[Any] | Deferred) -> str:
    wanted = "real numbers" if kinds == REAL else f"dtype kinds {kinds!r}"
    kind = "" if array.dtype is None else array.dtype.kind
    return (
        f"{tag!r}: expected an array of {wanted}, got dtype {array.dtype} and shape {array.shape}"
        f"{_ADVICE.get(kind, '')}"
    )


_ADVICE = {
    "c": "; take its real part or its abs()",
    "U": "; use add_text for text, and open an image or sound file before you log it",
    "V": "; take one of its fields",
}
"""Advice for an array of the wrong kind, by its ``dtype.kind``."""


def _describe(value: Any) -> str:
    """Return the type of a value and, for an array, its dtype and shape."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    try:
        return f"{name} of dtype {value.dtype} and shape {tuple(value.shape)}"
    except Exception:  # noqa: BLE001 - not an array, or its library does not report them
        return name
