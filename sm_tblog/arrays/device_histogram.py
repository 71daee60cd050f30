"""Count histograms of arrays on their accelerator, and copy a few kilobytes instead of the array.

The algorithm is that of ``buckets``, built from operations that every device supports. None of them
waits for the device: no shape or branch depends on a result, so they are all queued at once, on the
caller's current stream. NaN and infinities are therefore not left out but counted as zeros, which
the worker thread subtracts again.

Sums are computed in float64. Devices without float64, and JAX unless it is enabled, sum float32 in
pieces, each scaled by its largest magnitude so that no square overflows. Those sums are accurate to
six digits; the counts are still exact. There, integers of 32 bits or more, and arrays with more
values than an int32 can count, are not counted on the device but copied.

The result is one vector of integers: the counts by bucket, then for every piece the bits of seven
floats: number of NaN, number of infinities, minimum, maximum, scale, and the sum and the sum of
squares of the scaled values.
"""

from __future__ import annotations

import contextlib
import sys
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.arrays.buckets import KEYS, Tally, bucket_of_key, default_edges
from sm_tblog.arrays.deferred import defer_jax, defer_tensor, protocol, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sm_tblog.arrays.deferred import Deferred

__all__ = [
    "DeviceTally",
    "count_jax",
    "count_tensor",
    "has_float64",
    "is_on_accelerator",
    "maybe_tally",
    "pieces",
]

_MAX_COPIED_BYTES = 1 << 16
"""Arrays up to this size, in bytes, are copied: that takes two device operations, not two dozen."""

_PIECE = 1 << 22
"""Values counted at a time: needs about 100 MB of device memory, and a float32 can count more."""

_MAX_INT32 = 2**31 - 1
"""The largest int32."""

_FLOATS_PER_PIECE = 7
"""Floats per piece in the vector of results."""


class DeviceTally(NamedTuple):
    """The pending counts of one array, of which each device counts its part.

    Attributes:
        vectors: one vector of results for each part; see the module.
        size: the number of values counted.
    """

    vectors: list[Deferred]
    size: int

    @property
    def nbytes(self) -> int:
        """The memory held, in bytes."""
        return sum(vector.nbytes for vector in self.vectors)

    def tally(self) -> Tally:
        """Wait for the counts and return them."""
        buckets = len(default_edges()) - 1
        vectors = [vector.array() for vector in self.vectors]
        counts = np.add.reduce([vector[:buckets] for vector in vectors], dtype=np.int64)
        nan, inf, least, most, scale, sums, squares = np.concatenate(
            [_reals(vector[buckets:]) for vector in vectors]
        ).T
        excluded = int(nan.sum()), int(inf.sum())
        counts[bucket_of_key()[0]] -= sum(excluded)
        with np.errstate(over="ignore", invalid="ignore"):
            total, total_squares = (scale * sums).sum(), (scale * scale * squares).sum()
        ends = float(least.min()), float(most.max())
        return Tally(counts, *ends, float(total), float(total_squares), *excluded)


def _reals(bits: Any) -> Any:
    real = np.float64 if bits.dtype.itemsize == 8 else np.float32
    return bits.view(real).reshape(-1, _FLOATS_PER_PIECE).astype(np.float64)


def maybe_tally(values: Any) -> DeviceTally | None:
    """Start counting an array on its device; return None if it should be copied instead.

    Arrays are copied if they are in host memory, are small, cannot be counted by their device, or
    are not known to hold real numbers.
    """
    how = protocol(values)
    with contextlib.suppress(RuntimeError, TypeError, ValueError):
        # Out of memory, an operation that the device lacks, or values that snapshot will reject.
        if how == "torch" and not values.is_cpu and values.nbytes > _MAX_COPIED_BYTES:
            return _tally_tensor(usable(values))
        if how == "jax" and values.nbytes > _MAX_COPIED_BYTES and is_on_accelerator(values):
            return _tally_jax(values)
    return None


# PyTorch.


