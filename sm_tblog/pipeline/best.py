"""Track the best value so far of chosen metrics, each as a separate curve.

TensorBoard's HParams tab shows the last value of every scalar. A curve that gets a point only when
its metric improves ends with the best value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sm_tblog._types import Series

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog._types import Float64Array, IndexArray
    from sm_tblog.sinks.base import Batch

__all__ = ["PREFIX", "BestTracker"]

PREFIX = "best/"
"""Prefix of the metric's tag that gives the tag of its best value."""


class BestTracker:
    """A processor that adds a row to the batch for every value that improves on all earlier ones.

    The row has the step and wall time of that value and the tag ``best/<tag>``. Values are compared
    in the order in which they were logged, regardless of their steps; NaN is never an improvement.
    Metrics are the scalars of one run: curves of its child runs are ignored.

    A batch without any of the metrics is returned unchanged. ``watch`` may be called while another
    thread processes a batch.

    Attributes:
        run: the folder below the log directory, "" for the log directory itself.
    """

    def __init__(self) -> None:
        self.run = ""
        self._metrics: dict[str, _Metric] = {}

    def watch(self, tag: str, mode: str, best: float | None = None) -> None:
        """Track the best value of a metric from now on.

        Args:
            tag: the metric's tag. If it is already tracked in this mode, it keeps its best value.
            mode: ``"min"`` or ``"max"``.
            best: the best value so far, if known.
        """
        known = self._metrics.get(tag)
        if known is None or known.mode != mode or best is not None:
            self._metrics[tag] = _Metric(mode, best)

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with the rows of improved values added."""
        watched: dict[str, list[int]] = {}
        for code, series in enumerate(batch.series):
            if series.tag in self._metrics and series.run == self.run:
                watched.setdefault(series.tag, []).append(code)
        added = [
            (tag, rows)
            for tag, codes in watched.items()
            if len(rows := self._improvements(tag, codes, batch))
        ]
        if not added:
            return batch
        rows = np.concatenate([rows for _, rows in added])
        codes = np.repeat(np.arange(len(added)), [len(rows) for _, rows in added])
        return batch._replace(
            series=[*batch.series, *(Series(PREFIX + tag, self.run) for tag, _ in added)],
            codes=np.concatenate((batch.codes, len(batch.series) + codes)),
            steps=np.concatenate((batch.steps, batch.steps[rows])),
            wall_times=np.concatenate((batch.wall_times, batch.wall_times[rows])),
            scalars=np.concatenate((batch.scalars, batch.scalars[rows])),
        )

    def _improvements(self, tag: str, codes: list[int], batch: Batch) -> IndexArray:
        """Return the indices of the rows that improve on all earlier values."""
        is_metric = np.zeros(len(batch.series), bool)
        is_metric[codes] = True
        rows: IndexArray = np.flatnonzero(is_metric[batch.codes])
        improved = self._metrics[tag].improved(batch.scalars[rows])
        return rows[improved]


class _Metric:
    """A metric's best value so far: NaN before the first, negated if higher is better."""

    def __init__(self, mode: str, best: float | None) -> None:
        self.mode = mode
        self._sign = -1.0 if mode == "max" else 1.0
        self._lowest = float("nan") if best is None else self._sign * best

    def improved(self, values: Float64Array) -> npt.NDArray[np.bool_]:
        """Return a mask of the values that improve on all earlier ones; keep the best value."""
        costs = self._sign * values
        lowest = np.fmin.accumulate(np.concatenate(([self._lowest], costs)))
        self._lowest = float(lowest[-1])
        return np.asarray(~(costs >= lowest[:-1]) & ~np.isnan(costs))
