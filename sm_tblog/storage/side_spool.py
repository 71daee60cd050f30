"""Side files in the spool: each is a spool file of its own, with what the side file is to hold.

A change of what another process may have written is spooled too if it is a ``Change``: as the name
of its function, one of this library's, and the argument. Any other function stays in memory, and is
lost with the process.
"""

from __future__ import annotations

import importlib
import logging
import time
from typing import TYPE_CHECKING, Any

from sm_tblog._types import Change
from sm_tblog.storage import spool
from sm_tblog.storage.spool import SpoolFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sm_tblog.storage.base import SideData
    from sm_tblog.storage.remote import RemoteFolder

__all__ = ["SideFileJob", "content_of", "create", "folder_options", "is_side", "order", "restore"]

logger = logging.getLogger("sm_tblog")

_NOTE = "side"
_PACKAGE = "sm_tblog."


class SideFileJob:
    """A side file on its way.

    Args:
        file: holds what the side file is to hold, or the argument of ``change``.
        change: returns what it is to hold from what it holds.

    Attributes:
        done: whether it is written, or given up.
    """

    def __init__(
        self, file: SpoolFile, change: Callable[[bytes | None], bytes] | None = None
    ) -> None:
        self.file = file
        self.done = False
        self._change = change

    @property
    def waiting(self) -> int:
        """How many bytes are not written, as far as that is known."""
        return 0 if self.done else self.file.size

    def upload(self, place: RemoteFolder) -> None:
        """Write the side file.

        Raises:
            StoreError: the place did not take it.
            Exception: what the change raised.
        """
        if self._change is None:
            place.put(self.file.name, self.file.read(0, self.file.size))
        else:
            place.update(self.file.name, self._change)


def content_of(data: SideData) -> bytes | memoryview:
    """Return what of a side file is spooled."""
    if isinstance(data, Change):
        return data.argument
    return b"" if callable(data) else memoryview(data)


def create(folder: Path, url: str, name: str, data: SideData, **notes: Any) -> SideFileJob:
    """Return a new side file on its way, in the spool if it can be.

    Takes what ``spool.create`` does.
    """
    content = content_of(data)
    note: dict[str, Any] = {"size": len(content), "order": time.time_ns()}
    if isinstance(data, Change):
        note["change"] = f"{data.function.__module__}:{data.function.__qualname__}"
    elif callable(data):
        return SideFileJob(SpoolFile(url, name), data)
    file = spool.create(folder, url, name, **{_NOTE: note}, **notes)
    file.append(content)
    return SideFileJob(file, data if isinstance(data, Change) else None)


def is_side(file: SpoolFile) -> bool:
    """Return whether a spool file holds a side file."""
    return _NOTE in file.notes


def order(file: SpoolFile) -> tuple[int, str]:
    """Return what files are to be sorted by: side files as they came, others by their names."""
    return file.notes.get(_NOTE, {}).get("order", 0), file.name


def folder_options(file: SpoolFile) -> dict[str, Any]:
    """Return what the notes say of the place that a file is for."""
    return {name: value for name, value in file.notes.items() if name != _NOTE}


def restore(file: SpoolFile) -> SideFileJob | None:
    """Return a side file that an earlier process has left behind.

    None if there is nothing to be done: the process has ended before the file was whole, or the
    function that is to change it is none of this release.
    """
    note = file.notes[_NOTE]
    if file.size != note["size"]:
        logger.warning(
            "%s/%s: the side file was being written when its process ended, and is not uploaded",
            file.url,
            file.name,
        )
        file.delete()
        return None
    if "change" not in note:
        return SideFileJob(file)
    try:
        function = _function(note["change"])
    except (ImportError, AttributeError, ValueError):
        logger.warning("%s is left alone: there is no function %s here", file, note["change"])
        file.release()
        return None
    return SideFileJob(file, Change(function, file.read(0, file.size)))


def _function(name: str) -> Any:
    """Return a function of this library by its name: nobody else's is called.

    Raises:
        ImportError: there is no such module.
        AttributeError: there is no such function.
        ValueError: it is not this library's.
    """
    module, _, function = name.partition(":")
    if not module.startswith(_PACKAGE):
        raise ValueError(name)
    return getattr(importlib.import_module(module), function)
