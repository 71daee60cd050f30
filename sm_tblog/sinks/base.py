"""What a sink is, what it is given, and how one is found by its name.

A sink takes batches: scalars as columns, and everything richer as built values. It has no method
for a data type, so that a new type changes no sink. Anything callable with a batch is a sink too.
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
    """A whole event that is not a summary: a graph, a session mark, run metadata.

    Attributes:
        run: the folder below the log folder.
        data: a serialized ``Event``.
    """

    run: str
    data: bytes


class File(NamedTuple):
    """A side file: what TensorBoard's plugins read beside event files.

    Attributes:
        run: the folder below the log folder.
        name: a relative path below that folder.
        data: what the file is to hold; or a function from what it holds, None where there is no
            such file, to that.
    """

    run: str
    name: str
    data: bytes | Callable[[bytes | None], bytes]


class Batch(NamedTuple):
    """What a sink is given: what was logged between two ticks of the worker.

    Attributes:
        series: the curves that occur.
        codes: for each scalar, in the order logged, the position of its curve in ``series``;
            shape (n,).
        steps: int64, shape (n,).
        wall_times: seconds since the epoch; float64, shape (n,).
        scalars: the values; float64, shape (n,).
        values: everything that is more than a number.
        events: whole events other than summaries.
        files: side files, in the order in which they are to be written.
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
    """A place for batches. Used by one thread at a time.

    A sink that raises has either kept what it was given, to try again at the next ``write`` or
    ``flush``, or lost it: it is not given the same batch twice. One that keeps says how much in an
    attribute ``pending``, in bytes, and is given nothing more while that is above the writer's
    ``max_bytes``. A sink may have an attribute ``flush_secs``, how often it wants ``flush`` to be
    called. After ``close``, a further ``write`` reopens it. A method ``reset_after_fork`` is called
    in a forked child, where it must not touch what the parent has opened.
    """

    def write(self, batch: Batch) -> None:
        """Take a batch."""
        ...

    def flush(self) -> None:
        """Return when everything taken is where its reader can see it."""
        ...

    def close(self) -> None:
        """Flush and let go of every resource. Closing twice does nothing."""
        ...


class FunctionSink:
    """A function called with each batch, as a sink."""

    def __init__(self, function: Callable[[Batch], object]) -> None:
        self._function = function

    def __str__(self) -> str:
        """Return the function's name."""
        return f"{self._function!r}"

    def write(self, batch: Batch) -> None:
        """Call the function."""
        self._function(batch)

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def as_sink(sink: object) -> Sink:
    """Return a sink or a function as a sink.

    Raises:
        InvalidTypeError: it is neither.
    """
    if isinstance(sink, Sink) and not isinstance(sink, type):
        return sink
    if callable(sink) and not isinstance(sink, type):
        return FunctionSink(sink)
    message = (
        f"a sink is a name, a function of a batch, or an object with write, flush and close; "
        f"got {sink!r}"
    )
    raise InvalidTypeError(message)


def open_sink(name: str, logdir: str, **options: Any) -> Sink:
    """Return a new sink by its name: ours, or one of the entry-point group ``sm_tblog.sinks``.

    A factory is called as ``factory(logdir, filename_suffix=…, purge_step=…, storage_options=…)``
    and takes further keywords that later releases may pass.

    Raises:
        InvalidValueError: no sink has that name.
        MissingDependencyError: the sink needs a package that is not installed.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    else:
        from importlib import metadata  # takes as long to import as half of NumPy

        found = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
        if name not in found:
            known = ", ".join(sorted({*_BUILT_IN, *found}))
            message = f"no sink is called {name!r}; there are: {known}"
            raise InvalidValueError(message)
        try:
            factory = found[name].load()
        except ImportError as error:
            message = f"the sink {name!r} needs a package that is not installed: {error}"
            raise MissingDependencyError(message) from error
    return as_sink(factory(logdir, **options))
