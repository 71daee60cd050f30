"""The interface of sinks, the batches they receive, and how to open a sink by name.

A sink receives batches: scalars as columns, and anything richer as built values. It has no methods
for individual data types, so adding a type does not change any sink. A function that takes a batch
is also a sink.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sm_tblog._types import Float64Array, IndexArray, Int64Array, Series, Value

__all__ = ["Batch", "Event", "File", "FunctionSink", "Sink", "as_sink", "open_sink"]

ENTRY_POINTS = "sm_tblog.sinks"

_BUILT_IN = {
    "events": "sm_tblog.sinks.event_file:EventFileSink",
    "jsonl": "sm_tblog.sinks.json_lines:JsonLinesSink",
    "console": "sm_tblog.sinks.console:ConsoleSink",
}


class Event(NamedTuple):
    """A complete event that is not a summary: a graph, a session log, or run metadata.

    Attributes:
        run: the folder below the log directory.
        data: a serialized ``Event`` message; ``b""`` only makes the run's event file exist.
    """

    run: str
    data: bytes


class File(NamedTuple):
    """A side file, which TensorBoard's plugins read beside the event files.

    Attributes:
        run: the folder below the log directory.
        name: the path of the file, relative to that folder.
        data: the new content of the file; or a function that takes the current content (None if
            there is no such file) and returns the new content.
    """

    run: str
    name: str
    data: bytes | Callable[[bytes | None], bytes]


class Batch(NamedTuple):
    """The data that a sink receives: what was logged between two ticks of the worker thread.

    Attributes:
        series: the distinct curves in this batch.
        codes: for each scalar, in the order logged, the index of its curve in ``series``;
            shape (n,).
        steps: global steps; int64, shape (n,).
        wall_times: seconds since the epoch; float64, shape (n,).
        scalars: the values; float64, shape (n,).
        values: the built values of everything richer than a number.
        events: complete events that are not summaries.
        files: side files, in the order in which they must be written.
    """

    series: Sequence[Series]
    codes: IndexArray
    steps: Int64Array
    wall_times: Float64Array
    scalars: Float64Array
    values: Sequence[Value] = ()
    events: Sequence[Event] = ()
    files: Sequence[File] = ()

    def rows(self) -> Iterator[tuple[Series, int, float, float]]:
        """Iterate over the scalars as ``(series, step, wall_time, value)``."""
        columns = (self.codes, self.steps, self.wall_times, self.scalars)
        for i, step, wall_time, value in zip(*(c.tolist() for c in columns), strict=True):
            yield self.series[i], step, wall_time, value


@runtime_checkable
class Sink(Protocol):
    """A destination for batches. Only one thread uses it at a time.

    A sink never receives the same batch twice: one that raises either keeps the batch, and tries
    again at the next ``write`` or ``flush``, or loses it. A sink that keeps data reports the number
    of bytes in an attribute ``pending``, and receives no further batches while that is above the
    writer's ``max_bytes``. A sink may have an attribute ``flush_secs``: the seconds between calls
    of ``flush`` that it asks for. After ``close``, another ``write`` reopens it. It may count the
    rows and values that it has lost for good in an attribute ``dropped``. If it has a method
    ``reset_after_fork``, that is called in a forked child, where it must not touch what the parent
    has opened. ``Writer.event_files`` asks each sink that has a method ``event_files(run)`` for the
    paths or URLs of a run's event files.
    """

    def write(self, batch: Batch) -> None:
        """Write a batch, or keep it for a later attempt."""
        ...

    def flush(self) -> None:
        """Return once readers can see everything written so far."""
        ...

    def close(self) -> None:
        """Flush, and release all resources. Closing twice does nothing."""
        ...


class FunctionSink:
    """A sink that calls a function with each batch."""

    def __init__(self, function: Callable[[Batch], object]) -> None:
        self._function = function

    def __str__(self) -> str:
        """Return the function's representation."""
        return f"{self._function!r}"

    def write(self, batch: Batch) -> None:
        """Call the function."""
        self._function(batch)

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def as_sink(sink: object) -> Sink:
    """Return a sink unchanged, or wrap a function as a sink.

    Raises:
        InvalidTypeError: the argument is neither.
    """
    if isinstance(sink, Sink) and not isinstance(sink, type):
        return sink
    if callable(sink) and not isinstance(sink, type):
        return FunctionSink(sink)
    message = (
        f"a sink must be a name, a function that takes a batch, or an object with write, flush "
        f"and close; got {sink!r}"
    )
    raise InvalidTypeError(message)


def open_sink(name: str, logdir: str, **options: Any) -> Sink:
    """Return a new sink by name: a built-in, or one of the entry-point group ``sm_tblog.sinks``.

    A factory is called as ``factory(logdir, filename_suffix=…, purge_step=…, storage_options=…)``
    and must accept further keywords, which later releases may pass.

    Raises:
        InvalidValueError: there is no sink with that name.
        MissingDependencyError: the sink needs a package that is not installed.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    else:
        from importlib import metadata  # its import takes half as long as NumPy's

        found = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
        if name not in found:
            known = ", ".join(sorted({*_BUILT_IN, *found}))
            message = f"no sink is called {name!r}; known sinks: {known}"
            raise InvalidValueError(message)
        try:
            factory = found[name].load()
        except ImportError as error:
            message = f"the sink {name!r} needs a package that is not installed: {error}"
            raise MissingDependencyError(message) from error
    return as_sink(factory(logdir, **options))
