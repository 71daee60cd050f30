"""Confusion matrices: how often each class was predicted for each true class.

A matrix is counted by the caller, or here from the true and the predicted class of each sample.
Rows are true classes and columns are predicted classes, as in scikit-learn. A matrix is shown as a
picture (see ``heatmap``).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from sm_tblog.arrays.convert import Deferred, check_kind, snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sm_tblog._types import Float64Array, Int64Array

    Snapshot = npt.NDArray[Any] | Deferred

__all__ = [
    "check_classes",
    "check_matrix",
    "check_options",
    "confusion_value",
    "count_pairs",
    "matrix_value",
    "normalized",
    "snapshot_classes",
]

_MAX_CLASSES = 1000
"""At two pixels per cell, the picture is as large as a screen."""

_NORMALIZED = {
    "true": "rows sum to 1",
    "pred": "columns sum to 1",
    "all": "all cells sum to 1",
}


def check_options(class_names: Any, normalize: Any, tag: str) -> tuple[str, ...] | None:
    """Return the class names as a tuple of strings, or None if there are none.

    Raises:
        InvalidTypeError: ``class_names`` is not a sequence.
        InvalidValueError: there are too many names, or ``normalize`` is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    if normalize is not None and normalize not in _NORMALIZED:
        message = f"{tag!r}: normalize must be None, 'true', 'pred' or 'all', got {normalize!r:.60}"
        raise InvalidValueError(message)
    if find_spec("matplotlib") is None:  # which depends on Pillow
        message = "a confusion matrix needs Matplotlib: pip install 'sm-tblog[figure]'"
        raise MissingDependencyError(message)
    if class_names is None:
        return None
    if isinstance(class_names, str) or not hasattr(class_names, "__iter__"):
        message = f"{tag!r}: class_names must be a sequence of names, got {class_names!r:.60}"
        raise InvalidTypeError(message)
    names = tuple(map(str, class_names))
    _check_count(len(names), tag)
    return names


def _check_count(classes: int, tag: str) -> None:
    if not 0 < classes <= _MAX_CLASSES:
        message = f"{tag!r}: a confusion matrix has 1 to {_MAX_CLASSES:,} classes, got {classes:,}"
        raise InvalidValueError(message)


def snapshot_classes(values: Any, tag: str) -> Snapshot:
    """Return a copy of the classes of samples, integers or strings of any shape.

    Raises:
        InvalidTypeError: the values are neither integers nor strings.
        InvalidValueError: the values are floats that are not whole numbers.
    """
    array = snapshot(values, tag, kinds="biufUO")
    return array if isinstance(array, Deferred) else _as_classes(array, tag)


def _as_classes(array: npt.NDArray[Any], tag: str) -> npt.NDArray[Any]:
    if array.dtype.kind == "O":  # strings in pandas and other libraries
        array = np.array(array.tolist())
    if array.dtype.kind in "biuU":
        return array
    if array.dtype.kind != "f" and not (array.dtype.kind == "V" and array.dtype.names is None):
        message = f"{tag!r}: classes must be integers or strings, got an array of {array.dtype}"
        raise InvalidTypeError(message)
    numbers = array.astype(np.float64)
    if not (numbers == np.floor(numbers)).all():
        message = f"{tag!r}: classes must be integers or strings, got floats; take the argmax first"
        raise InvalidValueError(message)
    return numbers.astype(np.int64)


def check_classes(
    labels: Snapshot, predictions: Snapshot, names: tuple[str, ...] | None, tag: str
) -> None:
    """Raise an error if labels and predictions cannot be counted.

    For arrays on a device, only the shape is checked.

    Raises:
        InvalidTypeError: one array has strings, the other numbers, and there are no names.
        InvalidValueError: the shapes differ, there are neither samples nor names, or a class has no
            name.
    """
    if labels.shape != predictions.shape:
        message = (
            f"{tag!r}: each label needs the class predicted for it, got labels of shape "
            f"{labels.shape} and predictions of shape {predictions.shape}; for scores per class "
            "take the argmax; log a finished matrix with add_confusion_matrix_raw"
        )
        raise InvalidValueError(message)
    if names is None and 0 in labels.shape:
        message = f"{tag!r}: without labels, class_names are required, got shape {labels.shape}"
        raise InvalidValueError(message)
    if names is None and _are_strings(labels) != _are_strings(predictions):
        message = (
            f"{tag!r}: labels and predictions must both be strings or both be numbers unless there "
            f"are class_names; got dtypes {labels.dtype} and {predictions.dtype}"
        )
        raise InvalidTypeError(message)
    for classes in (labels, predictions):
        if names is not None and not isinstance(classes, Deferred):
            _class_indices(classes, names, tag)


def _are_strings(classes: Snapshot) -> bool:
    return not isinstance(classes, Deferred) and classes.dtype.kind == "U"


def _class_indices(classes: npt.NDArray[Any], names: Sequence[str], tag: str) -> Int64Array:
    """Return the index of each class in the names."""
    if classes.dtype.kind == "U":
        position = {name: number for number, name in enumerate(names)}
        distinct, inverse = np.unique(classes, return_inverse=True)
        unknown = [str(name) for name in distinct if name not in position]
        numbers = np.array([position.get(str(name), -1) for name in distinct], np.int64)
        numbers = numbers[inverse.reshape(-1)]
    else:
        numbers = classes.astype(np.int64).reshape(-1)
        outside = (numbers < 0) | (numbers >= len(names))
        unknown = np.unique(numbers[outside]).tolist()
    if unknown:
        message = f"{tag!r}: class_names has {len(names)} names, but none for class {unknown[0]!r}"
        raise InvalidValueError(message)
    return numbers


