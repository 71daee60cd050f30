"""The pipeline: moves data from the calling thread to the sinks without blocking the caller.

Scalars wait as rows of a flat list; anything richer than a number waits on a second list, as a
function that builds it (see ``buffer``). At every tick, a worker thread takes both, makes a
``Batch`` of them, passes it through the processors, and writes it to each sink. After ``close``,
and in a forked child, the next row starts a new worker thread.

Faults on the worker thread never reach the caller on their own. They are counted and logged once,
and ``flush`` and ``close`` raise them if the user asked for that.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from sm_tblog._errors import SinkError
from sm_tblog._types import Stats, as_utf8
from sm_tblog.pipeline import lifecycle
from sm_tblog.pipeline.barriers import Barriers
from sm_tblog.pipeline.batching import ENTRIES, claim_earlier, make_batch
from sm_tblog.pipeline.faults import FaultLog
from sm_tblog.pipeline.sink_group import SinkGroup
from sm_tblog.pipeline.tag_registry import TagRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sm_tblog._types import OnError, Overflow
    from sm_tblog.sinks.base import Batch, Sink

__all__ = ["Pipeline"]

TICK = 0.5
"""Seconds between two rounds of the worker thread: what is lost if the process dies suddenly."""


class _Worker(threading.Thread):
    """The thread that drains one pipeline: a daemon, so it does not keep the process alive."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(name="sm_tblog", daemon=True)
        self._pipeline = pipeline

    def run(self) -> None:
        while self._pipeline.wait():
            self._pipeline.drain_once()

    def stop(self) -> None:
        """Store everything and end. Frameworks call this method on background threads."""
        self._pipeline.close()


