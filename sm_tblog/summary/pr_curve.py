"""Precision-recall curves: a classifier's counts at evenly spaced thresholds.

TensorBoard's pr_curves plugin reads a float32 tensor of shape (6, thresholds): true positives,
false positives, true negatives, false negatives, precision, recall
(tensorboard/plugins/pr_curve/metadata.py). Threshold k of n is k / (n - 1), and a sample counts as
positive if its prediction is not below the threshold. So each sample falls into the bucket of the
largest threshold that it reaches, a ``bincount`` sums the buckets, and the sums from each bucket to
the last are the counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import Deferred, resolve
from sm_tblog.format import schema

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog._types import Float64Array

    Snapshot = npt.NDArray[Any] | Deferred

__all__ = [
    "check_raw_curve",
    "check_samples",
    "check_thresholds",
    "counts_at_thresholds",
    "pr_curve_value",
    "raw_pr_curve_value",
]

_TOLERANCE = 1e-5
"""How far below 0 or above 1 a prediction may be: the rounding error of a float32 mean or sum."""

_MIN_DIVISOR = 1e-7
"""The smallest divisor of precision and recall, as in TensorBoard."""

_MAX_FLOAT64 = float(np.finfo(np.float64).max)


def check_thresholds(num_thresholds: Any, tag: str) -> int:
    """Return ``num_thresholds`` as an int.

    Raises:
        InvalidTypeError: ``num_thresholds`` is not an integer.
        InvalidValueError: ``num_thresholds`` is less than two.
    """
    try:
        count = int(num_thresholds.__index__())
    except AttributeError:
        message = f"{tag!r}: num_thresholds must be an integer, got {num_thresholds!r:.60}"
        raise InvalidTypeError(message) from None
    if count < 2:
        message = f"{tag!r}: a curve needs at least two thresholds, 0 and 1; got {count}"
        raise InvalidValueError(message)
    return count


def check_samples(
    labels: Snapshot, predictions: Snapshot, weights: Snapshot | None, tag: str
) -> None:
    """Raise an error if the samples are invalid. On a device, only the shape is checked.

    Raises:
        InvalidValueError: a shape or a number does not meet the needs of ``pr_curve_value``.
    """
    if labels.shape != predictions.shape:
        message = (
            f"{tag!r}: a curve needs a prediction for each label, got labels of shape "
            f"{labels.shape} and predictions of shape {predictions.shape}; for class k of "
            "several, pass labels == k and predictions[:, k]"
        )
        raise InvalidValueError(message)
    if weights is not None and not _broadcasts(weights.shape, labels.shape):
        message = (
            f"{tag!r}: weights must be a number or broadcast to the labels, got weights of shape "
            f"{weights.shape} and labels of shape {labels.shape}"
        )
        raise InvalidValueError(message)
    if not isinstance(labels, Deferred):
        _check_range(labels, 0, 1, "labels must be 0 or 1, or bools", tag)
    if not isinstance(predictions, Deferred):
        # NaN predictions are valid: a diverged model must not abort its training here.
        what = "predictions must be probabilities from 0 to 1, not logits"
        _check_range(predictions, -_TOLERANCE, 1 + _TOLERANCE, what, tag, skip_nan=True)
    if weights is not None and not isinstance(weights, Deferred):
        _check_range(weights, 0, _MAX_FLOAT64, "weights must be finite and not negative", tag)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _check_range(
    array: npt.NDArray[Any],
    low: float,
    high: float,
    what: str,
    tag: str,
    *,
    skip_nan: bool = False,
) -> None:
    if not array.size:
        return
    if array.dtype.kind == "V":  # bfloat16, float8
        array = array.astype(np.float32)
    minimum, maximum = (np.fmin, np.fmax) if skip_nan else (np.minimum, np.maximum)
    smallest = float(minimum.reduce(array, axis=None))
    largest = float(maximum.reduce(array, axis=None))
    if not (low <= smallest and largest <= high) and not (skip_nan and np.isnan(smallest)):
        message = f"{tag!r}: {what}; got numbers from {smallest:g} to {largest:g}"
        raise InvalidValueError(message)


def check_raw_curve(
    rows: list[Snapshot], num_thresholds: Any, weights: Snapshot | None, tag: str
) -> None:
    """Raise an error if these are not the six rows of a curve and matching weights.

    Raises:
        InvalidTypeError: ``num_thresholds`` is not an integer.
        InvalidValueError: the lengths of the rows differ from each other, ``num_thresholds`` is
            less than 2, or the weights do not fit them.
    """
    shapes = [row.shape for row in rows]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0][0] < 2:
        message = (
            f"{tag!r}: counts, precision and recall need one dimension with a number for each of "
            f"at least two thresholds, got shapes {', '.join(map(str, shapes))}"
        )
        raise InvalidValueError(message)
    (length,) = shapes[0]
    if num_thresholds is not None:
        check_thresholds(num_thresholds, tag)
    if weights is not None and not _broadcasts(weights.shape, shapes[0]):
        message = (
            f"{tag!r}: weights must be a number or one for each of {length} thresholds, got shape "
            f"{weights.shape}"
        )
        raise InvalidValueError(message)


def counts_at_thresholds(
    labels: npt.NDArray[Any],
    predictions: npt.NDArray[Any],
    num_thresholds: int,
    weights: npt.NDArray[Any] | None = None,
) -> Float64Array:
    """Return the plugin's tensor; shape (6, num_thresholds).

    Args:
        labels: numbers from 0 to 1, of any shape.
        predictions: numbers from 0 to 1 without NaN, of the same shape.
        num_thresholds: 2 or more.
        weights: the weight of each sample, broadcast to the shape of the labels.
    """
    if predictions.dtype not in (np.float32, np.float64):
        predictions = predictions.astype(np.float32)
    last = num_thresholds - 1
    # In the predictions' own precision: a float32 0.7 reaches the threshold 0.7.
    buckets = np.clip(np.floor(predictions * predictions.dtype.type(last)), 0, last)
    buckets = buckets.astype(np.intp).reshape(-1)
    positive = labels.astype(np.float64)
    negative = 1.0 - positive
    if weights is not None:
        positive, negative = positive * weights, negative * weights
    in_buckets = [
        np.bincount(buckets, amount.reshape(-1), num_thresholds) for amount in (positive, negative)
    ]
    tp, fp = (np.cumsum(amount[::-1])[::-1] for amount in in_buckets)
    tn, fn = fp[0] - fp, tp[0] - tp
    precision = tp / np.maximum(_MIN_DIVISOR, tp + fp)
    recall = tp / np.maximum(_MIN_DIVISOR, tp + fn)
    return np.stack((tp, fp, tn, fn, precision, recall))


def pr_curve_value(
    tag: str,
    labels: Snapshot,
    predictions: Snapshot,
    num_thresholds: int,
    weights: Snapshot | None = None,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of the pr_curves plugin, and a warning on samples left out.

    Args:
        tag: the tag, used unchanged.
        labels: bools or 0 and 1, of any shape; a number in between is a fraction of a positive.
        predictions: numbers from 0 to 1, of the same shape. Samples with NaN are left out.
        num_thresholds: 2 or more.
        weights: the weight of each sample: a number, or an array that broadcasts to the labels.

    Raises:
        InvalidTypeError: an array from a device does not hold real numbers.
        InvalidValueError: numbers of an array from a device are out of range.
    """
    labels, predictions = _resolve(labels, tag), _resolve(predictions, tag)
    weights = None if weights is None else _resolve(weights, tag)
    check_samples(labels, predictions, weights, tag)
    warning = ""
    nan = np.isnan(predictions.astype(np.float32, copy=False))
    if nan.any():
        warning = f"the curve leaves out {nan.sum()} of {nan.size} predictions because they are NaN"
        if weights is not None:
            weights = np.broadcast_to(weights, nan.shape)[~nan]
        labels, predictions = labels[~nan], predictions[~nan]
    return _value(tag, counts_at_thresholds(labels, predictions, num_thresholds, weights)), warning


