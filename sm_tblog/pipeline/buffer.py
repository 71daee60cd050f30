"""The calling thread's side of the pipeline: it buffers rows and items and limits their memory.

A scalar is four entries on a flat list: ``extend((series, value, step, wall_time))``. That single
call is atomic in CPython, so it needs no lock, and it creates no object that the garbage collector
tracks. The caller also checks one number, ``limit``: if the list is longer, it calls ``on_limit``.
Everything out of the ordinary happens there: starting the worker thread at the first row, waking
it early, and waiting for it or dropping rows when the buffer is full.

Anything richer than a number is an ``Item`` on a second list, which is limited by the memory that
its items hold.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import SinkError
from sm_tblog.pipeline.batching import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sm_tblog._types import Overflow
    from sm_tblog.pipeline.batching import Item
    from sm_tblog.pipeline.faults import FaultLog
    from sm_tblog.pipeline.tag_registry import TagRegistry

__all__ = ["Buffer"]

STALL_TIMEOUT = 5.0
"""Seconds without progress of the worker thread after which a full buffer stops blocking."""

BUILD_TIMEOUT = 300.0
"""Seconds that one value, such as a long video, may be built before this counts as no progress."""

ROW_BYTES = 128
"""Memory of a buffered row: four references, three numbers, the list's spare capacity."""

WAKE_ROWS = 16_384
"""Number of buffered rows that wakes the worker thread before its next tick."""

MAX_BATCH_ROWS = 16_384
"""Maximum number of rows per batch."""

MAX_BATCH_BYTES = 8 << 20
"""Maximum memory of a batch's items in bytes; a single item may exceed it."""


