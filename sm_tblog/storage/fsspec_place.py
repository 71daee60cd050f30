"""Every other place that fsspec knows: Google's and Microsoft's object stores, and the rest.

=====================  ================================================================
``gs``, ``gcs``        what is new is uploaded beside the object, then both are composed
``az``, ``abfs(s)``    an append blob; it takes 50,000 appends
any other              written whole, and followed by another object at 256 KiB
=====================  ================================================================

In all of them an object never becomes shorter, and what was logged is there once.
"""

from __future__ import annotations

import os
import posixpath
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError
from sm_tblog.storage.base import scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["FsspecObject", "FsspecPlace", "check"]

ROLL = 64 << 20
"""Bytes after which another object follows."""

ROLL_WHOLE = 256 << 10
"""The same where an object can only be written whole."""

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


class FsspecPlace:
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

    def grow(self, name: str) -> FsspecObject:
        """Return the object of this name, which nobody else writes."""
        path = f"{self._path}/{name}"
        if self._scheme in ("gs", "gcs"):
            return ComposedObject(self, path)
        if self._scheme in ("az", "abfs", "abfss"):
            return AppendBlob(self, path)
        return FsspecObject(self, path)

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole."""
        self.write(f"{self._path}/{name}", data)

    def get(self, name: str) -> bytes | None:
        """Return what an object holds, None where there is none."""
        try:
            data: bytes = self.fs.cat_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._as_store_error(error) from error
        return data

    def write(self, path: str, data: bytes) -> None:
        """Write an object whole, and the folders that it is in."""
        self.do(self.fs.makedirs, posixpath.dirname(path), exist_ok=True)
        self.do(self.fs.pipe_file, path, data)

    def size(self, path: str) -> int:
        """Return how long an object is, 0 where there is none."""
        try:
            return int(self.fs.info(path)["size"])
        except FileNotFoundError:
            return 0
        except Exception as error:
            raise self._as_store_error(error) from error

    def do(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of the file system's.

        Raises:
            StoreError: it failed.
        """
        try:
            return action(*args, **kwargs)
        except Exception as error:
            raise self._as_store_error(error) from error

    def _as_store_error(self, error: Exception) -> StoreError:
        return StoreError(f"{self._url}: {type(error).__name__}: {error}")


class FsspecObject:
    """An object that is written whole.

    Attributes:
        committed: how many bytes of it the store has acknowledged.
        roll_bytes: see ``lane.Growing``.
    """

    roll_bytes = ROLL_WHOLE

    def __init__(self, place: FsspecPlace, path: str) -> None:
        self._place = place
        self._path = path
        self._known = False
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
            self.committed = self._place.size(self._path)
        if self.committed < size:
            self._known = False
            self._extend(file, size)
        self.committed = size
        self._known = True

    def close(self) -> None:
        """Do nothing: nothing is left."""

    def _extend(self, file: SpoolFile, size: int) -> None:
        self._place.write(self._path, file.read(0, size))


class ComposedObject(FsspecObject):
    """An object of Google Cloud Storage: a new part is uploaded, then composed with what is there.

    Composing is atomic; a part that is left over after a failure does not look like an event file.
    """

    roll_bytes = ROLL

    def _extend(self, file: SpoolFile, size: int) -> None:
        if not self.committed:
            super()._extend(file, size)
            return
        folder = posixpath.dirname(self._path)
        part = f"{folder}/.sm_tblog-part-{os.urandom(8).hex()}"
        self._place.write(part, file.read(self.committed, size))
        try:
            self._place.do(self._place.fs.merge, self._path, [self._path, part])
        finally:
            self._place.do(self._place.fs.rm_file, part)


class AppendBlob(FsspecObject):
    """An append blob of Azure Blob Storage."""

    roll_bytes = ROLL

    def _extend(self, file: SpoolFile, size: int) -> None:
        self._place.do(self._append, file.read(self.committed, size))

    def _append(self, data: bytes) -> None:
        with self._place.fs.open(self._path, "ab") as blob:
            blob.write(data)
