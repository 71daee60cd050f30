"""The store for folders on a local disk or a mounted file system."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote, urlsplit

from sm_tblog._errors import StoreError
from sm_tblog.storage.base import InvalidNameError, StoreLostError, side_file_path
from sm_tblog.storage.file_names import is_timed, later_name
from sm_tblog.storage.folder_lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog._types import Bytes
    from sm_tblog.storage.base import SideData

__all__ = ["LocalStore", "local_path"]


def _numbers(*names: str) -> frozenset[int]:
    """Return the numbers of those error names that this platform has."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ)
"""Errors of a name that no later attempt can avoid."""

_PASSING_ERRORS = _numbers(
    "EAGAIN", "EDQUOT", "EFBIG", "EINTR", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOSPC", "EROFS"
)
"""Errors that are not about the file: a later attempt with the same descriptor may succeed."""

_DEAD_ERRORS = _numbers(
    *("EBADF", "EBADFD", "ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "ENODEV", "ENOENT"),
    *("ENOLINK", "ENOTCONN", "ENXIO", "EREMOTEIO", "ESHUTDOWN", "ESTALE"),
)
"""Errors after which a file never takes another byte: its server or mount has forgotten it."""

_PATH_ERRORS = _numbers("EACCES", "ELOOP", "ENOTDIR", "EPERM")
"""Errors that are about a folder above the file."""

LOCK_TIMEOUT = 1.0
"""Seconds to wait for other processes that create files in the folder, or lock it all the time."""

_MAX_QUOTED = 200
"""Characters of an impossible name that a message quotes."""

_FLAGS = os.O_WRONLY | getattr(os, "O_BINARY", 0)


def local_path(url: str) -> Path:
    """Return the path of a ``file://`` URL, or a plain path with ``~`` expanded."""
    if url.lower().startswith("file://"):
        parts = urlsplit(url)
        return Path(unquote(parts.netloc + parts.path))
    return Path(url).expanduser()


class LocalStore:
    """Appends in place; each append is one write at a known offset.

    The first append creates the file, which must not exist yet. ``append`` hands the bytes to the
    operating system: every reader sees them, and they survive the end of the process; only a power
    cut or a crash of the machine can lose them. A write that fails half-way is repeated from the
    same offset. The store notices if the file was deleted or replaced.

    After an error that may be the descriptor's, such as those of a file server or mount that went
    away, the descriptor is closed. The file is opened again if it may still accept data; if not,
    ``StoreLostError`` asks for a new file, which is created once the folder is back.
    """

    flush_secs: ClassVar[float] = 1.0

    def __init__(self, folder: str, name: str) -> None:
        self._folder = local_path(folder)
        self._path = self._folder / name
        self._descriptor: int | None = None
        self._is_created = False
        self._identity: os.stat_result | None = None  # unknown if the first fstat failed
        self._is_suspect = False  # whether the last call on the descriptor failed
        self._size = 0

    def __str__(self) -> str:
        """Return the path of the growing file."""
        return str(self._path)

    def append(self, data: Bytes) -> None:
        """Append ``data`` to the file.

        Raises:
            StoreError: the path cannot be written, or the disk is full.
            StoreLostError: the file was deleted since the last append, or accepts no more data.
        """
        with self._as_store_errors(self._path):
            if self._descriptor is not None:
                self._check_descriptor(self._descriptor)
            descriptor = self._open() if self._descriptor is None else self._descriptor
            try:
                self._write(descriptor, memoryview(data))
            except OSError as error:
                self._let_go(error)
                raise
        self._is_suspect = False
        self._size += len(data)

    def put(self, name: str, data: SideData) -> None:
        """Write a side file under a temporary name, then move it into place.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
            StoreError: the path cannot be written.
        """
        path = self._folder / side_file_path(name)
        partial = path.with_name(f".{os.urandom(8).hex()}.partial")
        with self._as_store_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent) if callable(data) else contextlib.nullcontext():
            if callable(data):
                data = data(self.get(name))
            with self._as_store_errors(path):
                try:
                    partial.write_bytes(data)
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)

    def get(self, name: str) -> bytes | None:
        """Return the content of the side file ``name``, or None if it does not exist.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
            StoreError: the file exists but cannot be read.
        """
        path = self._folder / side_file_path(name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            message = f"cannot read {path}: {error.strerror or error}"
            raise StoreError(error.errno, message) from error

    def flush(self) -> None:
        """Check that the file still exists; its bytes are already visible.

        Raises:
            StoreLostError: the file was deleted since the last append, or accepts no more data.
        """
        if self._descriptor is not None:
            with self._as_store_errors(self._path):
                self._check_descriptor(self._descriptor)

    def release(self) -> None:
        """Close the file until the next append, as the number of open files is limited.

        Raises:
            StoreError: closing it failed.
        """
        self.close()

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with self._as_store_errors(self._path):
                os.close(descriptor)

    def _open(self) -> int:
        """Create the file, or open it again."""
        if self._is_created:
            return self._reopen()
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._in_order():
            try:
                self._descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError as error:  # also if an attempt that failed has created it
                message = f"{self._path} exists already; logging continues in another file"
                raise StoreLostError(error.errno, message) from error
        self._is_created = True
        with contextlib.suppress(OSError):
            self._identity = os.fstat(self._descriptor)
        return self._descriptor

    @contextlib.contextmanager
    def _in_order(self) -> Iterator[None]:
        """Give the file a name after those in the folder, while no other process does the same."""
        name = self._path.name
        if not is_timed(name):
            yield
            return
        with locked(self._folder, timeout=LOCK_TIMEOUT):
            names: list[str] = []
            with contextlib.suppress(OSError):
                names = [path.name for path in self._folder.iterdir()]
            self._path = self._folder / later_name(str(self._folder), name, names)
            yield

    def _reopen(self) -> int:
        self._check_path()
        try:
            self._descriptor = os.open(self._path, _FLAGS)
        except OSError as error:
            if error.errno in _PASSING_ERRORS:
                raise
            raise self._lost(error) from error
        return self._descriptor

    def _let_go(self, error: OSError) -> None:
        """Close the descriptor after an error on it, unless the error is about something else.

        Raises:
            StoreLostError: the file accepts no more data. It never comes from an empty file, as a
                new one would not be better.
        """
        if error.errno in _PASSING_ERRORS:
            return
        is_dead = error.errno in _DEAD_ERRORS or self._is_suspect
        self._is_suspect = True
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError):
            if descriptor is not None and error.errno != errno.EBADF:
                os.ftruncate(descriptor, self._size)  # what a failed write has left
        with contextlib.suppress(OSError):
            if descriptor is not None and error.errno != errno.EBADF:  # then it is not ours
                os.close(descriptor)
        if is_dead and self._size:
            raise self._lost(error) from error

    def _write(self, descriptor: int, data: memoryview) -> None:
        done = 0
        if hasattr(os, "pwrite"):
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], self._size + done)
        else:  # Windows
            os.lseek(descriptor, self._size, os.SEEK_SET)
            while done < len(data):
                done += os.write(descriptor, data[done:])

    def _check_descriptor(self, descriptor: int) -> None:
        """Check that the descriptor and the path lead to the file that was created.

        Raises:
            OSError: the path cannot be queried.
            StoreLostError: they do not.
        """
        if self._identity is None:
            return
        try:
            is_ours = os.path.samestat(os.fstat(descriptor), self._identity)
        except OSError as error:
            self._let_go(error)
            return  # ``append`` opens the file again
        if not is_ours:  # somebody else closed it, and the number is in use again
            self._descriptor = None
            raise self._lost()
        self._check_path()

    def _check_path(self) -> None:
        """Check that the path leads to the file that was created, as far as is known."""
        if self._identity is None:
            return
        try:
            is_ours = os.path.samestat(self._path.stat(), self._identity)
        except OSError as error:
            if error.errno in _DEAD_ERRORS:
                raise self._lost(error) from error
            if error.errno not in _PATH_ERRORS:
                self._let_go(error)
            raise
        if not is_ours:
            raise self._lost()

    def _lost(self, error: OSError | None = None) -> StoreLostError:
        """Return the error that asks for a new file.

        Args:
            error: why the file accepts no more data; None if it was deleted or replaced.
        """
        if error is None or error.errno == errno.ENOENT:
            message = (
                f"{self._path} was deleted or replaced while it was being written; "
                "its contents are lost, and logging continues in a new file"
            )
            return StoreLostError(message)
        message = (
            f"{self._path} accepts no more data: {error.strerror or error}; "
            "logging continues in a new file"
        )
        return StoreLostError(error.errno, message)

    @contextlib.contextmanager
    def _as_store_errors(self, path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202
        try:
            yield
        except StoreError:
            raise
        except (OSError, ValueError) as error:  # a ValueError is about a NUL or a surrogate
            number = error.errno if isinstance(error, OSError) else errno.EINVAL
            reason = getattr(error, "strerror", None) or error
            if isinstance(error, ValueError) or number in _NAME_ERRORS:
                name = str(path) if len(str(path)) < _MAX_QUOTED else f"{str(path)[:_MAX_QUOTED]}…"
                message = (
                    f"cannot write {name!r}: {reason}; what was to go there is dropped: choose a "
                    "shorter or plainer name"
                )
                raise InvalidNameError(number, message) from error
            message = f"cannot write {path}: {reason}"
            raise StoreError(number, message) from error
