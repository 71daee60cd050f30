"""A profile in the format of the viewer: planes with lines of events, which have names and stats.

``Space`` collects the records of the engines and encodes them as an ``XSpace``, the contents of a
file ``<host>.xplane.pb``. A plane is a device or the host; a line is a thread or a stream. All
times are in nanoseconds since the epoch; the times in the file are relative to the earliest.

An event is stored as three integers and a few bytes, so a million take about 100 MB. If there are
more than ``max_events``, those that begin last are left out, across all planes. So the file is
complete up to a point in time, and sums, steps and the links from launches to kernels are correct
up to that point. A warning in the file gives the number of missing events, and the time from which
they are missing. A file covers at most 100 days around the middle event; the others are moved to
its start and end, with a warning.

A viewer needs the events of a line sorted and properly nested. Events that overlap go to additional
lines of the same name.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError
from sm_tblog._types import as_utf8
from sm_tblog.format.xspace import XEvent, XSpace
from sm_tblog.profile.formats.messages import (
    Ids,
    integer_stat,
    line_end,
    plane_end,
    rebase_times,
    write_extent,
)
from sm_tblog.profile.formats.nesting import nested_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    import numpy.typing as npt

    Stat: TypeAlias = str | int | float | bytes

__all__ = ["HOST_PLANE", "Line", "Plane", "Space"]

HOST_PLANE = "/host:CPU"
"""The name of the plane for the threads of this process."""

_LINE_IDS = range(2**31)
"""A viewer stores the id of a line in 32 bits."""

_MAX_LENGTH_NS = 100 * 24 * 3600 * 10**9
"""The maximum time span of a file: not much more fits into 64 bits as picoseconds."""

_MAX_TEXTS, _MAX_TEXT_LENGTH = 20_000, 500
"""The maximum number and length of cached encoded texts: 20 MB at most."""


class Space:
    """One session on one host.

    Args:
        begin_ns: the start of the session, in nanoseconds since the epoch. Events may begin before
            it.
        max_events: the maximum number of events in the file. A viewer can handle about a million.

    Attributes:
        begin_ns: the start of the session, in nanoseconds since the epoch.
        warnings: messages that the viewer shows above the profile; they are stored in the file.
        hostname: the name of the host; "" if unknown.
        kept: the number of events stored now.
    """

    def __init__(self, begin_ns: int, *, max_events: int = 1_000_000) -> None:
        self.warnings: list[str] = []
        self.hostname = ""
        self.begin_ns = begin_ns
        self._max_events = max_events
        self._planes: dict[str, Plane] = {}
        self._ids = Ids()
        self._included: list[Any] = []
        self._cutoff: float = math.inf  # events that begin at or after it are left out
        self.kept = 0
        self._dropped = 0

    def plane(self, name: str, plane_id: int | None = None) -> Plane:
        """Return the plane with a name; create it if it does not exist.

        Args:
            name: ``/host:CPU``, ``/device:GPU:<i>``, or any other name.
            plane_id: the id of a new plane, such as the number of its device; by default, or
                if it does not fit into 63 bits, the lowest unused id.
        """
        if (name := as_utf8(name)) not in self._planes:
            if plane_id is None or plane_id not in range(2**63):
                plane_id = self._ids.free()
            number = self._ids.add(int(plane_id))  # int() converts a bool
            self._planes[name] = Plane(self, name, number)
        return self._planes[name]

    def planes(self) -> Iterable[Plane]:
        """Return the planes in order of creation."""
        return self._planes.values()

    def include(self, plane: Any, begin_ns: int) -> None:
        """Add a plane of another profiler, without events that begin before the session.

        Its events do not count towards ``max_events``. Lines with impossible times are left out.

        Args:
            plane: an ``XPlane`` with sorted lines. The session takes ownership of it.
            begin_ns: the time that the plane's times are relative to, in nanoseconds since the
                epoch.
        """
        for position in reversed(range(len(plane.lines))):
            line = plane.lines[position]
            at = line.timestamp_ns + begin_ns
            early = (self.begin_ns - at) * 1000
            late = (row for row, event in enumerate(line.events) if event.offset_ps >= early)
            del line.events[: next(late, len(line.events))]
            if line.events and not self.can_hold(line_end(line, at)):
                del plane.lines[position]
                self.warnings.append(f"a line of {plane.name} was left out: its times are wrong")
            elif line.events:
                line.timestamp_ns = at
            else:
                line.timestamp_ns = self.begin_ns
        self._included.append(plane)

    def encode(self) -> bytes:
        """Return the contents of the file: a serialized ``XSpace``."""
        self._drop_latest()
        begin, end = self._extent()
        if self._dropped:
            self.warnings.append(
                f"{self._dropped:,} events were left out, those that began at or after "
                f"{(self._cutoff - begin) / 1e9:.6f} s: the limit is {self._max_events:,}"
            )
            self._dropped = 0
        space = XSpace(warnings=map(as_utf8, self.warnings))
        if self.hostname:
            space.hostnames.append(as_utf8(self.hostname))
        for plane in self.planes():
            plane.write(space.planes.add(), begin, end)
        for included in self._included:
            space.planes.add().CopyFrom(included)
            rebase_times(begin, space.planes[-1])
        write_extent(space, begin, end)
        data: bytes = space.SerializeToString()
        return data

    def can_hold(self, time_ns: int) -> bool:
        """Return whether a time is possible: not before the session, and within 100 days."""
        return self.begin_ns <= time_ns <= self.begin_ns + _MAX_LENGTH_NS

    def _extent(self) -> tuple[int, int]:
        """Return the start and end of the file, in nanoseconds since the epoch."""
        times = [line.extent() for line in self._lines() if line]
        begin = min([self.begin_ns, *(first for first, _ in times)])
        end = max([self.begin_ns, *(last for _, last in times), *map(plane_end, self._included)])
        if end - begin > _MAX_LENGTH_NS and times:
            begins = np.concatenate([line.begins() for line in self._lines()])
            middle = int(np.partition(begins, len(begins) // 2)[len(begins) // 2])
            end = min(end, middle + _MAX_LENGTH_NS // 2)
            begin = max(begin, end - _MAX_LENGTH_NS)
            moved = int(((begins < begin) | (begins > end)).sum())
            if moved:
                self.warnings.append(f"{moved:,} events are more than 100 days away and were moved")
        return max(begin, end - _MAX_LENGTH_NS, 0), max(end, 0)

    def _lines(self) -> Iterator[Line]:
        for plane in self.planes():
            yield from plane.lines()

    def admit(self, begin_ns: int) -> bool:
        """Return whether to store an event that begins at ``begin_ns``; if not, count it."""
        if self.kept >= 2 * self._max_events:  # so that each call halves the number of events
            self._drop_latest()
        if begin_ns < self._cutoff:
            return True
        self._dropped += 1
        return False

    def _drop_latest(self) -> None:
        """Keep the ``max_events`` events that begin first."""
        excess = self.kept - self._max_events
        if excess <= 0:
            return
        lines = list(self._lines())
        begins = np.concatenate([line.begins() for line in lines])
        self._cutoff = cutoff = int(np.partition(begins, self._max_events)[self._max_events])
        keep = begins < cutoff
        ties = np.flatnonzero(begins == cutoff)
        keep[ties[: self._max_events - int(keep.sum())]] = True
        position = 0
        for line in lines:
            position += line.keep(keep[position : position + len(line)])
        self.kept -= excess
        self._dropped += excess


class Plane:
    """A device or the host. Created by ``Space.plane``.

    Attributes:
        id: the id of the plane.
        name: the name of the plane.
    """

    def __init__(self, space: Space, name: str, plane_id: int) -> None:
        self.id = plane_id
        self._space = space
        self.name = name
        self._lines: dict[str | int, Line] = {}
        self._stats: dict[str, Stat] = {}
        self._event_ids: dict[str, int] = {}
        self._stat_ids: dict[str, int] = {}
        self._texts: dict[tuple[str, str], bytes] = {}

    def line(self, name: str, line_id: int | None = None) -> Line:
        """Return the line with an id, or with a name if no id is given; create it if necessary.

        Args:
            name: the name of the thread or stream.
            line_id: the id of the line, such as the native id of a thread. The viewer shows it if
                it fits into 31 bits. By default the line gets the lowest unused id.
        """
        key = name if line_id is None else line_id
        if key not in self._lines:
            shown = int(line_id) if line_id is not None and line_id in _LINE_IDS else None
            self._lines[key] = Line(self._space, self, as_utf8(name), shown)
        return self._lines[key]

    def stat(self, name: str, value: Stat) -> None:
        """Set a stat of the plane itself, such as ``gpu_device_name``."""
        self._stats[name] = value

    def lines(self) -> Iterable[Line]:
        """Return the lines in order of creation."""
        return self._lines.values()

    def event_id(self, name: str) -> int:
        """Return the id of an event name."""
        return self._event_ids.setdefault(name, len(self._event_ids) + 1)

    def encode_stats(self, stats: Mapping[str, Stat]) -> bytes:
        """Return a serialized ``XEvent`` that contains only stats, to be merged into an event."""
        # Parsing concatenated messages merges them. Texts are cached because most of them repeat.
        parts = []
        others = {}
        for name, value in stats.items():
            if isinstance(value, str):
                parts.append(self._texts.get((name, value)) or self._encode_text(name, value))
            else:
                others[name] = value
        if others:
            event = XEvent()
            self._add_stats(event, others)
            parts.append(event.SerializeToString())
        return b"".join(parts)

    def _encode_text(self, name: str, value: str) -> bytes:
        event = XEvent()
        self._add_stats(event, {name: value})
        data: bytes = event.SerializeToString()
        if len(self._texts) < _MAX_TEXTS and len(data) < _MAX_TEXT_LENGTH:
            self._texts[name, value] = data
        return data

    def _add_stats(self, message: Any, stats: Mapping[str, Any]) -> None:
        ids = self._stat_ids
        for name, value in stats.items():
            number = ids.setdefault(name, len(ids) + 1)
            if isinstance(value, str):
                message.stats.add(metadata_id=number, str_value=as_utf8(value))
            elif isinstance(value, int):
                message.stats.add(metadata_id=number, **integer_stat(value))
            elif isinstance(value, float):
                message.stats.add(metadata_id=number, double_value=value)
            elif isinstance(value, bytes):
                message.stats.add(metadata_id=number, bytes_value=value)
            else:
                text = (
                    f"stat {name!r}: must be a str, int, float or bytes, not {type(value).__name__}"
                )
                raise InvalidTypeError(text)

    def write(self, message: Any, begin_ns: int, end_ns: int) -> None:
        """Fill an ``XPlane``.

        Args:
            message: an empty ``XPlane``.
            begin_ns: the time that the times in the file are relative to, in nanoseconds.
            end_ns: the end of the file, in nanoseconds.
        """
        message.id, message.name = self.id, self.name
        self._add_stats(message, self._stats)
        for name, number in self._event_ids.items():
            message.event_metadata[number].id = number
            message.event_metadata[number].name = as_utf8(name)
        for name, number in self._stat_ids.items():
            message.stat_metadata[number].id = number
            message.stat_metadata[number].name = as_utf8(name)
        unused = Ids(line.id for line in self.lines() if line.id is not None)
        for line in self.lines():
            for position, rows in enumerate(line.nested() or [[]]):
                number = unused.free() if position or line.id is None else line.id
                line.write(message.lines.add(id=number), rows, begin_ns, end_ns)


class Line:
    """A thread, or a stream of a device. Created by ``Plane.line``."""

    def __init__(self, space: Space, plane: Plane, name: str, line_id: int | None) -> None:
        self.id = line_id
        self._space = space
        self._plane = plane
        self._name = name
        self._begins = array("q")
        self._durations = array("q")
        self._event_ids = array("q")
        self._stats: list[bytes] = []

    def event(
        self,
        name: str,
        begin_ns: int,
        duration_ns: int,
        stats: Mapping[str, Stat] | None = None,
    ) -> None:
        """Add an event. Events may be added in any order.

        Args:
            name: the name of the event. Events of one name form one row in the viewer's tables.
            begin_ns: the start, in nanoseconds since the epoch.
            duration_ns: the duration in nanoseconds; a negative one, as after a clock was set back,
                becomes 0.
            stats: additional data by name; the viewer interprets some names. An integer beyond 64
                bits becomes text.

        Raises:
            InvalidTypeError: a stat is not a str, int, float or bytes.
        """
        if self._space.admit(begin_ns):
            encoded = self._plane.encode_stats(stats) if stats else b""
            self._begins.append(begin_ns)
            self._durations.append(min(max(duration_ns, 0), _MAX_LENGTH_NS // 2))
            self._event_ids.append(self._plane.event_id(name))
            self._stats.append(encoded)
            self._space.kept += 1

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self._begins)

    def begins(self) -> npt.NDArray[np.int64]:
        """Return the start of each event in nanoseconds, in the order of addition; shape (n,)."""
        return np.array(self._begins, np.int64)

    def extent(self) -> tuple[int, int]:
        """Return the earliest start and the latest end. The line must not be empty."""
        begins = self.begins()
        return int(begins.min()), int((begins + np.array(self._durations, np.int64)).max())

    def keep(self, mask: npt.NDArray[np.bool_]) -> int:
        """Remove the events where the mask is false; return the number of events before that."""
        before = len(self)
        for column in (self._begins, self._durations, self._event_ids):
            values = np.array(column, np.int64)[mask]
            del column[:]
            column.frombytes(values.tobytes())
        self._stats = [one for one, kept in zip(self._stats, mask, strict=True) if kept]
        return before

    def nested(self) -> list[list[int]]:
        """Return the events' indices, sorted and divided greedily into properly nested lists."""
        return nested_rows(self._begins, self._durations)

    def write(self, message: Any, rows: Sequence[int], begin_ns: int, end_ns: int) -> None:
        """Fill an ``XLine``.

        Args:
            message: an ``XLine`` with only an id.
            rows: the sorted indices of the events to write.
            begin_ns: the time that the times in the file are relative to, in nanoseconds.
            end_ns: the end of the file, in nanoseconds.
        """
        message.name = self._name
        for row in rows:
            begin = min(max(self._begins[row], begin_ns), end_ns)
            event = message.events.add(
                metadata_id=self._event_ids[row],
                offset_ps=(begin - begin_ns) * 1000,
                duration_ps=min(self._durations[row], end_ns - begin) * 1000,
            )
            if self._stats[row]:
                event.MergeFromString(self._stats[row])