class Buffer(ABC):
    """Rows and items waiting for a worker thread.

    Args:
        max_queue: the number of buffered rows that wakes the worker thread before its next tick;
            by default ``WAKE_ROWS``.
        max_bytes: memory for buffered rows, and the same again for buffered items.
        overflow: what to do when the buffer is full: ``"block"`` until there is room, or
            ``"drop"`` the row.

    Attributes:
        rows: the flat list, ``ENTRIES`` entries per row.
        extend: adds rows.
        limit: the length of ``rows`` above which the caller must call ``on_limit``.
    """

    _faults: FaultLog

    def __init__(self, max_queue: int | None, max_bytes: int, overflow: Overflow) -> None:
        self.rows: list[Any] = []
        self._max_bytes = max_bytes
        self._max_length = max(max_bytes // ROW_BYTES, 1) * ENTRIES
        self._wake_length = min((max_queue or WAKE_ROWS) * ENTRIES, self._max_length // 2)
        self._overflow = overflow

    def _reset_buffer(self) -> None:
        """Reset to no items and no worker thread."""
        self.extend: Callable[[Iterable[Any]], None] = self.rows.extend
        self.limit = -1  # the first row starts the worker thread
        self._items: deque[Item] = deque()
        self._taken = 0  # entries of rows that the worker thread has taken
        self._in_progress: tuple[list[Any], list[Item]] = [], []  # taken, but not made a batch yet
        self._item_bytes = 0  # of buffered items and of those being built
        self._dropped = 0
        self._condition = threading.Condition()
        self._worker: threading.Thread | None = None
        self._wake_requested = False
        self._progress = time.monotonic()
        self._building = False  # rather than waiting for a store
        self._stall = 0.0  # seconds without progress that a thread has waited since the last

    @abstractmethod
    def _start(self) -> None:
        """Start the worker thread."""

    def put(self, item: Item) -> None:
        """Add an item; wait or drop it if the buffer is full."""
        if sys.is_finalizing():
            self._drop_at_shutdown(1)
            return
        with self._condition:
            if not self._has_room_for(item):
                self._wake()
                if not self._wait_for_room(lambda: self._has_room_for(item)):
                    self._drop(1)
                    return
            position = self._taken + len(self.rows)
            self._items.append(item._replace(position=position))
            self._item_bytes += item.nbytes
            if self._worker is None:
                self._start()
            elif self._item_bytes > self._max_bytes // 2:
                self._wake()

    def _has_room_for(self, item: Item) -> bool:
        return not self._item_bytes or self._item_bytes + item.nbytes <= self._max_bytes

    def on_limit(self) -> None:
        """Handle a list longer than ``limit``. Called after the row was added."""
        if sys.is_finalizing():
            self._drop_at_shutdown(len(self.rows) // ENTRIES)
            return
        with self._condition:
            if self._worker is None:
                self._start()
            elif len(self.rows) <= self._max_length:
                self.limit = self._max_length
                self._wake()
            else:
                self._wake()
                if not self._wait_for_room(lambda: len(self.rows) <= self._max_length):
                    self.extend = self._extend_if_room
                    self.limit = sys.maxsize

    def _extend_if_room(self, rows: Iterable[Any]) -> None:
        """Replace ``rows.extend`` while the buffer is full."""
        if len(self.rows) < self._max_length:
            self.extend = self.rows.extend
            self.limit = -1 if self._worker is None else self._wake_length
            self.rows.extend(rows)
        else:
            self._drop(len(tuple(rows)) // ENTRIES)

    def _wait_for_room(self, has_room: Callable[[], bool]) -> bool:
        """Wait until there is room; return False if the data must be dropped instead.

        Once the worker thread has made no progress for ``STALL_TIMEOUT``, no call waits for it
        until it makes progress again, so training continues whatever hangs.
        """
        if self._overflow == "drop" or threading.current_thread() is self._worker:
            return has_room()
        started = time.monotonic()
        while not has_room():
            seconds = self._seconds_to_wait(STALL_TIMEOUT, started)
            if not seconds:
                return False
            self._condition.wait(seconds)
        return True

    def _seconds_to_wait(self, limit: float, started: float) -> float:
        """Return how long to wait for progress; 0 to give up.

        Args:
            limit: the seconds to wait without progress; while a value is built, ``BUILD_TIMEOUT``
                if that is longer. Once a thread has waited for so long, no other does.
            started: when the thread began to wait. The time before does not count, because the
                worker thread may have been held up too, such as by a suspended process.
        """
        if self._building:
            limit = max(limit, BUILD_TIMEOUT)
        seconds = max(self._progress, started) + limit - time.monotonic()
        if seconds <= 0:
            self._stall = max(self._stall, limit)
        return 0.0 if self._stall >= limit else seconds

    def _drop_at_shutdown(self, count: int) -> None:
        """Drop rows logged during interpreter shutdown.

        By then the worker thread, and any thread that holds the lock, no longer runs.
        """
        self.rows.clear()
        self._dropped += count
        with contextlib.suppress(Exception):
            message = f"{self}: logged during interpreter shutdown; rows are dropped"
            self._faults.report("shutdown", SinkError(message))

    def _drop(self, count: int) -> None:
        with self._condition:
            self._dropped += count
        why = "nothing has been stored for a while" if self._stall else "rows are logged too fast"
        message = f"{self}: {why}, and the buffer is full; rows are dropped"
        self._faults.report(f"overflow: {why}", SinkError(message))

    def _take(self, waiting: int, items: int, tags: TagRegistry) -> tuple[list[Any], list[Item]]:
        """Remove and return the next rows and items for a batch.

        Where an item and a row have the same tag, the batch with the one that was logged first
        comes first, unless it is the same. So an item waits for the rows before it; and if it
        has to wait, so do rows after it whose tag nothing has claimed.

        Args:
            waiting: the number of entries of rows that may be taken.
            items: the number of items that may be taken; more than one only if they are small.
            tags: tells which tags are claimed.
        """
        with self._condition:
            count = min(waiting, MAX_BATCH_ROWS * ENTRIES)
            chosen: list[Item] = []
            nbytes = 0
            while len(chosen) < items and (
                count == waiting or self._items[0].position <= self._taken + count
            ):
                nbytes += self._items[0].nbytes
                if chosen and nbytes >= MAX_BATCH_BYTES:
                    break
                chosen.append(self._items.popleft())
            if len(chosen) < items:
                behind = max(self._items[0].position - self._taken, 0)
                new = (i for i in range(behind, count, ENTRIES) if tags.is_new(self.rows[i]))
                count = next(new, count)
            rows = self.rows[:count]
            self._in_progress = rows, chosen
            del self.rows[:count]
            self._taken += count
        return rows, chosen

    def _wake(self) -> None:
        if not self._wake_requested:
            self._wake_requested = True
            self._condition.notify_all()
