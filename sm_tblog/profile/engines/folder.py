"""What JAX's and TensorFlow's profilers have in common: each writes a session of its own.

Theirs is made part of ours. Planes of devices are taken as they are, with their times shifted. What
ran on the host goes to our plane of the host: viewers look at one such plane. Their lines are known
by numbers of their own, so the thread that starts and stops the profiler is found by a mark that it
leaves there; what it did stands inside its steps and spans. Calls of Python functions, if recorded,
have lines of their own, for they begin outside a span and end in it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile.formats.xspace import HOST_PLANE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from sm_tblog.profile.formats.xspace import Line, Space

__all__ = ["FolderEngine", "add_session"]

_MARK, _THREAD = "sm_tblog", "native_id"
_ENVIRONMENT = "Task Environment"


class FolderEngine:
    """An engine over a profiler that writes sessions.

    Args:
        name: the profiler's, for messages.
        start: starts it, given a folder.
        stop: stops it, and has it write.
        annotate: returns a span of the profiler's, given a name and values.
        refuses: what ``start`` raises if it cannot.

    Attributes:
        is_in_use: whether the script does anything with the framework. Others import it as well.
    """

    warms_up = True

    def __init__(
        self,
        name: str,
        start: Callable[[str], object],
        stop: Callable[[], object],
        annotate: Callable[..., AbstractContextManager[Any]],
        refuses: type[Exception],
    ) -> None:
        self.name = name
        self.is_in_use: Callable[[], bool] = lambda: True
        self._start = start
        self._stop = stop
        self._annotate = annotate
        self._refuses = refuses
        self._folder = ""

    def start(self) -> None:
        """Begin to record."""
        self._folder = tempfile.mkdtemp(prefix="sm_tblog-")
        # A session that another engine keeps from opening exports nothing.
        self._clean = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        try:
            self._start(self._folder)
        except self._refuses as error:
            message = f"profile: {self.name} does not start: {error}"
            raise InvalidValueError(message) from error
        with self._annotate(_MARK, **{_THREAD: threading.get_native_id()}):
            pass

    def stop(self) -> None:
        """End recording."""
        self._stop()

    def export(self, space: Space) -> Mapping[str, bytes] | None:
        """Add what was recorded to a session."""
        try:
            files = sorted(Path(self._folder).glob("plugins/profile/*/*.xplane.pb"))
            for file in files:
                add_session(file.read_bytes(), space)
            if not files:
                space.warnings.append(f"{self.name} has written nothing")
        finally:
            self._clean()
        return None


def add_session(data: bytes, space: Space) -> None:
    """Add a session that another profiler has written, from ``space.begin_ns`` on.

    Args:
        data: a serialized ``XSpace``.
        space: the session that it becomes part of.
    """
    found = XSpace.FromString(data)
    begin = _begin_of(found)
    for plane in found.planes:
        if plane.name == HOST_PLANE:
            _add_host(plane, begin, space)
        elif plane.name != _ENVIRONMENT:
            space.include(plane, begin)
    space.warnings.extend((*found.errors, *found.warnings))


def _begin_of(found: Any) -> int:
    """Return when a session began, in nanoseconds since the epoch; its times count from there."""
    for plane in found.planes:
        if plane.name == _ENVIRONMENT:
            for name, value in _named(plane, plane.stats):
                if name == "profile_start_time":
                    return int(value)
    return 0


def _add_host(plane: Any, begin: int, space: Space) -> None:
    ours = space.plane(HOST_PLANE)
    names = {number: metadata.name for number, metadata in plane.event_metadata.items()}
    for line in plane.lines:
        name = line.display_name or line.name
        thread = _marked_thread(plane, line, names)
        shown = ours.line(name, line.id if thread is None else thread)
        functions: Line | None = None
        for event in line.events:
            at = begin + line.timestamp_ns + event.offset_ps // 1000
            what = names.get(event.metadata_id, "")
            if at < space.begin_ns or what == _MARK:
                continue
            target = shown
            if what.startswith("$"):
                functions = functions or ours.line(f"{name} Python", ~line.id)
                target = functions
            target.event(what, at, event.duration_ps // 1000, dict(_named(plane, event.stats)))


def _marked_thread(plane: Any, line: Any, names: Mapping[int, str]) -> int | None:
    """Return the native id of the thread that has left its mark on a line."""
    for event in line.events:
        if names.get(event.metadata_id) == _MARK:
            for name, value in _named(plane, event.stats):
                if name == _THREAD:
                    return int(value)
    return None


def _named(plane: Any, stats: Any) -> Iterator[tuple[str, Any]]:
    """Iterate over stats: names and values."""
    for stat in stats:
        kind = stat.WhichOneof("value")
        if kind is not None:
            value = getattr(stat, kind)
            if kind == "ref_value":
                value = plane.stat_metadata[value].name
            yield plane.stat_metadata[stat.metadata_id].name, value
