"""Log directories in the file systems of fsspec, whose errors become ``OSError``."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from sm_tblog._errors import (
    InvalidValueError,
    MissingDependencyError,
    StoreError,
    TBLogError,
)
from sm_tblog.readers.base import Folder, Source, is_event_file
from sm_tblog.readers.local_tree import LocalTree
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.urls import without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sm_tblog.readers.base import Tree

__all__ = ["open_fsspec_tree"]

_VERSIONS = ("etag", "ETag", "content_hash", "mtime", "LastModified", "last_modified", "created")
"""What file systems call the entity tag of a file, or the time of its last change."""


def open_fsspec_tree(url: str, options: Mapping[str, Any]) -> Tree:
    """Return the tree at a URL of fsspec.

    Raises:
        InvalidValueError: there is no file system for the URL.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: the file system cannot be created.
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    try:
        files, root = url_to_fs(url, **options)
    except ImportError as error:
        message = f"{scheme_of(url)}:// needs a package that is not installed: {error}"
        raise MissingDependencyError(message) from error
    except ValueError as error:
        message = f"cannot read {url!r}: {error}"
        raise InvalidValueError(message) from error
    except Exception as error:
        raise _as_store_error(error, url) from error
    return LocalTree(root) if isinstance(files, LocalFileSystem) else FsspecTree(files, root)


class FsspecTree:
    """A tree in a file system of fsspec."""

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root
        _call(root, files.invalidate_cache)  # a file that is being written grows after it is listed

    def is_file(self) -> bool:
        """Return whether the root is a file."""
        return bool(_call(self._root, self._files.isfile, self._root))

    def is_folder(self) -> bool:
        """Return whether the root is a folder."""
        return bool(_call(self._root, self._files.isdir, self._root))

    def file(self) -> Source:
        """Return the root, a file."""
        return self._source({"name": self._root})

    def walk(self) -> Iterator[Folder]:
        """Iterate over the folders."""
        folders = [("", self._root)]
        while folders:
            name, path = folders.pop()
            try:
                entries = _call(path, self._files.ls, path, detail=True)
            except (OSError, TBLogError) as error:
                if not name:
                    raise
                yield Folder(name, [], error)
                continue
            below, found = [], []
            for entry in entries:
                inner = entry["name"].rstrip("/").rpartition("/")[2]
                if entry["name"].strip("/") == path.strip("/"):
                    continue
                if entry["type"] == "directory":
                    below.append((f"{name}/{inner}" if name else inner, entry["name"]))
                elif is_event_file(inner):
                    found.append((inner, self._source(entry)))
            if found:
                yield Folder(name, sorted(found, key=lambda one: one[0]))
            folders += sorted(below, reverse=True)

    def read_file(self, folder: str | None, path: str) -> bytes:
        """Return the content of any file."""
        root = self._root.rstrip("/")
        parent = root.rpartition("/")[0] if folder is None else f"{root}/{folder}".rstrip("/")
        whole = f"{parent}/{path}" if parent else path
        try:
            return bytes(_call(whole, self._files.cat_file, whole))
        except StoreError:  # some file systems have another error for a file that is missing
            _call(whole, self._files.info, whole)
            raise

    def _source(self, entry: Mapping[str, Any]) -> Source:
        path = entry["name"]
        version = next((entry[name] for name in _VERSIONS if entry.get(name)), "")
        return Source(
            partial(self._open, path), partial(self._read, path), entry.get("size"), str(version)
        )

    def _open(self, path: str, offset: int) -> BinaryIO:
        file = _call(path, self._files.open, path)
        if offset:
            _call(path, file.seek, offset)
        return cast("BinaryIO", _Mapped(file, path))

    def _read(self, path: str, start: int, end: int) -> bytes:
        return bytes(_call(path, self._files.cat_file, path, start, end))


class _Mapped(io.RawIOBase):
    """A file of a foreign file system, whose errors are ``OSError``."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        super().__init__()
        self._file = file
        self._path = path

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into ``buffer``."""
        data = _call(self._path, self._file.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            _call(self._path, self._file.close)
        super().close()


def _call(path: str, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of a foreign file system; raise its errors as ``OSError``."""
    try:
        return action(*args, **kwargs)
    except (OSError, TBLogError):
        raise
    except Exception as error:
        raise _as_store_error(error, path) from error


def _as_store_error(error: Exception, path: str) -> StoreError:
    message = f"cannot read {path}: {type(error).__name__}: {error}"
    return StoreError(without_password(message))
