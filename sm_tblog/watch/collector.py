"""Compute statistics of the arrays of one log step, and copy all results to the host at once.

Where the statistics of an array are computed:

=======================  =========================================================================
PyTorch                  on its device, on the current stream. Small tensors are copied as they
                         are; so are tensors in host memory of which a histogram is wanted
JAX, on a device         on the device, by one compiled function for all arrays
anything else            on the worker thread: from a copy, or from the array itself if it cannot
                         change
=======================  =========================================================================

The calling thread makes a ``StatisticsCollector``, adds arrays, gets a ``PendingStatistics`` for
each, and calls ``send``. From then on the worker thread may read them; reading waits for results
that have not arrived.
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
    ROW,
    SAMPLE,
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

SMALL = 1 << 16
"""Bytes up to which a tensor travels as it is: that is one thing to do, not a dozen."""

SPREAD = 1 << 10
"""Elements of which percentiles are taken: evenly spaced ones."""


class PendingStatistics:
    """What will be known of an array.

    Args:
        statistics: returns the array's; may wait.
        counted: the array or a device's count of it, for a histogram; None if there is none.
        sample: returns some of the elements; None if there are none.
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
        self._known: Statistics | None = None

    @property
    def statistics(self) -> Statistics:
        """The array's statistics."""
        if self._known is None:
            self._known = self._statistics()
        return self._known


class PendingTensor(NamedTuple):
    """A ``ObservedTensor`` that the worker will know.

    Attributes:
        kind: as in ``ObservedTensor``.
        name: the same.
        ndim: the same.
        role: the same.
        pending: of its values.
        change: tells what an update does.
        inactive: tells the share of inactive units.
        samples: how many values of each unit there are.
    """

    kind: str
    name: str
    ndim: int
    role: str = ""
    pending: PendingStatistics | None = None
    change: Callable[[], UpdateStatistics] | None = None
    inactive: Callable[[], float] | None = None
    samples: int = 0


