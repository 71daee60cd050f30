"""The spool: what an object store has not acknowledged yet, on the local disk.

A spool file holds one object as it is to be, behind a line that says where it belongs. The process
that writes it holds a lock on it. The kernel lets go of the lock however the process ends, so that
a file that nobody holds is one that was left behind, and whoever finds it may finish its upload.

By default the folder is ``sm_tblog/spool`` in the user's cache folder, else what the environment
variable ``SM_TBLOG_SPOOL`` names. A new one is private, mode 0700, as its files always are. What
the disk does not take is kept in memory.
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
"""Bytes that a process keeps in its spool, at most."""

MEMORY_LIMIT = 64 << 20
"""Bytes that it keeps in memory, at most, where the disk does not take them."""

SUFFIX = ".spool"

_HEADER = 1 << 16
"""Bytes that the line at the beginning may have."""

_SMALL = 1 << 20
"""Bytes that are read into memory rather than in pieces, while a request sends them."""


def default_folder() -> Path:
    """Return the folder for spool files."""
    if named := os.environ.get("SM_TBLOG_SPOOL"):
        return Path(named)
    cache_folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache_folder).expanduser() / "sm_tblog" / "spool"


class SpoolFile:
    """One object as it is to be. Appended to by one thread and read by another.

    Args:
        url: the folder that the object belongs in.
        name: the object's name in it.
        file: an open file, its lock held; None keeps everything in memory.
        start: where the object begins in the file.
        path: the file's.
        notes: what else the file's first line says.

    Attributes:
        size: bytes of the object.
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
        self._rest = bytearray()  # what stands behind the file's end
        self.size = 0 if file is None else file.seek(0, io.SEEK_END) - start

    def __str__(self) -> str:
        """Return the file's path."""
        return "memory" if self._path is None else str(self._path)

    @property
    def holds_records(self) -> bool:
        """Whether it is an event file, as TensorBoard knows one. Any other is text."""
        return "tfevents" in self.name

    @property
    def in_memory(self) -> int:
        """How many bytes of the object are in memory."""
        return len(self._rest)

    @property
    def is_on_disk(self) -> bool:
        """Whether the next bytes go to the disk, as far as that is known."""
        return self._file is not None and not self._rest

    def append(self, data: Bytes) -> None:
        """Append ``data``; to what is in memory if the disk is full, or gone."""
        with self._lock:
            if self._file is None or self._rest:
                self._rest += data
            else:
                try:
                    self._file.seek(self._start + self.size)
                    _write(self._file, data)
                except OSError as error:
                    _warn_of_memory(Path(self._path or "").parent, str(error.strerror or error))
                    self._rest += data
            self.size += len(data)

    def read(self, begin: int, end: int) -> bytes:
        """Return the object's bytes from ``begin`` to ``end``.

        Raises:
            StoreError: the file cannot be read, or was cut.
        """
        with self._lock:
            on_disk = self.size - len(self._rest)
            wanted = max(min(end, on_disk) - begin, 0)
            data = b""
            if wanted and self._file is not None:
                try:
                    self._file.seek(self._start + begin)
                    data = self._file.read(wanted)
                except OSError as error:
                    message = f"cannot read the spool file {self}: {error.strerror or error}"
                    raise StoreError(error.errno, message) from error
            rest = self._rest[max(begin - on_disk, 0) : max(end - on_disk, 0)]
        if len(data) != wanted:
            message = f"the spool file {self} was cut: {len(data)} of {wanted} bytes are left"
            raise StoreError(message)
        return b"".join((data, rest))

    def body(self, begin: int, end: int) -> bytes | Section:
        """Return the same as what a request may send: in memory only if it is short."""
        return self.read(begin, end) if end - begin <= _SMALL else Section(self, begin, end)

    def drop_torn_end(self) -> None:
        """Drop a record or line that the end of a process has cut."""
        whole = 0
        unframer = Unframer()
        for begin in range(0, self.size, 1 << 20):
            piece = self.read(begin, min(begin + (1 << 20), self.size))
            if self.holds_records:
                unframer.feed(piece)
                try:
                    for _ in unframer:
                        whole = unframer.offset
                except CorruptRecordError:
                    break
            elif b"\n" in piece:
                whole = begin + piece.rindex(b"\n") + 1
        self.size = whole

    def delete(self) -> None:
        """Remove the file: all of it is acknowledged."""
        if sys.platform == "win32":
            self.release()  # an open file cannot be removed there
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.release()

    def release(self) -> None:
        """Let go of the file; it stays. A forked child's parent goes on holding its lock."""
        if self._file is not None:
            self._file.close()


