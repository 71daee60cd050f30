"""Histograms, counted in one pass and without a sort.

TensorBoard's default buckets grow by a tenth, from 1e-12 to 1e20 on both sides of zero
(tensorflow/core/lib/histogram/histogram.cc). Finding a value's bucket by search costs tens of
nanoseconds. But a float's leading bits order it: sign, exponent and seven bits of mantissa, the
upper half of a float32, tell values apart that differ by 1 %. So each edge is rounded to such a
number, by at most 0.4 %; then the upper half decides a value's bucket exactly, and counting is a
``bincount`` of upper halves. The edges written to the file are the rounded ones: what is read is
true. A float64 is first cut, not rounded, to a float32, which leaves it on its side of every edge.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.format import schema
from sm_tblog.summary.convert import Deferred, check_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sm_tblog._types import Float64Array, IndexArray, Int64Array

__all__ = ["Histogram", "count", "default_edges", "histogram_value", "raw_histogram_value"]

_CHUNK = 1 << 17
"""Values counted at a time: what is computed on the way stays in the processor's cache."""

_UPPER = 1 if sys.byteorder == "little" else 0
"""Where a number's upper half stands in memory."""

_MINUS_ZERO = 0x7FFF
"""The key that ``_keys`` gives to -0.0."""

_LARGEST = float(np.finfo(np.float64).max)


class Histogram(NamedTuple):
    """Counts and moments of the finite values of an array.

    Attributes:
        limits: right edges of the buckets, ascending; shape (buckets,). A bucket holds what is at
            least the limit before it and less than its own.
        counts: shape (buckets,).
        min: the smallest value.
        max: the largest value.
        num: how many values.
        sum: of the values.
        sum_squares: of the values.
        nan: how many more were NaN.
        inf: how many more were infinite.
    """

    limits: Float64Array
    counts: Int64Array
    min: float
    max: float
    num: float
    sum: float
    sum_squares: float
    nan: int = 0
    inf: int = 0


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
def _bucket_of_key() -> IndexArray:
    """Return the bucket of each upper half of a float32, as ``_keys`` gives it; shape (65536,)."""
    inner = default_edges()[1:-1]
    magnitudes = np.arange(0x7F81, dtype=np.uint32) << np.uint32(16)
    magnitudes = np.append(magnitudes.view(np.float32), np.full(0x80, np.inf, np.float32))
    lowest = magnitudes.astype(np.float64)
    positive = np.searchsorted(inner, lowest[:-1], side="right")
    negative = np.searchsorted(inner, -lowest[1:], side="right")
    positive[_MINUS_ZERO] = positive[0]
    return np.concatenate((positive, negative))


