"""A growing file in a local folder, with the faults of disks, file servers and mounts.

After an error that may be the descriptor's, such as those of a file server or mount that went away,
the descriptor is closed. The file is opened again if it may still accept data; if not,
``StoreLostError`` asks for a new file, which is created once the folder is back.

Where written bytes are not visible at once, ``flush`` calls ``fsync``, or closes the file, which is
opened again when there is more to write. Until that has succeeded, the bytes are kept in memory: if
it fails, they are written again, or passed on to the next file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from sm_tblog.storage.base import StoreLostError
from sm_tblog.storage.file_names import is_timed, later_name
from sm_tblog.storage.folder_lock import locked
from sm_tblog.storage.mounts import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sm_tblog._types import Bytes
    from sm_tblog.storage.mounts import Mount

__all__ = ["LocalFile"]

MAX_REWRITTEN_SIZE = 1 << 20
"""Size in bytes at which a new file is started where every flush stores the whole file again."""

MAX_UNSYNCED_SIZE = 4 << 20
"""Bytes kept in memory until they are visible to others; with more of them, the file is flushed."""

LOCK_TIMEOUT = 1.0
"""Seconds to wait for other processes that create files in the folder, or lock it all the time."""


def _numbers(*names: str) -> frozenset[int]:
    """Return the numbers of those error names that this platform has."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


