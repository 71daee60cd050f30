"""From the caller's hands to the sinks, without the caller waiting.

Scalars wait as rows of a flat list; what is more than a number waits, as a function that builds
it, on a second list (see ``_intake``). A worker thread takes both up at every tick, makes a
``Batch`` of them, has each processor look at it, and gives it to each sink. After ``close``, and
in a forked child, the next row begins anew.

Nothing that goes wrong on the worker reaches the caller by itself. It is counted, said once, and
raised by ``flush`` and ``close`` if the user asked for that.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from sm_tblog._errors import FlushTimeoutError, SinkError
from sm_tblog._types import Stats
from sm_tblog.pipeline import lifecycle
from sm_tblog.pipeline.batching import ENTRIES, make_batch
from sm_tblog.pipeline.buffer import Buffer
from sm_tblog.pipeline.faults import FaultLog
from sm_tblog.pipeline.sink_group import SinkGroup
from sm_tblog.pipeline.tag_registry import TagRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog._types import OnError, Overflow
    from sm_tblog.pipeline.batching import Item
    from sm_tblog.sinks.base import Batch, Sink

__all__ = ["Pipeline"]

TICK = 0.5
"""Seconds between two looks of the worker at the list: what a sudden death of the process costs."""

PATIENCE = 30.0
"""Seconds that a barrier waits for a worker that gets nothing done."""

CLOSE_PATIENCE = 60.0
"""Seconds that ``close`` waits for remote stores."""

BUILDING_PATIENCE = 600.0
"""Seconds that a barrier waits while values are built: a long video takes its time."""

CHUNK_ROWS = 16_384
"""Rows that make a batch at most."""

CHUNK_BYTES = 8 << 20
"""Memory of the items that make a batch, at most, if they are more than one."""


class _Worker(threading.Thread):
    """The thread that drains one pipeline. A daemon: the process may end without it."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(name="sm_tblog", daemon=True)
        self._pipeline = pipeline

    def run(self) -> None:
        while self._pipeline.wait():
            self._pipeline.drain_once()

    def stop(self) -> None:
        """Store everything and end, as frameworks ask of a background thread."""
        self._pipeline.close()