def count_pairs(
    labels: npt.NDArray[Any],
    predictions: npt.NDArray[Any],
    names: Sequence[str] | None,
    tag: str,
) -> tuple[Int64Array, Sequence[str]]:
    """Count how often each class was predicted for each true class.

    Args:
        labels: integers or strings.
        predictions: integers or strings of the same shape.
        names: the names of classes 0, 1, …; by default the classes that occur, sorted.
        tag: the tag, for error messages.

    Returns:
        Counts of shape (classes, classes), one row for each true class; and the class names.
    """
    if names is None:
        both = np.stack([_as_int64(one) for one in (labels, predictions)])
        distinct, inverse = np.unique(both, return_inverse=True)
        names = [str(one) for one in distinct.tolist()]
        truth, guess = inverse.reshape(2, -1)
    else:
        truth, guess = _class_indices(labels, names, tag), _class_indices(predictions, names, tag)
    size = len(names)
    _check_count(size, tag)
    return np.bincount(truth * size + guess, minlength=size * size).reshape(size, size), names


def _as_int64(classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return integers as int64, because NumPy promotes int64 and uint64 to float64."""
    return classes.astype(np.int64) if classes.dtype.kind in "iu" else classes


def check_matrix(matrix: Snapshot, names: tuple[str, ...] | None, tag: str) -> None:
    """Raise an error if this is not a confusion matrix. On a device, only the shape is checked.

    Raises:
        InvalidValueError: the matrix is not square, its size differs from the number of names, or
            it holds numbers that are negative or not finite.
    """
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        message = (
            f"{tag!r}: a confusion matrix has shape (classes, classes), got {matrix.shape}; "
            "log labels and predictions with add_confusion_matrix"
        )
        raise InvalidValueError(message)
    count = matrix.shape[0]
    _check_count(count, tag)
    if names is not None and len(names) != count:
        message = f"{tag!r}: a matrix of {count} classes got {len(names)} class_names"
        raise InvalidValueError(message)
    if not isinstance(matrix, Deferred):
        numbers = matrix.astype(np.float64)
        if not (np.isfinite(numbers) & (numbers >= 0)).all():
            message = f"{tag!r}: a confusion matrix has counts, got negative or non-finite numbers"
            raise InvalidValueError(message)


def normalized(counts: npt.NDArray[Any], by: str | None) -> Float64Array:
    """Return a matrix whose rows ("true"), columns ("pred") or cells ("all") sum to one.

    Rows and columns of zeros stay zero. None leaves the counts unchanged.
    """
    matrix: Float64Array = counts.astype(np.float64)
    if by is None:
        return matrix
    axis = {"true": 1, "pred": 0, "all": None}[by]
    total = matrix.sum(axis=axis, keepdims=True)
    np.divide(matrix, total, out=matrix, where=total > 0)
    return matrix


def confusion_value(
    tag: str,
    labels: Snapshot,
    predictions: Snapshot,
    names: tuple[str, ...] | None,
    normalize: str | None,
    title: str,
) -> Any:
    """Return a ``Summary.Value`` of an image of the confusion matrix of labels and predictions.

    Args:
        tag: the tag, used unchanged.
        labels: true classes, as returned by ``snapshot_classes``.
        predictions: predicted classes of the same shape.
        names: the names of classes 0, 1, …; by default the classes that occur.
        normalize: as for ``normalized``.
        title: the text above the matrix.

    Raises:
        InvalidTypeError: an array from a device does not hold classes.
        InvalidValueError: a class has no name, or there are too many classes.
    """
    truth, guess = (
        _as_classes(one.array(), tag) if isinstance(one, Deferred) else one
        for one in (labels, predictions)
    )
    counts, found = count_pairs(truth, guess, names, tag)
    return matrix_value(tag, counts, tuple(found), normalize, title)


def matrix_value(
    tag: str,
    matrix: Snapshot,
    names: tuple[str, ...] | None,
    normalize: str | None,
    title: str,
) -> Any:
    """Return a ``Summary.Value`` of an image that shows a confusion matrix.

    Args:
        tag: the tag, used unchanged.
        matrix: non-negative numbers of shape (classes, classes), one row for each true class.
        names: the names of the classes; by default their numbers.
        normalize: as for ``normalized``.
        title: the text above the matrix.

    Raises:
        InvalidTypeError: a matrix from a device does not hold real numbers.
        InvalidValueError: numbers of a matrix from a device are negative or not finite.
    """
    from sm_tblog.summary.heatmap import draw_matrix
    from sm_tblog.summary.image import grid_value

    if isinstance(matrix, Deferred):
        matrix = check_kind(matrix.array(), tag)
        check_matrix(matrix, names, tag)
    counts = matrix.astype(np.float64)
    notes = []
    total = counts.sum()
    if total and (counts == np.round(counts)).all():
        notes = [f"accuracy {np.trace(counts) / total:.1%}", f"{total:,.0f} samples"]
    if normalize:
        notes.append(_NORMALIZED[normalize])
    if names is None:
        names = tuple(map(str, range(len(counts))))
    picture = draw_matrix(normalized(counts, normalize), names, title, " · ".join(notes))
    return grid_value(tag, picture[np.newaxis], "NHWC")[0]
