"""Event files to events: which files a run has, and what in each of them is whole.

A run is a folder with event files; their names hold ``tfevents``, and their order is that of the
names, as for TensorBoard. A file is read in pieces, so memory holds a piece or a record, whichever
is longer, and never a whole file. Bytes that are not part of a whole event are passed over and
reported: the tail of a file that is being written, and damage anywhere.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from posixpath import join
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from google.protobuf.message import DecodeError

from sm_tblog._errors import (
    CorruptRecordError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    StoreError,
)
from sm_tblog.format import schema
from sm_tblog.format.records import FOOTER, HEADER, Unframer
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sm_tblog._types import PathLike
    from sm_tblog.format.records import Record

__all__ = ["Damage", "EventFile", "RunFiles", "find_runs", "mapped_errors", "read_events"]

PIECE = 1 << 20
"""Bytes read at a time."""


class Damage(NamedTuple):
    """Bytes of an event file that are not part of a whole event.

    Attributes:
        path: the file.
        offset: where they begin, in bytes from the start of the file.
        size: how many they are.
        reason: what is wrong with them.
    """

    path: str
    offset: int
    size: int
    reason: str

    def __str__(self) -> str:
        """Return a sentence for a person."""
        return f"{self.path}: skipped {self.size:,} bytes at byte {self.offset}: {self.reason}"


class EventFile(NamedTuple):
    """A file and how to open it for reading."""

    path: str
    open: Callable[[], BinaryIO]


class RunFiles(NamedTuple):
    """A run's event files.

    Attributes:
        name: the run's folder below the log folder, "." for the log folder itself.
        path: where it is: the log folder as it was given, and the name.
        files: in the order of their names.
    """

    name: str
    path: str
    files: list[EventFile]


def find_runs(
    path: PathLike, storage_options: Mapping[str, Any] | None = None
) -> Iterator[RunFiles]:
    """Iterate over the runs at and below ``path``, the one at ``path`` itself first.

    Args:
        path: a log folder or an event file; a path or a URL that fsspec knows.
        storage_options: passed to the URL's file system.

    Raises:
        InvalidTypeError: ``path`` is neither a string nor a path.
        InvalidValueError: there is nothing at ``path``, or no file system for the URL.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: a folder cannot be read.
    """
    url = _as_url(path)
    with mapped_errors(url):
        place = _open_place(url, dict(storage_options or {}))
        if place.is_file(place.root):
            yield RunFiles(".", url, [EventFile(url, partial(place.open, place.root))])
            return
        if not place.is_folder(place.root):
            message = f"there is no file or folder {url!r}"
            raise InvalidValueError(message)
        for folder, folders, names in place.walk(place.root):
            folders.sort()
            name = folder[len(place.root) :].replace(os.sep, "/").strip("/")
            run = join(url, name) if name else url
            files = [
                EventFile(join(run, file), partial(place.open, join(folder, file)))
                for file in sorted(names)
                if _is_event_file(file)
            ]
            if files:
                yield RunFiles(name or ".", run, files)


@contextlib.contextmanager
def mapped_errors(path: str) -> Iterator[None]:
    """Raise a ``StoreError`` that names ``path`` for what the operating system refuses."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise StoreError(error.errno, message) from error


def read_events(file: BinaryIO, path: str, damages: list[Damage]) -> Iterator[Any]:
    """Iterate over the whole events, ``schema.Event``, in a file.

    Args:
        file: open at its beginning.
        path: its name in ``damages``.
        damages: is given what lies between the whole events and behind them.
    """
    unframer = Unframer()
    reasons: list[str] = []
    end = 0  # of the last whole event
    for offset, data in _read_records(file, unframer, reasons):
        try:
            event = schema.Event.FromString(data)
        except DecodeError:
            reasons.append("the record's data are not an event")
            continue
        if offset > end:
            damages.append(Damage(path, end, offset - end, reasons[0]))
        reasons.clear()
        end = offset + HEADER + len(data) + FOOTER
        yield event
    size = unframer.offset + unframer.pending
    if size > end:
        reasons.append("the record is cut short")
        damages.append(Damage(path, end, size - end, reasons[0]))


def _read_records(file: BinaryIO, unframer: Unframer, reasons: list[str]) -> Iterator[Record]:
    while True:
        piece = file.read(PIECE)
        unframer.feed(piece)
        if not piece:
            if unframer.pending < HEADER:
                return
            unframer.skip()
            reasons.append("the record is cut short")
        while True:
            try:
                yield from unframer
                break
            except CorruptRecordError as error:
                reasons.append(str(error))


def _is_event_file(name: str) -> bool:
    # TensorFlow's profiler marks a folder by a file of that suffix that holds no summaries;
    # TensorBoard leaves it out too (tensorboard issue 2084).
    return "tfevents" in name and not name.endswith(".profile-empty")


class _Place(NamedTuple):
    """What finding and reading files takes of a file system, and where to begin."""

    root: str
    is_folder: Callable[[str], bool]
    is_file: Callable[[str], bool]
    walk: Callable[[str], Iterator[tuple[str, list[str], list[str]]]]
    open: Callable[[str], BinaryIO]


def _open_place(url: str, storage_options: dict[str, Any]) -> _Place:
    if scheme_of(url) == "file":
        # Links are followed: people gather runs to compare by linking them into one folder.
        walk = partial(os.walk, onerror=_raise, followlinks=True)
        return _Place(str(local_path(url)), os.path.isdir, os.path.isfile, walk, _open_local)
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url, **storage_options)
    except ImportError as error:
        message = f"{scheme_of(url)}:// needs a package that is not installed: {error}"
        raise MissingDependencyError(message) from error
    except ValueError as error:
        message = f"cannot read {url!r}: {error}"
        raise InvalidValueError(message) from error
    files.invalidate_cache()  # a file that is being written has grown since it was last listed
    return _Place(root, files.isdir, files.isfile, files.walk, files.open)


def _open_local(path: str) -> BinaryIO:
    return open(path, "rb")  # noqa: PTH123 - as fsspec's; the reader closes it


def _raise(error: OSError) -> None:
    raise error


def _as_url(path: PathLike) -> str:
    try:
        return os.fsdecode(path)
    except TypeError as error:
        message = f"a log folder is a path or URL, got {path!r:.60} ({type(path).__name__})"
        raise InvalidTypeError(message) from error
