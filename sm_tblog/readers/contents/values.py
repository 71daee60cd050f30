"""Decoders of histograms, texts, tensors, PR curves and layouts.

Each takes a ``Summary.Value``, and raises any exception if that is not what is expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError
from sm_tblog.format import schema
from sm_tblog.readers.contents.tensors import array_of, strings_of, text_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog._types import Float64Array

__all__ = [
    "Histogram",
    "histogram_of",
    "layout_of",
    "pr_curve_of",
    "tensor_of",
    "texts_of",
    "the_tensor",
]

_NAN = float("nan")


class Histogram(NamedTuple):
    """A histogram.

    ``matplotlib.pyplot.stairs(counts, edges)`` draws it.

    Attributes:
        edges: the edges of the k buckets, ascending; float64, shape (k + 1,), empty if there are no
            buckets. The first and the last are the smallest and the largest value, as in
            TensorBoard.
        counts: the number of values in each bucket; float64, shape (k,).
        min: the smallest value; NaN if there are no buckets.
        max: the largest value; NaN if there are no buckets.
        num: the number of values.
        sum: the sum of the values; NaN if it was not written, as by TensorFlow 2.
        sum_squares: the sum of their squares; NaN if it was not written.
    """

    edges: Float64Array
    counts: Float64Array
    min: float
    max: float
    num: float
    sum: float
    sum_squares: float


def the_tensor(value: Any) -> Any:
    """Return the ``TensorProto`` of a value.

    Raises:
        InvalidValueError: it has none.
    """
    if value.WhichOneof("value") != "tensor":
        message = f"expected a tensor, got {value.WhichOneof('value') or 'no value'}"
        raise InvalidValueError(message)
    return value.tensor


def histogram_of(value: Any, _: str) -> Histogram:
    """Return a histogram of a ``HistogramProto``, or a tensor of left, right edges and counts."""
    if value.WhichOneof("value") == "histo":
        return _from_proto(value.histo)
    buckets = array_of(the_tensor(value)).astype(np.float64)
    if buckets.ndim != 2 or buckets.shape[1] != 3:
        message = f"a histogram has shape (buckets, 3), not {buckets.shape}"
        raise InvalidValueError(message)
    if not len(buckets):
        return Histogram(np.empty(0), np.empty(0), _NAN, _NAN, 0.0, _NAN, _NAN)
    left, right, counts = buckets.T
    num = float(counts.sum())
    (gaps,) = np.nonzero(right[:-1] != left[1:])  # become empty buckets
    edges = np.concatenate([np.insert(left, gaps + 1, right[gaps]), right[-1:]])
    counts = np.insert(counts, gaps + 1, 0.0)
    return Histogram(edges, counts, float(edges[0]), float(edges[-1]), num, _NAN, _NAN)


def _from_proto(proto: Any) -> Histogram:
    """Return a histogram as TensorBoard shows it, without the empty buckets at both ends.

    The outermost limits may be the largest finite numbers; the extremes replace them.
    """
    limits = np.array(proto.bucket_limit, np.float64)
    counts = np.array(proto.bucket, np.float64)
    if len(limits) != len(counts):
        message = f"a histogram has {len(limits):,} limits and {len(counts):,} counts"
        raise InvalidValueError(message)
    moments = proto.num, proto.sum, proto.sum_squares
    filled = np.flatnonzero(counts > 0)
    if not len(filled):
        return Histogram(np.empty(0), np.empty(0), _NAN, _NAN, *moments)
    first, last = int(filled[0]), int(filled[-1])
    edges = np.array([proto.min, *limits[first:last], proto.max])
    return Histogram(edges, counts[first : last + 1], proto.min, proto.max, *moments)


def texts_of(value: Any, _: str) -> Any:
    """Return a str, or an array of str objects."""
    return text_of(the_tensor(value))


def tensor_of(value: Any, _: str) -> npt.NDArray[Any]:
    """Return an array."""
    return array_of(the_tensor(value))


def pr_curve_of(value: Any, _: str) -> npt.NDArray[Any]:
    """Return a PR curve; shape (6, thresholds)."""
    curve = array_of(the_tensor(value))
    if curve.ndim != 2 or len(curve) != 6 or curve.dtype.kind not in "fiu":
        message = f"a PR curve has shape (6, thresholds), not {curve.shape}"
        raise InvalidValueError(message)
    return curve


def layout_of(value: Any, _: str) -> Any:
    """Return a ``Layout`` message."""
    (content,) = strings_of(the_tensor(value)).reshape(-1)
    return schema.Layout.FromString(content)
