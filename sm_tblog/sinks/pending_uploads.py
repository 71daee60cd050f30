"""Track what a sink's remote stores have accepted but not yet uploaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sm_tblog.storage.base import NotUploadedError, RemoteStore

if TYPE_CHECKING:
    from sm_tblog.storage.base import Store

__all__ = ["PendingUploads"]


class PendingUploads:
    """Remote stores with uploads to finish, including stores that the sink has already closed."""

    def __init__(self) -> None:
        self._stores: list[RemoteStore] = []

    def add(self, store: Store) -> None:
        """Track a store if it is remote."""
        if isinstance(store, RemoteStore):
            self._stores = [one for one in self._stores if not one.is_done] + [store]

    @property
    def unacknowledged(self) -> int:
        """Bytes not yet uploaded; they are on the local disk."""
        return sum(store.unacknowledged for store in self._stores)

    @property
    def spool_files(self) -> list[str]:
        """The local files that hold the bytes not yet uploaded."""
        return sorted({path for store in self._stores for path in store.spool_files})

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait at most ``timeout`` seconds until everything is uploaded; return whether it is.

        Called by the thread that waits at a barrier; see ``RemoteStore.wait``.

        Raises:
            NotUploadedError: not everything is uploaded, for a known reason.
        """
        deadline = time.monotonic() + timeout
        stores = self._stores
        for store in stores:
            store.wait(0.0, force=force)  # start all uploads
        done = [s.wait(max(deadline - time.monotonic(), 0.0), force=force) for s in stores]
        errors = [s.error for s, is_done in zip(stores, done, strict=True) if not is_done]
        if error := next(filter(None, errors), None):
            raise NotUploadedError(str(error)) from error
        return all(done)
