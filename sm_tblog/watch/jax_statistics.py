"""Statistics of JAX arrays on accelerators: one compiled function per tree, one small copy.

XLA fuses the computations on an array, so arrays are not split into pieces. Without
``jax_enable_x64``, sums are computed in float32, on values scaled by the largest magnitude so that
no square overflows, and are accurate to six digits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog.arrays.deferred import defer_jax
from sm_tblog.watch.statistics import ABSOLUTE, RELATIVE, ROW, as_update_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from sm_tblog.arrays.deferred import Deferred
    from sm_tblog.rules.observation import UpdateStatistics

__all__ = ["JaxBatch", "array_rows"]


class JaxBatch:
    """Arrays on the same devices, reduced by one call of a compiled function."""

    def __init__(self) -> None:
        self._arrays: list[Any] = []
        self._changes: list[tuple[Any, Any]] = []
        self._vector: Deferred | None = None

    def add(self, array: Any) -> Callable[[], npt.NDArray[Any]]:
        """Add an array that is not empty; return a function that returns its row after ``send``."""
        self._arrays.append(array)
        start = (len(self._arrays) - 1) * ROW
        return lambda: self._numbers()[start : start + ROW]

    def compare(self, before: Any, update: Any) -> Callable[[], UpdateStatistics]:
        """Add an update; return a function that returns its statistics after ``send``.

        The array must not be empty.
        """
        self._changes.append((before, update))
        index = len(self._changes) - 1

        def change() -> UpdateStatistics:
            row = self._numbers().reshape(-1)
            start = self._array_count * ROW + index * 4
            return as_update_statistics(row[start : start + 4])

        return change

    def send(self) -> int:
        """Start computing and copying all rows as one vector; return its size in bytes."""
        self._array_count = len(self._arrays)
        self._vector = defer_jax(_compiled()(self._arrays, self._changes))
        self._arrays, self._changes = [], []
        return self._vector.nbytes

    def _numbers(self) -> npt.NDArray[Any]:
        vector: Any = self._vector
        return vector.array()  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _compiled() -> Callable[[Any, Any], Any]:
    import jax

    function: Callable[[Any, Any], Any] = jax.jit(array_rows)
    return function


def array_rows(arrays: list[Any], changes: list[tuple[Any, Any]]) -> Any:
    """Return the rows defined in ``statistics``, arrays first; meant to be compiled."""
    import jax.numpy as jnp

    parts = [_row(array) for array in arrays] + [_change(*change) for change in changes]
    return jnp.concatenate(parts)


def _real() -> Any:
    import jax

    return np.float64 if jax.config.jax_enable_x64 else np.float32


def _row(x: Any) -> Any:
    import jax.numpy as jnp

    x = jnp.concatenate([x.real.ravel(), x.imag.ravel()]) if jnp.iscomplexobj(x) else x.ravel()
    x = x.astype(_real())
    scale = _scale(x)
    y = x / scale
    mean = y.mean()
    numbers = [x.size, mean * scale, jnp.sqrt(jnp.square(y - mean).mean()) * scale]
    numbers += [jnp.abs(y).mean() * scale, jnp.sqrt(jnp.square(y).sum()) * scale]
    numbers += [x.min(), x.max(), (x == 0).sum(), jnp.isnan(x).sum(), jnp.isinf(x).sum()]
    return jnp.stack([jnp.asarray(number, x.dtype) for number in numbers])


def _scale(x: Any) -> Any:
    import jax.numpy as jnp

    finite = jnp.where(jnp.isfinite(x), jnp.abs(x), 0)
    return jnp.maximum(finite.max(), np.finfo(x.dtype).tiny)


def _change(before: Any, update: Any) -> Any:
    import jax.numpy as jnp

    old, step = (x.ravel().astype(_real()) for x in (before, update))
    changed = (~(jnp.abs(step) <= ABSOLUTE + RELATIVE * jnp.abs(old))).sum()
    norms = [jnp.sqrt(jnp.square(x / _scale(x)).sum()) * _scale(x) for x in (step, old)]
    return jnp.stack([jnp.asarray(number, old.dtype) for number in (*norms, changed, old.size)])