def _tally_tensor(tensor: Any) -> DeviceTally:
    return DeviceTally([defer_tensor(count_tensor(tensor))], tensor.numel())


def count_tensor(tensor: Any) -> Any:
    """Return the vector of results for a non-empty tensor, on its device.

    Raises:
        TypeError: the device has no dtype that is wide enough.
    """
    torch = sys.modules["torch"]
    on = {"device": tensor.device}
    wide = has_float64(tensor.device)
    integer, real = (torch.int64, torch.float64) if wide else (torch.int32, torch.float32)
    as_float = _float_for(tensor)
    if not wide and (as_float is torch.float64 or tensor.numel() > _MAX_INT32):
        message = f"{tensor.device} has no dtype that is wide enough"
        raise TypeError(message)
    one, unscaled = torch.ones(1, dtype=integer, **on), torch.ones((), dtype=real, **on)
    key_counts = torch.zeros(KEYS, dtype=integer, **on)
    reals = []
    for piece in pieces(tensor):
        x = piece.to(as_float)
        reals += [torch.isnan(x).sum(dtype=real), torch.isinf(x).sum(dtype=real)]
        reals += [x.nan_to_num(np.inf, np.inf, np.inf).amin().to(real)]
        reals += [x.nan_to_num(-np.inf, -np.inf, -np.inf).amax().to(real)]
        x = x.nan_to_num(0.0, 0.0, 0.0)
        key_counts.index_add_(0, _keys_of_tensor(x), one.expand(len(x)))
        x, scale = x.to(real), unscaled
        if not wide:
            scale = x.abs().amax().clamp_min(torch.finfo(real).tiny)
            x /= scale
        reals += [scale, x.sum(), x.square().sum()]
    table = _pinned_table().to(tensor.device, non_blocking=True)
    counts = torch.zeros(len(default_edges()) - 1, dtype=integer, **on)
    counts.index_add_(0, table, key_counts)
    return torch.cat((counts, torch.stack(reals).view(integer)))


def _float_for(tensor: Any) -> Any:
    """Return the float dtype, 32 or 64 bits, that represents a tensor's numbers.

    Raises:
        TypeError: the tensor is not dense, or its numbers are not real.
    """
    torch = sys.modules["torch"]
    if tensor.is_complex() or tensor.is_quantized or tensor.layout is not torch.strided:
        message = "not a dense tensor of real numbers"
        raise TypeError(message)
    small = tensor.element_size() < 4 or tensor.dtype is torch.float32
    return torch.float32 if small else torch.float64


def pieces(tensor: Any) -> Iterator[Any]:
    """Yield the numbers of a tensor in flat pieces, copying no more than one at a time."""
    if tensor.numel() <= _PIECE:
        yield tensor.reshape(-1)
    elif tensor.is_contiguous():
        yield from tensor.view(-1).split(_PIECE)
    else:
        longest = max(range(tensor.dim()), key=tensor.size)
        for half in tensor.tensor_split(2, longest):
            yield from pieces(half)


def _keys_of_tensor(x: Any) -> Any:
    """Return the keys of finite floats."""
    torch = sys.modules["torch"]
    if x.dtype is torch.float64:
        bits = x.view(torch.int64)
        bits = (bits + (bits >> 63)) & -(1 << 29)  # the 23 bits of mantissa that a float32 has
        bits = bits.view(torch.float64).float().view(torch.int32)
    else:
        bits = x.view(torch.int32)
        bits = bits + (bits >> 31)
    return (bits >> 16) & 0xFFFF


@lru_cache(maxsize=16)
def has_float64(device: Any) -> bool:
    """Return whether a PyTorch device supports float64."""
    torch = sys.modules["torch"]
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError):
        return False
    return True


@lru_cache(maxsize=1)
def _pinned_table() -> Any:
    """Return ``bucket_of_key`` in pinned memory, from which a device copies asynchronously."""
    table = sys.modules["torch"].from_numpy(bucket_of_key().astype(np.int32))
    with contextlib.suppress(RuntimeError):  # only some devices support pinned memory
        table = table.pin_memory()
    return table


