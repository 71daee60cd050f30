"""The spool: what an object store has not acknowledged yet, on the local disk.

A spool file holds one object as it is to be, behind a line that says where it belongs. The process
that writes it holds a lock on it. The kernel lets go of the lock however the process ends, so that
a file that nobody holds is one that was left behind, and whoever finds it may finish its upload.

The folder is private, mode 0700: by default ``sm_tblog/spool`` in the user's cache folder, or what
the environment variable ``SM_TBLOG_SPOOL`` names.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import CorruptRecordError, StoreError
from sm_tblog.format.records import Unframer

try:
    import fcntl
except ImportError:  # Windows: what was left behind is found by ``sm-tblog upload`` alone
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog._types import Bytes

__all__ = ["Spool", "SpoolFile", "default_folder", "left_behind"]

LIMIT = 2 << 30
"""Bytes that a process keeps in its spool, at most."""

MEMORY_LIMIT = 64 << 20
"""Bytes that it keeps in memory, at most, where there is no folder to keep them in."""

SUFFIX = ".spool"

_HEADER = 1 << 16
"""Bytes that the line at the beginning may have."""


def default_folder() -> Path:
    """Return the folder for spool files."""
    if named := os.environ.get("SM_TBLOG_SPOOL"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "sm_tblog" / "spool"


class SpoolFile:
    """One object as it is to be. Appended to by one thread and read by another.

    Args:
        file: the open file, its lock held; or memory, where the disk has no place.
        url: the folder that the object belongs in.
        name: the object's name in it.
        start: where the object begins in the file.
        path: the file's; None for memory.
    """

    def __init__(
        self,
        file: io.FileIO | io.BytesIO,
        url: str,
        name: str,
        start: int = 0,
        path: Path | None = None,
    ) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._start = start
        self.url = url
        self.name = name
        self.path = path
        self.size = self._end() - start

    def __str__(self) -> str:
        """Return the file's path."""
        return "memory" if self.path is None else str(self.path)

    def append(self, data: Bytes) -> None:
        """Append all of ``data``, or nothing that ``size`` counts.

        Raises:
            StoreError: the disk is full, or gone.
        """
        view = memoryview(data)
        with self._lock:
            try:
                self._file.seek(self._start + self.size)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:])
            except OSError as error:
                message = f"cannot write the spool file {self}: {error.strerror or error}"
                raise StoreError(error.errno, message) from error
            self.size += len(view)

    def read(self, begin: int, end: int) -> bytes:
        """Return the object's bytes from ``begin`` to ``end``.

        Raises:
            StoreError: the file cannot be read, or was cut.
        """
        with self._lock:
            try:
                self._file.seek(self._start + begin)
                data = self._file.read(end - begin)
            except OSError as error:
                message = f"cannot read the spool file {self}: {error.strerror or error}"
                raise StoreError(error.errno, message) from error
        if len(data) != end - begin:
            message = f"the spool file {self} was cut: {len(data)} of {end - begin} bytes are left"
            raise StoreError(message)
        return data

    def cut_to_whole_records(self) -> None:
        """Drop a record that the end of a process has cut."""
        unframer = Unframer()
        whole = 0
        for begin in range(0, self.size, 1 << 20):
            unframer.feed(self.read(begin, min(begin + (1 << 20), self.size)))
            try:
                for _ in unframer:
                    whole = unframer.offset
            except CorruptRecordError:
                break
        self.size = whole

    def delete(self) -> None:
        """Remove the file: all of it is acknowledged."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let go of the file; it stays."""
        with self._lock:
            self._file.close()

    def _end(self) -> int:
        return self._file.seek(0, io.SEEK_END)


class Spool:
    """Makes spool files in one folder.

    Args:
        folder: made when the first file is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, url: str, name: str, **notes: Any) -> SpoolFile:
        """Return a new file.

        Args:
            url: the folder that the object belongs in.
            name: the object's name in it.
            notes: what else a later upload needs to know; never a secret.

        Raises:
            StoreError: the folder cannot be used.
        """
        header = json.dumps({"url": url, "name": name, **notes}).encode() + b"\n"
        try:
            make_private(self.folder)
            path = self.folder / f"{os.urandom(8).hex()}{SUFFIX}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            file = io.FileIO(os.open(path, flags, 0o600), "r+")
            _lock(file)
            file.write(header)
        except OSError as error:
            message = f"cannot use the spool folder {self.folder}: {error.strerror or error}"
            raise StoreError(error.errno, message) from error
        return SpoolFile(file, url, name, len(header), path)


def make_private(folder: Path) -> None:
    """Make a folder that nobody else can read; an existing one must be the user's own.

    Raises:
        OSError: it cannot be made, or is another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        status = folder.stat()
        if status.st_uid != os.getuid():
            raise PermissionError(0, "it belongs to another user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            folder.chmod(0o700)


def left_behind(folder: Path, url: str | None = None) -> Iterator[tuple[SpoolFile, dict[str, Any]]]:
    """Iterate over the files that no process holds, each with its notes, its lock taken.

    Args:
        folder: a spool folder, or one spool file.
        url: only files that belong in this folder.
    """
    paths = [folder] if folder.is_file() else sorted(folder.glob(f"*{SUFFIX}"))
    for path in paths:
        try:
            file = io.FileIO(os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0)), "r+")
        except OSError:
            continue  # another process has just finished it
        try:
            _lock(file)
            line, newline, _ = file.read(_HEADER).partition(b"\n")
            notes = json.loads(line)
            found = SpoolFile(file, notes.pop("url"), notes.pop("name"), len(line) + 1, path)
        except (OSError, ValueError, KeyError):
            file.close()  # held by a living process, or none of ours
            continue
        if not newline or (url is not None and found.url != url) or not path.exists():
            found.close()
            continue
        yield found, notes


def _lock(file: io.FileIO) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
