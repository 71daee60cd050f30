"""The interface of log directories that can be read.

A tree lists its folders, each with its event files. What it cannot list becomes a folder with an
error, and the rest is listed: only an error of the root itself is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Folder", "Source", "Tree", "is_event_file"]


class Source(NamedTuple):
    """A file that can be read.

    Attributes:
        open: opens the file for reading at the offset given.
        read: returns the bytes from an offset to another one, as far as there are any.
        size: the number of bytes when the folder was listed; None if unknown.
        version: changes with the content: an entity tag, or the time of the last change; "" if
            unknown.
    """

    open: Callable[[int], BinaryIO]
    read: Callable[[int, int], bytes]
    size: int | None
    version: str = ""


class Folder(NamedTuple):
    """A folder with event files.

    Attributes:
        name: its path below the root, with slashes; "" for the root.
        files: for each event file its name and how to read it, sorted by name.
        error: why the folder cannot be listed; None if it can.
    """

    name: str
    files: Sequence[tuple[str, Source]]
    error: Exception | None = None


class Tree(Protocol):
    """A log directory or an event file. Every failure is an ``OSError``."""

    def is_file(self) -> bool:
        """Return whether the root is a file."""
        ...

    def is_folder(self) -> bool:
        """Return whether the root is a folder."""
        ...

    def file(self) -> Source:
        """Return the root, a file."""
        ...

    def walk(self) -> Iterator[Folder]:
        """Iterate over the root and the folders below it that have event files or an error."""
        ...

    def read_file(self, folder: str | None, path: str) -> bytes:
        """Return the content of any file.

        Args:
            folder: the path of a folder below the root; None for the folder of a root that is a
                file.
            path: the path of the file in the folder.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...


def is_event_file(name: str) -> bool:
    """Return whether a file of this name is an event file by TensorBoard's rule."""
    # TensorFlow's profiler marks a folder with a file of this suffix that contains no summaries;
    # TensorBoard ignores it too (tensorboard issue 2084).
    return "tfevents" in name and not name.endswith(".profile-empty")
