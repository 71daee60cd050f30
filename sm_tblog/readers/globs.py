"""Patterns that select runs.

``*``, ``?`` and ``[…]`` match within one folder's name, and ``**`` matches any number of folders.
A pattern matches a run's folder or, if its last part contains ``tfevents``, an event file.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Glob", "split_glob"]

_MAGIC = frozenset("*?[")


class Glob(NamedTuple):
    """A folder, and which runs below it are selected.

    Attributes:
        base: the folder; a path or URL without patterns.
        pattern: a pattern for each folder below it; None selects all runs.
    """

    base: str
    pattern: Sequence[str] | None

    @property
    def prefix(self) -> str:
        """What the names of all selected runs start with."""
        if self.pattern is None:
            return ""
        first = self.pattern[0]
        end = next((i for i, letter in enumerate(first) if letter in _MAGIC), len(first))
        return first[:end]

    def selects(self, name: str, files: Iterable[str]) -> bool:
        """Return whether a run is selected, given its name and those of its event files."""
        if self.pattern is None:
            return True
        folders = [] if name == "." else name.split("/")
        if "tfevents" not in self.pattern[-1]:
            return _matches(folders, self.pattern)
        return any(_matches([*folders, file], self.pattern) for file in files)


def split_glob(url: str) -> Glob:
    """Return the folder of a path or URL that may contain patterns, and the patterns below it.

    A local path that exists is taken as it is, even if it contains brackets.
    """
    if not _MAGIC & set(url) or (scheme_of(url) == "file" and _exists(url)):
        return Glob(url, None)
    scheme, separator, path = url.partition("://") if "://" in url else ("", "", url)
    parts = path.split("/")
    # The first part of a URL is a bucket or a server.
    first = next((i for i, part in enumerate(parts) if _MAGIC & set(part)), len(parts))
    first = max(first, 1) if separator else first
    base = "/".join(parts[:first]) or ("/" if first else ".")
    pattern = [part for part in parts[first:] if part]
    return Glob(scheme + separator + base, pattern or None)


def _exists(url: str) -> bool:
    try:
        return Path(local_path(url)).exists()
    except (OSError, ValueError):
        return False


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return _matches(parts, rest) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], first) and _matches(parts[1:], rest)