_PASSING_ERRORS = _numbers(
    *("EAGAIN", "EDQUOT", "EFBIG", "EINTR", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOSPC"),
    "EROFS",
)
"""Errors that are not about the file: a later attempt with the same descriptor may succeed."""

_DEAD_ERRORS = _numbers(
    *("EBADF", "EBADFD", "ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "ENODEV", "ENOENT"),
    *("ENOLINK", "ENOTCONN", "ENXIO", "EREMOTEIO", "ESHUTDOWN", "ESTALE"),
)
"""Errors after which a file never takes another byte: its server or mount has forgotten it."""

_PATH_ERRORS = _numbers("EACCES", "ELOOP", "ENOTDIR", "EPERM")
"""Errors that are about a folder above the file."""

_NO_SYNC_ERRORS = _numbers("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP")
"""Errors of a file system without ``fsync``."""

_FLAGS = os.O_WRONLY | getattr(os, "O_BINARY", 0)


class LocalFile:
    """A file that grows. Every failure is an ``OSError``, or a ``StoreLostError``.

    Args:
        path: the file's path. Its name is advanced after those in the folder.
        find_mount: returns the kind of file system; called before the file is created.

    Attributes:
        path: the file's path.
    """

    def __init__(self, path: Path, find_mount: Callable[[], Mount]) -> None:
        self.path = path
        self._find_mount = find_mount
        self._mount = LOCAL
        self._descriptor: int | None = None
        self._is_created = False
        self._identity: os.stat_result | None = None  # unknown if the first fstat failed
        self._is_suspect = False  # whether the last call on the descriptor failed
        self._size = 0
        self._unsynced: list[Bytes] = []  # the last bytes of the file, unless visible at once
        self._must_rewrite = False  # whether those may be missing in the file

    @property
    def is_full(self) -> bool:
        """Whether to start a new file: this one cannot be opened again, or is large to rewrite."""
        if not self._mount.rewrites or self._unsynced or not self._size:
            return False
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._reopen()
        return self._descriptor is None or self._size >= MAX_REWRITTEN_SIZE

    def append(self, data: Bytes) -> None:
        """Append ``data``; after a failure, the next append overwrites what is left of it."""
        if self._descriptor is not None:
            self._check_descriptor(self._descriptor)
        if self._descriptor is None:
            self._open()
        if sum(map(len, self._unsynced)) >= MAX_UNSYNCED_SIZE:
            self._sync()
            if self._descriptor is None:
                self._reopen()
        self._rewrite()
        with self._watched() as descriptor:
            _write(descriptor, memoryview(data), self._size)
        self._is_suspect = False
        self._size += len(data)
        if self._mount.sync:
            self._unsynced.append(bytes(data))

    def flush(self) -> None:
        """Check that the file still exists, and make its bytes visible to others."""
        if self._descriptor is not None:
            self._check_descriptor(self._descriptor)
        if self._unsynced:
            self._sync()

    def close(self) -> None:
        """Close the file, after a flush if that has an effect; a later append opens it again."""
        try:
            if self._unsynced:
                self._sync()
        finally:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)

    def _sync(self) -> None:
        """Make the unsynced bytes visible; if that fails, they are written again."""
        if self._descriptor is None:
            self._reopen()
        self._rewrite()
        self._must_rewrite = True
        if self._mount.sync == "fsync":
            try:
                with self._watched() as descriptor:
                    os.fsync(descriptor)
            except OSError as error:
                if error.errno not in _NO_SYNC_ERRORS:
                    raise
                self._mount = self._mount._replace(sync="close")
        if self._mount.sync == "close" and self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
        self._unsynced.clear()
        self._must_rewrite = False

    def _rewrite(self) -> None:
        if self._must_rewrite:
            data = b"".join(self._unsynced)
            with self._watched() as descriptor:
                _write(descriptor, memoryview(data), self._size - len(data))
            self._must_rewrite = False

    @contextlib.contextmanager
    def _watched(self) -> Iterator[int]:
        """Yield the descriptor, and let go of it after an error."""
        if self._descriptor is None:  # pragma: no cover - every caller opens it first
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            yield self._descriptor
        except OSError as error:
            self._let_go(error)
            raise

    def _open(self) -> None:
        """Create the file, or open it again."""
        if self._is_created:
            self._reopen()
            return
        self._mount = self._find_mount()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._in_order():
            try:
                self._descriptor = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError as error:  # also if an attempt that failed has created it
                message = f"{self.path} exists already; logging continues in another file"
                raise StoreLostError(error.errno, message) from error
        self._is_created = True
        self._identify(self._descriptor)

    @contextlib.contextmanager
    def _in_order(self) -> Iterator[None]:
        """Give the file a name after those in the folder, while no other process does the same."""
        if not is_timed(self.path.name):
            yield
            return
        folder = self.path.parent
        with locked(folder, timeout=LOCK_TIMEOUT):
            names: list[str] = []
            with contextlib.suppress(OSError):
                names = [path.name for path in folder.iterdir()]
            self.path = folder / later_name(str(folder), self.path.name, names)
            yield

    def _identify(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            self._identity = os.fstat(descriptor)

    def _reopen(self) -> None:
        self._check_path()
        try:
            self._descriptor = os.open(self.path, _FLAGS)
        except OSError as error:
            if error.errno in _PASSING_ERRORS:
                raise
            raise self._lost(error) from error
        if not self._mount.has_stable_inodes:
            self._identify(self._descriptor)

    def _let_go(self, error: OSError) -> None:
        """Close the descriptor after an error on it, unless the error is about something else.

        Raises:
            StoreLostError: the file accepts no more data. It never comes from an empty file, as a
                new one would not be better.
        """
        if error.errno in _PASSING_ERRORS or error.errno in _NO_SYNC_ERRORS:
            return
        is_dead = error.errno in _DEAD_ERRORS or self._is_suspect
        self._is_suspect = True
        self._must_rewrite = bool(self._unsynced)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and error.errno != errno.EBADF:  # then it is not ours
            with contextlib.suppress(OSError):
                if os.fstat(descriptor).st_size > self._size:
                    os.ftruncate(descriptor, self._size)  # what a failed write has left
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if is_dead and self._size:
            raise self._lost(error) from error

    def _check_descriptor(self, descriptor: int) -> None:
        """Check that the descriptor and the path lead to the file that was created."""
        if self._identity is None:
            return
        try:
            is_ours = os.path.samestat(os.fstat(descriptor), self._identity)
        except OSError as error:
            self._let_go(error)
            return  # the caller opens the file again
        if not is_ours:  # somebody else closed it, and the number is in use again
            self._descriptor = None
            raise self._lost()
        self._check_path()

    def _check_path(self) -> None:
        """Check that the path leads to the file that was created, as far as is known."""
        if self._identity is None:
            return
        try:
            found = self.path.stat()
        except OSError as error:
            if error.errno in _DEAD_ERRORS:
                raise self._lost(error) from error
            if error.errno not in _PATH_ERRORS:
                self._let_go(error)
            raise
        if self._mount.has_stable_inodes:
            is_ours = os.path.samestat(found, self._identity)
        else:  # nobody else writes to a file of this name
            is_ours = found.st_size >= self._size - sum(map(len, self._unsynced))
        if not is_ours:
            raise self._lost()

    def _lost(self, error: OSError | None = None) -> StoreLostError:
        """Return the error that asks for a new file.

        Args:
            error: why the file accepts no more data; None if it was deleted or replaced.
        """
        if error is None or error.errno == errno.ENOENT:
            message = (
                f"{self.path} was deleted or replaced while it was being written; "
                "its contents are lost, and logging continues in a new file"
            )
            lost = StoreLostError(message)
        else:
            message = (
                f"{self.path} accepts no more data: {error.strerror or error}; "
                "logging continues in a new file"
            )
            lost = StoreLostError(error.errno, message)
        lost.unsynced = self._unsynced
        self._unsynced = []
        return lost


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    done = 0
    if hasattr(os, "pwrite"):
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)
    else:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        while done < len(data):
            done += os.write(descriptor, data[done:])
