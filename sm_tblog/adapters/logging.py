"""The standard library's ``logging``: a handler that logs records as texts.

::

    import logging
    from sm_tblog.adapters.logging import TensorBoardHandler

    logging.getLogger().addHandler(TensorBoardHandler(writer))

TensorBoard keeps about a hundred texts per tag. So each text contains many records, one per line:
those of a few seconds, up to a maximum number of lines, or those up to an error.

Records that wait for their text are logged when the process ends, also by ``SIGTERM``, and in a
child of ``multiprocessing`` before it sends a result. A forked child does not repeat its parent's.

The handler ignores records of this library itself, and records that other libraries log on its
threads. Otherwise, uploading a log would add records to that log.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from sm_tblog.adapters._target import Target
from sm_tblog.pipeline import lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from sm_tblog import Writer

__all__ = ["TensorBoardHandler"]

_PREFIX = "sm_tblog"
"""The name of this library's logger, and the prefix of its threads' names."""

LOCK_TIMEOUT = 5.0
"""Seconds that the end of the process waits for a thread that logs a record."""


class TensorBoardHandler(logging.Handler):
    """Handler that logs records as texts to TensorBoard.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        tag: the tag of the texts.
        level: the minimum level of records; those below it are ignored.
        capacity: the number of lines at which a text is logged.
        interval: the maximum time, in seconds, until records are logged as a text.
        flush_level: the level from which a record is logged at once, with those before it.
        step: a function that returns the step of a text when it is logged. By default, the step is
            the number of records so far.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        *,
        tag: str = "log",
        level: int | str = logging.NOTSET,
        capacity: int = 200,
        interval: float = 5.0,
        flush_level: int = logging.ERROR,
        step: Callable[[], int] | None = None,
        **writer_options: Any,
    ) -> None:
        super().__init__(level)
        self._target = Target(logdir_or_writer, **writer_options)
        self._tag = tag
        self._capacity = capacity
        self._interval = interval
        self._flush_level = flush_level
        self._step = step
        self._count = 0
        self._lines: list[str] = []
        self._timer: threading.Timer | None = None
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        # A filter runs before the handler acquires its lock. So this library's threads never wait
        # for a thread that holds the lock and waits for them.
        self.addFilter(_is_external)
        lifecycle.register_for_forks(self)

    def reset_after_fork(self) -> None:
        """Leave the pending records to the parent. Called in a forked child."""
        self._lines = []
        self._timer = None

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record to the next text. Called by ``logging``, which holds the lock.

        Args:
            record: the record, which becomes one line or several.
        """
        try:
            lines = self.format(record).splitlines() or [""]
            if not self._lines:
                lifecycle.add_pending(self)
            self._lines.extend(lines)
            self._count += 1
            is_full = len(self._lines) >= self._capacity
            if record.levelno >= self._flush_level or is_full or lifecycle.is_exiting():
                self._log_pending()
            elif self._timer is None or not self._timer.is_alive():
                self._timer = threading.Timer(self._interval, self._log_on_timer)
                self._timer.name = f"{_PREFIX} records"
                self._timer.daemon = True
                self._timer.start()
        except Exception:  # noqa: BLE001 - like every handler
            self.handleError(record)

    def flush(self) -> None:
        """Log the pending records as a text, and wait until it is stored."""
        with self._locked():
            self._log_pending()
        self._target.flush()

    def close(self) -> None:
        """Log the pending records and close the file. ``logging`` calls this when a script ends."""
        with self._locked():
            self._log_pending()
        self._target.close()
        super().close()

    def log_pending(self) -> None:
        """Log the pending records as a text. Called when the process ends."""
        if threading.current_thread().name.startswith(_PREFIX):
            return  # a thread that holds the lock may wait for this one
        lock = self._locked()
        if lock.acquire(timeout=LOCK_TIMEOUT):
            try:
                self._log_pending()
            finally:
                lock.release()

    def _log_on_timer(self) -> None:
        with self._locked():
            self._log_pending()

    def _log_pending(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lifecycle.remove_pending(self)
            # Markdown shows lines indented by four spaces as code, whatever they contain.
            text = "\n".join(f"    {line}" for line in self._lines)
            self._lines = []
            step = self._count if self._step is None else self._step()
            self._target.writer.add_text(self._tag, text, step)

    def _locked(self) -> Any:
        return self.lock or threading.RLock()


def _is_external(record: logging.LogRecord) -> bool:
    """Return whether a record comes neither from this library nor from one of its threads."""
    is_own = record.name == _PREFIX or record.name.startswith(f"{_PREFIX}.")
    return not is_own and not str(record.threadName).startswith(_PREFIX)