def _keys(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return the upper half of each value as a float32; ``values`` is float32 or float64.

    A bucket holds its lower edge, so a negative edge belongs to the magnitudes below it: taking
    one from the bits of every negative number moves just these. It makes -0.0 a NaN, whose key no
    finite number has.
    """
    if values.dtype == np.float64:
        wide = values.view(np.uint64)
        wide = wide - (wide >> np.uint64(63))
        wide &= np.uint64(0xFFFFFFFFE0000000)  # the 23 bits of mantissa that a float32 has
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            bits = wide.view(np.float64).astype(np.float32).view(np.uint32)
    else:
        bits = values.view(np.uint32)
        bits = bits - (bits >> np.uint32(31))
    upper: npt.NDArray[np.uint16] = bits.view(np.uint16)[_UPPER::2]
    return upper


def count(values: npt.NDArray[Any]) -> Histogram:
    """Return the histogram of real numbers, of any shape, over ``default_edges``.

    Buckets that hold nothing are left out at both ends, but for one before the first.
    """
    values = values.reshape(-1)
    key_counts = np.zeros(1 << 16, np.int64)
    num = nan = inf = 0
    least, most, total, squares = np.inf, -np.inf, 0.0, 0.0
    for start in range(0, len(values), _CHUNK):
        chunk = _as_float(values[start : start + _CHUNK])
        exact = chunk.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            chunk_sum = float(exact.sum())
        if not np.isfinite(chunk_sum):
            finite = np.isfinite(chunk)
            nan += int(np.isnan(chunk).sum())
            inf += int(np.isinf(chunk).sum())
            chunk, exact = chunk[finite], exact[finite]
            if not len(chunk):
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                chunk_sum = float(exact.sum())
        key_counts += np.bincount(_keys(chunk), minlength=1 << 16)
        num += len(chunk)
        least = min(least, float(chunk.min()))
        most = max(most, float(chunk.max()))
        total += chunk_sum
        with np.errstate(over="ignore", under="ignore"):
            squares += float(np.square(exact, out=exact).sum())
    if not num:
        return _empty(nan, inf)
    used = np.flatnonzero(key_counts)
    buckets = _bucket_of_key()[used]
    first, last = max(int(buckets.min()) - 1, 0), int(buckets.max())
    counts = np.bincount(buckets - first, key_counts[used]).astype(np.int64)
    limits = default_edges()[first + 1 : last + 2]
    return Histogram(limits, counts, least, most, num, total, squares, nan, inf)


def _count_by_numpy(
    values: npt.NDArray[Any], bins: str | int | Sequence[float], max_bins: int | None
) -> Histogram:
    exact = values.reshape(-1).astype(np.float64)
    finite = exact[np.isfinite(exact)]
    nan = int(np.isnan(exact).sum())
    inf = len(exact) - len(finite) - nan
    if not len(finite):
        return _empty(nan, inf)
    counts, edges = np.histogram(finite, bins=bins)
    if max_bins is not None and len(counts) > max_bins:
        starts = np.arange(0, len(counts), -(-len(counts) // max_bins))
        counts = np.add.reduceat(counts, starts)
        edges = edges[[*starts, len(edges) - 1]]
    return Histogram(
        edges.astype(np.float64),
        np.concatenate(([0], counts)),
        float(finite.min()),
        float(finite.max()),
        len(finite),
        float(finite.sum()),
        float(np.square(finite).sum()),
        nan,
        inf,
    )


def _empty(nan: int = 0, inf: int = 0) -> Histogram:
    return Histogram(np.zeros(0), np.zeros(0, np.int64), 0.0, 0.0, 0, 0.0, 0.0, nan, inf)


def _as_float(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype in (np.float32, np.float64):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    small = values.dtype.kind in "bV" or (values.dtype.itemsize < 4 and values.dtype.kind in "iuf")
    return values.astype(np.float32 if small else np.float64)


def check_bins(bins: Any, tag: str) -> None:
    """Raise if ``numpy.histogram`` does not take such bins.

    Raises:
        InvalidTypeError: of the wrong kind.
        InvalidValueError: an unknown name, fewer than one, or edges that do not ascend.
    """
    try:
        np.histogram_bin_edges(np.zeros(1), bins)
    except (TypeError, ValueError) as error:
        message = f"{tag!r}: cannot make the bins {bins!r:.60}: {error}"
        kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind(message) from error


def check_buckets(limits: Any, counts: Any, tag: str) -> None:
    """Raise if these are not the right edges and counts of the same buckets.

    Raises:
        InvalidValueError: they are not as many, or the edges do not ascend.
    """
    if isinstance(limits, Deferred) or isinstance(counts, Deferred):
        return  # on a device: not waited for
    if limits.shape != counts.shape or limits.ndim != 1:
        message = (
            f"{tag!r}: a histogram needs a count for each limit, got limits of shape "
            f"{limits.shape} and counts of shape {counts.shape}"
        )
        raise InvalidValueError(message)
    if (np.diff(limits) <= 0).any():
        message = f"{tag!r}: a histogram's limits ascend, these do not: {limits}"
        raise InvalidValueError(message)


def histogram_value(
    tag: str,
    values: npt.NDArray[Any] | Deferred,
    bins: str | int | Sequence[float] = "tensorflow",
    max_bins: int | None = None,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of the histograms plugin, and a remark on what it leaves out.

    Args:
        tag: the tag, taken as it is.
        values: real numbers of any shape.
        bins: ``"tensorflow"`` for the default buckets; otherwise as ``numpy.histogram`` takes it.
        max_bins: with NumPy's bins, merge neighbours until there are no more than this.

    Raises:
        InvalidTypeError: values that were on a device are not real numbers.
    """
    array = check_kind(values.array(), tag) if isinstance(values, Deferred) else values
    if isinstance(bins, str) and bins == "tensorflow":
        histogram = count(array)
    else:
        histogram = _count_by_numpy(array, bins, max_bins)
    remark = ""
    if histogram.nan or histogram.inf:
        remark = (
            f"the histogram leaves out {histogram.nan} NaN and {histogram.inf} infinite "
            f"of {array.size} values"
        )
    return _value(tag, histogram), remark


def raw_histogram_value(
    tag: str,
    limits: npt.NDArray[Any] | Deferred,
    counts: npt.NDArray[Any] | Deferred,
    least: float | Deferred,
    most: float | Deferred,
    num: float | Deferred,
    total: float | Deferred,
    squares: float | Deferred,
) -> Any:
    """Return a ``Summary.Value`` of counts that the caller has made."""
    limits, counts = (x.array() if isinstance(x, Deferred) else x for x in (limits, counts))
    moments = float(least), float(most), float(num), float(total), float(squares)  # Deferred ones
    return _value(tag, Histogram(limits, counts, *moments))


def _value(tag: str, histogram: Histogram) -> Any:
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "histograms"
    value.histo.min = histogram.min
    value.histo.max = histogram.max
    value.histo.num = histogram.num
    value.histo.sum = histogram.sum
    value.histo.sum_squares = histogram.sum_squares
    value.histo.bucket_limit.extend(histogram.limits.tolist())
    value.histo.bucket.extend(histogram.counts.tolist())
    return value
