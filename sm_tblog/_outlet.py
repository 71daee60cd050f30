"""The sinks of one writer, each behind a guard: what one does wrong concerns it alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sm_tblog._errors import SinkError, TBLogError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog._faults import Faults
    from sm_tblog.sinks.base import Batch, Sink

__all__ = ["Outlet"]

SLOW = 10.0
"""Seconds after which a sink that took so long for one action is spoken of."""


class Outlet:
    """Feeds, flushes and closes sinks. Used by the worker alone, but for the counters.

    Args:
        sinks: a sink that was closed begins anew at the next batch.
        flush_secs: seconds between flushes; by default what the sinks ask for.
        max_bytes: a sink that keeps more than this for a store is given nothing further.
        faults: told what goes wrong.
        moved: called after everything that got done.

    Attributes:
        rows: scalars given to the sinks.
        values: values and events given to the sinks.
        dropped: rows and values that a sink was not given or has lost.
        last_flush: when every sink had stored everything, in seconds since the epoch.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        flush_secs: float | None,
        max_bytes: int,
        faults: Faults,
        moved: Callable[[], None],
    ) -> None:
        self._sinks = sinks
        self._flush_secs = flush_secs
        self._max_bytes = max_bytes
        self._faults = faults
        self._moved = moved
        self._next_flush = float("inf")
        self._failing: dict[int, str] = {}
        self.rows = self.values = self.dropped = 0
        self.last_flush: float | None = None

    @property
    def stored(self) -> int:
        """Bytes that stores have taken."""
        return self._total("stored")

    @property
    def pending(self) -> int:
        """Bytes that the sinks keep for a store that refused them."""
        return self._total("pending")

    @property
    def is_due(self) -> bool:
        """Whether it is time for ``flush``."""
        return time.monotonic() >= self._next_flush

    def write(self, batch: Batch) -> bool:
        """Give every sink a batch; return whether all took it."""
        if self._next_flush == float("inf"):
            self._schedule()
        count = len(batch.codes) + len(batch.values) + len(batch.events)
        all_took = True
        for sink in self._sinks:
            backlog = f"backlog of {sink}"
            if getattr(sink, "pending", 0) > self._max_bytes:
                message = f"{sink}: {self._max_bytes} bytes wait to be stored; new rows are dropped"
                self._faults.began(backlog, SinkError(message))
                took = False
            else:
                self._faults.ended(backlog)
                took = self._guarded(sink, "write", batch)
            if not took and not getattr(sink, "pending", 0):
                self.dropped += count
            all_took &= took
        self.rows += len(batch.codes)
        self.values += count - len(batch.codes)
        return all_took

    def flush(self) -> bool:
        """Flush every sink; return whether all have stored everything."""
        self._schedule()
        return self._done([self._guarded(sink, "flush") for sink in self._sinks])

    def close(self) -> bool:
        """Close every sink; return whether all have stored everything."""
        self._next_flush = float("inf")
        return self._done([self._guarded(sink, "close") for sink in self._sinks])

    def _done(self, results: list[bool]) -> bool:
        if all(results):
            self.last_flush = time.time()
        return all(results)

    def _schedule(self) -> None:
        interval = self._flush_secs
        if interval is None:
            interval = min((getattr(s, "flush_secs", 1.0) for s in self._sinks), default=1.0)
        self._next_flush = time.monotonic() + interval

    def _guarded(self, sink: Sink, action: str, *args: object) -> bool:
        """Have a sink do something; return whether it succeeded."""
        begun = time.monotonic()
        try:
            getattr(sink, action)(*args)
        except Exception as error:  # noqa: BLE001 - a sink may be anyone's
            self._faults.began(str(sink), _as_ours(error, sink))
            self._failing.setdefault(id(sink), action)
            return False
        finally:
            self._moved()
        took = time.monotonic() - begun
        if took > SLOW:
            self._faults.began(f"slow {sink}", SinkError(f"{sink}: {action} took {took:.0f} s"))
        # A sink that keeps what it could not store has recovered when anything succeeds; any
        # other one when the action succeeds that had failed.
        if self._failing.get(id(sink)) == action or hasattr(sink, "pending"):
            self._failing.pop(id(sink), None)
            self._faults.ended(str(sink), f"{sink} works again")
        return True

    def _total(self, attribute: str) -> int:
        return sum(getattr(sink, attribute, 0) for sink in self._sinks)


def _as_ours(error: Exception, sink: Sink) -> TBLogError:
    if isinstance(error, TBLogError):
        return error
    ours = SinkError(f"{sink} failed: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours
