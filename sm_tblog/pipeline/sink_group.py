"""The sinks of one writer, each behind a guard: what one does wrong concerns it alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sm_tblog._errors import SinkError, TBLogError
from sm_tblog.storage.base import NotUploadedError, StoreLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.pipeline.faults import FaultLog
    from sm_tblog.sinks.base import Batch, Sink

__all__ = ["SinkGroup"]

SLOW = 10.0
"""Seconds after which a sink that took so long for one action is spoken of."""


class SinkGroup:
    """Feeds, flushes and closes sinks. Used by the worker alone, but for the counters.

    Args:
        sinks: a sink that was closed begins anew at the next batch.
        flush_secs: seconds between flushes; by default what the sinks ask for.
        max_bytes: a sink that keeps more than this for a store is given nothing further.
        faults: told what goes wrong.
        on_progress: called after everything that got done.

    Attributes:
        rows: scalars given to the sinks.
        values: values, events and side files given to the sinks.
        last_flush: when every sink had stored everything, in seconds since the epoch.
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
        """Bytes that stores have taken."""
        return sum(guard.bytes("stored") for guard in self._sinks)

    @property
    def pending(self) -> int:
        """Bytes that the sinks keep for a store that refused them."""
        return sum(guard.bytes("pending") for guard in self._sinks)

    @property
    def unacknowledged(self) -> int:
        """Bytes that wait on the disk until a remote store has them."""
        return sum(guard.bytes("unacknowledged") for guard in self._sinks)

    @property
    def dropped(self) -> int:
        """Rows and values that a sink was not given or has lost, summed over the sinks."""
        return sum(guard.dropped for guard in self._sinks)

    @property
    def losses(self) -> int:
        """A number that grows with everything lost, whether dropped or gone after it was stored."""
        return self.dropped + sum(guard.stores_lost for guard in self._sinks)

    @property
    def is_due(self) -> bool:
        """Whether it is time for ``flush``."""
        return time.monotonic() >= self._next_flush

    def write(self, batch: Batch) -> None:
        """Give every sink a batch."""
        if self._next_flush == float("inf"):
            self._next_flush = time.monotonic() + self._flush_secs
        rich = len(batch.values) + len(batch.events) + len(batch.files)
        count = len(batch.codes) + rich
        for guard in self._sinks:
            guard.write(batch, count)
        self.rows += len(batch.codes)
        self.values += rich

    def flush(self) -> bool:
        """Flush every sink; return whether all have stored what they have."""
        self._next_flush = time.monotonic() + self._flush_secs
        return self._stored([guard.flush() for guard in self._sinks])

    def close(self) -> bool:
        """Close every sink; return whether all have stored what they had."""
        self._next_flush = float("inf")
        return self._stored([guard.close() for guard in self._sinks])

    def wait(self, timeout: float, *, force: bool) -> list[str]:
        """Wait for so many seconds until remote stores have everything.

        Called by the thread that waits at a barrier.

        Returns:
            What it is that they do not have: the sinks, and the local files that hold it.
        """
        deadline = time.monotonic() + timeout
        waits = [guard.wait(max(deadline - time.monotonic(), 0.0), force) for guard in self._sinks]
        if not any(waits):
            self.last_flush = time.time()
        return [what for what in waits if what]

    def _stored(self, results: list[bool]) -> bool:
        if all(results) and not self.unacknowledged:
            self.last_flush = time.time()
        return all(results)


class _GuardedSink:
    """One sink, and what became of what it was given.

    Attributes:
        dropped: rows and values that it was not given or has lost.
        stores_lost: how often what a store had taken was gone.
    """

    def __init__(
        self, sink: Sink, max_bytes: int, faults: FaultLog, on_progress: Callable[[], None]
    ) -> None:
        self._sink = sink
        self._max_bytes = max_bytes
        self._faults = faults
        self._on_progress = on_progress
        self._key = f"sink {id(sink)}"
        self._failing = ""  # the action that has failed and not succeeded since
        self._kept = 0  # rows and values that are not all stored yet
        self.dropped = self.stores_lost = 0

    def bytes(self, attribute: str) -> int:
        """Return how many bytes are ``"stored"`` or ``"pending"``; 0 if the sink does not say."""
        return int(getattr(self._sink, attribute, 0))

    def write(self, batch: Batch, count: int) -> None:
        """Give the sink a batch of so many rows and values."""
        backlog = f"backlog of {self._key}"
        if self.bytes("pending") > self._max_bytes:
            message = f"{self._sink}: {self._max_bytes} bytes wait to be stored; rows are dropped"
            self._faults.report(backlog, SinkError(message))
            self.dropped += count
            return
        self._faults.resolve(backlog)
        took = self._do("write", batch)
        if self.bytes("pending"):
            self._kept += count
        elif not took:
            self.dropped += count

    def flush(self) -> bool:
        """Flush the sink; return whether it has stored what it has."""
        return self._do("flush")

    def close(self) -> bool:
        """Close the sink; return whether it has stored what it had."""
        kept = self._kept
        stored = self._do("close")
        if kept and not stored:
            self.dropped += kept
            message = f"{self._sink}: {kept} rows and values could not be stored and are lost"
            self._faults.report(f"loss of {self._key}", SinkError(message))
        return stored

    def wait(self, timeout: float, force: bool) -> str:
        """Wait until the sink's stores have everything; say where it is if they have not."""
        wait = getattr(self._sink, "wait", None)
        try:
            if wait is None or wait(timeout, force=force):
                return ""
        except NotUploadedError as error:
            self._faults.report(f"delivery of {self._key}", error)
        return f"{self._sink}: {', '.join(getattr(self._sink, 'spool_files', ()))}"

    def _do(self, action: str, *args: object) -> bool:
        """Have the sink do something; return whether it succeeded."""
        begun = time.monotonic()
        try:
            getattr(self._sink, action)(*args)
        except NotUploadedError as error:
            self._faults.report(f"delivery of {self._key}", error)
            return True  # it is stored, in the spool; whether it is delivered, ``wait`` says
        except Exception as error:  # noqa: BLE001 - a sink may be anyone's
            self._failing = self._failing or action
            self.stores_lost += isinstance(error, StoreLostError)
            self._faults.report(self._key, self._as_ours(error))
            return False
        finally:
            self._on_progress()
            if not self.bytes("pending"):
                self._kept = 0
        took = time.monotonic() - begun
        if took > SLOW:
            message = f"{self._sink}: {action} took {took:.0f} s"
            self._faults.report(f"slow {self._key}", SinkError(message))
        if action != "write":
            self._faults.resolve(f"delivery of {self._key}", f"{self._sink}: uploads go on")
        # A sink that keeps what it could not store has recovered when anything succeeds; any
        # other one when that succeeds which had failed.
        if self._failing == action or hasattr(self._sink, "pending"):
            self._failing = ""
            self._faults.resolve(self._key, f"{self._sink} works again")
        return True

    def _as_ours(self, error: Exception) -> TBLogError:
        if isinstance(error, TBLogError):
            return error
        ours = SinkError(f"{self._sink} failed: {type(error).__name__}: {error}")
        ours.__cause__ = error
        return ours
