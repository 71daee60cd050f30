"""Reads events again, by their places.

Events that lie next to each other are read in one request. The last ones read are kept, up to a
limit in bytes, so that values of the same event are read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from sm_tblog._errors import CorruptRecordError
from sm_tblog.format import schema
from sm_tblog.format.crc32c import masked_crc32c
from sm_tblog.format.records import FOOTER, HEADER
from sm_tblog.readers.events import mapped_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sm_tblog.readers.content_index import Place
    from sm_tblog.readers.events import EventFile

__all__ = ["EventReader"]

MAX_GAP = 1 << 14
"""Bytes between two events up to which reading them is cheaper than a second request."""

MAX_REQUEST = 1 << 22
"""Bytes up to which the next events are read in the same request."""

MAX_KEPT = 1 << 23
"""Bytes of events that are kept; the last request's are always."""

MAX_GROUPS = 32
"""Requests whose events are kept."""


class _Group(NamedTuple):
    """The events of one request."""

    size: int
    events: dict[Place, Any]


class EventReader:
    """Reads the events of a run.

    Attributes:
        files: the run's files, of which more may be added.
    """

    def __init__(self, files: Sequence[EventFile] = ()) -> None:
        self.files = files
        self._groups: tuple[_Group, ...] = ()  # the latest first; replaced as a whole

    def event(self, place: Place, following: Iterable[Place] = ()) -> Any:
        """Return the event at a place, a ``schema.Event``.

        Args:
            place: the place.
            following: places that will probably be asked for next.

        Raises:
            CorruptRecordError: other bytes are at this place now.
            StoreError: the file cannot be read.
        """
        for group in self._groups:
            if place in group.events:
                return group.events[place]
        group = self._read(place, following)
        kept, size = [group], group.size
        for earlier in self._groups:
            size += earlier.size
            if size > MAX_KEPT or len(kept) == MAX_GROUPS:
                break
            kept.append(earlier)
        self._groups = tuple(kept)
        if place not in group.events:
            path, offset = self.files[place.file].path, place.offset - HEADER
            message = f"{path}: the record at byte {offset} has changed since it was read"
            raise CorruptRecordError(message, offset)
        return group.events[place]

    def _read(self, place: Place, following: Iterable[Place]) -> _Group:
        """Read a place, and of those that follow as many as one request should."""
        start, end = place.offset, place.offset + place.length
        places = [place]
        for other in following:
            first, last = min(start, other.offset), max(end, other.offset + other.length)
            is_far = last - first > end - start + other.length + MAX_GAP
            if other.file != place.file or is_far or last - first > MAX_REQUEST:
                break
            start, end = first, last
            places.append(other)
        file = self.files[place.file]
        with mapped_errors(file.path):
            data = memoryview(file.source.read(start, end + FOOTER))
        events = {}
        for each in places:
            begin = each.offset - start
            stop = begin + each.length
            content, stored = data[begin:stop], data[stop : stop + FOOTER]
            if len(stored) < FOOTER or masked_crc32c(content) != int.from_bytes(stored, "little"):
                continue
            try:
                events[each] = schema.Event.FromString(content)
            except (DecodeError, UnicodeDecodeError):  # whole, but of another file
                continue
        return _Group(sum(each.length for each in events), events)
