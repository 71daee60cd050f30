"""Distributions: histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.summary import builder
from sm_tblog.summary.convert import as_number, snapshot
from sm_tblog.writer.arguments import check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DistributionMethods"]

_build_histogram = builder("histogram.histogram_value")
_build_raw_histogram = builder("histogram.raw_histogram_value")


class DistributionMethods(BaseWriter):
    """What logs how values are distributed."""

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: str | int | Sequence[float] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Log how an array's values are distributed.

        The array is copied, on its own device; counting is the worker's. NaN and infinities are
        left out, and said once for the tag. An array without elements makes an empty histogram.

        Args:
            tag: the histogram's name, taken as it is.
            values: real numbers of any shape, dtype, library and device.
            global_step: any integer; by default ``writer.step``.
            bins: ``"tensorflow"`` for TensorBoard's default buckets, otherwise what
                ``numpy.histogram`` takes.
            walltime: seconds since the epoch; by default now.
            max_bins: with NumPy's bins, merge neighbours until there are no more than this.

        Raises:
            InvalidTypeError: the tag, step or bins are of the wrong kind, or ``values`` not an
                array of real numbers.
            InvalidValueError: NumPy cannot make such bins.
        """
        if self._enabled:
            check_tag(tag)
            if not (isinstance(bins, str) and bins == "tensorflow"):
                from sm_tblog.summary.histogram import check_bins

                check_bins(bins, tag)
            array = snapshot(values, tag)
            self._put(
                tag,
                _build_histogram,
                (array, bins, max_bins),
                global_step,
                walltime,
                array.nbytes,
            )

    def add_histogram_raw(
        self,
        tag: str,
        min: float,
        max: float,
        num: float,
        sum: float,
        sum_squares: float,
        bucket_limits: Any,
        bucket_counts: Any,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log a histogram that was counted elsewhere.

        Args:
            tag: the histogram's name, taken as it is.
            min: the smallest value.
            max: the largest value.
            num: how many values.
            sum: of the values.
            sum_squares: of the values.
            bucket_limits: right edges, ascending; shape (buckets,).
            bucket_counts: shape (buckets,).
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: there are not as many limits as counts, or they do not ascend.
        """
        from sm_tblog.summary.histogram import check_buckets

        limits, counts = snapshot(bucket_limits, tag), snapshot(bucket_counts, tag)
        check_buckets(limits, counts, tag)
        moments = [as_number(number, tag) for number in (min, max, num, sum, sum_squares)]
        args = (limits, counts, *moments)
        self._put(tag, _build_raw_histogram, args, global_step, walltime)
