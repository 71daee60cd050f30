"""The caller's side of the pipeline: taking rows and items, and what happens when they are many.

A scalar is four entries on a flat list: ``extend((series, value, step, wall_time))``. That one
call is atomic in CPython, so it needs no lock, and makes nothing that the garbage collector looks
at. The caller looks at one number besides, ``limit``: while the list is longer, it calls
``on_limit``. All that is out of the ordinary hangs on that: starting the worker at the first row,
waking it early, waiting for it or dropping rows when memory is used up.

What is more than a number is an ``Item`` on a second list, counted by the memory that it keeps.
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

__all__ = ["Buffer"]

STALL = 5.0
"""Seconds that a caller with a full buffer waits for a worker that gets nothing done."""

ROW_BYTES = 128
"""Memory of a waiting row: four references, three numbers, the list's room to grow."""

WAKE_ROWS = 16_384
"""Waiting rows that wake the worker ahead of its tick."""


class Buffer(ABC):
    """Rows and items that wait for a worker.

    Args:
        max_queue: rows that may wait before the worker is woken ahead of its tick.
        max_bytes: memory for rows that wait, and for items that wait.
        overflow: what happens when that is used up: the caller waits, or the row is dropped.

    Attributes:
        rows: flat, ``ENTRIES`` to a row.
        extend: adds rows.
        limit: a caller that finds ``rows`` longer calls ``on_limit``.
    """

    _faults: FaultLog

    def __init__(self, max_queue: int | None, max_bytes: int, overflow: Overflow) -> None:
        self.rows: list[Any] = []
        self._max_bytes = max_bytes
        self._full = max(max_bytes // ROW_BYTES, 1) * ENTRIES
        self._wake_at = min((max_queue or WAKE_ROWS) * ENTRIES, self._full // 2)
        self._overflow = overflow

    def _begin_intake(self) -> None:
        """Begin with no items and no worker."""
        self.extend: Callable[[Iterable[Any]], None] = self.rows.extend
        self.limit = -1  # the first row starts the worker
        self._items: deque[Item] = deque()
        self._item_bytes = 0  # of the items that wait and of those being built
        self._dropped = 0
        self._condition = threading.Condition()
        self._worker: threading.Thread | None = None
        self._woken = False
        self._progress = time.monotonic()
        self._stalled = False

    @abstractmethod
    def _start(self) -> None:
        """Start the worker."""

    def put(self, item: Item) -> None:
        """Take an item; wait, or drop it, if memory is used up."""
        if sys.is_finalizing():
            self._come_too_late(1)
            return
        with self._condition:
            if not self._has_room_for(item):
                self._wake()
                if not self._may_wait_for(lambda: self._has_room_for(item)):
                    self._drop(1)
                    return
            self._items.append(item)
            self._item_bytes += item.nbytes
            if self._worker is None:
                self._start()
            elif self._item_bytes > self._max_bytes // 2:
                self._wake()

    def _has_room_for(self, item: Item) -> bool:
        return not self._item_bytes or self._item_bytes + item.nbytes <= self._max_bytes

    def on_limit(self) -> None:
        """Do what a list longer than ``limit`` asks for. Called after the row was added."""
        if sys.is_finalizing():
            self._come_too_late(len(self.rows) // ENTRIES)
            return
        with self._condition:
            if self._worker is None:
                self._start()
            elif len(self.rows) <= self._full:
                self.limit = self._full
                self._wake()
            else:
                self._wake()
                if not self._may_wait_for(lambda: len(self.rows) <= self._full):
                    self.extend = self._extend_if_room
                    self.limit = sys.maxsize

    def _extend_if_room(self, rows: Iterable[Any]) -> None:
        """Stand in for ``rows.extend`` while memory is used up."""
        if len(self.rows) < self._full:
            self.extend = self.rows.extend
            self.limit = -1 if self._worker is None else self._wake_at
            self.rows.extend(rows)
        else:
            self._drop(len(tuple(rows)) // ENTRIES)

    def _may_wait_for(self, has_room: Callable[[], bool]) -> bool:
        """Wait until there is room; False to drop instead.

        A worker that gets nothing done for a while is waited for no longer, by anyone, until it
        moves: whatever hangs, training goes on.
        """
        if self._overflow == "drop" or threading.current_thread() is self._worker:
            return has_room()
        while not has_room():
            patience = self._progress + STALL - time.monotonic()
            if self._stalled or patience <= 0:
                self._stalled = True
                return False
            self._condition.wait(patience)
        return True

    def _come_too_late(self, count: int) -> None:
        """Drop rows at the interpreter's teardown.

        The worker and whoever holds the lock have been stopped for ever, where they stood.
        """
        self.rows.clear()
        self._dropped += count
        with contextlib.suppress(Exception):
            message = f"{self}: logged at the interpreter's teardown; rows are dropped"
            self._faults.report("teardown", SinkError(message))

    def _drop(self, count: int) -> None:
        with self._condition:
            self._dropped += count
        why = "nothing has been stored for a while" if self._stalled else "rows come too fast"
        message = f"{self}: {why} and the memory for waiting rows is used up; rows are dropped"
        self._faults.report(f"overflow: {why}", SinkError(message))

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._condition.notify_all()
