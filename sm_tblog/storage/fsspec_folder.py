"""Every other place that fsspec knows: Google's and Microsoft's object stores, and the rest.

=====================  ================================================================
``gs``, ``gcs``        what is new is uploaded beside the object, then both are composed
``az``, ``abfs(s)``    an append blob; it takes 50,000 appends
any other              written whole, and followed by another object at 256 KiB
=====================  ================================================================

Neither composing nor appending may be done twice, and the packages do it again by themselves when
a reply is lost. So the object is asked for its size afterwards; if it has more than it should, it
is written whole.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.s3_options import without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["FsspecFolder", "FsspecObject", "check"]

ROLL = 64 << 20
"""Bytes after which another object follows."""

ROLL_WHOLE = 256 << 10
"""The same where an object can only be written whole."""

PIECE = 4 << 20
"""Bytes that are appended at once: as many as Azure takes."""

_INSTALL = {
    **dict.fromkeys(("gs", "gcs"), "pip install gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "pip install adlfs"),
}


def check(url: str) -> None:
    """Raise if the file system's package is not installed.

    Raises:
        MissingDependencyError: it is not.
        InvalidValueError: fsspec knows no such scheme.
    """
    from fsspec.registry import known_implementations, registry

    scheme = scheme_of(url)
    if scheme in registry:
        return
    if scheme not in known_implementations:
        message = f"no store for {url!r}: fsspec knows no scheme {scheme!r}"
        raise InvalidValueError(message)
    module = known_implementations[scheme]["class"].rpartition(".")[0]
    try:
        import_module(module)
    except ImportError as error:
        install = _INSTALL.get(scheme, known_implementations[scheme].get("err", ""))
        message = f"{scheme}:// needs a package that is not installed ({error}); {install}"
        raise MissingDependencyError(message) from error


class FsspecFolder:
    """A folder of a file system.

    Args:
        url: the folder's.
        options: passed to the file system.

    Raises:
        StoreError: the file system cannot be made.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        from fsspec.core import url_to_fs

        self._url = url
        # Its own, since an instance that is shared may belong to another thread's loop; and
        # without listings, which would hide what is written here.
        options = {"skip_instance_cache": True, "use_listings_cache": False, **options}
        self.fs, self._path = self.do(url_to_fs, url, **options)
        self._scheme = scheme_of(url)

    def open_object(self, name: str, *, is_new: bool) -> FsspecObject:
        """Return the object of this name, which nobody else writes."""
        path = f"{self._path}/{name}"
        if self._scheme in ("gs", "gcs"):
            return ComposedObject(self, path, is_new=is_new)
        if self._scheme in ("az", "abfs", "abfss"):
            return AppendBlob(self, path, is_new=is_new)
        return FsspecObject(self, path, is_new=is_new)

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole."""
        self.write(f"{self._path}/{name}", data)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Have an object hold what ``change`` makes of what it holds."""
        self.put(name, bytes(change(self.get(name))))

    def get(self, name: str) -> bytes | None:
        """Return what an object holds, None where there is none."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            data: bytes = self.do(self.fs.cat_file, f"{self._path}/{name}")
            return data
        return None

    def write(self, path: str, data: bytes) -> None:
        """Write an object whole, and the folders that it is in."""
        self.do(self.fs.makedirs, posixpath.dirname(path), exist_ok=True)
        self.do(self.fs.pipe_file, path, data)

    def size(self, path: str) -> int:
        """Return how long an object is, 0 where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return int(self.do(self.fs.info, path)["size"])
        return 0

    def do(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of the file system's.

        Raises:
            FileNotFoundError: there is no such object.
            IsADirectoryError: it is a folder.
            StoreError: it failed.
        """
        try:
            return action(*args, **kwargs)
        except (FileNotFoundError, IsADirectoryError):
            raise
        except Exception as error:
            message = without_password(f"{self._url}: {type(error).__name__}: {error}")
            raise StoreError(message) from error


class FsspecObject:
    """An object that is written whole.

    Attributes:
        committed: how many bytes of it the store has acknowledged.
        roll_bytes: see ``queue.AppendableObject``.
    """

    roll_bytes = ROLL_WHOLE

    def __init__(self, place: FsspecFolder, path: str, *, is_new: bool) -> None:
        self._folder = place
        self._path = path
        self._known = is_new  # whether ``committed`` is what is there
        self.committed = 0

    def padding(self, size: int) -> int:  # noqa: ARG002 - as others have it
        """Return 0."""
        return 0

    def commit(self, file: SpoolFile, size: int) -> None:
        """Make the object hold the first ``size`` bytes of ``file``.

        Raises:
            StoreError: it failed; the object holds what it held, or these.
        """
        if not self._known:
            self._look()
        self._known = False
        if self.committed < size:
            self._extend(file, size)
        self._known = True

    def close(self) -> None:
        """Do nothing: nothing is left."""

    def _look(self) -> None:
        self.committed = self._folder.size(self._path)

    def _extend(self, file: SpoolFile, size: int) -> None:
        self._folder.write(self._path, file.read(0, size))
        self.committed = size


class AppendingObject(FsspecObject):
    """An object that takes what is new."""

    def __init__(self, place: FsspecFolder, path: str, *, is_new: bool) -> None:
        super().__init__(place, path, is_new=is_new)
        self.roll_bytes = ROLL
        self._may_have: tuple[int, ...] = ()  # sizes; any, if that is not known
        self._appends = True

    def _look(self) -> None:
        super()._look()
        if self._may_have and self.committed not in self._may_have:
            self._appends = False  # something was appended twice: it is written whole from now on
            self.committed = 0
            self.roll_bytes = ROLL_WHOLE

    def _extend(self, file: SpoolFile, size: int) -> None:
        while self._appends and self.committed < size:
            end = min(self.committed + PIECE, size)
            self._may_have = self.committed, end
            self._append(file.read(self.committed, end))
            self._may_have = (end,)
            self._look()
        if self.committed < size:
            super()._extend(file, size)

    def _append(self, data: bytes) -> None:
        raise NotImplementedError


class ComposedObject(AppendingObject):
    """An object of Google Cloud Storage: a new part is uploaded, then composed with what is there.

    Composing is atomic. A part that is left over after a failure does not look like an event file;
    it is removed before anything else is done, so that composing it late fails.
    """

    def __init__(self, place: FsspecFolder, path: str, *, is_new: bool) -> None:
        super().__init__(place, path, is_new=is_new)
        self._part = ""

    def commit(self, file: SpoolFile, size: int) -> None:
        """Make the object hold the first ``size`` bytes of ``file``."""
        self._remove_part()
        super().commit(file, size)

    def close(self) -> None:
        """Remove the part that a failure may have left."""
        with contextlib.suppress(StoreError):
            self._remove_part()

    def _append(self, data: bytes) -> None:
        if not self.committed:
            self._folder.write(self._path, data)
            return
        self._part = f"{posixpath.dirname(self._path)}/.sm_tblog-part-{os.urandom(8).hex()}"
        self._folder.write(self._part, data)
        self._folder.do(self._folder.fs.merge, self._path, [self._path, self._part])
        self._remove_part()

    def _remove_part(self) -> None:
        if self._part:
            with contextlib.suppress(FileNotFoundError):
                self._folder.do(self._folder.fs.rm_file, self._part)
            self._part = ""


class AppendBlob(AppendingObject):
    """An append blob of Azure Blob Storage."""

    def _append(self, data: bytes) -> None:
        self._folder.do(self._write, data)

    def _write(self, data: bytes) -> None:
        with self._folder.fs.open(self._path, "ab") as blob:
            blob.write(data)
