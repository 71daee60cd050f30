"""Histograms: how values are distributed."""

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
    """Methods that log histograms."""

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: str | int | Sequence[float] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Log a histogram of an array's values.

        An array in host memory is copied, and the worker thread counts its values. An array on an
        accelerator is counted there if the bins are the default ones, and only the counts are
        transferred; with other bins, the array itself is transferred. Neither waits for the device.
        Zeros that a sparse array does not store are counted. NaN and infinities are left out, with
        one warning per tag. An array without elements makes an empty histogram.

        Args:
            tag: the histogram's name, used as is.
            values: real numbers of any shape, dtype, library and device, including sparse arrays
                and nested lists. Masked and missing values are treated as NaN.
            global_step: any integer; by default ``writer.step``.
            bins: ``"tensorflow"`` for TensorBoard's default buckets, or for the ``default_bins``
                that were assigned to the writer; or what ``numpy.histogram``
                accepts: the number of bins, their edges, or the name of a method, which makes at
                most 16,384 bins. Names are not supported for sparse arrays.
            walltime: seconds since the epoch; by default now.
            max_bins: merge adjacent bins until at most this many are left; by default do not merge.

        Raises:
            InvalidTypeError: the tag, step, ``bins`` or ``max_bins`` has the wrong type, or
                ``values`` is not an array of real numbers.
            InvalidValueError: NumPy cannot make such bins, or ``max_bins`` is less than 1.
        """
        if self._enabled:
            check_tag(tag)
            is_default = isinstance(bins, str) and bins == "tensorflow"
            if is_default and "default_bins" in self.__dict__:
                bins, is_default = self.__dict__["default_bins"], False
            elements, size = stored_elements(values, tag)
            if not is_default or max_bins is not None:
                from sm_tblog.summary.histogram import check_bins, check_max_bins

                bins = bins if is_default else check_bins(bins, tag, sparse=size is not None)
                check_max_bins(max_bins, tag)
            tally = maybe_tally(elements) if is_default else None
            payload = snapshot(elements, tag) if tally is None else tally
            args = (payload, bins, max_bins, size)
            self._put(tag, _build_histogram, args, global_step, walltime, payload.nbytes)

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
            tag: the histogram's name, used as is.
            min: the smallest value.
            max: the largest value.
            num: the number of values.
            sum: the sum of the values.
            sum_squares: the sum of the squares of the values.
            bucket_limits: the right edges of the buckets; shape (buckets,). If they do not ascend,
                the buckets are sorted by them.
            bucket_counts: the number of values in each bucket; shape (buckets,).
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: the numbers of limits and counts differ, or a limit is NaN.
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
