"""A ``FileWriter`` that accepts protocol buffer messages, like that of torch and tensorboardX.

Frameworks access it through their writer's ``_get_file_writer()``. Messages may be of any class,
from TensorFlow, tensorboard or tensorboardX, because only their serialized bytes are used.
"""

from __future__ import annotations

import os
from itertools import chain
from time import time
from typing import TYPE_CHECKING, Any

from sm_tblog._compilation import uncompiled
from sm_tblog._errors import InvalidTypeError
from sm_tblog._types import Value
from sm_tblog.arrays.convert import as_step
from sm_tblog.pipeline.batching import Item
from sm_tblog.sinks.base import Event
from sm_tblog.storage.base import scheme_of
from sm_tblog.writer.arguments import as_wall_time
from sm_tblog.writer.naming import with_public_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.pipeline.disabled import DisabledPipeline
    from sm_tblog.pipeline.run_view import RunView
    from sm_tblog.pipeline.worker import Pipeline

__all__ = ["EventWriter", "FileWriter", "find_event_files"]


@uncompiled
@with_public_names
class FileWriter:
    """Logs events and summaries that are protocol buffer messages.

    Args:
        pipeline: receives the messages.
        logdir: the log directory.
        sinks: the sinks of the pipeline.
        step: the step of summaries that have none.
        clock: returns the default wall time, in seconds since the epoch.
    """

    def __init__(
        self,
        pipeline: Pipeline | RunView | DisabledPipeline,
        logdir: str,
        sinks: Sequence[Any] = (),
        step: int = 0,
        clock: Callable[[], float] = time,
    ) -> None:
        self._pipeline = pipeline
        self._sinks = sinks
        self._logdir = logdir
        self._step = step
        self._clock = clock

    @property
    def event_writer(self) -> EventWriter:
        """An ``EventWriter``, like that of torch's and tensorboardX's file writers."""
        return EventWriter(self)

    def get_logdir(self) -> str:
        """Return the log directory, a path or URL."""
        return self._logdir

    def event_files(self) -> list[str]:
        """Return the event files of this log directory; see ``Writer.event_files``."""
        return list(chain.from_iterable(find_event_files(self._pipeline, self._sinks)))

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        """Log a whole ``Event``.

        Args:
            event: an ``Event`` message of any class, or its bytes.
            step: replaces the event's own step.
            walltime: seconds since the epoch; by default now. Replaces the event's own time.

        Raises:
            InvalidTypeError: ``event`` is not a message.
        """
        data = _serialize(event, "Event")
        now = self._as_time(walltime)
        own_step = None if step is None else as_step(step, "step")
        item = Item("", "event", own_step or 0, now, len(data), _build_event, (data, own_step, now))
        # A session mark separates the data logged before it from the data logged after it. Scalars
        # and events are buffered in separate lists, so barriers on both sides keep the order.
        read_kind = getattr(event, "WhichOneof", lambda _: "session_log")
        is_session_mark = read_kind("what") == "session_log"
        if is_session_mark:
            self._pipeline.flush()
        self._pipeline.put(item)
        if is_session_mark:
            self._pipeline.flush()

    def add_summary(
        self, summary: Any, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """Log every value of a ``Summary``.

        Args:
            summary: a ``Summary`` message of any class, or its bytes.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: ``summary`` is not a message.
        """
        data = _serialize(summary, "Summary")
        now = self._as_time(walltime)
        step = self._step if global_step is None else as_step(global_step, "global_step")
        self._pipeline.put(
            Item("", "summary", step, now, len(data), _build_summary, (data, step, now))
        )

    def add_graph(self, graph_profile: Any, walltime: float | None = None) -> None:
        """Log a ``GraphDef`` and its run metadata.

        Args:
            graph_profile: a pair of messages of any class: the graph, and ``RunMetadata``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: it is not a pair of messages.
        """
        graph, metadata = (_serialize(part, "GraphDef and RunMetadata") for part in graph_profile)
        self._add_built(_build_graph, (graph, metadata), walltime)

    def add_onnx_graph(self, graph: Any, walltime: float | None = None) -> None:
        """Log a ``GraphDef``.

        Args:
            graph: a message of any class.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: ``graph`` is not a message.
        """
        self._add_built(_build_graph, (_serialize(graph, "GraphDef"), None), walltime)

    def _add_built(self, build: Any, args: tuple[Any, ...], walltime: float | None) -> None:
        now = self._as_time(walltime)
        nbytes = sum(len(part) for part in args if part)
        self._pipeline.put(Item("", "graph", 0, now, nbytes, build, (*args, now)))

    def _as_time(self, walltime: float | None) -> float:
        return self._clock() if walltime is None else as_wall_time(walltime)

    def flush(self) -> None:
        """Wait until everything logged so far is stored."""
        self._pipeline.flush()

    def close(self) -> None:
        """Store everything and close the files."""
        self._pipeline.close()

    def reopen(self) -> None:
        """Do nothing: logging after ``close`` starts a new file automatically."""


class EventWriter:
    """The part of a ``FileWriter`` that writes, as torch and tensorboardX have it.

    Scripts reach into it for the path of the event file: ``event_writer._file_name`` in PyTorch,
    ``event_writer._ev_writer._file_name`` in tensorboardX. Use ``Writer.event_files`` instead.

    Args:
        writer: the ``FileWriter``.
    """

    def __init__(self, writer: FileWriter) -> None:
        self._writer = writer

    @property
    def _ev_writer(self) -> EventWriter:
        return self

    @property
    def _file_name(self) -> str:
        """The path or URL of the file that grows; ``""`` if the writer writes no event files."""
        writer = self._writer
        found = find_event_files(writer._pipeline, writer._sinks)  # noqa: SLF001 - a part of it
        return next((files[-1] for files in found if files), "")

    def get_logdir(self) -> str:
        """Return the log directory, a path or URL."""
        return self._writer.get_logdir()

    def add_event(self, event: Any) -> None:
        """Log a whole ``Event``, with its own step and wall time.

        Args:
            event: an ``Event`` message of any class.

        Raises:
            InvalidTypeError: ``event`` is not a message.
        """
        self._writer.add_event(event, walltime=getattr(event, "wall_time", 0) or None)

    def flush(self) -> None:
        """Wait until everything logged so far is stored."""
        self._writer.flush()

    def close(self) -> None:
        """Store everything and close the files."""
        self._writer.close()

    def reopen(self) -> None:
        """Do nothing: logging after ``close`` starts a new file automatically."""


def find_event_files(
    pipeline: Pipeline | RunView | DisabledPipeline, sinks: Sequence[Any]
) -> list[list[str]]:
    """Return the paths or URLs of each sink's event files in the pipeline's run.

    Everything logged before is stored then, and each list has at least one file. Files that were
    deleted are left out.

    Raises:
        TBLogError: with ``on_error="raise"``, the first failure since the last barrier.
    """
    run = getattr(pipeline, "run", "")
    asked = [sink.event_files for sink in sinks if hasattr(sink, "event_files")]
    pipeline.flush()
    if not all(any(map(_exists, event_files(run))) for event_files in asked):
        pipeline.put(Item("", "event file", 0, time(), 0, _build_start, ()))
        pipeline.flush()
    found = []
    for event_files in asked:
        files = event_files(run)
        # If the store does not accept the file yet, this is the path that it is going to have.
        found.append([path for path in files if _exists(path)] or files[-1:])
    return found


def _exists(path: str) -> bool:
    return scheme_of(path) != "file" or os.path.lexists(path)


def _build_start(_: str) -> list[Event]:
    return [Event("", b"")]


def _serialize(message: Any, kind: str) -> bytes:
    if isinstance(message, bytes):
        return message
    try:
        data: bytes = message.SerializeToString()
    except AttributeError as error:
        text = f"{kind}: expected a protocol buffer message, got {type(message).__name__}"
        raise InvalidTypeError(text) from error
    return data


def _build_event(_: str, data: bytes, step: int | None, wall_time: float) -> list[Any]:
    from sm_tblog.format import schema

    event = schema.Event.FromString(data)
    event.wall_time = wall_time
    if step is not None:
        event.step = step
    if event.WhichOneof("what") == "summary":
        return _values(event.summary, event.step, wall_time)
    return [Event("", event.SerializeToString())]


def _build_summary(_: str, data: bytes, step: int, wall_time: float) -> list[Any]:
    from sm_tblog.format import schema

    return _values(schema.Summary.FromString(data), step, wall_time)


def _values(summary: Any, step: int, wall_time: float) -> list[Any]:
    from sm_tblog.format import schema

    return [
        Value(
            "",
            step,
            wall_time,
            value.SerializeToString(),
            value.tag,
            schema.maybe_plugin(value),
        )
        for value in summary.value
    ]


def _build_graph(_: str, graph: bytes, metadata: bytes | None, wall_time: float) -> list[Any]:
    from sm_tblog.format import schema

    events = [schema.Event(wall_time=wall_time, graph_def=graph)]
    if metadata is not None:
        events.append(schema.Event(wall_time=wall_time))
        events[1].tagged_run_metadata.tag = "step1"
        events[1].tagged_run_metadata.run_metadata = metadata
    return [Event("", event.SerializeToString()) for event in events]
