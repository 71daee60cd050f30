"""Count histograms without sorting, and build their messages.

Searching for a value's bucket takes tens of nanoseconds. For TensorBoard's default buckets, the
leading bits of a value determine its bucket (see ``buckets``), so counting is a ``bincount`` of
them in one pass. Arrays on an accelerator are counted there (see ``device_histogram``). NumPy
counts all other bins.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.buckets import KEYS, Tally, bucket_of_key, default_edges
from sm_tblog.arrays.convert import Deferred, resolve
from sm_tblog.arrays.device_histogram import DeviceTally
from sm_tblog.format import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sm_tblog._types import Float64Array, Int64Array

__all__ = ["Histogram", "count", "default_edges", "histogram_value", "raw_histogram_value"]

_CHUNK = 1 << 17
"""Values counted at a time, so that intermediate results stay in the processor's cache."""

_UPPER_HALF = 1 if sys.byteorder == "little" else 0
"""Index in memory of a number's upper half."""

_MAX_BINS = 1 << 14
"""Maximum number of bins chosen by name: with outliers, Freedman-Diaconis asks for billions."""


class Histogram(NamedTuple):
    """Counts and moments of the finite values of an array.

    Attributes:
        limits: right edges of the buckets, ascending; shape (buckets,). A bucket holds the values
            from the limit before it up to, but not including, its own.
        counts: the number of values in each bucket; shape (buckets,).
        min: the smallest value.
        max: the largest value.
        num: the number of values.
        sum: the sum of the values.
        sum_squares: the sum of their squares.
        nan: the number of NaN values, which are not in the counts.
        inf: the number of infinite values, which are not in the counts.
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


def _keys(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return the key of each float32 or float64 value."""
    if values.dtype == np.float64:
        wide = values.view(np.uint64)
        wide = wide - (wide >> np.uint64(63))
        wide &= np.uint64(0xFFFFFFFFE0000000)  # the 23 bits of mantissa that a float32 has
        bits = wide.view(np.float64).astype(np.float32).view(np.uint32)
    else:
        bits = values.view(np.uint32)
        bits = bits - (bits >> np.uint32(31))
    upper: npt.NDArray[np.uint16] = bits.view(np.uint16)[_UPPER_HALF::2]
    return upper


def count(values: npt.NDArray[Any], zeros: int = 0, max_bins: int | None = None) -> Histogram:
    """Return the histogram of real numbers over the default buckets.

    Args:
        values: real numbers of any shape.
        zeros: the number of additional zeros.
        max_bins: the maximum number of buckets; neighbours are merged to reach it.
    """
    with _ignore_float_errors():
        return _from_tally(_tally(values), zeros, max_bins)


