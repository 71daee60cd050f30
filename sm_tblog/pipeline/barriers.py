"""Barriers: ``flush`` and ``close`` return when everything logged before is stored.

A barrier takes a ticket and waits until the worker thread has done everything up to that ticket. It
gives up on a worker thread that makes no progress. Building a value is progress, until one takes
longer than ``BUILD_TIMEOUT``.
"""

from __future__ import annotations

import sys
import threading
import time
from abc import abstractmethod
from typing import TYPE_CHECKING

from sm_tblog._errors import FlushTimeoutError
from sm_tblog.pipeline import buffer
from sm_tblog.pipeline.batching import ENTRIES
from sm_tblog.pipeline.buffer import Buffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.pipeline.sink_group import SinkGroup

__all__ = ["Barriers"]

BARRIER_TIMEOUT = 30.0
"""Seconds that a barrier waits for a worker thread that makes no progress."""

CLOSE_TIMEOUT = 60.0
"""Seconds that ``close`` waits for remote stores."""

NOTICE_SECS = 10.0
"""Seconds after which the user is told why the process does not exit yet."""


class Barriers(Buffer):
    """A buffer with ``flush`` and ``close``, which wait for its worker thread and its sinks."""

    _sink_group: SinkGroup

    def _reset_barriers(self) -> None:
        """Reset to no barriers and no losses."""
        self._closing = self._threadless = False
        self._draining = False  # whether the worker thread has taken rows that are not written yet
        self._last_handover = self._done_handover = 0  # like the tickets below
        self._last_ticket = self._done_ticket = 0  # each barrier gets a ticket
        self._failed_ticket = 0  # of the last barrier that found something not stored
        self._reported_losses = 0  # losses up to the last barrier

    @abstractmethod
    def drain_once(self) -> None:
        """Write everything buffered to the sinks, and flush or close them if it is time."""

    def flush(self, timeout: float | None = None, *, force: bool = False) -> bool:
        """Wait until everything logged before is stored.

        Args:
            timeout: maximum wait in seconds; by default, as long as the worker thread makes
                progress.
            force: wait for a remote store even if its next upload is due within a second.

        Returns:
            Whether everything logged since the last barrier is stored.

        Raises:
            TBLogError: the first fault since the last barrier, with ``on_error="raise"``.
        """
        _, stored, left = self._barrier(timeout, closing=False)
        stored &= self._wait_for_uploads(BARRIER_TIMEOUT if left is None else left, force=force)
        self._faults.raise_first()
        return stored

    def close(self, timeout: float | None = None) -> bool:
        """Store everything, close the sinks and end the worker thread. A later row reopens them.

        The argument, the result and the exceptions are the same as for ``flush``.
        """
        stored, _ = self._close(timeout)
        self._faults.raise_first()
        return stored

    def close_at_exit(self, timeout: float) -> float:
        """Close because the process exits; return the seconds that are left of ``timeout``.

        The time in which the worker thread builds values does not count, but no value gets more
        than ``BUILD_TIMEOUT``.
        """
        return self._close(timeout, at_exit=True)[1]

    def _close(self, timeout: float | None, *, at_exit: bool = False) -> tuple[bool, float]:
        """Close; return whether everything is stored, and the seconds that are left."""
        worker, stored, left = self._barrier(timeout, closing=True, at_exit=at_exit)
        deadline = time.monotonic() + (CLOSE_TIMEOUT if left is None else left)
        stored &= self._wait_for_uploads(deadline - time.monotonic(), force=True)
        if worker is not None:
            with self._condition:
                self._condition.wait_for(lambda: not self._closing, BARRIER_TIMEOUT)
                ended = self._worker is not worker
            if ended:  # otherwise new rows arrived, and it continues with them
                worker.join()
        return stored, max(deadline - time.monotonic(), 0.0)

    def hand_over(self) -> None:
        """Wait until everything logged before is written to the sinks.

        Unlike a barrier, it waits neither for an upload nor for storage that hangs longer than
        ``buffer.STALL_TIMEOUT``, and it costs nothing if there is nothing to write.
        """
        # In this order: the worker thread sets ``_draining`` before it takes rows and items.
        if not (self.rows or self._items or self._draining):
            return
        with self._condition:
            if threading.current_thread() is not self._worker:
                self._last_handover += 1
                number = self._last_handover
                self._await_worker(lambda: self._done_handover >= number, buffer.STALL_TIMEOUT)

    def close_without_waiting(self) -> None:
        """Tell the worker thread to store everything, close the sinks and end."""
        with self._condition:
            if self._worker is not None:
                self._closing = True
                self._last_ticket += 1
                self._wake()

    def _barrier(
        self, timeout: float | None, *, closing: bool, at_exit: bool = False
    ) -> tuple[threading.Thread | None, bool, float | None]:
        """Store everything.

        Returns:
            The worker thread that did it, whether it succeeded, and the seconds that are left of
            ``timeout``: None if there is no timeout, 0.0 if the barrier gave up.
        """
        if sys.is_finalizing():
            if self.rows:
                self._drop_at_shutdown(len(self.rows) // ENTRIES)
            return None, self._losses() == self._reported_losses, timeout
        with self._condition:
            if self._worker is None and (self.rows or self._items):
                self._start()
            worker = self._worker
            if threading.current_thread() is worker or not (worker or self._threadless):
                return None, True, timeout
            self._closing |= closing
            self._last_ticket += 1
            ticket = self._last_ticket
            left = timeout
            if worker is None:
                self.drain_once()
            else:
                done, left = self._await_worker(
                    lambda: self._done_ticket >= ticket, BARRIER_TIMEOUT, timeout, at_exit=at_exit
                )
                if not done:
                    message = f"{self}: not everything could be stored in time; the rest is kept"
                    self._faults.report("barrier", FlushTimeoutError(message))
                    return None, False, left or 0.0
            return worker, ticket > self._failed_ticket, left

    def _await_worker(
        self,
        is_done: Callable[[], bool],
        limit: float,
        timeout: float | None = None,
        *,
        at_exit: bool = False,
    ) -> tuple[bool, float | None]:
        """Wait for the worker thread; called with the lock held.

        Args:
            is_done: what to wait for.
            limit: the seconds that it may make no progress, without a ``timeout``.
            timeout: the seconds that it may take.
            at_exit: whether ``limit`` applies instead of ``timeout`` while values are built.

        Returns:
            Whether it is done, or the worker thread has ended; and the seconds left of ``timeout``.
        """
        started, left = time.monotonic(), timeout
        while not is_done() and self._worker is not None:
            self._wake()
            now = time.monotonic()
            if left is not None and not (at_exit and self._building):
                self._condition.wait(left)
                left -= time.monotonic() - now
                if left <= 0 and not is_done():
                    return False, 0.0
                continue
            seconds = self._seconds_to_wait(limit, started)
            if not seconds:
                return False, left
            if at_exit:
                if now - started > NOTICE_SECS:
                    message = "exiting waits for values that are being built; Ctrl-C skips them"
                    self._faults.warn_once("exit", f"{self}: {message}")
                seconds = min(seconds, NOTICE_SECS)
            self._condition.wait(seconds)
        return True, left

    def _wait_for_uploads(self, timeout: float, *, force: bool) -> bool:
        """Wait until remote stores have everything from the sinks; return whether they do."""
        if threading.current_thread() is self._worker:
            return True
        missing = self._sink_group.wait(max(timeout, 0.0), force=force)
        if missing:
            message = (
                f"not everything could be uploaded in time. The rest is kept and uploaded later by "
                f"this process, the next writer to that folder, or sm-tblog upload: "
                f"{'; '.join(missing)}"
            )
            self._faults.report("delivery", FlushTimeoutError(message))
        else:
            self._faults.resolve("delivery")
        return not missing

    def _losses(self) -> int:
        return self._dropped + self._sink_group.losses