class StatisticsCollector:
    """The arrays of one log step.

    Args:
        histograms: whether pending statistics shall have what makes a histogram.
        spreads: whether pending statistics shall have a sample.
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
        """The memory that pending statistics keep."""
        return self._host_bytes + (self._buffer.nbytes if self._buffer else 0)

    def collect(self, values: Any, name: str) -> PendingStatistics | None:
        """Return what will be known of an array; None if it has no numbers.

        Args:
            values: real or complex numbers of any shape, dtype, library and device.
            name: of the array, for messages.

        Raises:
            InvalidTypeError: it is not an array of numbers.
        """
        values = unwrapped(values)
        how = protocol(values)
        if how == "torch":
            return self._collect_tensor(values)
        if how == "jax" and _is_on_device(values, name):
            return self._collect_jax(values, name)
        array = snapshot(values, name, kinds="biufc")
        self._host_bytes += array.nbytes
        return _host_reading(partial(_as_real, array, name), **self._wanted)

    def compare(self, before: Any, update: Any, name: str) -> Callable[[], UpdateStatistics] | None:
        """Return what tells, after ``send``, how an update changes an array.

        Args:
            before: the array without the update, or elements of it.
            update: what is added to it, of the same shape.
            name: of the array, for messages.

        Raises:
            InvalidTypeError: one is not an array of numbers, or their shapes differ.
        """
        before, update = unwrapped(before), unwrapped(update)
        shape, of_update = (tuple(getattr(one, "shape", ())) for one in (before, update))
        if shape != of_update:
            message = f"{name!r}: an update has the shape of the array, got {of_update} for {shape}"
            raise InvalidTypeError(message)
        hows = {protocol(before), protocol(update)}
        if hows == {"torch"} and before.device == update.device:
            return self._compare_tensors(before, update)
        if hows == {"jax"} and all(_is_on_device(one, name) for one in (before, update)):
            return self._batch(before).compare(before, update) if before.size else None
        old, step = (snapshot(one, name, kinds="biufc") for one in (before, update))
        self._host_bytes += old.nbytes + step.nbytes

        def change() -> UpdateStatistics:
            return as_update_statistics(change_row(_as_real(old, name), _as_real(step, name)))

        return change

    def share(self, share: Any) -> Callable[[], float]:
        """Return what tells, after ``send``, a number that is on a device of PyTorch."""
        take = self._tensor_buffer().put(share)
        return lambda: float(take()[0])

    def pack(self) -> None:
        """Let what was added change from now on. Other libraries' arrays may at once."""
        if self._buffer is not None:
            self._buffer.pack()

    def send(self) -> None:
        """Have everything travel. Nothing can be added any more."""
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
        if tensor.nbytes <= SMALL or (tensor.is_cpu and self._histograms):
            take = buffer.put(_of_numpys_kind(tensor))
            return _host_reading(take, zeros, **self._wanted)
        rows = buffer.put(tensor_rows(tensor))
        counted = self._count(tensor) if self._histograms else None
        sample = None
        if self._spreads:
            sample = buffer.put(_of_numpys_kind(evenly(tensor.reshape(-1), SPREAD)))
        return PendingStatistics(
            lambda: as_statistics(rows().reshape(-1, ROW), zeros), counted, sample
        )

    def _count(self, tensor: Any) -> Callable[[], Any] | None:
        with contextlib.suppress(RuntimeError, TypeError):  # as in device_histogram
            take = self._buffer.put(count_tensor(tensor))
            size = tensor.numel()
            return lambda: DeviceTally([Deferred(take)], size)
        return None

    def _compare_tensors(self, before: Any, update: Any) -> Callable[[], UpdateStatistics] | None:
        from sm_tblog.watch.torch_statistics import readable, tensor_change

        old, step = readable(before), readable(update)
        if old is None or step is None or not old.numel() or old.shape != step.shape:
            return None
        old, step = (evenly(one.reshape(-1), SAMPLE) for one in (old, step))
        buffer = self._tensor_buffer()
        if old.nbytes <= SMALL:
            was, given = (buffer.put(_of_numpys_kind(one)) for one in (old, step))
            return lambda: as_update_statistics(change_row(was(), given()))
        take = buffer.put(tensor_change(old, step))
        return lambda: as_update_statistics(take())

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
            what: Any = snapshot(array, name, kinds="biufc") if tally is None else tally
            self._host_bytes += what.nbytes
            counted = (lambda: what) if tally is not None else partial(_as_real, what, name)
        if self._spreads:
            some = snapshot(evenly(array.ravel(), SPREAD), name, kinds="biufc")
            sample = partial(_as_real, some, name)
        return PendingStatistics(lambda: as_statistics(rows().reshape(1, ROW)), counted, sample)


def _host_reading(
    take: Callable[[], npt.NDArray[Any]], zeros: int = 0, *, histogram: bool, spread: bool
) -> PendingStatistics:
    """Return what the worker will find out of an array in host memory."""
    return PendingStatistics(
        lambda: as_statistics(rows_of(take()), zeros),
        take if histogram else None,
        (lambda: evenly(take().ravel(), SPREAD)) if spread else None,
    )


def _as_real(values: npt.NDArray[Any] | Deferred, name: str) -> npt.NDArray[Any]:
    """Return an array of real numbers, complex ones as pairs of such."""
    array = resolve(values, name, "biufc")
    if array.dtype.kind != "c":
        return array
    return np.ascontiguousarray(array).view(array.real.dtype)


def _of_numpys_kind(tensor: Any) -> Any:
    """Return a tensor of a dtype that NumPy has, float32 for the small ones that it has not."""
    if not tensor.dtype.is_floating_point or tensor.element_size() > 2:
        return tensor
    return tensor.float()


def _is_on_device(array: Any, name: str) -> bool:
    """Return whether a JAX array is on an accelerator.

    Raises:
        InvalidTypeError: it is being traced, or other processes hold parts of it.
    """
    try:
        return bool(is_on_accelerator(array))
    except Exception as error:
        raise unreadable(array, name, error) from error
