"""Small operations on the protocol buffers of an ``XSpace``."""

from __future__ import annotations

from itertools import count
from typing import Any

__all__ = ["count_from", "end_of", "free_id", "integer_stat", "utf8_text", "write_extent"]

_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)


def end_of(plane: Any) -> int:
    """Return when the last line of an included plane ends."""
    ends = (
        line.timestamp_ns + (line.events[-1].offset_ps + line.events[-1].duration_ps) // 1000
        for line in plane.lines
        if line.events
    )
    return max(ends, default=0)


def count_from(begin: int, plane: Any) -> None:
    """Have the times of a plane count from the beginning, none of which is before that."""
    for line in plane.lines:
        shift = line.timestamp_ns - begin
        line.timestamp_ns = max(shift, 0)
        if shift < 0:
            for event in line.events:
                event.offset_ps += shift * 1000


def write_extent(space: Any, begin: int, end: int) -> None:
    """Say when the session began and ended, in the plane where a viewer looks for it."""
    taken = {plane.id for plane in space.planes}
    plane = space.planes.add(id=free_id(taken), name="Task Environment")
    named = {"profile_start_time": begin, "profile_stop_time": end}
    for number, (name, value) in enumerate(named.items(), 1):
        plane.stat_metadata[number].id = number
        plane.stat_metadata[number].name = name
        plane.stats.add(metadata_id=number, uint64_value=value)


def free_id(taken: set[int]) -> int:
    """Return the lowest number that is not taken."""
    return next(number for number in count() if number not in taken)


def integer_stat(value: int) -> dict[str, Any]:
    """Return the field of an ``XStat`` that holds an integer; text beyond 64 bits."""
    if value in _INT64:
        return {"int64_value": int(value)}  # of a bool, too
    return {"uint64_value": value} if value in _UINT64 else {"str_value": str(value)}


def utf8_text(text: str) -> str:
    """Return text that UTF-8 can hold: half of a surrogate pair, as JSON may have, becomes "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
