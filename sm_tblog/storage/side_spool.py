"""Side files in the spool: each side file has its own spool file with its content.

A change to content that another process may have written is spooled as well if it is a ``Change``:
as the name of its function, which must belong to this library, and its argument. Any other function
stays in memory and is lost with the process.
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
    """The upload of one side file.

    Args:
        file: holds the content of the side file, or the argument of ``change``.
        change: maps the current content, None if there is none, to the new content.

    Attributes:
        done: whether the side file is written or was given up.
    """

    def __init__(
        self, file: SpoolFile, change: Callable[[bytes | None], bytes] | None = None
    ) -> None:
        self.file = file
        self.done = False
        self._change = change

    @property
    def unacknowledged(self) -> int:
        """Number of spooled bytes that are not written yet."""
        return 0 if self.done else self.file.size

    def upload(self, folder: RemoteFolder) -> None:
        """Write the side file.

        Raises:
            StoreError: the remote folder did not accept it.
            Exception: the change raised it.
        """
        if self._change is None:
            folder.put(self.file.name, self.file.read(0, self.file.size))
        else:
            folder.update(self.file.name, self._change)


def content_of(data: SideData) -> bytes | memoryview:
    """Return the bytes of a side file that are spooled."""
    if isinstance(data, Change):
        return data.argument
    return b"" if callable(data) else memoryview(data)


def create(folder: Path, url: str, name: str, data: SideData, **notes: Any) -> SideFileJob:
    """Return the job of a new side file, in the spool if possible.

    The other arguments are those of ``spool.create``.
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
    """Return the sort key of a spool file: its creation time for side files, then its name."""
    return file.notes.get(_NOTE, {}).get("order", 0), file.name


def folder_options(file: SpoolFile) -> dict[str, Any]:
    """Return the options of the remote folder that are recorded in a file's notes."""
    return {name: value for name, value in file.notes.items() if name != _NOTE}


def restore(file: SpoolFile) -> SideFileJob | None:
    """Return the job of a side file that an earlier process left in the spool.

    Returns:
        None if the file is incomplete because the process ended while writing it, or if this
        release does not have the function that changes it.
    """
    note = file.notes[_NOTE]
    if file.size != note["size"]:
        logger.warning(
            "%s/%s: the side file is incomplete because its process ended; it is not uploaded",
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
        logger.warning(
            "%s is skipped: this release of sm_tblog has no function %s", file, note["change"]
        )
        file.release()
        return None
    return SideFileJob(file, Change(function, file.read(0, file.size)))


def _function(name: str) -> Any:
    """Return a function of this library by its name; functions of other packages are refused.

    Raises:
        ImportError: there is no such module.
        AttributeError: there is no such function.
        ValueError: the function does not belong to this library.
    """
    module, _, function = name.partition(":")
    if not module.startswith(_PACKAGE):
        raise ValueError(name)
    return getattr(importlib.import_module(module), function)
