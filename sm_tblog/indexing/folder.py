"""Folders in which an index is stored: local ones, in S3, and in the file systems of fsspec.

A file appears when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sm_tblog._errors import StoreError
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.fsspec_folder import FsspecFolder
from sm_tblog.storage.fsspec_folder import check as check_fsspec
from sm_tblog.storage.local import LocalStore, as_store_errors, local_path
from sm_tblog.storage.s3 import S3Folder
from sm_tblog.storage.s3_bucket import MISSING, code_of, content_md5
from sm_tblog.storage.s3_options import OF_WRITERS
from sm_tblog.storage.s3_options import check as check_s3
from sm_tblog.storage.urls import is_s3

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["IndexFolder", "Listed", "open_folder"]


class Listed(NamedTuple):
    """A file in the folder: its size in bytes, and how many seconds ago it was written."""

    size: int
    age: float


class IndexFolder(Protocol):
    """A folder. Every failure is a ``StoreError``."""

    def get(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        ...

    def read(self, name: str, start: int, end: int) -> bytes:
        """Return a part of a file."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a file."""
        ...

    def put_file(self, name: str, path: Path) -> None:
        """Write a file whose content is in a local file, which may be moved."""
        ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """Return a local folder that is removed at the end."""
        ...

    def fetch(self, name: str, scratch: Path) -> Path:
        """Return a local file with the content of a file, which may be the file itself."""
        ...

    def names(self) -> dict[str, Listed]:
        """Return the files by name."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it exists and may be removed."""
        ...


def open_folder(url: str, storage_options: Mapping[str, Any]) -> IndexFolder:
    """Return the folder at a path or URL. It need not exist.

    Raises:
        InvalidValueError: an option is unknown, or there is no file system for the URL.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: the file system cannot be created.
    """
    options = {name: storage_options[name] for name in storage_options if name not in OF_WRITERS}
    if scheme_of(url) == "file":
        return LocalIndexFolder(url)
    if is_s3(url):
        check_s3(url, options)
        return S3IndexFolder(url, options)
    check_fsspec(url)
    return FsspecIndexFolder(url, options)


class LocalIndexFolder(LocalStore):
    """A folder on a local disk or a mounted file system."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "")
        self._root = local_path(url)

    def read(self, name: str, start: int, end: int) -> bytes:
        """Return a part of a file."""
        with as_store_errors(self._root / name), (self._root / name).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def put_file(self, name: str, path: Path) -> None:
        """Move a file into the folder."""
        with as_store_errors(self._root / name):
            path.replace(self._root / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Return a folder in this folder, so that its files can be moved."""
        folder = self._root / f".{os.urandom(8).hex()}.partial"
        with as_store_errors(folder):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def fetch(self, name: str, scratch: Path) -> Path:  # noqa: ARG002 - the interface
        """Return the file itself."""
        return self._root / name

    def names(self) -> dict[str, Listed]:
        """Return the files by name."""
        found = {}
        now = time.time()
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found[entry.name] = Listed(status.st_size, now - status.st_mtime)
        return found

    def remove(self, name: str) -> None:
        """Remove a file, or a folder that an ended process left."""
        path = self._root / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            return
        with contextlib.suppress(OSError):
            path.unlink()


class _RemoteScratch:
    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Return a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="sm_tblog-") as folder:
            yield Path(folder)

    def fetch(self, name: str, scratch: Path) -> Path:
        """Download a file."""
        path = scratch / name
        data = self.get(name)
        if data is None:
            message = f"{name} was removed from the index while it was read"
            raise StoreError(message)
        path.write_bytes(data)
        return path

    def get(self, name: str) -> bytes | None:
        raise NotImplementedError


class S3IndexFolder(_RemoteScratch, S3Folder):
    """A folder of a bucket."""

    def get(self, name: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""
        return S3Folder.get(self, name)

    def read(self, name: str, start: int, end: int) -> bytes:  # type: ignore[override]
        """Return a part of an object."""
        part = f"bytes={start}-{end - 1}"
        return super().read(self.prefix + name, Range=part)[1]

    def _get(self, name: str) -> tuple[bytes | None, str | None]:
        try:
            reply, data = super().read(self.prefix + name)
        except StoreError as error:
            if code_of(error) in MISSING:
                return None, None
            raise
        return data, reply["ETag"]

    def put_file(self, name: str, path: Path) -> None:
        """Upload a file."""
        with path.open("rb") as file:
            md5 = content_md5(file)  # type: ignore[arg-type]
            self.call("PutObject", Key=self.prefix + name, Body=file, ContentMD5=md5)

    def names(self) -> dict[str, Listed]:
        """Return the objects by name."""
        found = {}
        now = time.time()
        parameters: dict[str, Any] = {"Prefix": self.prefix, "Delimiter": "/"}
        while True:
            page = self.call("ListObjectsV2", **parameters)
            for entry in page.get("Contents", ()):
                age = now - entry["LastModified"].timestamp()
                found[entry["Key"][len(self.prefix) :]] = Listed(entry["Size"], age)
            if not page.get("IsTruncated"):
                return found
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    def remove(self, name: str) -> None:
        """Delete an object, if the credentials allow it."""
        with contextlib.suppress(StoreError):
            self.call("DeleteObject", Key=self.prefix + name)


class FsspecIndexFolder(_RemoteScratch, FsspecFolder):
    """A folder of a file system of fsspec."""

    def get(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        return FsspecFolder.get(self, name)

    def read(self, name: str, start: int, end: int) -> bytes:
        """Return a part of a file."""
        return bytes(self.call(self.fs.cat_file, f"{self._path}/{name}", start, end))

    def put_file(self, name: str, path: Path) -> None:
        """Upload a file."""
        self.call(self.fs.makedirs, self._path, exist_ok=True)
        self.call(self.fs.put_file, str(path), f"{self._path}/{name}")

    def names(self) -> dict[str, Listed]:
        """Return the files by name; their age is unknown, so that none is removed for its age."""
        try:
            entries = self.call(self.fs.ls, self._path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rpartition("/")[2]: Listed(entry.get("size") or 0, 0) for entry in entries
        }

    def remove(self, name: str) -> None:
        """Remove a file, if the file system allows it."""
        with contextlib.suppress(StoreError, FileNotFoundError):
            self.call(self.fs.rm_file, f"{self._path}/{name}")