def raw_pr_curve_value(
    tag: str,
    rows: list[Snapshot],
    weights: Snapshot | None = None,
    num_thresholds: int | None = None,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of a curve counted by the caller, and a warning.

    Args:
        tag: the tag, used unchanged.
        rows: the plugin's six rows, each of shape (thresholds,).
        weights: factors for the four counts; a scalar or shape (thresholds,).
        num_thresholds: the number that the caller expects, for the warning.
    """
    data = np.stack([_resolve(row, tag).astype(np.float64) for row in rows])
    if weights is not None:
        data[:4] *= _resolve(weights, tag)
    length, warning = data.shape[1], ""
    if num_thresholds not in (None, length):
        warning = (
            f"num_thresholds is {num_thresholds}, but there are {length} counts; they are shown at "
            f"{length} thresholds, evenly spaced from 0 to 1"
        )
    return _value(tag, data), warning


def _resolve(array: Snapshot, tag: str) -> npt.NDArray[Any]:
    return resolve(array, tag)


def _value(tag: str, data: Float64Array) -> Any:
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "pr_curves"
    content = schema.PrCurvePluginData(num_thresholds=data.shape[1])
    value.metadata.plugin_data.content = content.SerializeToString()
    value.metadata.data_class = schema.DATA_CLASS_TENSOR
    value.tensor.dtype = schema.DT_FLOAT
    for length in data.shape:
        value.tensor.tensor_shape.dim.add(size=length)
    value.tensor.tensor_content = data.astype("<f4").tobytes()
    return value
