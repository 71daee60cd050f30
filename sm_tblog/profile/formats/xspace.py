"""A profile as a viewer takes it: planes of lines of events, with names and values.

``Space`` gathers what the engines have recorded and encodes it as an ``XSpace``, the contents of a
``<host>.xplane.pb``. A plane is a device or the host, a line a thread or a stream. Every time is in
nanoseconds since the epoch; the file's are relative to the earliest of them.

An event is kept as three integers and a few bytes, so a million take about 100 MB. Beyond
``max_events`` those that begin last are left out, in all planes alike: what is in the file is
complete up to a moment, so that sums, steps and the links from launches to kernels hold up to
there. A warning in the file says how many were left out, and from when on. A file spans 100 days
at most; what would begin before stands at its beginning.

A viewer wants a line's events sorted and properly nested. Those that overlap go to further lines
of the same name.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError
from sm_tblog.format.xspace import XEvent, XSpace
from sm_tblog.profile.formats.messages import (
    count_from,
    end_of,
    free_id,
    integer_stat,
    utf8_text,
    write_extent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    import numpy.typing as npt

    Stat: TypeAlias = str | int | float | bytes

__all__ = ["HOST_PLANE", "Line", "Plane", "Space"]

HOST_PLANE = "/host:CPU"
"""The name of the plane of this process's threads."""

_LINE_IDS = range(2**31)
"""A viewer keeps a line's id in 32 bits."""

_LONGEST_NS = 100 * 24 * 3600 * 10**9
"""Beyond about this the file's picoseconds are too many for 64 bits."""

_MOST_TEXTS, _LONGEST_TEXT = 20_000, 500
"""Texts that are kept encoded, 20 MB of them at the very most."""


class Space:
    """One session on one host.

    Args:
        begin_ns: when the session began, in nanoseconds since the epoch. Events may begin before.
        max_events: how many events the file may have. A viewer takes about a million.

    Attributes:
        begin_ns: when the session began.
        warnings: what the viewer shows above the profile; a reader of the file finds them too.
        hostname: where it was recorded, "" for nowhere in particular.
        kept: how many events there are now.
    """

    def __init__(self, begin_ns: int, *, max_events: int = 1_000_000) -> None:
        self.warnings: list[str] = []
        self.hostname = ""
        self.begin_ns = begin_ns
        self._max_events = max_events
        self._planes: dict[str, Plane] = {}
        self._included: list[Any] = []
        self._cutoff: float = math.inf  # events that begin from here on are left out
        self.kept = 0
        self._left_out = 0

    def plane(self, name: str, plane_id: int | None = None) -> Plane:
        """Return the plane of that name, made if there is none.

        Args:
            name: ``/host:CPU``, ``/device:GPU:<i>``, or any other.
            plane_id: the number of a device, where it is a new plane; by default the next free one.
        """
        name = utf8_text(name)
        if name not in self._planes:
            taken = {plane.id for plane in self._planes.values()}
            number = free_id(taken) if plane_id is None else plane_id
            self._planes[name] = Plane(self, name, number)
        return self._planes[name]

    def planes(self) -> Iterable[Plane]:
        """Return the planes, in the order made."""
        return self._planes.values()

    def include(self, plane: Any, begin_ns: int) -> None:
        """Take a plane that another profiler has made, but for what begins before the session.

        Its events do not count for ``max_events``.

        Args:
            plane: an ``XPlane`` with sorted lines; it belongs to the session from now on.
            begin_ns: the time from which its times count.
        """
        for line in plane.lines:
            line.timestamp_ns += begin_ns
            early = (self.begin_ns - line.timestamp_ns) * 1000
            late = (row for row, event in enumerate(line.events) if event.offset_ps >= early)
            del line.events[: next(late, len(line.events))]
        self._included.append(plane)

    def encode(self) -> bytes:
        """Return the file's bytes, a serialized ``XSpace``."""
        self._cut()
        times = [line.extent() for line in self._lines() if line]
        begin = min([self.begin_ns, *(first for first, _ in times)])
        end = max([self.begin_ns, *(last for _, last in times), *map(end_of, self._included)])
        begin = max(begin, end - _LONGEST_NS)
        if self._left_out:
            self.warnings.append(
                f"{self._left_out:,} events were left out, those that began from "
                f"{(self._cutoff - begin) / 1e9:.6f} s on: {self._max_events:,} are the limit"
            )
            self._left_out = 0
        space = XSpace(warnings=map(utf8_text, self.warnings))
        if self.hostname:
            space.hostnames.append(utf8_text(self.hostname))
        for plane in self.planes():
            plane.write(space.planes.add(), begin)
        for included in self._included:
            space.planes.add().CopyFrom(included)
            count_from(begin, space.planes[-1])
        write_extent(space, begin, end)
        data: bytes = space.SerializeToString()
        return data

    def _lines(self) -> Iterator[Line]:
        for plane in self.planes():
            yield from plane.lines()

    def admit(self, begin_ns: int) -> bool:
        """Return whether an event that begins then is kept; if not, it has been counted."""
        if self.kept >= 2 * self._max_events:  # so that each cut halves what there is
            self._cut()
        if begin_ns < self._cutoff:
            return True
        self._left_out += 1
        return False

    def _cut(self) -> None:
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
        self._left_out += excess


