"""A queue of side files that keeps their order and retries those that a store refuses."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from sm_tblog._errors import StoreError
from sm_tblog.storage.base import InvalidNameError, StoreLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.sinks.base import File
    from sm_tblog.storage.base import Store

__all__ = ["SideFiles"]


class SideFiles:
    """The side files of one run: the counterpart of ``Appender`` for event files.

    Args:
        open_store: a function that returns the store.

    Attributes:
        stored: the number of bytes stored; a file given as a function counts as one byte.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._store: Store | None = None
        self._queue: deque[File] = deque()
        self.stored = self.dropped = 0

    @property
    def pending(self) -> int:
        """Bytes not yet stored, at least one per queued file."""
        return sum(map(_size, list(self._queue)))

    def add(self, file: File) -> None:
        """Queue a file for ``write_pending``."""
        self._queue.append(file)

    def write_pending(self) -> None:
        """Write the queued files to the store.

        Raises:
            StoreError: the store did not accept a file. This file and the later ones stay queued.
            InvalidNameError: a file's name is impossible. The file is dropped.
            Exception: the first exception raised by a file's function. The file is lost, because
                its function would raise every time; later files are not affected.
        """
        failure: Exception | None = None
        while self._queue:
            file = self._queue[0]
            try:
                self._store = self._store or self._open()
                self._store.put(file.name, file.data)
            except InvalidNameError as error:
                failure = failure or error
                self.dropped += 1
            except StoreError as error:
                failure = failure or error
                if isinstance(error, StoreLostError) and self._store is not None:
                    with contextlib.suppress(StoreError):
                        self._store.close()
                    self._store = None
                break
            except Exception as error:  # noqa: BLE001 - a file's function may raise anything
                failure = failure or error
                self.dropped += 1
            else:
                self.stored += _size(file)
            self._queue.popleft()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Try once more to write the queued files, and close the store in any case.

        Raises:
            StoreError: not everything was stored; the rest is lost.
            Exception: as for ``write_pending``.
        """
        try:
            self.write_pending()
        finally:
            self._queue.clear()
            store, self._store = self._store, None
            if store is not None:
                store.close()


def _size(file: File) -> int:
    """Return the number of bytes that a queued side file holds, at least one."""
    return 1 if callable(file.data) else max(len(file.data), 1)
