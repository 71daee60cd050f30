"""What is said of an array: its statistics, how an update changes it, what of it is inactive.

An array is looked at in pieces. Each makes a row of ten numbers that do not overflow where its
values do not, and rows are put together on the host in float64; so an array may be looked at
where it is, on any device, and only its rows travel. Here are the rows of NumPy arrays; those of
devices, in ``torch_statistics`` and ``jax_statistics``, mean the same.

A NaN among the values makes their sums, extremes and norm NaN: that is what they are.
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
    "RELATIVE",
    "ROW",
    "SAMPLE",
    "as_statistics",
    "as_update_statistics",
    "change_row",
    "evenly",
    "rows_of",
    "spread_of",
]

ROW = 10
"""Numbers in a row: count, mean, std, mean of magnitudes, norm, min, max, zeros, NaN, infinite."""

PIECE = 1 << 17
"""Values of a host's array that are looked at together: they stay in the processor's cache."""

SAMPLE = 1 << 16
"""Elements up to which an update is looked at whole; of more, evenly spaced ones are, so many."""

RELATIVE, ABSOLUTE = 1e-5, 1e-8
"""How near an element must be to what it was to count as unchanged, as in ``numpy.allclose``."""


def as_statistics(rows: npt.NDArray[Any], zeros: int = 0) -> Statistics:
    """Return what rows say together.

    Args:
        rows: shape (pieces, ``ROW``), none of them of an empty piece.
        zeros: how many more elements there are, all of them zero.
    """
    rows = rows.astype(np.float64)
    if zeros:
        rows = np.concatenate([rows, [[zeros, 0, 0, 0, 0, 0, 0, zeros, 0, 0]]])
    if not len(rows):
        return Statistics(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    with np.errstate(all="ignore"):
        count, mean, std, abs_mean, norm, least, most, zero, nan, inf = rows.T
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
            float(least.min()),
            float(most.max()),
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
        least, most = float(x.min()), float(x.max())
        nan = 0 if least == least else int(np.isnan(x).sum())  # noqa: PLR0124 - NaN is not
        inf = 0 if np.isfinite(most - least) else int(np.isinf(x).sum())
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
            least,
            most,
            len(x) - int(np.count_nonzero(x)),
            nan,
            inf,
        ]


def _norm(x: Float64Array) -> float:
    return float(np.sqrt(np.dot(x, x)))


def change_row(before: npt.NDArray[Any], update: npt.NDArray[Any]) -> Float64Array:
    """Return the norms of an update and of what it is added to, and how many elements change.

    Args:
        before: the array without the update.
        update: of the same shape.
    """
    old, step = (np.asarray(x).ravel().astype(np.float64) for x in (before, update))
    with np.errstate(all="ignore"):
        changed = np.count_nonzero(~(np.abs(step) <= ABSOLUTE + RELATIVE * np.abs(old)))
        return np.array([_norm(step), _norm(old), changed, len(old)], np.float64)


def as_update_statistics(row: npt.NDArray[Any]) -> UpdateStatistics:
    """Return what a row of four numbers says; see ``change_row``."""
    norm, of, changed, count = map(float, row)
    return UpdateStatistics(norm, of, changed / count if count else 0.0)


def evenly(flat: Any, most: int) -> Any:
    """Return so many elements of a flat array, evenly spaced, without copying it.

    The distance is odd, so that they do not all fall into the same columns of a matrix.
    """
    count = int(flat.shape[0])
    return flat if count <= most else flat[:: (-(-count // most)) | 1]


def spread_of(sample: npt.NDArray[Any] | Iterable[float]) -> float:
    """Return the distance between the 5th and the 95th percentile."""
    low, high = np.percentile(np.asarray(sample, np.float64), [5, 95])
    return float(high - low)
