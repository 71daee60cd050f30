"""Distributions: histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.arrays.convert import as_number, snapshot
from sm_tblog.arrays.device_histogram import maybe_tally
from sm_tblog.arrays.sparse import stored_elements
from sm_tblog.summary import builder
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

        What is in host memory is copied, and the worker counts. With the default bins an array on
        an accelerator is counted there, and the counts travel; with others it travels itself.
        Neither waits for the device. The zeros that a sparse array does not store are counted. NaN
        and infinities are left out, and said once for the tag. An array without elements makes an
        empty histogram.

        Args:
            tag: the histogram's name, taken as it is.
            values: real numbers of any shape, dtype, library and device, sparse ones included, and
                nested lists of such. What is masked or missing is NaN.
            global_step: any integer; by default ``writer.step``.
            bins: ``"tensorflow"`` for TensorBoard's default buckets, otherwise what
                ``numpy.histogram`` takes: how many, their edges, or a name, which makes 16,384 at
                most. A sparse array takes no name.
            walltime: seconds since the epoch; by default now.
            max_bins: merge neighbours until there are no more than this.

        Raises:
            InvalidTypeError: the tag, step, bins or ``max_bins`` are of the wrong kind, or
                ``values`` not an array of real numbers.
            InvalidValueError: NumPy cannot make such bins, or ``max_bins`` is less than one.
        """
        if self._enabled:
            check_tag(tag)
            by_default = isinstance(bins, str) and bins == "tensorflow"
            elements, size = stored_elements(values, tag)
            if not by_default or max_bins is not None:
                from sm_tblog.summary.histogram import check_bins, check_max_bins

                bins = bins if by_default else check_bins(bins, tag, sparse=size is not None)
                check_max_bins(max_bins, tag)
            counted = maybe_tally(elements) if by_default else None
            what = snapshot(elements, tag) if counted is None else counted
            args = (what, bins, max_bins, size)
            self._put(tag, _build_histogram, args, global_step, walltime, what.nbytes)

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
        if self._enabled:
            from sm_tblog.summary.histogram import check_buckets

            check_tag(tag)
            limits, counts = snapshot(bucket_limits, tag), snapshot(bucket_counts, tag)
            check_buckets(limits, counts, tag)
            moments = [as_number(number, tag) for number in (min, max, num, sum, sum_squares)]
            nbytes = limits.nbytes + counts.nbytes
            args = (limits, counts, *moments)
            self._put(tag, _build_raw_histogram, args, global_step, walltime, nbytes)
