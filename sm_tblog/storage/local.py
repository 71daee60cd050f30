"""The store for folders on a local disk or a mounted file system."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from sm_tblog._errors import InvalidValueError, StoreError
from sm_tblog.storage.base import InvalidNameError, side_file_path
from sm_tblog.storage.folder_lock import locked
from sm_tblog.storage.local_file import LocalFile
from sm_tblog.storage.mounts import LOCAL, mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog._types import Bytes
    from sm_tblog.storage.base import SideData
    from sm_tblog.storage.mounts import Mount

__all__ = ["LocalStore", "as_store_errors", "local_path"]

_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ)
"""Errors of a name that no later attempt can avoid."""

REMOUNT_SECS = 60.0
"""Seconds to wait for a network or user-space file system that was unmounted.

Files created meanwhile would be on the local disk, and hidden once it is mounted again.
"""

_mounted: dict[Path, float] = {}
"""The folders that were on such file systems, with the time at which that was no longer so."""

_MAX_QUOTED = 200
"""Characters of an impossible name that a message quotes."""

_SYNCS = ("auto", True, False, "close")


def local_path(url: str) -> Path:
    """Return the path of a ``file://`` URL, or a plain path with ``~`` expanded."""
    if url.lower().startswith("file://"):
        parts = urlsplit(url)
        return Path(unquote(parts.netloc + parts.path))
    return Path(url).expanduser()


class LocalStore:
    """Appends in place; each append is one write at a known offset.

    The first append creates the file, which must not exist yet. ``append`` hands the bytes to the
    operating system: on a local disk, every reader sees them, and they survive the end of the
    process; only a power cut or a crash of the machine can lose them. A write that fails half-way
    is repeated from the same offset. The store notices if the file was deleted or replaced.

    Args:
        folder: a path or ``file://`` URL.
        name: the file's name. One with a time is advanced after those in the folder; see
            ``file_names``.
        sync: what ``flush`` does so that others see the bytes: ``"auto"``, the default, depends on
            the file system, see ``mounts``, and does nothing on a local disk; True calls ``fsync``;
            ``"close"`` closes the file, and opens it again when there is more to write; False does
            nothing.

    Raises:
        InvalidValueError: an option is unknown, or ``sync`` is none of these.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        *,
        sync: Literal["auto", "close"] | bool = "auto",
        **unknown: object,
    ) -> None:
        if unknown:
            message = (
                f"unknown storage_options for {folder}: {', '.join(sorted(unknown))}; "
                "known options of a local directory: sync"
            )
            raise InvalidValueError(message)
        if not any(sync is one or (sync == one and isinstance(sync, str)) for one in _SYNCS):
            message = f'storage_options: sync must be "auto", True, False or "close", not {sync!r}'
            raise InvalidValueError(message)
        self._folder = local_path(folder)
        self._sync = sync
        self._file = LocalFile(self._folder / name, self._find_mount)

    def __str__(self) -> str:
        """Return the path of the growing file."""
        return str(self._file.path)

    @property
    def flush_secs(self) -> float:
        """Default interval between calls of ``flush``: 10 s if each stores the whole file again."""
        return 10.0 if self._adjust(mount_of(self._folder)).rewrites else 1.0

    @property
    def is_full(self) -> bool:
        """Whether to start a new file: this one cannot be opened again, or is large to rewrite."""
        return self._file.is_full

    def append(self, data: Bytes) -> None:
        """Append ``data`` to the file.

        Raises:
            StoreError: the path cannot be written, or the disk is full.
            StoreLostError: the file was deleted since the last append, or accepts no more data.
        """
        with as_store_errors(self._file.path):
            self._file.append(data)

    def put(self, name: str, data: SideData) -> None:
        """Write a side file under a temporary name, then move it into place.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
            StoreError: the path cannot be written.
        """
        path = self._folder / side_file_path(name)
        partial = path.with_name(f".{os.urandom(8).hex()}.partial")
        with as_store_errors(path):
            self._find_mount()
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent) if callable(data) else contextlib.nullcontext():
            if callable(data):
                data = data(self.get(name))
            with as_store_errors(path):
                try:
                    with partial.open("wb") as file:
                        file.write(data)
                        if self._sync is True:
                            file.flush()
                            os.fsync(file.fileno())
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
        """Check that the file still exists, and make its bytes visible to others.

        Raises:
            StoreError: they may not be visible; they are kept, and written again.
            StoreLostError: the file was deleted since the last append, or accepts no more data.
        """
        with as_store_errors(self._file.path):
            self._file.flush()

    def release(self) -> None:
        """Close the file until the next append, as the number of open files is limited.

        Raises:
            StoreError: closing it failed.
        """
        self.close()

    def close(self) -> None:
        """Flush and close the file.

        Raises:
            StoreError: that failed.
        """
        with as_store_errors(self._file.path):
            self._file.close()

    def _adjust(self, mount: Mount) -> Mount:
        """Return a kind of file system with what the user has said about it."""
        if self._sync == "auto":
            return mount
        if self._sync == "close":
            return mount._replace(sync="close", rewrites=True)
        return mount._replace(sync="fsync" if self._sync else None, rewrites=False)

    def _find_mount(self) -> Mount:
        """Return the kind of file system of the folder.

        Raises:
            OSError: one that held the folder is not mounted, since less than ``REMOUNT_SECS``.
        """
        mount = mount_of(self._folder)
        if mount != LOCAL:
            _mounted[self._folder] = math.inf
            return self._adjust(mount)
        for folder in (self._folder, *self._folder.parents):
            if folder in _mounted:
                now = time.monotonic()
                since = _mounted[folder] = min(_mounted[folder], now)
                if now < since + REMOUNT_SECS:
                    raise OSError(errno.ENOTCONN, "the file system that it was on is not mounted")
        return self._adjust(mount)


@contextlib.contextmanager
def as_store_errors(path: Path) -> Iterator[None]:
    """Raise an ``OSError`` while ``path`` is written as a ``StoreError`` that names it."""
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