class Pipeline(Barriers):
    """A buffer, a worker thread and sinks.

    Args:
        sinks: the sinks, which only the worker thread uses. They reopen after ``close`` and in a
            forked child.
        name: the destination of the rows, for messages.
        flush_secs: maximum seconds before a row is flushed; by default the smallest ``flush_secs``
            of the sinks.
        max_queue: the number of buffered rows that wakes the worker thread before its next tick.
        max_bytes: memory for buffered rows; the same limit applies to buffered items, and to the
            pending bytes of each sink.
        overflow: what to do when the buffer is full: ``"block"`` until there is room, or
            ``"drop"`` the row.
        on_error: how to report faults on the worker thread, besides counting them; see
            ``FaultLog``.
        rename: a function that the worker thread applies to every tag.
        find_kinds: the kinds of data by tag that earlier files of a run hold; see ``TagRegistry``.

    Attributes:
        processors: functions that the worker thread applies to each batch in turn; the sinks get
            the result of the last one.
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
        rename: Callable[[str], str] = as_utf8,
        find_kinds: Callable[[str], Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__(max_queue, max_bytes, overflow)
        self._sinks = sinks
        self._name = name
        self._flush_secs = flush_secs
        self._tick = TICK if flush_secs is None else min(TICK, max(flush_secs, 0.001))
        self._on_error = on_error
        self.processors: list[Callable[[Batch], Batch]] = []
        self._reset()
        self._tags = TagRegistry(self._faults, rename, find_kinds)
        lifecycle.register(self)

    def reset_after_fork(self) -> None:
        """Reset in a forked child, where the existing data and thread belong to the parent."""
        self._claim_tags()
        self.rows.clear()
        self._reset()
        self._tags.faults = self._faults
        for sink in self._sinks:
            if hasattr(sink, "reset_after_fork"):
                sink.reset_after_fork()

    def _claim_tags(self) -> None:
        """Claim the tags of what the parent of a forked child had logged, but not yet written."""
        taken, building = self._in_progress
        series = [*taken[0::ENTRIES], *self.rows[0::ENTRIES]]
        position = self._taken - len(taken)
        claimed = 0
        for item in (*building, *self._items):
            claimed = claim_earlier(series, claimed, item.position - position, self._tags)
            self._tags.claim(item.run, item.tag)
        claim_earlier(series, claimed, len(series) * ENTRIES, self._tags)

    def _reset(self) -> None:
        """Reset to an empty buffer and no worker thread."""
        self._reset_buffer()
        self._reset_barriers()
        self._faults = FaultLog(self._on_error)
        self._sink_group = SinkGroup(
            self._sinks, self._flush_secs, self._max_bytes, self._faults, self._on_progress
        )

    def __str__(self) -> str:
        """Return the destination of the rows."""
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
        """Start the worker thread; if no thread can be started, do its work here.

        That is the case during interpreter shutdown and on platforms without threads.
        """
        self._closing = False
        self._progress = time.monotonic()
        self.limit = self._wake_length
        try:
            self._worker = _Worker(self)
            lifecycle.close_at_exit(self)
            if lifecycle.is_exiting():
                message = "nothing would wait for the thread's rows"
                raise RuntimeError(message)  # noqa: TRY301 - same as a failed start
            self._worker.start()
        except BaseException as error:
            # An interrupt may come before the new thread says that it runs. It is given up then,
            # and ends by itself; see ``wait``.
            if self._worker is None or not self._worker.is_alive():
                self._worker = None
                self.limit = -1
            if not isinstance(error, RuntimeError):
                raise
        self._threadless = self._worker is None
        if self._threadless:
            self.drain_once()

    # Called by the worker thread.

    def wait(self) -> bool:
        """Wait for the next tick; return False if the pipeline is closed and nothing is left."""
        with self._condition:
            current = threading.current_thread()
            if isinstance(current, _Worker) and current is not self._worker:
                return False  # given up while it started
            if self._closing and self._done_ticket >= self._last_ticket:
                self._closing = False
                self._condition.notify_all()
                self.limit = -1  # from here on, a row starts a new worker thread
                if not self.rows and not self._items:
                    self._worker = None
                    lifecycle.unregister(self)
                    return False
                self.limit = self._wake_length  # rows arrived during close: they go to new files
            elif not self._wake_requested:
                self._condition.wait(self._tick)
            self._wake_requested = False
        return True

    def drain_once(self) -> None:
        """Write everything buffered to the sinks, and flush or close them if it is time."""
        with self._condition:
            ticket, closing = self._last_ticket, self._closing
            waiting, items = len(self.rows), len(self._items)
            handover = self._last_handover
            self._draining = True
        flushed = False
        try:
            self._feed(waiting, items)
            if ticket > self._done_ticket or self._sink_group.is_due:
                flushed = self._sink_group.flush()
            if closing:
                flushed &= self._sink_group.close()
        except Exception as error:  # noqa: BLE001 - nothing may end the worker thread
            self._dropped += 1
            fault = SinkError(f"{self}: rows were lost: {type(error).__name__}: {error}")
            fault.__cause__ = error
            self._faults.report("worker", fault)
        with self._condition:
            self._draining, self._done_handover = False, handover
            if ticket > self._done_ticket:
                self._done_ticket = ticket
                losses = self._losses()
                if not flushed or losses > self._reported_losses:
                    self._failed_ticket = ticket
                self._reported_losses = losses
                if flushed:
                    self._faults.resolve("barrier")
            self._on_progress()

    def _feed(self, waiting: int, items: int) -> None:
        """Write the first ``waiting`` entries of rows and ``items`` items to the sinks."""
        while waiting or items:
            position = self._taken
            rows, chosen = self._take(waiting, items, self._tags)
            waiting = min(waiting - len(rows), len(self.rows))  # cleared during shutdown
            items -= len(chosen)
            self._on_progress(building=True)
            try:
                batch, lost = make_batch(
                    rows, chosen, self._faults, self._tags, position, self._on_built
                )
                self._dropped += lost
                batch = self._process(batch)
            finally:
                self._in_progress = [], []
                with self._condition:
                    self._item_bytes -= sum(item.nbytes for item in chosen)
                self._on_progress()
            self._sink_group.write(batch)
        if self.limit == self._max_length:
            self.limit = self._wake_length

    def _process(self, batch: Batch) -> Batch:
        for process in self.processors:
            try:
                batch = process(batch)
            except Exception as error:  # noqa: BLE001 - a failing processor costs no rows
                fault = SinkError(f"{self}: {process} failed: {type(error).__name__}: {error}")
                fault.__cause__ = error
                self._faults.report(f"processor {process}", fault)
            self._on_built()
        return batch

    def _on_built(self) -> None:
        self._on_progress(building=True)

    def _on_progress(self, *, building: bool = False) -> None:
        """Record progress of the worker thread and notify the waiting threads.

        Args:
            building: whether it builds values from now on, rather than waiting for a store.
        """
        with self._condition:
            self._progress = time.monotonic()
            self._building = building
            self._stall = 0.0
            self._condition.notify_all()
