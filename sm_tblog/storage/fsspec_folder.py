"""Remote folders on fsspec file systems: Google Cloud Storage, Azure Blob Storage and the rest.

=====================  ==================================================================
``gs``, ``gcs``        new bytes are uploaded beside the object, then the two are composed
``az``, ``abfs(s)``    an append blob, which allows 50,000 appends
any other              the object is rewritten whole; a new one is started at 256 KiB
=====================  ==================================================================

Neither composing nor appending may happen twice, but the packages repeat them on their own when a
reply is lost. So the size of the object is checked afterwards; if it is larger than expected, the
object is rewritten whole. So it is if appends fail three times in a row and the whole object is
accepted: the packages do not tell a refusal from a failure.
"""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.urls import without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["FsspecFolder", "FsspecObject", "check"]

logger = logging.getLogger("sm_tblog")

MAX_OBJECT_SIZE = 64 << 20
"""Size in bytes at which a new object is started."""

MAX_REWRITTEN_SIZE = 256 << 10
"""The same for an object that can only be rewritten whole."""

MAX_APPEND_SIZE = 4 << 20
"""Bytes in one append: the most that Azure accepts."""

MAX_FAILED_APPENDS = 3
"""Failed appends in a row after which the whole object is tried."""

_INSTALL = {
    **dict.fromkeys(("gs", "gcs"), "pip install gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "pip install adlfs"),
}


def check(url: str) -> None:
    """Raise an error if the file system's package is not installed.

    Raises:
        MissingDependencyError: the package is not installed.
        InvalidValueError: fsspec does not know the scheme.
    """
    from fsspec.registry import known_implementations, registry

    scheme = scheme_of(url)
    if scheme in registry:
        return
    if scheme not in known_implementations:
        message = f"no store for {url!r}: fsspec does not know the scheme {scheme!r}"
        raise InvalidValueError(message)
    module = known_implementations[scheme]["class"].rpartition(".")[0]
    try:
        import_module(module)
    except ImportError as error:
        install = _INSTALL.get(scheme, known_implementations[scheme].get("err", ""))
        message = f"{scheme}:// needs a package that is not installed ({error}); {install}"
        raise MissingDependencyError(message) from error


class FsspecFolder:
    """A folder of an fsspec file system, as a ``remote.RemoteFolder``.

    Args:
        url: the folder's URL.
        options: passed to the file system.

    Attributes:
        can_append: whether appends work; None if it is not known.

    Raises:
        StoreError: the file system cannot be created.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        from fsspec.core import url_to_fs

        self._url = url
        # No cached instance: it may belong to the event loop of another thread. No listings cache:
        # it would hide what is written here.
        options = {"skip_instance_cache": True, "use_listings_cache": False, **options}
        self.fs, self._path = self.call(url_to_fs, url, **options)
        self._scheme = scheme_of(url)
        self.can_append: bool | None = None

    def open_object(self, name: str, *, is_new: bool) -> FsspecObject:
        """Return the object with this name, which nobody else writes."""
        path = f"{self._path}/{name}"
        if self._scheme in ("gs", "gcs"):
            return ComposedObject(self, path, is_new=is_new)
        if self._scheme in ("az", "abfs", "abfss"):
            return AppendBlob(self, path, is_new=is_new)
        return FsspecObject(self, path, is_new=is_new)

    def names_after(self, name: str) -> list[str]:  # noqa: ARG002 - not every listing can start there
        """Return the names in the folder; see ``remote.RemoteFolder``."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, StoreError):
            paths = self.call(self.fs.ls, self._path, detail=False)
            return [posixpath.basename(path.rstrip("/")) for path in paths]
        return []

    def put(self, name: str, data: bytes) -> None:
        """Write a complete object."""
        self.write(f"{self._path}/{name}", data)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace the content of an object by ``change(content)``."""
        self.put(name, bytes(change(self.get(name))))

    def get(self, name: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            data: bytes = self.call(self.fs.cat_file, f"{self._path}/{name}")
            return data
        return None

    def write(self, path: str, data: bytes) -> None:
        """Write a complete object, and create its parent folders."""
        self.call(self.fs.makedirs, posixpath.dirname(path), exist_ok=True)
        self.call(self.fs.pipe_file, path, data)

    def size(self, path: str) -> int:
        """Return the size of an object in bytes, 0 if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return int(self.call(self.fs.info, path)["size"])
        return 0

    def note_refusal(self, error: StoreError) -> None:
        """Take note that an object was accepted whole after appends to it failed; warn once."""
        if self.can_append is None:
            self.can_append = False
            logger.warning(
                "%s: the store does not append to objects (%s), but accepts whole ones. Nothing is "
                "lost: until this process ends, objects in this folder are uploaded whole, and a "
                "new one is started at %d KiB, which uploads more bytes",
                without_password(self._url),
                error,
                MAX_REWRITTEN_SIZE >> 10,
            )

    def call(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the file system.

        Raises:
            FileNotFoundError: the object does not exist.
            IsADirectoryError: it is a folder.
            StoreError: the call failed.
        """
        try:
            return action(*args, **kwargs)
        except (FileNotFoundError, IsADirectoryError):
            raise
        except Exception as error:
            message = without_password(f"{self._url}: {type(error).__name__}: {error}")
            raise StoreError(message) from error


class FsspecObject:
    """An object that is rewritten whole at each upload.

    Attributes:
        committed: number of bytes that the store has acknowledged.
    """

    def __init__(self, folder: FsspecFolder, path: str, *, is_new: bool) -> None:
        self._folder = folder
        self._path = path
        self._is_synced = is_new  # whether ``committed`` is the object's size
        self.committed = 0

    @property
    def max_size(self) -> int:
        """Size in bytes at which a new object is started."""
        return MAX_REWRITTEN_SIZE

    def padding(self, size: int) -> int:  # noqa: ARG002 - the interface
        """Return 0."""
        return 0

    def commit(self, file: SpoolFile, size: int) -> None:
        """Store the first ``size`` bytes of ``file`` in the object.

        Raises:
            StoreError: the upload failed; the object has its previous content or the new one.
        """
        if not self._is_synced:
            self._refresh()
        self._is_synced = False
        if self.committed < size:
            self._extend(file, size)
        self._is_synced = True

    def close(self) -> None:
        """Do nothing: nothing is left over."""

    def _refresh(self) -> None:
        self.committed = self._folder.size(self._path)

    def _extend(self, file: SpoolFile, size: int) -> None:
        self._folder.write(self._path, file.read(0, size))
        self.committed = size


class AppendingObject(FsspecObject):
    """An object that grows by appends."""

    _begins_by_append = False

    def __init__(self, folder: FsspecFolder, path: str, *, is_new: bool) -> None:
        super().__init__(folder, path, is_new=is_new)
        self._expected_sizes: tuple[int, ...] = ()  # empty if unknown
        self._may_append = True
        self._failed_appends = 0  # in a row

    @property
    def max_size(self) -> int:
        """Size in bytes at which a new object is started."""
        return MAX_OBJECT_SIZE if self._can_append else MAX_REWRITTEN_SIZE

    @property
    def _can_append(self) -> bool:
        return self._may_append and self._folder.can_append is not False

    def _refresh(self) -> None:
        super()._refresh()
        if self._expected_sizes and self.committed not in self._expected_sizes:
            self._may_append = False  # appended twice: rewrite the object from now on
            self.committed = 0

    def _extend(self, file: SpoolFile, size: int) -> None:
        while self._can_append and self.committed < size:
            end = min(self.committed + MAX_APPEND_SIZE, size)
            begin, self._expected_sizes = self.committed, (self.committed, end)
            try:
                self._append(file.read(begin, end))
            except StoreError as error:
                self._failed_appends += begin > 0 or self._begins_by_append
                if not self._failed_appends or self._failed_appends % MAX_FAILED_APPENDS:
                    raise
                self._cancel()
                super()._extend(file, size)
                self._may_append = False
                self._folder.note_refusal(error)
                return
            self._expected_sizes = (end,)
            self._refresh()
            self._failed_appends = 0
            if begin and self.committed == end:
                self._folder.can_append = True
        if self.committed < size:
            super()._extend(file, size)

    def _append(self, data: bytes) -> None:
        raise NotImplementedError

    def _cancel(self) -> None:
        """Make sure that a failed append is not made later."""


class ComposedObject(AppendingObject):
    """An object of Google Cloud Storage: new bytes are uploaded as a part, then composed with it.

    Composing is atomic. A part that is left over after a failure does not look like an event file.
    It is removed before anything else is done, so that a delayed compose request fails.
    """

    def __init__(self, folder: FsspecFolder, path: str, *, is_new: bool) -> None:
        super().__init__(folder, path, is_new=is_new)
        self._part = ""

    def commit(self, file: SpoolFile, size: int) -> None:
        """Store the first ``size`` bytes of ``file`` in the object."""
        self._remove_part()
        super().commit(file, size)

    def close(self) -> None:
        """Remove the part that a failure may have left over."""
        with contextlib.suppress(StoreError):
            self._remove_part()

    def _append(self, data: bytes) -> None:
        if not self.committed:
            self._folder.write(self._path, data)
            return
        self._part = f"{posixpath.dirname(self._path)}/.sm_tblog-part-{os.urandom(8).hex()}"
        self._folder.write(self._part, data)
        self._folder.call(self._folder.fs.merge, self._path, [self._path, self._part])
        self._remove_part()

    def _cancel(self) -> None:
        self._remove_part()

    def _remove_part(self) -> None:
        if self._part:
            with contextlib.suppress(FileNotFoundError):
                self._folder.call(self._folder.fs.rm_file, self._part)
            self._part = ""


class AppendBlob(AppendingObject):
    """An append blob of Azure Blob Storage."""

    _begins_by_append = True

    def _append(self, data: bytes) -> None:
        self._folder.call(self._write, data)

    def _write(self, data: bytes) -> None:
        with self._folder.fs.open(self._path, "ab") as blob:
            blob.write(data)
