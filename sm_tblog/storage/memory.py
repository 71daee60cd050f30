"""The store for fsspec's ``memory://`` file system, in the memory of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fsspec.implementations.memory import MemoryFileSystem

from sm_tblog.storage.base import side_file_path

if TYPE_CHECKING:
    from sm_tblog._types import Bytes
    from sm_tblog.storage.base import SideData

__all__ = ["MemoryStore"]


class MemoryStore:
    """Appends to a file of fsspec's memory file system, readable from anywhere in the process.

    Intended for tests, and for notebooks that read back what they logged.
    """

    flush_secs: ClassVar[float] = 1.0

    def __init__(self, folder: str, name: str) -> None:
        self._files = MemoryFileSystem()
        self._folder = folder.rstrip("/")
        self._path = f"{self._folder}/{name}"

    def __str__(self) -> str:
        """Return the URL of the growing file."""
        return self._path

    def append(self, data: Bytes) -> None:
        """Append ``data``."""
        mode = "ab" if self._files.exists(self._path) else "wb"
        with self._files.open(self._path, mode) as file:
            file.write(data)

    def put(self, name: str, data: SideData) -> None:
        """Write the side file ``name``.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
        """
        path = f"{self._folder}/{side_file_path(name)}"
        self._files.pipe_file(path, bytes(data(self.get(name)) if callable(data) else data))

    def get(self, name: str) -> bytes | None:
        """Return the content of the side file ``name``, or None if it does not exist.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
        """
        path = f"{self._folder}/{side_file_path(name)}"
        return bytes(self._files.cat_file(path)) if self._files.isfile(path) else None

    def flush(self) -> None:
        """Do nothing: every append is visible immediately."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
