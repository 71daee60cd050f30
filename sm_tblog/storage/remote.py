"""What uploading needs of a remote folder and of an object in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["AppendableObject", "RemoteFolder"]


class AppendableObject(Protocol):
    """One object of a place, while it grows.

    Attributes:
        committed: how many bytes of it the place has acknowledged.
        roll_bytes: an object with more than this is better followed by another.
    """

    committed: int
    roll_bytes: int

    def padding(self, size: int) -> int:
        """Return by how many bytes an object of this size should be padded before it is stored."""
        ...

    def commit(self, file: SpoolFile, size: int) -> None:
        """Make the object hold the first ``size`` bytes of ``file``; it never becomes shorter."""
        ...

    def close(self) -> None:
        """Let go of what a failure may have left at the place."""
        ...


class RemoteFolder(Protocol):
    """A folder somewhere else. Every failure is a ``StoreError``."""

    def open_object(self, name: str, *, is_new: bool) -> AppendableObject:
        """Return the object of this name, which nobody else writes.

        Args:
            name: the object's.
            is_new: whether nobody can have begun it before.
        """
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole."""
        ...

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Have an object hold what ``change`` makes of what it holds, None where there is none."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return what an object holds, None where there is none."""
        ...