class Section(io.RawIOBase):
    """Some of a spool file, to be sent in pieces."""

    def __init__(self, file: SpoolFile, begin: int, end: int) -> None:
        super().__init__()
        self._file = file
        self._begin = begin
        self._length = end - begin
        self._at = 0

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return self._length

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: a request that fails is sent again."""
        return True

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to where the next byte is to be read."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, self._length)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        begin = min(self._at, self._length)
        end = min(begin + len(buffer), self._length)
        buffer[: end - begin] = self._file.read(self._begin + begin, self._begin + end)
        self._at = end
        return end - begin


def create(folder: Path, url: str, name: str, **notes: Any) -> SpoolFile:
    """Return a new spool file, in memory if the folder cannot be used.

    Args:
        folder: made if need be. One that is there must be the user's own.
        url: the folder that the object belongs in.
        name: the object's name in it.
        notes: what else a later upload needs to know; never a secret.
    """
    header = json.dumps({"url": url, "name": name, **notes}).encode() + b"\n"
    path = folder / f"{os.urandom(8).hex()}{SUFFIX}"
    file = None
    try:
        _make_private(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = io.FileIO(os.open(path, flags, 0o600), "r+")
        _lock(file)  # before there is a header, without which nobody else takes the file
        _write(file, header)
    except OSError as error:
        _warn_of_memory(folder, str(error.strerror or error))
        if file is not None:
            file.close()
            path.unlink(missing_ok=True)
        return SpoolFile(url, name, notes=notes)
    return SpoolFile(url, name, file, len(header), path, notes)


def orphans(folder: Path, **notes: Any) -> Iterator[SpoolFile]:
    """Iterate over the files that no process holds, their locks taken.

    Args:
        folder: a spool folder, or one spool file.
        notes: only files with these are taken; ``url`` is one of them.
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
            # Locked last: even for a moment, a lock would keep it from whom it belongs to.
            wanted = found is not None and all(found.get(key) == notes[key] for key in notes)
            if found is None or not wanted or not _is_orphan(file):
                continue
            stack.pop_all()
            yield SpoolFile(
                found.pop("url"), found.pop("name"), file, found.pop("start"), path, found
            )


def _notes_of(file: io.FileIO) -> dict[str, Any] | None:
    """Return what a spool file's first line says, None if it is none, or not the user's own."""
    try:
        if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
            return None
        line, newline, _ = file.read(_HEADER).partition(b"\n")
        notes = json.loads(line)
        known = isinstance(notes["url"], str) and isinstance(notes["name"], str)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {**notes, "start": len(line + newline)} if newline and known else None


def _is_orphan(file: io.FileIO) -> bool:
    """Take a file's lock; return whether no process held it, and it is still there."""
    try:
        _lock(file)
        return os.fstat(file.fileno()).st_nlink > 0
    except OSError:
        return False


def _make_private(folder: Path) -> None:
    """Make a folder that nobody else can read.

    Raises:
        OSError: it cannot be made, or is another user's.
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
def _warn_of_memory(folder: Path, why: str) -> None:
    logger.warning(
        "cannot write in the spool folder %s: %s; what is not uploaded yet is kept in memory, at "
        "most %d MB of it, and is lost with the process. Set SM_TBLOG_SPOOL to a folder with room",
        folder,
        why,
        MEMORY_LIMIT >> 20,
    )
