"""The interfaces that uploading requires: a remote folder, and an object in it that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["AppendableObject", "RemoteFolder"]


class AppendableObject(Protocol):
    """An object in a remote folder that grows.

    Attributes:
        committed: number of bytes that the remote folder has acknowledged.
    """

    committed: int

    @property
    def max_size(self) -> int:
        """Size in bytes at which a new object should be started."""
        ...

    def padding(self, size: int) -> int:
        """Return the number of padding bytes to append to an object of this size before upload."""
        ...

    def commit(self, file: SpoolFile, size: int) -> None:
        """Store the first ``size`` bytes of ``file`` in the object, which never becomes shorter."""
        ...

    def close(self) -> None:
        """Remove what a failure may have left in the remote folder."""
        ...


class RemoteFolder(Protocol):
    """A folder in an object store. Every failure is a ``StoreError``."""

    def open_object(self, name: str, *, is_new: bool) -> AppendableObject:
        """Return the object with this name, which nobody else writes.

        Args:
            name: the object's name.
            is_new: True if no process can have started the object before.
        """
        ...

    def names_after(self, name: str) -> list[str]:
        """Return names of the folder, including all that sort after ``name`` and start like it.

        The list is empty if the names cannot be listed, for example because that is not allowed.
        """
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a complete object."""
        ...

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace the content of an object, None if it does not exist, by ``change(content)``."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""
        ...
