"""The sinks of one writer, isolated from each other: a fault in one does not affect the rest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sm_tblog._errors import SinkError, TBLogError
from sm_tblog.storage.base import InvalidNameError, NotUploadedError, StoreLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.pipeline.faults import FaultLog
    from sm_tblog.sinks.base import Batch, Sink

__all__ = ["SinkGroup"]

SLOW_SECS = 10.0
"""Seconds that one call of a sink may take before it is reported as slow."""


class SinkGroup:
    """Feeds, flushes and closes sinks. Only the worker thread uses it, except for its counters.

    Args:
        sinks: the sinks. A closed sink reopens at the next batch.
        flush_secs: seconds between flushes; by default the smallest ``flush_secs`` of the sinks.
        max_bytes: a sink with more pending bytes than this gets no further batches.
        faults: receives the faults of the sinks.
        on_progress: called after each action of a sink.

    Attributes:
        rows: the number of scalars passed to the sinks.
        values: the number of values, events and side files passed to the sinks.
        last_flush: the last time at which every sink had stored everything, in seconds since the
            epoch; None before the first.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        flush_secs: float | None,
        max_bytes: int,
        faults: FaultLog,
        on_progress: Callable[[], None],
    ) -> None:
        self._sinks = [_GuardedSink(sink, max_bytes, faults, on_progress) for sink in sinks]
        if flush_secs is None:
            flush_secs = min((getattr(sink, "flush_secs", 1.0) for sink in sinks), default=1.0)
        self._flush_secs: float = flush_secs
        self._next_flush = float("inf")
        self.rows = self.values = 0
        self.last_flush: float | None = None

    @property
    def stored(self) -> int:
        """Bytes that stores have accepted."""
        return sum(guard.bytes("stored") for guard in self._sinks)

    @property
    def pending(self) -> int:
        """Bytes that the sinks keep because a store has not accepted them."""
        return sum(guard.bytes("pending") for guard in self._sinks)

    @property
    def unacknowledged(self) -> int:
        """Bytes on the local disk that a remote store has not acknowledged."""
        return sum(guard.bytes("unacknowledged") for guard in self._sinks)

    @property
    def dropped(self) -> int:
        """Rows and values that were withheld from a sink or lost by it, summed over the sinks."""
        return sum(guard.dropped for guard in self._sinks)

    @property
    def losses(self) -> int:
        """A number that grows with every loss: data dropped, or gone after it was stored."""
        return self.dropped + sum(guard.stores_lost for guard in self._sinks)

    @property
    def is_due(self) -> bool:
        """Whether it is time to flush."""
        return time.monotonic() >= self._next_flush

    def write(self, batch: Batch) -> None:
        """Pass a batch to every sink."""
        if self._next_flush == float("inf"):
            self._next_flush = time.monotonic() + self._flush_secs
        rich = len(batch.values) + len(batch.events) + len(batch.files)
        count = len(batch.codes) + rich
        for guard in self._sinks:
            guard.write(batch, count)
        self.rows += len(batch.codes)
        self.values += rich

    def flush(self) -> bool:
        """Flush every sink; return whether all have stored all their data."""
        self._next_flush = time.monotonic() + self._flush_secs
        return self._record_flush([guard.flush() for guard in self._sinks])

    def close(self) -> bool:
        """Close every sink; return whether all have stored all their data."""
        self._next_flush = float("inf")
        return self._record_flush([guard.close() for guard in self._sinks])

    def wait(self, timeout: float, *, force: bool) -> list[str]:
        """Wait at most ``timeout`` seconds until remote stores have everything.

        Called by the thread that waits at a barrier.

        Returns:
            A description of what they lack: each sink, with the local files that hold the data.
        """
        deadline = time.monotonic() + timeout
        waits = [guard.wait(max(deadline - time.monotonic(), 0.0), force) for guard in self._sinks]
        if not any(waits):
            self.last_flush = time.time()
        return [missing for missing in waits if missing]

    def _record_flush(self, results: list[bool]) -> bool:
        if all(results) and not self.unacknowledged:
            self.last_flush = time.time()
        return all(results)


