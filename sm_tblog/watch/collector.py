"""Compute statistics of the arrays of one log step, and copy all results to the host at once.

Where the statistics of an array are computed:

=======================  =========================================================================
PyTorch                  on its device, on the current stream. Small tensors are copied whole;
                         so are tensors in host memory that need a histogram
JAX, on a device         on the device, by one compiled function for all arrays
anything else            on the worker thread, from a copy, or from the array itself if it is
                         immutable
=======================  =========================================================================

The calling thread creates a ``StatisticsCollector``, adds arrays, gets a ``PendingStatistics`` for
each, and calls ``send``. After that, the worker thread can read them; reading waits for results
that have not arrived yet.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidTypeError
from sm_tblog.arrays.convert import resolve, snapshot, unreadable, unwrapped
from sm_tblog.arrays.deferred import Deferred, protocol
from sm_tblog.arrays.device_histogram import (
    DeviceTally,
    count_tensor,
    is_on_accelerator,
    maybe_tally,
)
from sm_tblog.watch.statistics import (
    MAX_UPDATE_SAMPLE,
    ROW,
    as_statistics,
    as_update_statistics,
    change_row,
    evenly,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from sm_tblog.rules.observation import Statistics, UpdateStatistics

__all__ = ["PendingStatistics", "PendingTensor", "StatisticsCollector"]

MAX_WHOLE_BYTES = 1 << 16
"""Size in bytes up to which a tensor is copied whole: one operation instead of a dozen."""

MAX_SPREAD_SAMPLE = 1 << 10
"""Number of evenly spaced elements from which percentiles are computed."""


class PendingStatistics:
    """Statistics of an array that may not have arrived yet.

    Args:
        statistics: returns the statistics; may wait.
        counted: returns the array, or its counts from a device, for a histogram; None for no
            histogram.
        sample: returns a sample of the elements; None for no sample.
    """

    def __init__(
        self,
        statistics: Callable[[], Statistics],
        counted: Callable[[], Any] | None = None,
        sample: Callable[[], npt.NDArray[Any]] | None = None,
    ) -> None:
        self._statistics = statistics
        self.counted = counted
        self.sample = sample
        self._cached: Statistics | None = None

    @property
    def statistics(self) -> Statistics:
        """The statistics of the array; may wait."""
        if self._cached is None:
            self._cached = self._statistics()
        return self._cached


class PendingTensor(NamedTuple):
    """An ``ObservedTensor`` whose values may not have arrived yet.

    Attributes:
        kind: as in ``ObservedTensor``.
        name: as in ``ObservedTensor``.
        ndim: as in ``ObservedTensor``.
        role: as in ``ObservedTensor``.
        pending: the statistics of the values; None if there are none.
        change: returns the statistics of an update; None for all other arrays.
        inactive: returns the share of inactive units; None if unknown.
        samples: the number of values per unit.
        skip: returns a number above 0 if the optimizer skipped the update that the tensor belongs
            to; None if it never does.
    """

    kind: str
    name: str
    ndim: int
    role: str = ""
    pending: PendingStatistics | None = None
    change: Callable[[], UpdateStatistics] | None = None
    inactive: Callable[[], float] | None = None
    samples: int = 0
    skip: Callable[[], float] | None = None


class StatisticsCollector:
    """Collects the statistics of all arrays of one log step.

    Args:
        histograms: whether to keep the values or counts that a histogram needs.
        spreads: whether to keep a sample of the elements, for percentiles.
    """

    def __init__(self, *, histograms: bool = False, spreads: bool = False) -> None:
        self._histograms = histograms
        self._spreads = spreads
        self._wanted = {"histogram": histograms, "spread": spreads}
        self._host_bytes = 0
        self._buffer: Any = None
        self._batches: dict[frozenset[Any], Any] = {}

    @property
    def nbytes(self) -> int:
        """The memory held by the pending statistics, in bytes."""
        return self._host_bytes + (self._buffer.nbytes if self._buffer else 0)

    def collect(self, values: Any, name: str) -> PendingStatistics | None:
        """Add an array; return its pending statistics, or None if it has no readable values.

        Args:
            values: real or complex numbers of any shape, dtype, library and device.
            name: the name of the array, for messages.

        Raises:
            InvalidTypeError: ``values`` is not an array of numbers.
        """
        values = unwrapped(values)
        how = protocol(values)
        if how == "torch":
            return self._collect_tensor(values)
        if how == "jax" and _is_on_device(values, name):
            return self._collect_jax(values, name)
        array = snapshot(values, name, kinds="biufc")
        self._host_bytes += array.nbytes
        return _host_statistics(partial(_as_real, array, name), **self._wanted)

    def compare(self, before: Any, update: Any, name: str) -> Callable[[], UpdateStatistics] | None:
        """Add an update; return a function that returns its statistics after ``send``.

        Args:
            before: the array before the update, or some of its elements.
            update: the difference that the update adds, of the same shape.
            name: the name of the array, for messages.

        Raises:
            InvalidTypeError: one of them is not an array of numbers, or their shapes differ.
        """
        before, update = unwrapped(before), unwrapped(update)
        shape, of_update = (tuple(getattr(one, "shape", ())) for one in (before, update))
        if shape != of_update:
            message = (
                f"{name!r}: an update must have the shape of the array, {shape}, got {of_update}"
            )
            raise InvalidTypeError(message)
        protocols = {protocol(before), protocol(update)}
        if protocols == {"torch"} and before.device == update.device:
            return self._compare_tensors(before, update)
        if protocols == {"jax"} and all(_is_on_device(one, name) for one in (before, update)):
            return self._batch(before).compare(before, update) if before.size else None
        old, step = (snapshot(one, name, kinds="biufc") for one in (before, update))
        self._host_bytes += old.nbytes + step.nbytes

        def change() -> UpdateStatistics:
            return as_update_statistics(change_row(_as_real(old, name), _as_real(step, name)))

        return change

    def fetch_number(self, number: Any) -> Callable[[], float]:
        """Add a PyTorch tensor with one number; return a function to read it after ``send``."""
        read = self._tensor_buffer().put(number)
        return lambda: float(read()[0])

    def pack(self) -> None:
        """Copy the tensors added so far on their devices; after that, they may change.

        Arrays of other libraries may change as soon as they are added.
        """
        if self._buffer is not None:
            self._buffer.pack()

    def send(self) -> None:
        """Start the copies to the host. Nothing can be added after that."""
        if self._buffer is not None:
            self._buffer.send()
        for batch in self._batches.values():
            self._host_bytes += batch.send()

    # PyTorch.

    def _tensor_buffer(self) -> Any:
        if self._buffer is None:
            from sm_tblog.watch.torch_statistics import TransferBuffer

            self._buffer = TransferBuffer()
        return self._buffer

    def _collect_tensor(self, given: Any) -> PendingStatistics | None:
        from sm_tblog.watch.torch_statistics import readable, tensor_rows

        tensor = readable(given)
        if tensor is None:
            return None
        zeros = given.numel() - tensor.numel() if given.is_sparse else 0
        if not tensor.numel():
            return PendingStatistics(partial(as_statistics, np.empty((0, ROW)), zeros))
        buffer = self._tensor_buffer()
        if tensor.nbytes <= MAX_WHOLE_BYTES or (tensor.is_cpu and self._histograms):
            read = buffer.put(_as_numpy_dtype(tensor))
            return _host_statistics(read, zeros, **self._wanted)
        rows = buffer.put(tensor_rows(tensor))
        counted = self._count(tensor) if self._histograms else None
        sample = None
        if self._spreads:
            sample = buffer.put(_as_numpy_dtype(evenly(tensor.reshape(-1), MAX_SPREAD_SAMPLE)))
        return PendingStatistics(
            lambda: as_statistics(rows().reshape(-1, ROW), zeros), counted, sample
        )

    def _count(self, tensor: Any) -> Callable[[], Any] | None:
        with contextlib.suppress(RuntimeError, TypeError):  # as in device_histogram
            read = self._buffer.put(count_tensor(tensor))
            size = tensor.numel()
            return lambda: DeviceTally([Deferred(read)], size)
        return None

    def _compare_tensors(self, before: Any, update: Any) -> Callable[[], UpdateStatistics] | None:
        from sm_tblog.watch.torch_statistics import readable, tensor_change

        old, step = readable(before), readable(update)
        if old is None or step is None or not old.numel() or old.shape != step.shape:
            return None
        old, step = (evenly(one.reshape(-1), MAX_UPDATE_SAMPLE) for one in (old, step))
        buffer = self._tensor_buffer()
        if old.nbytes <= MAX_WHOLE_BYTES:
            read_old, read_step = (buffer.put(_as_numpy_dtype(one)) for one in (old, step))
            return lambda: as_update_statistics(change_row(read_old(), read_step()))
        read = buffer.put(tensor_change(old, step))
        return lambda: as_update_statistics(read())

    # JAX.

    def _batch(self, array: Any) -> Any:
        from sm_tblog.watch.jax_statistics import JaxBatch

        return self._batches.setdefault(frozenset(array.devices()), JaxBatch())

    def _collect_jax(self, array: Any, name: str) -> PendingStatistics:
        if not array.size:
            return PendingStatistics(partial(as_statistics, np.empty((0, ROW))))
        rows = self._batch(array).add(array)
        counted = sample = None
        if self._histograms:
            tally = maybe_tally(array)
            source: Any = snapshot(array, name, kinds="biufc") if tally is None else tally
            self._host_bytes += source.nbytes
            counted = (lambda: source) if tally is not None else partial(_as_real, source, name)
        if self._spreads:
            some = snapshot(evenly(array.ravel(), MAX_SPREAD_SAMPLE), name, kinds="biufc")
            sample = partial(_as_real, some, name)
        return PendingStatistics(lambda: as_statistics(rows().reshape(1, ROW)), counted, sample)


def _host_statistics(
    read: Callable[[], npt.NDArray[Any]], zeros: int = 0, *, histogram: bool, spread: bool
) -> PendingStatistics:
    """Return pending statistics that the worker thread computes from an array in host memory."""
    return PendingStatistics(
        lambda: as_statistics(rows_of(read()), zeros),
        read if histogram else None,
        (lambda: evenly(read().ravel(), MAX_SPREAD_SAMPLE)) if spread else None,
    )


def _as_real(values: npt.NDArray[Any] | Deferred, name: str) -> npt.NDArray[Any]:
    """Return an array of real numbers; complex numbers become pairs of real ones."""
    array = resolve(values, name, "biufc")
    if array.dtype.kind != "c":
        return array
    return np.ascontiguousarray(array).view(array.real.dtype)


def _as_numpy_dtype(tensor: Any) -> Any:
    """Return a tensor with a dtype that NumPy supports: floats of up to 2 bytes become float32."""
    if not tensor.dtype.is_floating_point or tensor.element_size() > 2:
        return tensor
    return tensor.float()


def _is_on_device(array: Any, name: str) -> bool:
    """Return whether a JAX array is on an accelerator.

    Raises:
        InvalidTypeError: the array is being traced, or other processes hold parts of it.
    """
    try:
        return bool(is_on_accelerator(array))
    except Exception as error:
        raise unreadable(array, name, error) from error
