"""The store for fsspec's ``memory://`` file system, in the memory of this process."""

from __future__ import annotations

import contextlib
import posixpath
from typing import TYPE_CHECKING, ClassVar

from fsspec.implementations.memory import MemoryFileSystem

from sm_tblog.storage.base import side_file_path
from sm_tblog.storage.file_names import later_name

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
        self._is_created = False

    def __str__(self) -> str:
        """Return the URL of the growing file."""
        return self._path

    def append(self, data: Bytes) -> None:
        """Append ``data``."""
        if not self._is_created:
            self._path = self._later_path()
            self._is_created = True
        mode = "ab" if self._files.exists(self._path) else "wb"
        with self._files.open(self._path, mode) as file:
            file.write(data)

    def _later_path(self) -> str:
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            names = [posixpath.basename(one) for one in self._files.ls(self._folder, detail=False)]
        name = later_name(self._folder, posixpath.basename(self._path), names)
        return f"{self._folder}/{name}"

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
