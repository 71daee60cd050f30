"""Files beside the event files."""

from __future__ import annotations

from typing import Any

from sm_tblog._errors import InvalidTypeError
from sm_tblog._types import Change
from sm_tblog.sinks.base import File
from sm_tblog.storage.base import side_file_path
from sm_tblog.writer.base import BaseWriter

__all__ = ["FileMethods"]


class FileMethods(BaseWriter):
    """What writes files that TensorBoard's plugins, or people, look for in a run's folder."""

    def add_file(self, name: str, data: bytes | str, *, overwrite: bool = True) -> None:
        """Write a file into the log folder, wherever that is.

        The worker writes it, after what was logged before; on an object store it is uploaded with
        the rest.

        Args:
            name: a relative path below the log folder.
            data: what the file is to hold, a str in UTF-8.
            overwrite: replace a file of that name. ``False`` keeps it as it is.

        Raises:
            InvalidTypeError: the name or the data is of another kind.
            InvalidValueError: the name is not below the log folder.
        """
        content: Any = data.encode() if isinstance(data, str) else data
        if type(name) is not str or not isinstance(content, bytes):
            message = (
                f"add_file: a name and bytes or a str are needed, got {name!r:.60} and "
                f"{type(data).__name__}"
            )
            raise InvalidTypeError(message)
        path = str(side_file_path(name))
        args = (path, content if overwrite else Change(keep, content))
        self._put(name, _build_file, args, 0, None, len(content))


def keep(data: bytes, held: bytes | None) -> bytes:
    """Return what a file is to hold that is not overwritten."""
    return data if held is None else held


def _build_file(_: str, path: str, content: bytes | Change) -> list[File]:
    return [File("", path, content)]
