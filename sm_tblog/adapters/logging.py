"""The standard library's ``logging``: a handler whose records are texts.

::

    import logging
    from sm_tblog.adapters.logging import TensorBoardHandler

    logging.getLogger().addHandler(TensorBoardHandler(writer))

TensorBoard keeps about a hundred texts of a tag. So a text has many records, a line each: those of
some seconds, or as many as there is room for, or those up to an error.

Records of this library itself, and what its threads have others log, are passed over: of a log that
is uploaded, uploading would be logged.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from sm_tblog.adapters._target import Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from sm_tblog import Writer

__all__ = ["TensorBoardHandler"]

_OURS = "sm_tblog"
"""What our logger is named, and what the names of our threads begin with."""


class TensorBoardHandler(logging.Handler):
    """Logs records as texts to TensorBoard.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        tag: the texts' name.
        level: records below it are passed over.
        capacity: how many records a text may have.
        interval: after so many seconds at most, records become a text.
        flush_level: a record of this level, or above, does so at once.
        step: returns the step of a text, when it is logged; by default it is how many records there
            have been.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer.
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
        # Filters come before the handler's lock: a thread of ours must never wait for one that
        # waits for it.
        self.addFilter(_is_others)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record. Called by ``logging``, which holds the lock.

        Args:
            record: becomes a line, or several.
        """
        try:
            self._lines += self.format(record).splitlines() or [""]
            self._count += 1
            if record.levelno >= self._flush_level or len(self._lines) >= self._capacity:
                self._put()
            elif self._timer is None or not self._timer.is_alive():
                self._timer = threading.Timer(self._interval, self._put_in_time)
                self._timer.name = f"{_OURS} records"
                self._timer.daemon = True
                self._timer.start()
        except Exception:  # noqa: BLE001 - as every handler
            self.handleError(record)

    def flush(self) -> None:
        """Log what there is as a text, and have it stored."""
        with self._locked():
            self._put()
        self._target.flush()

    def close(self) -> None:
        """Log what there is, and close the file. ``logging`` does so when the script ends."""
        with self._locked():
            self._put()
        self._target.close()
        super().close()

    def _put_in_time(self) -> None:
        with self._locked():
            self._put()

    def _put(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            # A line that is set in by four spaces is code, whatever it holds.
            text = "\n".join(f"    {line}" for line in self._lines)
            self._lines = []
            step = self._count if self._step is None else self._step()
            self._target.writer.add_text(self._tag, text, step)

    def _locked(self) -> Any:
        return self.lock or threading.RLock()


def _is_others(record: logging.LogRecord) -> bool:
    """Return whether a record is neither this library's nor made by one of its threads."""
    is_ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
    return not is_ours and not str(record.threadName).startswith(_OURS)
