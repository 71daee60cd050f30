"""The data that a session records: marks with times, in one flat list per thread."""

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

clock = time.perf_counter_ns  # unlike time.time_ns, it never goes back


class SpanMark(NamedTuple):
    """The first entry of a span's row. The first entry of a step's row is the step number."""

    name: str
    kind: str | None


class CounterMark(NamedTuple):
    """The first entry of a counter's row; a time and the value follow."""

    name: str


class ProfilerMark(int):
    """The first entry of a step's row if only ``Profiler.step`` has marked the step."""

    __slots__ = ()


class ThreadRows(NamedTuple):
    """The rows that one thread has recorded in a session: a flat list, three entries per row."""

    name: str
    native_id: int
    rows: list[Any]


def _epoch_offset() -> int:
    """Return the offset from ``clock`` to nanoseconds since the epoch.

    It aligns the marks with the engines, which use other clocks. If the thread is suspended while
    the clocks are read, the offset is wrong by that time. So the clocks are read 10 times, and the
    fastest reading counts.
    """
    readings = [(clock(), time.time_ns(), clock()) for _ in range(10)]
    before, now, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return now - (before + after) // 2


class Recording:
    """The spans, steps and counters of one session.

    Args:
        max_events: the maximum number of rows per thread; further rows are dropped.

    Attributes:
        limit: the maximum length of a thread's flat list.
        begin_ns: when the recording began, in nanoseconds since the epoch.
        end_ns: when the recording ended, in nanoseconds since the epoch; 0 until then.
        offset_ns: the offset from a time in a row to nanoseconds since the epoch.
        threads: the rows of each thread.
        dropped: the number of dropped rows.
    """

    def __init__(self, max_events: int) -> None:
        self.limit = 3 * max_events
        self.offset_ns = _epoch_offset()
        self.begin_ns = clock() + self.offset_ns
        self.end_ns = 0
        self.threads: list[ThreadRows] = []
        self.dropped = 0
        self._lock = threading.Lock()

    def count_dropped(self) -> None:
        """Count a dropped row."""
        with self._lock:
            self.dropped += 1


def as_mark(name: Any, kind: Any) -> SpanMark:
    """Return the mark of a span.

    Raises:
        InvalidTypeError: the name or the kind is not a str.
    """
    if not isinstance(name, str):
        message = f"span: name must be a str, got {name!r:.60}"
        raise InvalidTypeError(message)
    if kind is not None and not isinstance(kind, str):
        message = f"span {name!r}: kind must be a str, got {kind!r:.60}"
        raise InvalidTypeError(message)
    return SpanMark(name, kind)