class _GuardedSink:
    """One sink, with its faults and losses.

    Attributes:
        dropped: the number of rows and values withheld from the sink or lost by it.
        stores_lost: how often data was gone that a store had accepted.
    """

    def __init__(
        self, sink: Sink, max_bytes: int, faults: FaultLog, on_progress: Callable[[], None]
    ) -> None:
        self._sink = sink
        self._max_bytes = max_bytes
        self._faults = faults
        self._on_progress = on_progress
        self._key = f"sink {id(sink)}"
        self._failed_action = ""  # the action that failed and has not succeeded since
        self._unstored = 0  # rows and values that are not all stored yet
        self.dropped = self.stores_lost = 0

    def bytes(self, attribute: str) -> int:
        """Return an attribute of the sink that counts, 0 if the sink does not have it."""
        return int(getattr(self._sink, attribute, 0))

    def write(self, batch: Batch, count: int) -> None:
        """Pass the sink a batch of ``count`` rows and values."""
        backlog = f"backlog of {self._key}"
        if self.bytes("pending") > self._max_bytes:
            message = (
                f"{self._sink}: more than {self._max_bytes} bytes are waiting to be stored; "
                "rows are dropped"
            )
            self._faults.report(backlog, SinkError(message))
            self.dropped += count
            return
        self._faults.resolve(backlog)
        before = self.bytes("dropped")
        succeeded = self._call("write", batch)
        lost = self.bytes("dropped") - before
        if self.bytes("pending"):
            self._unstored += count
        elif not succeeded and not lost:
            lost = count  # the sink does not say
        self.dropped += lost

    def flush(self) -> bool:
        """Flush the sink; return whether it has stored all its data."""
        return self._call("flush")

    def close(self) -> bool:
        """Close the sink; return whether it has stored all its data."""
        unstored = self._unstored
        stored = self._call("close")
        if unstored and not stored:
            self.dropped += unstored
            message = f"{self._sink}: {unstored} rows and values could not be stored and are lost"
            self._faults.report(f"loss of {self._key}", SinkError(message))
        return stored

    def wait(self, timeout: float, force: bool) -> str:
        """Wait until the sink's stores have everything; return where the rest is, or ""."""
        wait = getattr(self._sink, "wait", None)
        try:
            if wait is None or wait(timeout, force=force):
                return ""
        except NotUploadedError as error:
            self._faults.report(f"delivery of {self._key}", error)
        return f"{self._sink}: {', '.join(getattr(self._sink, 'spool_files', ()))}"

    def _call(self, action: str, *args: object) -> bool:
        """Call a method of the sink; return whether it succeeded."""
        started = time.monotonic()
        try:
            getattr(self._sink, action)(*args)
        except NotUploadedError as error:
            self._faults.report(f"delivery of {self._key}", error)
            return True  # the data is stored in the spool; ``wait`` tells whether it is delivered
        except InvalidNameError as error:
            self._faults.report(f"name {error}", error)
            return False
        except Exception as error:  # noqa: BLE001 - a sink may raise anything
            self._failed_action = self._failed_action or action
            self.stores_lost += isinstance(error, StoreLostError)
            self._faults.report(self._key, self._as_tblog_error(error))
            return False
        finally:
            self._on_progress()
            if not self.bytes("pending"):
                self._unstored = 0
        seconds = time.monotonic() - started
        if seconds > SLOW_SECS:
            message = f"{self._sink}: {action} took {seconds:.0f} s"
            self._faults.report(f"slow {self._key}", SinkError(message))
        if action != "write":
            self._faults.resolve(f"delivery of {self._key}", f"{self._sink}: uploads have resumed")
        # A sink that keeps unstored data has recovered when any action succeeds; any other sink
        # only when the action that failed succeeds.
        if self._failed_action == action or hasattr(self._sink, "pending"):
            self._failed_action = ""
            self._faults.resolve(self._key, f"{self._sink} works again")
        return True

    def _as_tblog_error(self, error: Exception) -> TBLogError:
        if isinstance(error, TBLogError):
            return error
        wrapped = SinkError(f"{self._sink} failed: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped
