"""The spool: data on the local disk that an object store has not acknowledged yet.

A spool file holds the content of one object, after a header line that says where it belongs. The
process that writes the file holds a lock on it. The kernel releases the lock however the process
ends, so a file without a lock is orphaned, and any process that finds it may finish its upload.

The folder is named by the environment variable ``SM_TBLOG_SPOOL``; the default is
``sm_tblog/spool`` in the user's cache folder. A new folder is private (mode 0700);
spool files are private in any folder. Data that the disk does not accept is kept in memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import threading
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import CorruptRecordError, StoreError
from sm_tblog.format.records import Unframer

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sm_tblog._types import Bytes

__all__ = ["LIMIT", "MEMORY_LIMIT", "SpoolFile", "create", "default_folder", "orphans"]

logger = logging.getLogger("sm_tblog")

LIMIT = 2 << 30
"""Maximum number of bytes that a process keeps in its spool on disk."""

MEMORY_LIMIT = 64 << 20
"""Maximum number of bytes that it keeps in memory if the disk does not accept them."""

SUFFIX = ".spool"

_MAX_HEADER_SIZE = 1 << 16
"""Maximum length of the header line in bytes."""

_SPARE_SIZE = 16
"""Bytes that a name may grow by when it is changed."""

_MAX_BODY_IN_MEMORY = 1 << 20
"""Maximum size in bytes of a request body that is read into memory instead of in chunks."""


def default_folder() -> Path:
    """Return the default folder for spool files."""
    if named := os.environ.get("SM_TBLOG_SPOOL"):
        return Path(named)
    cache_folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache_folder).expanduser() / "sm_tblog" / "spool"


class SpoolFile:
    """The content of one object, appended by one thread and read by another.

    Args:
        url: the folder that the object belongs to.
        name: the object's name in that folder.
        file: an open and locked file; None keeps everything in memory.
        start: offset of the object in the file, in bytes.
        path: the file's path.
        notes: the other entries of the file's header line.

    Attributes:
        size: size of the object in bytes.
    """

    def __init__(
        self,
        url: str,
        name: str,
        file: io.FileIO | None = None,
        start: int = 0,
        path: Path | None = None,
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.url = url
        self.name = name
        self.notes = notes
        self._file = file
        self._start = start
        self._path = path
        self._lock = threading.Lock()
        self._tail = bytearray()  # bytes after the end of the file
        self.size = 0 if file is None else file.seek(0, io.SEEK_END) - start

    def __str__(self) -> str:
        """Return the file's path."""
        return "memory" if self._path is None else str(self._path)

    @property
    def holds_records(self) -> bool:
        """Whether the object is an event file by TensorBoard's naming rule; if not, it is text."""
        return "tfevents" in self.name

    @property
    def in_memory(self) -> int:
        """Number of bytes of the object that are in memory."""
        return len(self._tail)

    @property
    def is_on_disk(self) -> bool:
        """Whether the next bytes are expected to go to the disk."""
        return self._file is not None and not self._tail

    def append(self, data: Bytes) -> None:
        """Append ``data`` to the file, or in memory if the disk is full or unavailable."""
        with self._lock:
            if self._file is None or self._tail:
                self._tail += data
            else:
                try:
                    self._file.seek(self._start + self.size)
                    _write(self._file, data)
                except OSError as error:
                    _warn_spooling_in_memory(
                        Path(self._path or "").parent, str(error.strerror or error)
                    )
                    self._tail += data
            self.size += len(data)

    def rename(self, name: str) -> None:
        """Give the object another name, unless it does not fit in the header or cannot be noted."""
        with self._lock:
            if self._file is not None:
                header = _encode_header(self.url, name, self.notes, self._start)
                if len(header) != self._start:
                    return
                try:
                    self._file.seek(0)
                    _write(self._file, header)
                except OSError:
                    return
            self.name = name

    def read(self, begin: int, end: int) -> bytes:
        """Return the object's bytes from ``begin`` to ``end``.

        Raises:
            StoreError: the file cannot be read, or was truncated.
        """
        with self._lock:
            on_disk = self.size - len(self._tail)
            wanted = max(min(end, on_disk) - begin, 0)
            data = b""
            if wanted and self._file is not None:
                try:
                    self._file.seek(self._start + begin)
                    data = self._file.read(wanted)
                except OSError as error:
                    message = f"cannot read the spool file {self}: {error.strerror or error}"
                    raise StoreError(error.errno, message) from error
            rest = self._tail[max(begin - on_disk, 0) : max(end - on_disk, 0)]
        if len(data) != wanted:
            message = f"the spool file {self} was truncated: {len(data)} of {wanted} bytes are left"
            raise StoreError(message)
        return b"".join((data, rest))

    def body(self, begin: int, end: int) -> bytes | Section:
        """Return the same bytes as a request body: in memory only if they are few."""
        in_memory = end - begin <= _MAX_BODY_IN_MEMORY
        return self.read(begin, end) if in_memory else Section(self, begin, end)

    def drop_torn_end(self) -> None:
        """Drop a last record or line that is incomplete because the process ended."""
        valid_size = 0
        unframer = Unframer()
        for begin in range(0, self.size, 1 << 20):
            chunk = self.read(begin, min(begin + (1 << 20), self.size))
            if self.holds_records:
                unframer.feed(chunk)
                try:
                    for _ in unframer:
                        valid_size = unframer.offset
                except CorruptRecordError:
                    break
            elif b"\n" in chunk:
                valid_size = begin + chunk.rindex(b"\n") + 1
        self.size = valid_size

    def delete(self) -> None:
        """Delete the file, once all of it is acknowledged."""
        if sys.platform == "win32":
            self.release()  # Windows cannot delete an open file
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.release()

    def release(self) -> None:
        """Close the file without deleting it. In a forked child, the parent keeps its lock."""
        if self._file is not None:
            self._file.close()


class Section(io.RawIOBase):
    """A section of a spool file, as a stream for a request body."""

    def __init__(self, file: SpoolFile, begin: int, end: int) -> None:
        super().__init__()
        self._file = file
        self._begin = begin
        self._length = end - begin
        self._position = 0

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self._length

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: failed requests are sent again."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next byte."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._length)
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into ``buffer``."""
        begin = min(self._position, self._length)
        end = min(begin + len(buffer), self._length)
        buffer[: end - begin] = self._file.read(self._begin + begin, self._begin + end)
        self._position = end
        return end - begin


def create(folder: Path, url: str, name: str, **notes: Any) -> SpoolFile:
    """Return a new spool file, in memory if the folder cannot be used.

    Args:
        folder: created if it does not exist. An existing one must belong to the user.
        url: the folder that the object belongs to.
        name: the object's name in that folder.
        notes: further entries of the header that a later upload needs; never a secret.
    """
    header = _encode_header(url, name, notes)
    path = folder / f"{os.urandom(8).hex()}{SUFFIX}"
    file = None
    try:
        _create_private(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = io.FileIO(os.open(path, flags, 0o600), "r+")
        _lock(file)  # before the header is written, without which others ignore the file
        _write(file, header)
    except OSError as error:
        _warn_spooling_in_memory(folder, str(error.strerror or error))
        if file is not None:
            file.close()
            path.unlink(missing_ok=True)
        return SpoolFile(url, name, notes=notes)
    return SpoolFile(url, name, file, len(header), path, notes)


def _encode_header(url: str, name: str, notes: Mapping[str, Any], size: int = 0) -> bytes:
    """Return a header line of at least ``size`` bytes; by default, with room for a longer name."""
    line = json.dumps({"url": url, "name": name, **notes}).encode()
    return line.ljust((size or len(line) + _SPARE_SIZE + 1) - 1) + b"\n"


def orphans(folder: Path, **notes: Any) -> Iterator[SpoolFile]:
    """Lock the orphaned spool files and iterate over them.

    Args:
        folder: a spool folder, or one spool file.
        notes: entries that the header of a file must have, such as ``url``; others are skipped.
    """
    paths = [folder] if folder.is_file() else sorted(folder.glob(f"*{SUFFIX}"))
    for path in paths:
        try:
            file = io.FileIO(os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0)), "r+")
        except OSError:
            continue  # another process has just finished it
        with contextlib.ExitStack() as stack:
            stack.callback(file.close)
            found = _notes_of(file)
            # Lock last: even a brief lock would keep the file from the process that it belongs to.
            wanted = found is not None and all(found.get(key) == notes[key] for key in notes)
            if found is None or not wanted or not _is_orphan(file):
                continue
            stack.pop_all()
            yield SpoolFile(
                found.pop("url"), found.pop("name"), file, found.pop("start"), path, found
            )


def _notes_of(file: io.FileIO) -> dict[str, Any] | None:
    """Return a spool file's header; None without one, or if the file is another user's."""
    try:
        if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
            return None
        line, newline, _ = file.read(_MAX_HEADER_SIZE).partition(b"\n")
        notes = json.loads(line)
        known = isinstance(notes["url"], str) and isinstance(notes["name"], str)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {**notes, "start": len(line + newline)} if newline and known else None


def _is_orphan(file: io.FileIO) -> bool:
    """Lock a file; return whether no process held the lock and the file still exists."""
    try:
        _lock(file)
        return os.fstat(file.fileno()).st_nlink > 0
    except OSError:
        return False


def _create_private(folder: Path) -> None:
    """Create a folder that no other user can read.

    Raises:
        OSError: it cannot be created, or belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError(0, "it belongs to another user")


def _lock(file: io.FileIO) -> None:
    if sys.platform == "win32":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(file: io.FileIO, data: Bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@cache
def _warn_spooling_in_memory(folder: Path, why: str) -> None:
    logger.warning(
        "cannot write to the spool folder %s: %s; data that is not uploaded yet is kept in memory "
        "(at most %d MB) and lost when the process ends. Set SM_TBLOG_SPOOL to a folder with space",
        folder,
        why,
        MEMORY_LIMIT >> 20,
    )