class Plane:
    """A device, or the host. Made by ``Space.plane``.

    Attributes:
        id: its number.
        name: its name.
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
        """Return the line of that id, without one that of that name, made if there is none.

        Args:
            name: the thread's or stream's.
            line_id: what tells it from others, as a thread's identity. The viewer shows it, if it
                has at most 31 bits; by default the next free number.
        """
        key = name if line_id is None else line_id
        if key not in self._lines:
            shown = line_id if line_id is not None and line_id in _LINE_IDS else None
            self._lines[key] = Line(self._space, self, utf8_text(name), shown)
        return self._lines[key]

    def stat(self, name: str, value: Stat) -> None:
        """Say something of the plane itself, as ``gpu_device_name``."""
        self._stats[name] = value

    def lines(self) -> Iterable[Line]:
        """Return the lines, in the order made."""
        return self._lines.values()

    def event_id(self, name: str) -> int:
        """Return the number that stands for an event's name."""
        return self._event_ids.setdefault(name, len(self._event_ids) + 1)

    def encode_stats(self, stats: Mapping[str, Stat]) -> bytes:
        """Return an ``XEvent`` of nothing but stats, to be merged into one."""
        # Messages one behind the other are merged. Texts come again and again.
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
        if len(self._texts) < _MOST_TEXTS and len(data) < _LONGEST_TEXT:
            self._texts[name, value] = data
        return data

    def _add_stats(self, message: Any, stats: Mapping[str, Any]) -> None:
        ids = self._stat_ids
        for name, value in stats.items():
            number = ids.setdefault(name, len(ids) + 1)
            if isinstance(value, str):
                message.stats.add(metadata_id=number, str_value=utf8_text(value))
            elif isinstance(value, int):
                message.stats.add(metadata_id=number, **integer_stat(value))
            elif isinstance(value, float):
                message.stats.add(metadata_id=number, double_value=value)
            elif isinstance(value, bytes):
                message.stats.add(metadata_id=number, bytes_value=value)
            else:
                text = f"stat {name!r}: a str, int, float or bytes, not {type(value).__name__}"
                raise InvalidTypeError(text)

    def write(self, message: Any, begin_ns: int) -> None:
        """Fill an ``XPlane``.

        Args:
            message: an empty one.
            begin_ns: the time from which the file's are counted.
        """
        message.id, message.name = self.id, self.name
        self._add_stats(message, self._stats)
        for name, number in self._event_ids.items():
            message.event_metadata[number].id = number
            message.event_metadata[number].name = utf8_text(name)
        for name, number in self._stat_ids.items():
            message.stat_metadata[number].id = number
            message.stat_metadata[number].name = utf8_text(name)
        taken = {line.id for line in self.lines() if line.id is not None}
        for line in self.lines():
            for place, rows in enumerate(line.nested() or [[]]):
                number = free_id(taken) if place or line.id is None else line.id
                taken.add(number)
                line.write(message.lines.add(id=number), rows, begin_ns)


class Line:
    """A thread, or a stream of a device. Made by ``Plane.line``."""

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
        """Add an event; they may come in any order.

        Args:
            name: equal ones are one row in the viewer's tables.
            begin_ns: in nanoseconds since the epoch.
            duration_ns: in nanoseconds; less than none is none, as when a clock was set back.
            stats: what else is known of it, by the names that the viewer knows or any other. An
                integer beyond 64 bits becomes text.

        Raises:
            InvalidTypeError: a stat is none of these types.
        """
        if self._space.admit(begin_ns):
            encoded = self._plane.encode_stats(stats) if stats else b""
            self._begins.append(begin_ns)
            self._durations.append(min(max(duration_ns, 0), _LONGEST_NS // 2))
            self._event_ids.append(self._plane.event_id(name))
            self._stats.append(encoded)
            self._space.kept += 1

    def __len__(self) -> int:
        """Return how many events there are."""
        return len(self._begins)

    def begins(self) -> npt.NDArray[np.int64]:
        """Return when each event begins, in the order added."""
        return np.array(self._begins, np.int64)

    def extent(self) -> tuple[int, int]:
        """Return when the first event begins and the last one ends, of at least one."""
        begins = self.begins()
        return int(begins.min()), int((begins + np.array(self._durations, np.int64)).max())

    def keep(self, mask: npt.NDArray[np.bool_]) -> int:
        """Leave out the events where the mask is false; return how many there were."""
        before = len(self)
        for column in (self._begins, self._durations, self._event_ids):
            values = np.array(column, np.int64)[mask]
            del column[:]
            column.frombytes(values.tobytes())
        self._stats = [one for one, kept in zip(self._stats, mask, strict=True) if kept]
        return before

    def nested(self) -> list[list[int]]:
        """Return the events' indices, sorted, in as few lists of properly nested ones as found."""
        order = np.lexsort((-np.array(self._durations, np.int64), self.begins()))
        found: list[tuple[list[int], list[int]]] = []
        for row in order.tolist():
            begin = self._begins[row]
            end = begin + self._durations[row]
            for rows, ends in found:
                while ends and ends[-1] <= begin:
                    ends.pop()
                if not ends or end <= ends[-1]:
                    rows.append(row)
                    ends.append(end)
                    break
            else:
                found.append(([row], [end]))
        return [rows for rows, _ in found]

    def write(self, message: Any, rows: Sequence[int], begin_ns: int) -> None:
        """Fill an ``XLine``.

        Args:
            message: one with nothing but an id.
            rows: the indices of the events that it gets, sorted.
            begin_ns: the time from which the file's are counted.
        """
        message.name = self._name
        for row in rows:
            event = message.events.add(
                metadata_id=self._event_ids[row],
                offset_ps=max(self._begins[row] - begin_ns, 0) * 1000,
                duration_ps=self._durations[row] * 1000,
            )
            if self._stats[row]:
                event.MergeFromString(self._stats[row])