# JAX.


def is_on_accelerator(array: Any) -> bool:
    """Return whether an array is entirely on devices of this process other than the host.

    On the host, XLA counts no faster than NumPy and needs time to compile.
    """
    return array.is_fully_addressable and all(d.platform != "cpu" for d in array.devices())


def _tally_jax(array: Any) -> DeviceTally:
    """Count each shard of an array on its own device, so that no shard is moved.

    Raises:
        TypeError: JAX has no dtype that is wide enough.
    """
    shards = [shard.data for shard in array.addressable_shards if shard.replica_id == 0]
    counter = _jax_counter()
    vectors = [defer_jax(counter(shard)) for shard in shards if shard.size]
    return DeviceTally(vectors, int(array.size))


@lru_cache(maxsize=1)
def _jax_counter() -> Callable[[Any], Any]:
    import jax

    counter: Callable[[Any], Any] = jax.jit(count_jax)
    return counter


def count_jax(x: Any) -> Any:
    """Return the vector of results for a non-empty JAX array; to be compiled.

    Raises:
        TypeError: JAX has no dtype that is wide enough.
    """
    import jax
    import jax.numpy as jnp

    wide = jax.config.jax_enable_x64
    integer, real = (np.int64, np.float64) if wide else (np.int32, np.float32)
    small = x.dtype.itemsize < 4 or x.dtype == np.float32
    if not wide and (not small or x.size > _MAX_INT32):
        message = "without jax_enable_x64 no dtype is wide enough"
        raise TypeError(message)
    count = partial(_count_jax_piece, as_float=np.float32 if small else real, real=real)
    x = x.reshape(-1)
    whole = x.size // _PIECE * _PIECE
    parts = []
    if whole:
        parts.append(jax.lax.map(count, x[:whole].reshape(-1, _PIECE)))
    if whole < x.size:
        parts.append([one[None] for one in count(x[whole:])])
    key_counts, rows = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    counts = jnp.zeros(len(default_edges()) - 1, integer)
    counts = counts.at[bucket_of_key().astype(np.uint32)].add(key_counts.sum(0, dtype=integer))
    bits = jax.lax.bitcast_convert_type(rows.reshape(-1), integer)
    return jnp.concatenate([counts, bits])


def _count_jax_piece(x: Any, *, as_float: Any, real: Any) -> tuple[Any, Any]:
    """Return counts by key, and the seven floats of the piece."""
    import jax.numpy as jnp

    x = x.astype(as_float)
    finite = jnp.isfinite(x)
    row = [jnp.isnan(x).sum(), jnp.isinf(x).sum()]
    row += [jnp.where(finite, x, np.inf).min(), jnp.where(finite, x, -np.inf).max()]
    x = jnp.where(finite, x, 0)
    key_counts = jnp.zeros(KEYS, np.int32).at[_keys_of_jax(x)].add(1)
    x = x.astype(real)
    scale = jnp.ones((), real)
    if real is np.float32:
        scale = jnp.maximum(jnp.abs(x).max(), np.finfo(real).tiny)
        x /= scale
    row += [scale, x.sum(), (x * x).sum()]
    return key_counts, jnp.stack([one.astype(real) for one in row])


def _keys_of_jax(x: Any) -> Any:
    """Return the keys of finite floats."""
    from jax.lax import bitcast_convert_type

    if x.dtype == np.float64:
        bits = bitcast_convert_type(x, np.int64)
        bits = (bits + (bits >> 63)) & -(1 << 29)  # the 23 bits of mantissa that a float32 has
        x = bitcast_convert_type(bits, np.float64).astype(np.float32)
        bits = bitcast_convert_type(x, np.int32)
    else:
        bits = bitcast_convert_type(x, np.int32)
        bits += bits >> 31
    return ((bits >> 16) & 0xFFFF).astype(np.uint32)
