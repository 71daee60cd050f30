"""Values on a device: the calling thread requests a copy, the worker thread waits for it.

A device executes the operations of a stream in order. A copy that is queued on the caller's current
stream is therefore made before anything the caller queues there later, including an in-place
change. The copy needs no memory on the device, and the calling thread does not wait.

How a copy is requested depends on the attributes of the value's type; see ``protocol``.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = [
    "Deferred",
    "defer_jax",
    "defer_tensor",
    "maybe_deferred",
    "on_host",
    "protocol",
    "usable",
]


class Deferred:
    """A value whose copy from a device is pending. Reading it waits for the copy.

    It converts to ``float``, so a column of numbers may contain it.

    Attributes:
        shape: the shape of the array that ``array`` will return.
        ndim: its number of dimensions.
        dtype: its dtype; None if the device's library does not report it.
        nbytes: the memory held until it is read, in bytes.
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
        """The number of dimensions of the array."""
        return len(self.shape)

    def array(self) -> npt.NDArray[Any]:
        """Return the value as an array in host memory."""
        return np.asarray(self._read())

    def __float__(self) -> float:
        """Return the only element."""
        return float(self.array().item())


def protocol(value: Any) -> str:
    """Return how to read a value: the first protocol in this table that its type implements.

    ================  ============================================================================
    ``"torch"``       a subclass of ``torch.Tensor``
    ``"variable"``    ``__jax_array__`` or ``assign``, ``value``: Flax, Keras, TensorFlow
    ``"jax"``         ``copy_to_host_async``: immutable, but can be donated
    ``"cuda"``        ``__cuda_array_interface__``: CuPy
    ``"tensorflow"``  ``numpy``, ``__array__`` and no assignment: immutable
    ``"sparse"``      ``tocoo``: SciPy
    ``"dlpack"``      ``__dlpack__`` and no ``__array__``
    ``"numpy"``       anything else, left to NumPy
    ================  ============================================================================
    """
    kind: Any = type(value)
    return _protocol(kind)


@lru_cache(maxsize=256)
def _protocol(kind: type) -> str:
    torch = sys.modules.get("torch")
    if torch is not None and issubclass(kind, torch.Tensor):
        return "torch"
    for name, offers, lacks in _PROTOCOLS:
        if all(hasattr(kind, one) for one in offers) and not hasattr(kind, lacks):
            return name
    return "numpy"


_PROTOCOLS = [
    ("variable", ["__jax_array__"], "aval"),  # JAX's traced values have it
    ("variable", ["assign", "value"], ""),
    ("jax", ["copy_to_host_async"], ""),
    ("cuda", ["__cuda_array_interface__"], ""),
    ("tensorflow", ["numpy", "__array__"], "__setitem__"),
    ("sparse", ["tocoo"], ""),
    ("dlpack", ["__dlpack__"], "__array__"),
]
"""Name, attributes that a type must have, attribute that it must not have."""


def maybe_deferred(value: Any) -> Deferred | None:
    """Request a copy of a value on a device; return None for anything else.

    Raises:
        Exception: any exception of the device's library, or a ValueError that explains why there
            are no numbers to copy.
    """
    how = protocol(value)
    if how == "torch" and not value.is_cpu:
        return defer_tensor(usable(value))
    if how == "jax" and not _is_on_host(value):
        return defer_jax(_copy_if_donatable(value))
    if how == "cuda":
        return _defer_cuda(value)
    if how == "tensorflow":
        dtype = np.dtype(getattr(value.dtype, "as_numpy_dtype", value.dtype))
        shape = tuple(value.shape)
        return Deferred(lambda: value, shape, dtype, math.prod(shape) * dtype.itemsize)
    return None


def usable(tensor: Any) -> Any:
    """Return a tensor detached from its autograd graph.

    Raises:
        ValueError: its numbers cannot be read now; the message gives the reason and a remedy.
    """
    torch = sys.modules["torch"]
    backend = getattr(torch, tensor.device.type, None)
    message = ""
    if tensor.device.type == "meta":
        message = "it is on the meta device, which stores no numbers"
    elif hasattr(type(tensor), "to_local"):
        message = (
            "other processes hold parts of it; log its to_local(), or call full_tensor() in all "
            "of them and log the result"
        )
    elif torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # noqa: SLF001 - no public name
        message = "it is being transformed; log outside vmap and grad"
    elif getattr(backend, "is_current_stream_capturing", bool)():
        message = "a graph is being captured, which would replay the copy; log outside the capture"
    if message:
        raise ValueError(message)
    return tensor.detach()


