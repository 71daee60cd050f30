"""TensorBoard's default buckets, and how a number's leading bits tell its bucket.

The buckets grow by a tenth, from 1e-12 to 1e20 on both sides of zero
(tensorflow/core/lib/histogram/histogram.cc). A float's leading bits order it: sign, exponent and
seven bits of mantissa, the upper half of a float32, tell values apart that differ by 1 %. So each
edge is rounded to such a number, by at most 0.4 %; then the upper half decides a value's bucket
exactly, by a table.

A bucket holds its lower edge, so a negative edge belongs to the magnitudes below it. Taking one
from the bits of every negative number moves just these; it makes -0.0 a NaN, whose key no finite
number has. A float64 is cut, not rounded, to a float32 behind that, which leaves it on its side of
every edge. What is left are 65,536 keys.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from sm_tblog._types import Float64Array, IndexArray, Int64Array

__all__ = ["KEYS", "Tally", "bucket_of_key", "default_edges"]

KEYS = 1 << 16
"""How many keys there are."""

_INFINITY = 0x7F80
"""The key of infinity; up to 0x7FFF follow those of NaN, which stand for -0.0."""

_LARGEST = float(np.finfo(np.float64).max)


class Tally(NamedTuple):
    """What is counted of an array.

    Attributes:
        counts: of the finite values by default bucket; shape (len(default_edges()) - 1,).
        min: the smallest of them, infinity if there is none.
        max: the largest of them, minus infinity if there is none.
        sum: of them.
        sum_squares: of them.
        nan: how many more were NaN.
        inf: how many more were infinite.
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
    return np.concatenate(([-_LARGEST], -edges[::-1], [0.0], edges, [_LARGEST]))


@lru_cache(maxsize=1)
def bucket_of_key() -> IndexArray:
    """Return the bucket of each key; shape (KEYS,)."""
    inner = default_edges()[1:-1]
    lowest = np.full(KEYS // 2 + 1, np.inf)  # magnitude of each key, and of the one behind the last
    finite = np.arange(_INFINITY, dtype=np.uint32) << np.uint32(16)
    lowest[:_INFINITY] = finite.view(np.float32)
    positive = np.searchsorted(inner, lowest[:-1], side="right")
    negative = np.searchsorted(inner, -lowest[1:], side="right")
    positive[_INFINITY + 1 :] = positive[0]
    return np.concatenate((positive, negative))
