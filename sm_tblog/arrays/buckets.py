"""TensorBoard's default buckets, and a table that maps a number's leading bits to its bucket.

The edges grow by a factor of 1.1, from 1e-12 to 1e20 on both sides of zero
(tensorflow/core/lib/histogram/histogram.cc). The upper half of a float32 (sign, exponent and seven
bits of mantissa) orders values and distinguishes those that differ by 1 %. Every edge is rounded to
such a number, by at most 0.4 %, so that a value's upper half, its key, determines its bucket
exactly, by table lookup.

A bucket includes its lower edge, so a negative edge belongs to the bucket of smaller magnitudes.
Subtracting one from the bits of every negative number moves exactly the edges there; it turns -0.0
into a NaN, whose key no finite number has. A float64 is then truncated, not rounded, to a float32,
so it stays on the same side of every edge. This leaves 65,536 keys.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from sm_tblog._types import Float64Array, IndexArray, Int64Array

__all__ = ["KEYS", "Tally", "bucket_of_key", "default_edges"]

KEYS = 1 << 16
"""The number of keys."""

_INFINITY = 0x7F80
"""The key of infinity. The keys after it, up to 0x7FFF, are those of NaN and stand for -0.0."""

_MAX_FLOAT64 = float(np.finfo(np.float64).max)


class Tally(NamedTuple):
    """Counts and moments of an array.

    Attributes:
        counts: finite values in each default bucket; shape (len(default_edges()) - 1,).
        min: the smallest finite value, infinity if there is none.
        max: the largest finite value, minus infinity if there is none.
        sum: the sum of the finite values.
        sum_squares: the sum of their squares.
        nan: the number of NaN values.
        inf: the number of infinite values.
    """

    counts: Int64Array
    min: float
    max: float
    sum: float
    sum_squares: float
    nan: int
    inf: int


@lru_cache(maxsize=1)
def default_edges() -> Float64Array:
    """Return TensorBoard's default edges, rounded to the upper halves of float32; ascending."""
    positive = [1e-12]
    while positive[-1] < 1e20:
        positive.append(positive[-1] * 1.1)
    bits = np.array(positive, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(1 << 15)) & np.uint32(0xFFFF0000)).view(np.float32)
    edges = rounded.astype(np.float64)
    return np.concatenate(([-_MAX_FLOAT64], -edges[::-1], [0.0], edges, [_MAX_FLOAT64]))


@lru_cache(maxsize=1)
def bucket_of_key() -> IndexArray:
    """Return the bucket of each key; shape (KEYS,)."""
    inner = default_edges()[1:-1]
    magnitudes = np.full(KEYS // 2 + 1, np.inf)  # of each key, and of one past the last
    finite = np.arange(_INFINITY, dtype=np.uint32) << np.uint32(16)
    magnitudes[:_INFINITY] = finite.view(np.float32)
    positive = np.searchsorted(inner, magnitudes[:-1], side="right")
    negative = np.searchsorted(inner, -magnitudes[1:], side="right")
    positive[_INFINITY + 1 :] = positive[0]
    return np.concatenate((positive, negative))
