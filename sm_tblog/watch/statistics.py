"""Statistics of arrays and of updates, computed from rows of ten numbers.

An array is reduced piece by piece. Each piece gives a row of ten numbers, which do not overflow if
the values do not. The rows are combined on the host in float64. So an array can be reduced on any
device where it is, and only its rows are copied. This module computes the rows of NumPy arrays;
``torch_statistics`` and ``jax_statistics`` compute the same rows on devices.

If a value is NaN, the sums, extremes and norm are NaN too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog.rules.observation import Statistics, UpdateStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from sm_tblog._types import Float64Array

__all__ = [
    "ABSOLUTE",
    "MAX_UPDATE_SAMPLE",
    "RELATIVE",
    "ROW",
    "as_statistics",
    "as_update_statistics",
    "change_row",
    "evenly",
    "rows_of",
    "spread_of",
]

ROW = 10
"""Numbers in a row: count, mean, std, abs mean, norm, min, max, zeros, NaNs, infinities."""

PIECE = 1 << 17
"""Values of a host array reduced at once: few enough to stay in the processor's cache."""

MAX_UPDATE_SAMPLE = 1 << 16
"""Maximum number of elements of an update to reduce; evenly spaced if it has more."""

RELATIVE, ABSOLUTE = 1e-5, 1e-8
"""Tolerances within which an element counts as unchanged, as in ``numpy.allclose``."""


def as_statistics(rows: npt.NDArray[Any], zeros: int = 0) -> Statistics:
    """Combine rows into statistics.

    Args:
        rows: the rows of pieces that are not empty, shape (pieces, ``ROW``).
        zeros: the number of additional elements that are all zero.
    """
    rows = rows.astype(np.float64)
    if zeros:
        rows = np.concatenate([rows, [[zeros, 0, 0, 0, 0, 0, 0, zeros, 0, 0]]])
    if not len(rows):
        return Statistics(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    with np.errstate(all="ignore"):
        count, mean, std, abs_mean, norm, low, high, zero, nan, inf = rows.T
        size = count.sum()
        share = count / size
        whole = (share * mean).sum()
        scale = norm.max()
        if 0 < scale < np.inf:
            scale *= _norm(norm / scale)
        deviation = np.sqrt((share * (std**2 + (mean - whole) ** 2)).sum())
        return Statistics(
            int(size),
            float(whole),
            float(std[0] if len(rows) == 1 else deviation),
            float((share * abs_mean).sum()),
            float(scale),
            float(low.min()),
            float(high.max()),
            float(zero.sum() / size),
            int(nan.sum()),
            int(inf.sum()),
        )


def rows_of(array: npt.NDArray[Any]) -> Float64Array:
    """Return the rows of an array of real numbers of any shape; shape (pieces, ``ROW``)."""
    rows = [_row(piece) for piece in _pieces(array)]
    return np.array(rows, np.float64).reshape(-1, ROW)


def _pieces(array: npt.NDArray[Any]) -> Iterator[Float64Array]:
    flat = array.ravel(order="K")
    with np.errstate(invalid="ignore"):  # signalling NaN
        for start in range(0, len(flat), PIECE):
            yield flat[start : start + PIECE].astype(np.float64)


def _row(x: Float64Array) -> list[float]:
    with np.errstate(all="ignore"):
        magnitudes, mean = np.abs(x), x.mean()
        low, high = float(x.min()), float(x.max())
        nan = 0 if low == low else int(np.isnan(x).sum())  # noqa: PLR0124 - false for NaN
        inf = 0 if np.isfinite(high - low) else int(np.isinf(x).sum())
        norm = _norm(x)
        if np.isinf(norm) and not inf:
            scale = float(magnitudes.max())
            norm = scale * _norm(x / scale)
        return [
            len(x),
            float(mean),
            _norm(x - mean) / math.sqrt(len(x)),
            float(magnitudes.mean()),
            norm,
            low,
            high,
            len(x) - int(np.count_nonzero(x)),
            nan,
            inf,
        ]


def _norm(x: Float64Array) -> float:
    return float(np.sqrt(np.dot(x, x)))


def change_row(before: npt.NDArray[Any], update: npt.NDArray[Any]) -> Float64Array:
    """Return the row of an update: its norm, the array's norm, elements changed, element count.

    Args:
        before: the array before the update.
        update: the difference that the update adds, of the same shape.
    """
    old, step = (np.asarray(x).ravel().astype(np.float64) for x in (before, update))
    with np.errstate(all="ignore"):
        changed = np.count_nonzero(~(np.abs(step) <= ABSOLUTE + RELATIVE * np.abs(old)))
        return np.array([_norm(step), _norm(old), changed, len(old)], np.float64)


def as_update_statistics(row: npt.NDArray[Any]) -> UpdateStatistics:
    """Return the statistics from a row of four numbers; see ``change_row``."""
    norm, of, changed, count = map(float, row)
    return UpdateStatistics(norm, of, changed / count if count else 0.0)


def evenly(flat: Any, limit: int) -> Any:
    """Return at high ``limit`` evenly spaced elements of a flat array, without copying it.

    The spacing is odd, so that the elements are not all from the same columns of a matrix.
    """
    count = int(flat.shape[0])
    return flat if count <= limit else flat[:: (-(-count // limit)) | 1]


def spread_of(sample: npt.NDArray[Any] | Iterable[float]) -> float:
    """Return the distance between the 5th and the 95th percentile."""
    low, high = np.percentile(np.asarray(sample, np.float64), [5, 95])
    return float(high - low)
