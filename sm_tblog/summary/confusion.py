"""Confusion matrices: which classes were predicted for which.

Those that the caller has counted, and those that are counted here, from the class of each sample
and the one predicted for it. A row stands for a true class, a column for a predicted one, as in
scikit-learn. They are shown as a picture (see ``heatmap``).
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

_MOST_CLASSES = 1000
"""At two pixels a cell, the picture is as large as a screen."""

_NORMALIZED = {
    "true": "rows sum to 1",
    "pred": "columns sum to 1",
    "all": "all cells sum to 1",
}


def check_options(class_names: Any, normalize: Any, tag: str) -> tuple[str, ...] | None:
    """Return the names of the classes, if any are given.

    Raises:
        InvalidTypeError: they are not a sequence.
        InvalidValueError: there are too many, or ``normalize`` is unknown.
        MissingDependencyError: what draws is not installed.
    """
    if normalize is not None and normalize not in _NORMALIZED:
        message = f"{tag!r}: normalize is None, 'true', 'pred' or 'all', not {normalize!r:.60}"
        raise InvalidValueError(message)
    if find_spec("matplotlib") is None:  # which needs Pillow itself
        message = "a confusion matrix needs Matplotlib: pip install 'sm-tblog[figure]'"
        raise MissingDependencyError(message)
    if class_names is None:
        return None
    if isinstance(class_names, str) or not hasattr(class_names, "__iter__"):
        message = f"{tag!r}: class_names is a sequence of names, got {class_names!r:.60}"
        raise InvalidTypeError(message)
    names = tuple(map(str, class_names))
    _check_count(len(names), tag)
    return names


def _check_count(classes: int, tag: str) -> None:
    if not 0 < classes <= _MOST_CLASSES:
        message = f"{tag!r}: a confusion matrix has 1 to {_MOST_CLASSES:,} classes, got {classes:,}"
        raise InvalidValueError(message)


def snapshot_classes(values: Any, tag: str) -> Snapshot:
    """Return a copy of the classes of samples, integers or strings, of any shape.

    Raises:
        InvalidTypeError: they are neither.
        InvalidValueError: they are floats that are not whole.
    """
    array = snapshot(values, tag, kinds="biufUO")
    return array if isinstance(array, Deferred) else _as_classes(array, tag)


def _as_classes(array: npt.NDArray[Any], tag: str) -> npt.NDArray[Any]:
    if array.dtype.kind == "O":  # strings of pandas and others
        array = np.array(array.tolist())
    if array.dtype.kind in "biuU":
        return array
    if array.dtype.kind != "f" and not (array.dtype.kind == "V" and array.dtype.names is None):
        message = f"{tag!r}: classes are integers or strings, got an array of {array.dtype}"
        raise InvalidTypeError(message)
    numbers = array.astype(np.float64)
    if not (numbers == np.floor(numbers)).all():
        message = f"{tag!r}: classes are integers or strings, got floats; take their argmax first"
        raise InvalidValueError(message)
    return numbers.astype(np.int64)


def check_classes(
    labels: Snapshot, predictions: Snapshot, names: tuple[str, ...] | None, tag: str
) -> None:
    """Raise if these cannot be counted. Of what is on a device, see the shape alone.

    Raises:
        InvalidTypeError: one of them has strings, the other numbers, and there are no names.
        InvalidValueError: the shapes differ, there is nothing, or a class has no name.
    """
    if labels.shape != predictions.shape:
        message = (
            f"{tag!r}: each label needs the class predicted for it, got labels of shape "
            f"{labels.shape} and predictions of shape {predictions.shape}; of scores for each "
            "class take the argmax, and log a finished matrix by add_confusion_matrix_raw"
        )
        raise InvalidValueError(message)
    if names is None and 0 in labels.shape:
        message = f"{tag!r}: without labels, class_names are needed, got shape {labels.shape}"
        raise InvalidValueError(message)
    if names is None and _are_strings(labels) != _are_strings(predictions):
        message = (
            f"{tag!r}: labels and predictions are both strings or both numbers; got dtypes "
            f"{labels.dtype} and {predictions.dtype}, and no class_names to tell which is which"
        )
        raise InvalidTypeError(message)
    for classes in (labels, predictions):
        if names is not None and not isinstance(classes, Deferred):
            _numbered(classes, names, tag)


def _are_strings(classes: Snapshot) -> bool:
    return not isinstance(classes, Deferred) and classes.dtype.kind == "U"


def _numbered(classes: npt.NDArray[Any], names: Sequence[str], tag: str) -> Int64Array:
    """Return the position of each class among the names."""
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
        message = f"{tag!r}: class_names has {len(names)} names, none for class {unknown[0]!r}"
        raise InvalidValueError(message)
    return numbers


def count_pairs(
    labels: npt.NDArray[Any],
    predictions: npt.NDArray[Any],
    names: Sequence[str] | None,
    tag: str,
) -> tuple[Int64Array, Sequence[str]]:
    """Return how often each class was predicted for each, and the names of the classes.

    Args:
        labels: integers or strings.
        predictions: of the same shape.
        names: of the classes 0, 1, …; by default the classes that occur, in their order.
        tag: named in errors.

    Returns:
        Counts of shape (classes, classes), a row for each label; and the names.
    """
    if names is None:
        both = np.stack([_widened(one) for one in (labels, predictions)])
        distinct, inverse = np.unique(both, return_inverse=True)
        names = [str(one) for one in distinct.tolist()]
        truth, guess = inverse.reshape(2, -1)
    else:
        truth, guess = _numbered(labels, names, tag), _numbered(predictions, names, tag)
    size = len(names)
    _check_count(size, tag)
    return np.bincount(truth * size + guess, minlength=size * size).reshape(size, size), names


def _widened(classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return integers of one type: NumPy makes floats of int64 and uint64 together."""
    return classes.astype(np.int64) if classes.dtype.kind in "iu" else classes


def check_matrix(matrix: Snapshot, names: tuple[str, ...] | None, tag: str) -> None:
    """Raise if this is no confusion matrix. Of one on a device, see the shape alone.

    Raises:
        InvalidValueError: it is not square, has another size than there are names, or holds
            numbers that are negative or not finite.
    """
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        message = (
            f"{tag!r}: a confusion matrix has shape (classes, classes), got {matrix.shape}; "
            "log labels and predictions by add_confusion_matrix"
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
            message = f"{tag!r}: a confusion matrix has counts, got negative or not finite numbers"
            raise InvalidValueError(message)


def normalized(counts: npt.NDArray[Any], by: str | None) -> Float64Array:
    """Return a matrix whose rows ("true"), columns ("pred") or all cells ("all") sum to one.

    A row or column of nothing stays zero. None leaves the counts as they are.
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
    """Return a ``Summary.Value`` of an image that shows how labels and predictions agree.

    Args:
        tag: the tag, taken as it is.
        labels: classes, as ``snapshot_classes`` returns them.
        predictions: of the same shape.
        names: of the classes 0, 1, …; by default the classes that occur.
        normalize: as ``normalized`` takes it.
        title: stands above the matrix.

    Raises:
        InvalidTypeError: what was on a device does not hold classes.
        InvalidValueError: it holds a class that has no name, or too many.
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
        tag: the tag, taken as it is.
        matrix: shape (classes, classes), not negative; a row for each true class.
        names: of the classes; by default their numbers.
        normalize: as ``normalized`` takes it.
        title: stands above the matrix.

    Raises:
        InvalidTypeError: a matrix that was on a device does not hold real numbers.
        InvalidValueError: its numbers are negative or not finite.
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