def _ignore_float_errors() -> np.errstate:
    """Allow sums to overflow, and a signalling NaN, which is invalid to cast, to count as NaN."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def _tally(values: npt.NDArray[Any]) -> Tally:
    values = values.ravel(order="K")
    key_counts = np.zeros(KEYS, np.int64)
    nan = inf = 0
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    for start in range(0, len(values), _CHUNK):
        chunk = _as_float(values[start : start + _CHUNK])
        exact = chunk.astype(np.float64)
        chunk_sum = float(exact.sum())
        if not np.isfinite(chunk_sum):
            finite = np.isfinite(chunk)
            nan += int(np.isnan(chunk).sum())
            inf += int(np.isinf(chunk).sum())
            chunk, exact = chunk[finite], exact[finite]
            if not len(chunk):
                continue
            chunk_sum = float(exact.sum())
        key_counts += np.bincount(_keys(chunk), minlength=KEYS)
        low = min(low, float(chunk.min()))
        high = max(high, float(chunk.max()))
        total += chunk_sum
        squares += float(np.square(exact, out=exact).sum())
    used = np.flatnonzero(key_counts)
    buckets = len(default_edges()) - 1
    counts = np.bincount(bucket_of_key()[used], key_counts[used], minlength=buckets)
    return Tally(counts.astype(np.int64), low, high, total, squares, nan, inf)


def _from_tally(tally: Tally, zeros: int, max_bins: int | None) -> Histogram:
    """Return the histogram of a tally and additional zeros.

    Empty buckets at both ends are left out, except one before the first non-empty bucket.
    """
    counts, low, high, total, squares, nan, inf = tally
    if zeros:
        counts = counts.copy()
        counts[bucket_of_key()[0]] += zeros
        low, high = min(low, 0.0), max(high, 0.0)
    used = np.flatnonzero(counts)
    if not len(used):
        return _empty(nan, inf)
    first, last = max(int(used[0]) - 1, 0), int(used[-1])
    limits, counts = default_edges()[first + 1 : last + 2], counts[first : last + 1]
    num = int(counts.sum())
    buckets = _merged(limits, counts, max_bins)
    return Histogram(*buckets, low, high, num, total, squares, nan, inf)


def _count_by_numpy(
    values: npt.NDArray[Any], bins: Any, zeros: int, max_bins: int | None
) -> Histogram:
    values = values.reshape(-1)
    if values.dtype.kind not in "iu":
        values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    nan = int(np.isnan(values).sum())
    inf = len(values) - len(finite) - nan
    num, weights = len(finite) + zeros, None
    if not num:
        return _empty(nan, inf)
    if zeros:
        finite = np.append(finite, finite.dtype.type(0))
        weights = np.ones(len(finite))
        weights[-1] = zeros
    counts, edges = np.histogram(finite, _limited(bins, finite), weights=weights)
    counts = np.concatenate(([0], counts.astype(np.int64)))
    exact = finite.astype(np.float64)
    sums = float(exact.sum()), float(np.square(exact).sum())
    limits = edges.astype(np.float64)
    low, high = float(exact.min()), float(exact.max())
    return Histogram(*_merged(limits, counts, max_bins), low, high, num, *sums, nan, inf)


def _limited(bins: Any, values: npt.NDArray[Any]) -> Any:
    """Return ``bins``, or ``_MAX_BINS`` if it is a name for which NumPy would make more bins."""
    if isinstance(bins, str) and bins in {"auto", "fd"}:
        lower, upper = np.percentile(values, [25, 75])
        width = 2.0 * (upper - lower) / np.cbrt(len(values))  # Freedman and Diaconis, 1981
        if float(values.max()) - float(values.min()) > _MAX_BINS * width > 0:
            return _MAX_BINS
    return bins


def _merged(
    limits: Float64Array, counts: Int64Array, max_bins: int | None
) -> tuple[Float64Array, Int64Array]:
    """Return at most ``max_bins`` buckets, merging neighbours.

    An empty first bucket, which exists for its right edge, is kept and does not count.
    """
    edge = int(counts[0] == 0)
    width = 1 if max_bins is None else -(-(len(counts) - edge) // max_bins)
    starts = np.append(np.arange(edge), np.arange(edge, len(counts), width))
    ends = np.append(starts[1:], len(counts)) - 1
    return limits[ends], np.add.reduceat(counts, starts)


def _empty(nan: int = 0, inf: int = 0) -> Histogram:
    return Histogram(np.zeros(0), np.zeros(0, np.int64), 0.0, 0.0, 0, 0.0, 0.0, nan, inf)


def _as_float(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype in (np.float32, np.float64):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    small = values.dtype.kind in "bV" or (values.dtype.itemsize < 4 and values.dtype.kind in "iuf")
    return values.astype(np.float32 if small else np.float64)


def check_bins(bins: Any, tag: str, *, sparse: bool = False) -> Any:
    """Return a copy of bins for ``numpy.histogram``.

    Raises:
        InvalidTypeError: the bins are of the wrong type.
        InvalidValueError: the name is unknown, the number is less than one, or the edges do not
            ascend; or a name is used for a sparse array, for which NumPy needs all elements.
    """
    try:
        bins = bins if isinstance(bins, str) else np.array(bins)
        np.histogram_bin_edges(np.zeros(1), bins)
    except (TypeError, ValueError) as error:
        message = f"{tag!r}: invalid bins {bins!r:.60}: {error}"
        kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind(message) from error
    if sparse and isinstance(bins, str):
        message = (
            f"{tag!r}: NumPy needs all elements for the bins {bins!r}, but the array is sparse; "
            "make it dense, or pass a number of bins, edges, or no bins"
        )
        raise InvalidValueError(message)
    return bins


def check_max_bins(max_bins: Any, tag: str) -> None:
    """Raise an error unless ``max_bins`` is None or an integer of at least one.

    Raises:
        InvalidTypeError: ``max_bins`` is not an integer.
        InvalidValueError: ``max_bins`` is less than one.
    """
    if max_bins is not None and not hasattr(type(max_bins), "__index__"):
        message = f"{tag!r}: max_bins must be an integer, got {max_bins!r:.60}"
        raise InvalidTypeError(message)
    if max_bins is not None and max_bins < 1:
        message = f"{tag!r}: max_bins must be at least 1, got {max_bins}"
        raise InvalidValueError(message)


def check_buckets(
    limits: npt.NDArray[Any] | Deferred, counts: npt.NDArray[Any] | Deferred, tag: str
) -> None:
    """Raise an error if these are not the right edges and counts of the same buckets.

    Raises:
        InvalidValueError: their lengths differ, or an edge is NaN. For an array on a device, only
            the shape is checked, without waiting.
    """
    if limits.shape != counts.shape or limits.ndim != 1:
        message = (
            f"{tag!r}: a histogram needs a count for each limit, got limits of shape "
            f"{limits.shape} and counts of shape {counts.shape}"
        )
        raise InvalidValueError(message)
    if not isinstance(limits, Deferred) and np.isnan(limits).any():
        message = f"{tag!r}: a histogram's limits must not be NaN, got {limits}"
        raise InvalidValueError(message)


def histogram_value(
    tag: str,
    values: npt.NDArray[Any] | Deferred | DeviceTally,
    bins: str | int | Sequence[float] = "tensorflow",
    max_bins: int | None = None,
    size: int | None = None,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of the histograms plugin, and a warning on values it leaves out.

    Args:
        tag: the tag, used unchanged.
        values: real numbers of any shape, or their counts from a device.
        bins: ``"tensorflow"`` for the default buckets; otherwise as for ``numpy.histogram``.
        max_bins: the maximum number of buckets; neighbours are merged to reach it.
        size: the total number of values, if larger than that of ``values``; the others are zeros.

    Raises:
        InvalidTypeError: values from a device are not real numbers.
    """
    if isinstance(values, DeviceTally):
        zeros = 0 if size is None else size - values.size
        histogram = _from_tally(values.tally(), zeros, max_bins)
    else:
        array = resolve(values, tag)
        zeros = 0 if size is None else size - array.size
        if isinstance(bins, str) and bins == "tensorflow":
            histogram = count(array, zeros, max_bins)
        else:
            with _ignore_float_errors():
                histogram = _count_by_numpy(array, bins, zeros, max_bins)
    warning = ""
    if histogram.nan or histogram.inf:
        warning = (
            f"the histogram leaves out {histogram.nan} NaN and {histogram.inf} infinite "
            f"of {histogram.num + histogram.nan + histogram.inf} values"
        )
    return _value(tag, histogram), warning


def raw_histogram_value(
    tag: str,
    limits: npt.NDArray[Any] | Deferred,
    counts: npt.NDArray[Any] | Deferred,
    low: float | Deferred,
    high: float | Deferred,
    num: float | Deferred,
    total: float | Deferred,
    squares: float | Deferred,
) -> Any:
    """Return a ``Summary.Value`` of buckets counted by the caller, sorted by their right edges."""
    limits, counts = resolve(limits, tag), resolve(counts, tag)
    order = np.argsort(limits, kind="stable")
    limits, counts = limits[order], counts[order]
    # ``float`` waits for a ``Deferred``.
    moments = float(low), float(high), float(num), float(total), float(squares)
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
