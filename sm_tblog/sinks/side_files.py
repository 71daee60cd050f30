"""Side files that wait, in their order, for a store that may refuse them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sm_tblog._errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.sinks.base import File
    from sm_tblog.storage.base import Store

__all__ = ["SideFiles"]


class SideFiles:
    """The side files of one run: what ``Appender`` is for its event file.

    Args:
        open_store: makes the store.

    Attributes:
        stored: bytes stored, a function's counted as one.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._store: Store | None = None
        self._waiting: deque[File] = deque()
        self.stored = 0

    @property
    def pending(self) -> int:
        """Bytes taken and not stored yet; never none where a file waits."""
        return sum(map(_size, list(self._waiting)))

    def add(self, file: File) -> None:
        """Take a file, which ``write_pending`` will offer."""
        self._waiting.append(file)

    def write_pending(self) -> None:
        """Offer the store what waits.

        Raises:
            StoreError: the store did not take a file; it waits, and those behind it.
            Exception: the first that a file's function raised. The file is lost, for it would
                raise for ever; those behind it are not.
        """
        failure: Exception | None = None
        while self._waiting:
            file = self._waiting[0]
            try:
                self._store = self._store or self._open()
                self._store.put(file.name, file.data)
            except StoreError as error:
                failure = failure or error
                break
            except Exception as error:  # noqa: BLE001 - a file's function may be anyone's
                failure = failure or error
            else:
                self.stored += _size(file)
            self._waiting.popleft()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Deliver what waits, once more, and close the store, whatever happens.

        Raises:
            StoreError: not everything was stored; what waits is lost.
            Exception: as for ``write_pending``.
        """
        try:
            self.write_pending()
        finally:
            self._waiting.clear()
            store, self._store = self._store, None
            if store is not None:
                store.close()


def _size(file: File) -> int:
    """Return the bytes that a side file keeps while it waits, at least one."""
    return 1 if callable(file.data) else max(len(file.data), 1)