def on_host(tensor: Any, *, copy: bool = False) -> npt.NDArray[Any]:
    """Return a CPU tensor as an array.

    The array shares the tensor's memory unless a copy is requested or necessary. bfloat16, float8
    and quantized numbers become float32; sparse tensors become dense.
    """
    given = tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not sys.modules["torch"].strided:
        tensor = tensor.to_dense()
    tensor = tensor.resolve_conj().resolve_neg()
    try:
        array: npt.NDArray[Any] = tensor.numpy()
    except TypeError:  # bfloat16, float8
        tensor = tensor.float()
        array = tensor.numpy()
    return array.copy(order="K") if copy and tensor is given else array


def defer_tensor(tensor: Any) -> Deferred:
    """Request a copy of a tensor on a device, on the current stream of that device."""
    torch = sys.modules["torch"]
    shape, nbytes = tuple(tensor.shape), tensor.numel() * tensor.element_size()
    if tensor.is_quantized:
        dtype = np.dtype(np.float32)
    else:
        dtype = on_host(torch.empty(0, dtype=tensor.dtype, device="cpu")).dtype
    backend: Any = getattr(torch, tensor.device.type, None)
    if not hasattr(backend, "current_stream"):  # no stream to wait for, so the worker thread copies
        kept = tensor.clone()
        return Deferred(lambda: on_host(kept.cpu()), shape, dtype, nbytes)
    host = tensor.to("cpu", non_blocking=True)  # into pinned memory
    copied = backend.current_stream(tensor.device).record_event()

    def read() -> npt.NDArray[Any]:
        copied.synchronize()
        return on_host(host)

    return Deferred(read, shape, dtype, nbytes)


def _is_on_host(array: Any) -> bool:
    """Return whether a JAX array has been computed and is in host memory."""
    return (
        hasattr(type(array), "is_ready")
        and not array.is_deleted()  # on which ``is_ready`` crashes the process, as of JAX 0.10
        and array.is_ready()
        and array.is_fully_addressable
        and all(device.platform == "cpu" for device in array.devices())
    )


def _copy_if_donatable(array: Any) -> Any:
    """Return this process's data of a JAX array, copied if the caller could donate the array.

    A donated array is deleted. A single number is not copied: those are seldom donated, and a copy
    takes a tenth of a millisecond.

    Raises:
        ValueError: other processes hold parts of it.
    """
    if not getattr(array, "is_fully_addressable", True):
        if not array.is_fully_replicated:
            message = "other processes hold parts of it; log the data of its addressable_shards"
            raise ValueError(message)
        array = array.addressable_data(0)
    may_be_donated = hasattr(type(array), "is_deleted") and array.size > 1
    return array.copy() if may_be_donated else array


def defer_jax(array: Any) -> Deferred:
    """Request a copy of a JAX array, which must not be donated before the copy is read."""
    array.copy_to_host_async()
    return Deferred(lambda: array, tuple(array.shape), _numpy_dtype(array), int(array.nbytes))


def _defer_cuda(array: Any) -> Deferred:
    if not hasattr(array, "get"):  # Numba, which waits for the device
        array = array.copy_to_host()
        return Deferred(lambda: array, array.shape, array.dtype, array.nbytes)
    copy = array.copy()
    cupy = sys.modules.get("cupy")
    copied = None if cupy is None else cupy.cuda.get_current_stream().record()

    def read() -> npt.NDArray[Any]:
        if copied is not None:
            copied.synchronize()
        return np.asarray(copy.get())

    return Deferred(read, tuple(copy.shape), _numpy_dtype(copy), int(copy.nbytes))


def _numpy_dtype(array: Any) -> np.dtype[Any] | None:
    dtype = getattr(array, "dtype", None)
    return None if dtype is None else np.dtype(dtype)
