"""Finds the event files of runs and reads the complete events in them.

A run is a folder with event files. Their names contain ``tfevents``, and they are read in the order
of their names, as by TensorBoard. A file is read in chunks, so memory holds one chunk or one
record, whichever is longer, and never a whole file. Bytes that are not part of a complete event are
skipped and reported: the tail of a file that is being written, and damage anywhere.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from posixpath import join
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from sm_tblog._errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    StoreError,
)
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sm_tblog._types import PathLike
    from sm_tblog.readers.event_stream import EventStream

__all__ = ["EventFile", "RunFiles", "find_runs", "mapped_errors", "read_file"]

CHUNK_SIZE = 1 << 22
"""Bytes read at a time."""


class EventFile(NamedTuple):
    """A file and how to open it for reading."""

    path: str
    open: Callable[[], BinaryIO]


class RunFiles(NamedTuple):
    """A run's event files.

    Attributes:
        name: the run's folder below the log directory, "." for the log directory itself.
        path: the log directory as given, joined with the name.
        files: the files, sorted by name.
    """

    name: str
    path: str
    files: list[EventFile]


def find_runs(
    path: PathLike, storage_options: Mapping[str, Any] | None = None
) -> Iterator[RunFiles]:
    """Iterate over the runs at and below ``path``, starting with ``path`` itself.

    Args:
        path: a log directory or an event file; a path or a URL that fsspec supports.
        storage_options: passed to the URL's file system.

    Raises:
        InvalidTypeError: ``path`` is neither a string nor a path.
        InvalidValueError: ``path`` does not exist, or there is no file system for the URL.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: a folder cannot be read.
    """
    url = _as_url(path)
    with mapped_errors(url):
        file_system = _open_file_system(url, dict(storage_options or {}))
        if file_system.is_file(file_system.root):
            yield RunFiles(".", url, [EventFile(url, partial(file_system.open, file_system.root))])
            return
        if not file_system.is_folder(file_system.root):
            message = f"there is no file or folder {url!r}"
            raise InvalidValueError(message)
        for folder, folders, names in file_system.walk(file_system.root):
            folders.sort()
            name = folder[len(file_system.root) :].replace(os.sep, "/").strip("/")
            run = join(url, name) if name else url
            files = [
                EventFile(join(run, file), partial(file_system.open, join(folder, file)))
                for file in sorted(names)
                if _is_event_file(file)
            ]
            if files:
                yield RunFiles(name or ".", run, files)


@contextlib.contextmanager
def mapped_errors(path: str) -> Iterator[None]:
    """Raise an ``OSError`` as a ``StoreError`` that names ``path``."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise StoreError(error.errno, message) from error


def read_file(file: BinaryIO, stream: EventStream) -> None:
    """Feed a file, open at its beginning, to ``stream``, and finish it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    while True:
        if stream.missing > size - stream.offset:
            stream.skip()
        data = file.read(max(CHUNK_SIZE, stream.missing))
        if not data:
            break
        stream.feed(data)
    stream.finish()


def _is_event_file(name: str) -> bool:
    # TensorFlow's profiler marks a folder with a file of this suffix that contains no summaries;
    # TensorBoard ignores it too (tensorboard issue 2084).
    return "tfevents" in name and not name.endswith(".profile-empty")


class _FileSystem(NamedTuple):
    """The functions of a file system that finding and reading files needs, and the root."""

    root: str
    is_folder: Callable[[str], bool]
    is_file: Callable[[str], bool]
    walk: Callable[[str], Iterator[tuple[str, list[str], list[str]]]]
    open: Callable[[str], BinaryIO]


def _open_file_system(url: str, storage_options: dict[str, Any]) -> _FileSystem:
    if scheme_of(url) == "file":
        # Follow links: users gather runs to compare by linking them into one folder.
        walk = partial(os.walk, onerror=_raise, followlinks=True)
        return _FileSystem(str(local_path(url)), os.path.isdir, os.path.isfile, walk, _open_local)
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url, **storage_options)
    except ImportError as error:
        message = f"{scheme_of(url)}:// needs a package that is not installed: {error}"
        raise MissingDependencyError(message) from error
    except ValueError as error:
        message = f"cannot read {url!r}: {error}"
        raise InvalidValueError(message) from error
    files.invalidate_cache()  # a file that is being written grows after it is listed
    return _FileSystem(root, files.isdir, files.isfile, files.walk, files.open)


def _open_local(path: str) -> BinaryIO:
    return open(path, "rb")  # noqa: PTH123 - as fsspec does; the reader closes it


def _raise(error: OSError) -> None:
    raise error


def _as_url(path: PathLike) -> str:
    try:
        return os.fsdecode(path)
    except TypeError as error:
        message = f"a log directory must be a path or URL, got {path!r:.60} ({type(path).__name__})"
        raise InvalidTypeError(message) from error
