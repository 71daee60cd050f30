"""Log directories in S3, read with the client that writers use.

One request for each thousand objects lists the root and what is below it. To find the files of the
root alone, one request suffices, whatever is below it. One request reads a file; a connection that
breaks is resumed where it broke.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from functools import partial
from itertools import chain, count
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sm_tblog._errors import InvalidValueError, StoreError
from sm_tblog.readers.base import Folder, Source, is_event_file
from sm_tblog.storage import s3_options
from sm_tblog.storage.s3_bucket import DENIED, MISSING, Bucket, code_of
from sm_tblog.storage.s3_errors import as_store_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["S3Tree"]

MAX_RESUMES = 3
"""Times in a row that a broken connection is resumed without a byte in between."""


_BEYOND = {"InvalidRange", "416", "RequestedRangeNotSatisfiable"}
"""Codes of the error that an object ends before the first byte requested."""


class S3Tree:
    """A tree in a bucket.

    Args:
        url: the root.
        options: see ``s3_options``.
        is_deep: list the folders below together with the root.
        prefix: list only folders whose names start with it; needs ``is_deep``.

    Raises:
        MissingDependencyError: botocore is not installed.
        InvalidValueError: an option is unknown, or the URL contains no bucket name.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any], *, is_deep: bool = False, prefix: str = ""
    ) -> None:
        s3_options.check(url, options)
        self._bucket = Bucket(url, options)
        self._root = self._bucket.prefix
        self._key = "" if url.endswith("/") else self._root.rstrip("/")
        self._is_deep = is_deep
        self._pages_here = self._pages(prefix) if is_deep else self._pages(Delimiter="/")
        self._object: _Object | None = None
        self._denied: StoreError | None = None

    def is_file(self) -> bool:
        """Return whether there is an object but no folder of this name.

        What is called like an event file is looked up first: that does not need the permission to
        list the bucket.
        """
        may_be = is_event_file(self._key.rpartition("/")[2])
        return bool(self._key) and (may_be or not self.is_folder()) and self._find_object()

    def is_folder(self) -> bool:
        """Return whether there are objects below the root."""
        page = next(self._pages_here)
        self._pages_here = chain([page], self._pages_here)
        found = bool(page.get("Contents") or page.get("CommonPrefixes"))
        if not found and self._denied is not None:
            raise self._denied  # who may list the bucket is not denied what does not exist
        return found

    def file(self) -> Source:
        """Return the root, an object, which ``is_file`` has opened."""
        source = self._source(self._key, None if self._object is None else self._object.size)
        return source._replace(open=self._open_root)

    def walk(self) -> Iterator[Folder]:
        """Iterate over the folders, the root first."""
        if self._is_deep:
            yield from self._folders(self._pages_here)
            return
        has_folders = False
        here: list[Mapping[str, Any]] = []
        for page in self._pages_here:
            here.append(page)
            has_folders |= bool(page.get("CommonPrefixes"))
        yield from self._folders(here)
        if has_folders:
            yield from (folder for folder in self._folders(self._pages()) if folder.name)

    def _folders(self, pages: Iterable[Mapping[str, Any]]) -> Iterator[Folder]:
        """Iterate over the folders with event files among listed objects, sorted."""
        folders: dict[str, list[tuple[str, Source]]] = {}
        for page in pages:
            for entry in page.get("Contents", ()):
                name, _, file = entry["Key"][len(self._root) :].rpartition("/")
                if is_event_file(file):
                    source = self._source(entry["Key"], entry["Size"], entry.get("ETag", ""))
                    folders.setdefault(name.strip("/"), []).append((file, source))
        for name in sorted(folders):
            yield Folder(name, sorted(folders[name], key=lambda one: one[0]))

    def read_file(self, folder: str | None, path: str) -> bytes:
        """Return the content of any object."""
        root = self._root.rstrip("/")
        parent = root.rpartition("/")[0] if folder is None else f"{root}/{folder}".strip("/")
        key = f"{parent}/{path}".lstrip("/")
        try:
            with _Object(self._bucket, key) as content:
                return content.read()
        except StoreError as error:
            if code_of(error) in MISSING:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from error
            raise

    def _source(self, key: str, size: int | None, version: str = "") -> Source:
        return Source(partial(self._open, key), partial(self._read, key), size, version)

    def _pages(self, prefix: str = "", **parameters: Any) -> Iterator[Mapping[str, Any]]:
        """Iterate over the pages of the list of the objects below the root.

        Raises:
            InvalidValueError: there is no such bucket.
            StoreError: the bucket cannot be listed.
        """
        if self._root or prefix:
            parameters["Prefix"] = self._root + prefix
        while True:
            with _missing_buckets():
                page = self._bucket.call("ListObjectsV2", **parameters)
            yield page
            if not page.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    def _find_object(self) -> bool:
        """Open the object of this name, if there is one."""
        with _missing_buckets():
            try:
                self._object = _Object(self._bucket, self._key)
            except StoreError as error:
                if code_of(error) in DENIED:  # as it is if it is missing and may not be listed
                    self._denied = error
                elif code_of(error) not in MISSING:
                    raise
        return self._object is not None

    def _open_root(self, offset: int) -> BinaryIO:
        opened, self._object = self._object, None
        if opened is None or offset:
            return self._open(self._key, offset)
        return cast("BinaryIO", opened)

    def _open(self, key: str, offset: int) -> BinaryIO:
        return cast("BinaryIO", _Object(self._bucket, key, offset))

    def _read(self, key: str, start: int, end: int) -> bytes:
        with _Object(self._bucket, key, start, end) as content:
            return content.read()


@contextlib.contextmanager
def _missing_buckets() -> Iterator[None]:
    """Raise an error that there is no such bucket as an ``InvalidValueError``."""
    try:
        yield
    except StoreError as error:
        if code_of(error) == "NoSuchBucket":
            raise InvalidValueError(str(error)) from error
        raise


class _Object(io.RawIOBase):
    """The content of an object, or a part of it, as a stream.

    Attributes:
        size: offset after the last byte.
    """

    def __init__(self, bucket: Bucket, key: str, start: int = 0, end: int | None = None) -> None:
        super().__init__()
        self._bucket = bucket
        self._key = key
        self._position = start
        part = {}
        if start or end is not None:
            part = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        try:
            reply = bucket.call("GetObject", Key=key, **part)
        except StoreError as error:
            if not start or code_of(error) not in _BEYOND:
                raise
            self._body, self.size = io.BytesIO(), start  # the object has no further bytes
        else:
            self._body, self.size = reply["Body"], start + reply["ContentLength"]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into ``buffer``."""
        data = b""
        for attempt in count():
            if self._position >= self.size:
                break
            try:
                data = self._body.read(len(buffer))
                break
            except Exception as error:
                if attempt == MAX_RESUMES:
                    raise as_store_error(error, self._bucket.url, "GetObject") from error
                self._resume()
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._body.close()
        super().close()

    def _resume(self) -> None:
        """Request the rest of the object, which only grows while it is written."""
        self._body.close()
        rest = f"bytes={self._position}-{self.size - 1}"
        self._body = self._bucket.call("GetObject", Key=self._key, Range=rest)["Body"]
