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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog._types import Bytes
    from sm_tblog.storage.base import SideData

__all__ = ["LocalStore", "local_path"]

_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ)
"""Errors of a name that no later attempt can avoid."""

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
    """

    flush_secs: ClassVar[float] = 1.0

    def __init__(self, folder: str, name: str) -> None:
        self._folder = local_path(folder)
        self._path = self._folder / name
        self._descriptor: int | None = None
        self._released: os.stat_result | None = None
        self._size = 0

    def __str__(self) -> str:
        """Return the path of the growing file."""
        return str(self._path)

    def append(self, data: Bytes) -> None:
        """Append ``data`` to the file.

        Raises:
            StoreError: the path cannot be written, or the disk is full.
            StoreLostError: the file was deleted since the last append.
        """
        with self._as_store_errors(self._path):
            if self._released is not None:
                self._check_present(self._released)
                self._descriptor = os.open(self._path, _FLAGS)
                self._released = None
            elif self._descriptor is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            else:
                self._check_present(os.fstat(self._descriptor))
            self._write(self._descriptor, memoryview(data))
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
        with _locked(path.parent) if callable(data) else contextlib.nullcontext():
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
            StoreLostError: the file was deleted since the last append.
        """
        if self._descriptor is not None:
            with self._as_store_errors(self._path):
                self._check_present(os.fstat(self._descriptor))

    def release(self) -> None:
        """Close the file until the next append, as the number of open files is limited.

        Raises:
            StoreError: closing it failed.
        """
        if self._descriptor is not None:
            released = os.fstat(self._descriptor)
            self.close()
            self._released = released

    def close(self) -> None:
        """Close the file."""
        self._released = None
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with self._as_store_errors(self._path):
                os.close(descriptor)

    def _write(self, descriptor: int, data: memoryview) -> None:
        done = 0
        if hasattr(os, "pwrite"):
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], self._size + done)
        else:  # Windows
            os.lseek(descriptor, self._size, os.SEEK_SET)
            while done < len(data):
                done += os.write(descriptor, data[done:])

    def _check_present(self, known: os.stat_result) -> None:
        try:
            same = os.path.samestat(self._path.stat(), known)
        except FileNotFoundError:
            same = False
        if not same:
            message = (
                f"{self._path} was deleted or replaced while it was being written; "
                "its contents are lost, and logging continues in a new file"
            )
            raise StoreLostError(message)

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


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other threads and processes if the file system supports it."""
    with contextlib.ExitStack() as stack:
        # Windows and some network file systems do not support it.
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Closing is not enough: a child forked in the meantime also holds the lock.
            stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        yield