class Pipeline(Buffer):
    """A buffer, a worker and some sinks.

    Args:
        sinks: used by the worker alone. They begin anew after ``close`` and in a forked child.
        name: where the rows go, for messages.
        flush_secs: at most so many seconds pass before a row is flushed; by default what the
            sinks ask for.
        max_queue: rows that may wait before the worker is woken ahead of its tick.
        max_bytes: memory for rows that wait, for values that wait, and for what each sink keeps.
        overflow: what happens when that is used up: the caller waits, or the row is dropped.
        on_error: what happens to a failure on the worker besides being counted.
        rename: applied by the worker to every tag.

    Attributes:
        processors: called by the worker with each batch in turn; the sinks are given what the last
            one returns.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        name: str = "",
        flush_secs: float | None = None,
        max_queue: int | None = None,
        max_bytes: int = 32 << 20,
        overflow: Overflow = "block",
        on_error: OnError = "warn",
        rename: Callable[[str], str] | None = None,
    ) -> None:
        super().__init__(max_queue, max_bytes, overflow)
        self._sinks = sinks
        self._name = name
        self._flush_secs = flush_secs
        self._tick = TICK if flush_secs is None else min(TICK, max(flush_secs, 0.001))
        self._on_error = on_error
        self._rename = rename
        self.processors: list[Callable[[Batch], Batch]] = []
        self._begin()
        lifecycle.register(self)

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child, where what there is belongs to the parent."""
        self.rows.clear()
        self._begin()
        for sink in self._sinks:
            if hasattr(sink, "reset_after_fork"):
                sink.reset_after_fork()

    def _begin(self) -> None:
        """Begin with nothing waiting and no worker."""
        self._begin_intake()
        self._building = self._closing = self._threadless = False
        self._asked = self._done = 0  # the tickets of barriers
        self._losses_before = 0  # the last barrier
        self._failed = 0  # the last ticket of a barrier that found something not stored
        self._faults = FaultLog(self._on_error)
        self._tags = TagRegistry(self._faults)
        self._sink_group = SinkGroup(
            self._sinks, self._flush_secs, self._max_bytes, self._faults, self._on_progress
        )

    def __str__(self) -> str:
        """Return where the rows go."""
        return self._name

    def stats(self) -> Stats:
        """Return the counters."""
        sinks = self._sink_group
        return Stats(
            rows_written=sinks.rows,
            values_written=sinks.values,
            rows_dropped=self._dropped + sinks.dropped,
            bytes_stored=sinks.stored,
            bytes_pending=sinks.pending + sinks.unacknowledged,
            errors=self._faults.count,
            queue_depth=len(self.rows) // ENTRIES + len(self._items),
            last_flush=sinks.last_flush,
            last_error=self._faults.last,
        )

    def _start(self) -> None:
        """Start the worker; where no thread can be started, do its work here.

        That is so at the interpreter's shutdown, and on platforms without threads.
        """
        self._closing = False
        self._progress = time.monotonic()
        self.limit = self._wake_at
        self._worker = _Worker(self)
        lifecycle.close_at_exit(self)
        try:
            if lifecycle.is_exiting():
                message = "a thread's rows might not be waited for"
                raise RuntimeError(message)  # noqa: TRY301 - as where no thread can be started
            self._worker.start()
        except BaseException as error:
            if not self._worker.is_alive():
                self._worker = None
                self.limit = -1
            if not isinstance(error, RuntimeError):
                raise
        self._threadless = self._worker is None
        if self._threadless:
            self.drain_once()

    # The caller's side: barriers.

    def flush(self, timeout: float | None = None, *, force: bool = False) -> bool:
        """Wait until all that was logged before is stored.

        Args:
            timeout: seconds. By default as long as the worker gets something done.
            force: wait for a remote store also if its next delivery is due within a second.

        Returns:
            Whether all that was logged since the last barrier is stored.

        Raises:
            TBLogError: with ``on_error="raise"``, what has gone wrong since the last barrier.
        """
        begun = time.monotonic()
        _, stored = self._barrier(timeout, closing=False)
        limit = PATIENCE if timeout is None else timeout
        stored &= self._delivered(begun + limit, force=force)
        self._faults.raise_first()
        return stored

    def close(self, timeout: float | None = None) -> bool:
        """Store everything, close the sinks and end the worker. A later row begins anew.

        Takes, returns and raises what ``flush`` does.
        """
        begun = time.monotonic()
        worker, stored = self._barrier(timeout, closing=True)
        limit = CLOSE_PATIENCE if timeout is None else timeout
        stored &= self._delivered(begun + limit, force=True)
        if worker is not None:
            with self._condition:
                self._condition.wait_for(lambda: not self._closing, PATIENCE)
                ended = self._worker is not worker
            if ended:  # else rows came in the meantime, and it goes on with them
                worker.join()
        self._faults.raise_first()
        return stored

    def _barrier(
        self, timeout: float | None, *, closing: bool
    ) -> tuple[threading.Thread | None, bool]:
        """Have everything stored; return the worker that has done it, and whether it is."""
        if sys.is_finalizing():
            if self.rows:
                self._come_too_late(len(self.rows) // ENTRIES)
            return None, self._losses() == self._losses_before
        with self._condition:
            if self._worker is None and (self.rows or self._items):
                self._start()
            worker = self._worker
            if threading.current_thread() is worker or not (worker or self._threadless):
                return None, True
            self._closing |= closing
            self._asked += 1
            ticket = self._asked
            if worker is None:
                self.drain_once()
            elif not self._done_in_time(ticket, timeout):
                message = f"{self}: not everything could be stored in time; what waits is kept"
                self._faults.report("barrier", FlushTimeoutError(message))
                return None, False
            return worker, ticket > self._failed

    def _delivered(self, deadline: float, *, force: bool) -> bool:
        """Wait until remote stores have what the sinks gave them; return whether they have."""
        if threading.current_thread() is self._worker:
            return True
        missing = self._sink_group.wait(max(deadline - time.monotonic(), 0.0), force=force)
        if missing:
            message = (
                f"not everything could be uploaded in time. It is kept and uploaded later, by this "
                f"process, the next writer to that folder, or sm-tblog upload: {'; '.join(missing)}"
            )
            self._faults.report("delivery", FlushTimeoutError(message))
        else:
            self._faults.resolve("delivery")
        return not missing

    def _losses(self) -> int:
        return self._dropped + self._sink_group.losses

    def _done_in_time(self, ticket: int, timeout: float | None) -> bool:
        begun = time.monotonic()
        while self._done < ticket and self._worker is not None:
            self._wake()
            now = time.monotonic()
            if timeout is not None:
                patience = begun + timeout - now
            elif self._stalled:
                patience = 0.0
            else:
                allowed = BUILDING_PATIENCE if self._building else PATIENCE
                patience = max(self._progress, begun) + allowed - now
                self._stalled = patience <= 0
            if patience <= 0:
                return False
            self._condition.wait(patience)
        return True

    def close_without_waiting(self) -> None:
        """Have the worker store everything, close the sinks and end."""
        with self._condition:
            if self._worker is not None:
                self._closing = True
                self._asked += 1
                self._wake()

    # The worker's side.

    def wait(self) -> bool:
        """Wait for the next tick; False when the pipeline is closed and nothing is left."""
        with self._condition:
            if self._closing and self._done >= self._asked:
                self._closing = False
                self._condition.notify_all()
                self.limit = -1  # from here on, a row starts a new worker
                if not self.rows and not self._items:
                    self._worker = None
                    lifecycle.unregister(self)
                    return False
                self.limit = self._wake_at  # rows came during close: they begin new files
            elif not self._woken:
                self._condition.wait(self._tick)
            self._woken = False
        return True

    def drain_once(self) -> None:
        """Give the sinks everything that waits, and flush or close them if it is time."""
        with self._condition:
            ticket, closing = self._asked, self._closing
            items = len(self._items)
        flushed = False
        try:
            self._feed(items)
            if ticket > self._done or self._sink_group.is_due:
                flushed = self._sink_group.flush()
            if closing:
                flushed &= self._sink_group.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the worker
            self._dropped += 1
            fault = SinkError(f"{self}: rows are lost: {type(error).__name__}: {error}")
            fault.__cause__ = error
            self._faults.report("worker", fault)
        with self._condition:
            if ticket > self._done:
                self._done = ticket
                losses = self._losses()
                if not flushed or losses > self._losses_before:
                    self._failed = ticket
                self._losses_before = losses
                if flushed:
                    self._faults.resolve("barrier")
            self._on_progress()

    def _feed(self, items: int) -> None:
        """Give the sinks the rows that wait now, and the first so many items."""
        waiting = len(self.rows)
        while waiting or items:
            count = min(waiting, CHUNK_ROWS * ENTRIES)
            rows = self.rows[:count]
            del self.rows[:count]
            waiting -= count
            chosen = self._take_items(items)
            items -= len(chosen)
            self._on_progress()
            try:
                self._building = bool(chosen)
                batch, lost = make_batch(rows, chosen, self._faults, self._tags, self._rename)
            finally:
                self._building = False
                with self._condition:
                    self._item_bytes -= sum(item.nbytes for item in chosen)
            self._dropped += lost
            self._on_progress()
            self._sink_group.write(self._processed(batch))
        if self.limit == self._full:
            self.limit = self._wake_at

    def _processed(self, batch: Batch) -> Batch:
        for process in self.processors:
            try:
                batch = process(batch)
            except Exception as error:  # noqa: BLE001, PERF203 - its fault costs no rows
                fault = SinkError(f"{self}: {process} failed: {type(error).__name__}: {error}")
                fault.__cause__ = error
                self._faults.report(f"processor {process}", fault)
        return batch

    def _take_items(self, most: int) -> list[Item]:
        """Take so many items at most, and more than one only if they are small."""
        taken: list[Item] = []
        nbytes = 0
        with self._condition:
            while len(taken) < most and (not taken or nbytes + self._items[0].nbytes < CHUNK_BYTES):
                taken.append(self._items.popleft())
                nbytes += taken[-1].nbytes
        return taken

    def _on_progress(self) -> None:
        """Let those who wait see that the worker gets something done."""
        with self._condition:
            self._progress = time.monotonic()
            self._stalled = False
            self._condition.notify_all()
