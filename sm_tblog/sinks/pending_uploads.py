"""What a sink's remote stores have taken and not delivered yet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sm_tblog.storage.base import NotUploadedError, RemoteStore

if TYPE_CHECKING:
    from sm_tblog.storage.base import Store

__all__ = ["PendingUploads"]


class PendingUploads:
    """Remote stores, remembered until they are done: a sink forgets those that it has closed."""

    def __init__(self) -> None:
        self._stores: list[RemoteStore] = []

    def add(self, store: Store) -> None:
        """Remember a store, if it is a remote one."""
        if isinstance(store, RemoteStore):
            self._stores = [one for one in self._stores if not one.is_done] + [store]

    @property
    def unacknowledged(self) -> int:
        """Bytes that are not delivered; they wait on the disk."""
        return sum(store.unacknowledged for store in self._stores)

    @property
    def spool_files(self) -> list[str]:
        """The local files that hold them."""
        return sorted({path for store in self._stores for path in store.spool_files})

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait for so many seconds until all is delivered; return whether it is.

        Called by the thread that waits at a barrier; see ``RemoteStore.wait``.

        Raises:
            NotUploadedError: it is not, and why is known.
        """
        deadline = time.monotonic() + timeout
        stores = self._stores
        for store in stores:
            store.wait(0.0, force=force)  # has them all begin
        done = [s.wait(max(deadline - time.monotonic(), 0.0), force=force) for s in stores]
        errors = [s.error for s, is_done in zip(stores, done, strict=True) if not is_done]
        if error := next(filter(None, errors), None):
            raise NotUploadedError(str(error)) from error
        return all(done)
