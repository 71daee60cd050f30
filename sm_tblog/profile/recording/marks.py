"""What is recorded in a session: marks, with times, on a flat list for each thread."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

from sm_tblog._errors import InvalidTypeError

__all__ = [
    "CounterMark",
    "ProfilerMark",
    "Recording",
    "SpanMark",
    "ThreadRows",
    "as_mark",
    "clock",
]

clock = time.perf_counter_ns  # time.time_ns may be set back


class SpanMark(NamedTuple):
    """What a row of a span begins with; that of a step begins with its number."""

    name: str
    kind: str | None


class CounterMark(NamedTuple):
    """What a row of a counter begins with; behind it stand a time and the value."""

    name: str


class ProfilerMark(int):
    """What a row of a step begins with that nobody but ``Profiler.step`` has marked."""

    __slots__ = ()


class ThreadRows(NamedTuple):
    """What one thread has recorded in a session: flat, three entries to a row."""

    name: str
    native_id: int
    rows: list[Any]


def _epoch() -> int:
    """Return what is added to a time of ``clock`` to make it one since the epoch.

    Engines have clocks of their own. Where the thread is stopped between two looks, an offset is
    off by as long: of several the one is taken whose looks were closest together.
    """
    looks = [(clock(), time.time_ns(), clock()) for _ in range(10)]
    before, now, after = min(looks, key=lambda look: look[2] - look[0])
    return now - (before + after) // 2


class Recording:
    """What the spans of one session record.

    Args:
        max_events: rows of a thread beyond which no more are kept.

    Attributes:
        limit: how long a thread's list may be.
        begin_ns: when it began, in nanoseconds since the epoch.
        end_ns: when it ended; 0 before.
        offset_ns: what is added to a time in a row to make it one since the epoch.
        threads: what each thread has recorded.
        dropped: rows that were not kept.
    """

    def __init__(self, max_events: int) -> None:
        self.limit = 3 * max_events
        self.offset_ns = _epoch()
        self.begin_ns = clock() + self.offset_ns
        self.end_ns = 0
        self.threads: list[ThreadRows] = []
        self.dropped = 0
        self._lock = threading.Lock()

    def count_dropped(self) -> None:
        """Count a row that is not kept."""
        with self._lock:
            self.dropped += 1


def as_mark(name: Any, kind: Any) -> SpanMark:
    """Return a span's mark.

    Raises:
        InvalidTypeError: the name or the kind is not a str.
    """
    if not isinstance(name, str):
        message = f"span: a name is a str, got {name!r:.60}"
        raise InvalidTypeError(message)
    if kind is not None and not isinstance(kind, str):
        message = f"span {name!r}: a kind is a str, got {kind!r:.60}"
        raise InvalidTypeError(message)
    return SpanMark(name, kind)
