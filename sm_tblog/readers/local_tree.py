"""Log directories on local disks and mounted file systems.

A folder is listed once, under its real name if it has one in the tree, however many links lead to
it. A link to a folder that contains the link itself is not followed.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sm_tblog._errors import StoreError
from sm_tblog.readers.base import Folder, Source, is_event_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LocalTree"]


class LocalTree:
    """A tree on a local disk or a mounted file system."""

    def __init__(self, root: str) -> None:
        self._root = root

    def is_file(self) -> bool:
        """Return whether the root is a file."""
        return Path(self._root).is_file()

    def is_folder(self) -> bool:
        """Return whether the root is a folder."""
        return Path(self._root).is_dir()

    def file(self) -> Source:
        """Return the root, a file."""
        return _source(self._root)

    def walk(self) -> Iterator[Folder]:
        """Iterate over the folders, those that links lead to last."""
        root = os.path.realpath(self._root)
        seen: set[str] = set()
        folders = [("", self._root, root)]
        links: list[tuple[str, str, str]] = []  # with the real path of the folder of the link
        while folders or links:
            if folders:
                name, path, real = folders.pop()
            else:
                name, path, parent = links.pop(0)
                real = os.path.realpath(path)
                if _contains(real, parent) or _contains(real, root):
                    continue
            if real in seen:
                continue
            seen.add(real)
            folder, below = _list_folder(name, path, real)
            if folder.error is not None and not name:
                raise folder.error
            if folder.files or folder.error is not None:
                yield folder
            for entry in reversed(below):
                inner = f"{name}/{entry.name}" if name else entry.name
                if _is_link(entry):
                    links.append((inner, entry.path, real))
                else:
                    folders.append((inner, entry.path, os.path.join(real, entry.name)))  # noqa: PTH118 - fast
            links.sort()

    def read_file(self, folder: str | None, path: str) -> bytes:
        """Return the content of any file."""
        root = Path(self._root)
        return _read_file(str((root.parent if folder is None else root / folder) / path), 0, None)


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_link(entry: os.DirEntry[str]) -> bool:
    is_junction = getattr(entry, "is_junction", bool)  # of Windows, from Python 3.12 on
    return entry.is_symlink() or bool(is_junction())


def _list_folder(name: str, path: str, real: str) -> tuple[Folder, list[os.DirEntry[str]]]:
    """Return a folder, and the folders in it, sorted."""
    below, found = [], []
    failed = None
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if _is_folder(entry):
                    below.append(entry)
                elif is_event_file(entry.name):
                    found.append(entry)
    except OSError as error:
        failed = error
    below.sort(key=lambda entry: entry.name)
    found.sort(key=lambda entry: entry.name)
    paths = {entry.name: entry.path for entry in found if not entry.is_symlink()}
    targets = {os.path.join(real, own) for own in paths} if len(paths) < len(found) else set()  # noqa: PTH118 - fast
    for entry in found:
        if entry.name not in paths and (target := os.path.realpath(entry.path)) not in targets:
            targets.add(target)
            paths[entry.name] = entry.path
    files = [(own, _source(paths[own])) for own in sorted(paths)]
    return Folder(name, files, failed), below


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle
        return False


def _source(path: str) -> Source:
    open_file, read_file = partial(_open_file, path), partial(_read_file, path)
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:  # opening the file raises it again
        return Source(open_file, read_file, None)
    return Source(open_file, read_file, found.st_size, str(found.st_mtime_ns))


def _open_file(path: str, offset: int) -> BinaryIO:
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe would block
        message = f"cannot read {path}: it is not a regular file"
        raise StoreError(message)
    file = open(path, "rb")  # noqa: PTH123, SIM115 - the reader closes it
    file.seek(offset)
    return file


def _read_file(path: str, start: int, end: int | None) -> bytes:
    with _open_file(path, start) as file:
        return file.read() if end is None else file.read(end - start)
