"""Finds the event files of runs and reads the complete events in them.

A run is a folder with event files, which are read in the order of their names, as by TensorBoard. A
file is read in chunks, so memory holds one chunk or one record, whichever is longer, and never a
whole file.
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
    StoreError,
    TBLogError,
)
from sm_tblog.readers.event_stream import Damage
from sm_tblog.readers.trees import open_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sm_tblog._types import PathLike
    from sm_tblog.readers.base import Source
    from sm_tblog.readers.event_stream import EventStream

__all__ = [
    "EventFile",
    "RunFiles",
    "RunNotFoundError",
    "as_url",
    "find_runs",
    "mapped_errors",
    "read_file",
]

CHUNK_SIZE = 1 << 20
"""Bytes read at a time."""


class RunNotFoundError(InvalidValueError):
    """There is no run at a path, or not yet."""


class EventFile(NamedTuple):
    """A file and how to read it."""

    path: str
    source: Source

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.replace("\\", "/").rpartition("/")[2]


class RunFiles(NamedTuple):
    """A run's event files.

    Attributes:
        name: the run's folder below the log directory, "." for the log directory itself.
        path: the log directory as given, joined with the name.
        files: the files, sorted by name.
        read_side: returns the content of another file in the folder, by its path in it; raises
            ``FileNotFoundError`` if there is none, and any other ``OSError``.
        damages: the folder itself, if it cannot be listed.
    """

    name: str
    path: str
    files: list[EventFile]
    read_side: Callable[[str], bytes]
    damages: tuple[Damage, ...] = ()


def find_runs(
    path: PathLike,
    storage_options: Mapping[str, Any] | None = None,
    *,
    is_deep: bool = False,
    prefix: str = "",
) -> Iterator[RunFiles]:
    """Iterate over the runs at and below ``path``, starting with ``path`` itself.

    Args:
        path: a log directory or an event file; a path or a URL that fsspec supports.
        storage_options: as for a writer; for other URLs than S3's, passed to the file system.
        is_deep: all runs are needed, not only the first; saves requests.
        prefix: only runs whose names start with it are needed; others may be left out.

    Raises:
        InvalidTypeError: ``path`` is neither a string nor a path.
        InvalidValueError: ``path`` does not exist, or there is no file system for the URL.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: ``path`` cannot be read.
    """
    url = as_url(path)
    with mapped_errors(url):
        tree = open_tree(url, storage_options or {}, is_deep=is_deep, prefix=prefix)
        if tree.is_file():
            files = [EventFile(url, tree.file())]
            yield RunFiles(".", url, files, partial(tree.read_file, None))
            return
        if not tree.is_folder():
            if prefix:
                return
            message = f"there is no file or folder {url!r}"
            raise RunNotFoundError(message)
        for folder in tree.walk():
            run = join(url, folder.name) if folder.name else url
            files = [EventFile(join(run, name), source) for name, source in folder.files]
            damages = () if folder.error is None else (Damage(run, 0, 0, reason_of(folder.error)),)
            read_side = partial(tree.read_file, folder.name)
            yield RunFiles(folder.name or ".", run, files, read_side, damages)


@contextlib.contextmanager
def mapped_errors(path: str) -> Iterator[None]:
    """Raise an ``OSError`` as a ``StoreError`` that names ``path``."""
    try:
        yield
    except TBLogError:
        raise
    except OSError as error:
        message = f"cannot read {path}: {reason_of(error)}"
        raise StoreError(error.errno, message) from error


def read_file(file: BinaryIO, stream: EventStream) -> None:
    """Feed what a file contains from ``stream.offset`` on to ``stream``, and finish it.

    A failure becomes a damage of the stream, from the end of the last complete event on.
    """
    while True:
        try:
            data = file.read(max(CHUNK_SIZE, stream.wanted))
        except OSError as error:
            stream.fail(reason_of(error))
            return
        if not data:
            break
        stream.feed(data)
    stream.finish()


def reason_of(error: Exception) -> str:
    """Return why something could not be read, without its path if the system says so."""
    return str(getattr(error, "strerror", None) or error)


def as_url(path: PathLike) -> str:
    """Return a path as text.

    Raises:
        InvalidTypeError: ``path`` is neither a string nor a path.
    """
    try:
        return os.fsdecode(path)
    except TypeError as error:
        message = f"a log directory must be a path or URL, got {path!r:.60} ({type(path).__name__})"
        raise InvalidTypeError(message) from error
