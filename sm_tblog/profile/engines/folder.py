"""The common part of the JAX and TensorFlow engines: merging a session that a profiler writes.

Device planes are copied as they are, with shifted times. Events on the host are added to this
library's host plane, because viewers show only one. The profiler numbers its lines by its own
scheme. To identify the thread that starts and stops it, that thread records a mark; its events then
appear inside its steps and spans. Calls of Python functions, if recorded, go to separate lines,
because they may begin outside a span and end in it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from sm_tblog._errors import InvalidValueError
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile.formats.xspace import HOST_PLANE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from sm_tblog.profile.formats.xspace import Line, Space

__all__ = ["FolderEngine", "add_session"]

_MARK, _THREAD_ID = "sm_tblog", "native_id"
_ENVIRONMENT = "Task Environment"


class FolderEngine:
    """An engine for a profiler that writes sessions.

    Args:
        name: the name of the profiler, for messages.
        start: starts the profiler; its argument is the folder for the session.
        stop: stops the profiler, which then writes the session.
        annotate: returns a span of the profiler; its arguments are a name and values.
        start_error: the exception that ``start`` raises if the profiler cannot start.

    Attributes:
        is_in_use: returns whether the script uses the framework. It may have been imported by
            another package only.
    """

    warms_up = True

    def __init__(
        self,
        name: str,
        start: Callable[[str], object],
        stop: Callable[[], object],
        annotate: Callable[..., AbstractContextManager[Any]],
        start_error: type[Exception],
    ) -> None:
        self.name = name
        self.is_in_use: Callable[[], bool] = lambda: True
        self._start = start
        self._stop = stop
        self._annotate = annotate
        self._start_error = start_error
        self._folder = ""

    def start(self) -> None:
        """Start recording."""
        self._folder = tempfile.mkdtemp(prefix="sm_tblog-")
        # If another engine fails to start, the session never exports.
        self._cleanup = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        try:
            self._start(self._folder)
        except self._start_error as error:
            message = f"profile: {self.name} cannot start: {error}"
            raise InvalidValueError(message) from error
        with self._annotate(_MARK, **{_THREAD_ID: threading.get_native_id()}):
            pass

    def stop(self) -> None:
        """Stop recording."""
        self._stop()

    def export(self, space: Space) -> Mapping[str, bytes] | None:
        """Add the records to a session."""
        try:
            files = sorted(Path(self._folder).glob("plugins/profile/*/*.xplane.pb"))
            for file in files:
                try:
                    add_session(file.read_bytes(), space)
                except Exception as error:  # noqa: BLE001, PERF203 - the other hosts' are kept
                    space.warnings.append(f"{self.name}: {file.name} was left out: {error}")
            if not files:
                space.warnings.append(f"{self.name} wrote no session")
        finally:
            self._cleanup()
        return None


def add_session(data: bytes, space: Space) -> None:
    """Add a session that another profiler has written, without events before ``space.begin_ns``.

    Args:
        data: a serialized ``XSpace``.
        space: the session to add it to.

    Raises:
        InvalidValueError: the data are not a session.
    """
    try:
        found = XSpace.FromString(data)
    except DecodeError as error:
        message = f"not a profile of {len(data):,} bytes: {error}"
        raise InvalidValueError(message) from error
    begin = _begin_of(found)
    for plane in found.planes:
        if plane.name == HOST_PLANE:
            _add_host(plane, begin, space)
        elif plane.name != _ENVIRONMENT:
            space.include(plane, begin)
    space.warnings.extend((*found.errors, *found.warnings))


def _begin_of(found: Any) -> int:
    """Return the time to which a session's times are relative, in nanoseconds since the epoch."""
    for plane in found.planes:
        if plane.name == _ENVIRONMENT:
            for name, value in _named_stats(plane, plane.stats):
                if name == "profile_start_time":
                    return int(value)
    return 0


def _add_host(plane: Any, begin: int, space: Space) -> None:
    ours = space.plane(HOST_PLANE)
    names = {number: metadata.name for number, metadata in plane.event_metadata.items()}
    for line in plane.lines:
        name = line.display_name or line.name
        thread = _marked_thread(plane, line, names)
        operations = ours.line(name, line.id if thread is None else thread)
        functions: Line | None = None
        for event in line.events:
            at = begin + line.timestamp_ns + event.offset_ps // 1000
            event_name = names.get(event.metadata_id, "")
            if not space.can_hold(at) or event_name == _MARK:
                continue
            target = operations
            if event_name.startswith("$"):
                functions = functions or ours.line(f"{name} Python", ~line.id)
                target = functions
            stats = dict(_named_stats(plane, event.stats))
            target.event(event_name, at, event.duration_ps // 1000, stats)


def _marked_thread(plane: Any, line: Any, names: Mapping[int, str]) -> int | None:
    """Return the native id of the thread that recorded the mark on a line, None without a mark."""
    for event in line.events:
        if names.get(event.metadata_id) == _MARK:
            for name, value in _named_stats(plane, event.stats):
                if name == _THREAD_ID:
                    return int(value)
    return None


def _named_stats(plane: Any, stats: Any) -> Iterator[tuple[str, Any]]:
    """Iterate over the names and values of stats. An unknown name is an empty one."""
    for stat in stats:
        kind = stat.WhichOneof("value")
        if kind is not None:
            value = getattr(stat, kind)
            if kind == "ref_value":
                value = _stat_name(plane, value)
            yield _stat_name(plane, stat.metadata_id), value


def _stat_name(plane: Any, number: int) -> str:
    return str(plane.stat_metadata[number].name) if number in plane.stat_metadata else ""
