"""Helper functions for the protocol buffers of an ``XSpace``."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Ids",
    "integer_stat",
    "line_end",
    "plane_end",
    "rebase_times",
    "write_extent",
]

_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)


def plane_end(plane: Any) -> int:
    """Return the latest end of the lines of an included plane, in nanoseconds; 0 without events."""
    ends = (line_end(line, line.timestamp_ns) for line in plane.lines if line.events)
    return max(ends, default=0)


def line_end(line: Any, begin_ns: int) -> int:
    """Return the end of the last event of a line, whose times are relative to ``begin_ns``."""
    return begin_ns + int(line.events[-1].offset_ps + line.events[-1].duration_ps) // 1000


def rebase_times(begin: int, plane: Any) -> None:
    """Make the times of a plane relative to ``begin``. No event may begin before it."""
    for line in plane.lines:
        shift = line.timestamp_ns - begin
        line.timestamp_ns = max(shift, 0)
        if shift < 0:
            for event in line.events:
                event.offset_ps += shift * 1000


def write_extent(space: Any, begin: int, end: int) -> None:
    """Add the start and end of the session, in the plane where viewers expect them."""
    unused = Ids(plane.id for plane in space.planes)
    plane = space.planes.add(id=unused.free(), name="Task Environment")
    named = {"profile_start_time": begin, "profile_stop_time": end}
    for number, (name, value) in enumerate(named.items(), 1):
        plane.stat_metadata[number].id = number
        plane.stat_metadata[number].name = name
        plane.stats.add(metadata_id=number, uint64_value=value)


class Ids:
    """Gives out unused ids, the lowest first. Ids that are added are never free again.

    Args:
        taken: the ids in use.
    """

    def __init__(self, taken: Iterable[int] = ()) -> None:
        self._taken = set(taken)
        self._numbers = count()

    def add(self, number: int) -> int:
        """Mark an id as used, and return it."""
        self._taken.add(number)
        return number

    def free(self) -> int:
        """Return the lowest unused id, and mark it as used."""
        return self.add(next(n for n in self._numbers if n not in self._taken))


def integer_stat(value: int) -> dict[str, Any]:
    """Return the field of an ``XStat`` for an integer; beyond 64 bits it becomes text."""
    if value in _INT64:
        return {"int64_value": int(value)}  # int() converts a bool
    return {"uint64_value": value} if value in _UINT64 else {"str_value": str(value)}
