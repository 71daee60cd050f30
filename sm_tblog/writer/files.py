"""Side files: files beside the event files."""

from __future__ import annotations

from typing import Any

from sm_tblog._errors import InvalidTypeError
from sm_tblog._types import Change, as_utf8
from sm_tblog.sinks.base import File
from sm_tblog.storage.base import side_file_path
from sm_tblog.writer.base import BaseWriter

__all__ = ["FileMethods"]


class FileMethods(BaseWriter):
    """Methods that write files for TensorBoard's plugins, or for people, into a run's directory."""

    def add_file(self, name: str, data: bytes | str, *, overwrite: bool = True) -> None:
        """Write a file into the log directory, local or remote.

        The worker thread writes it after everything logged before; on an object store, it is
        uploaded with the rest.

        Args:
            name: a relative path below the log directory.
            data: the content; a str is encoded as UTF-8.
            overwrite: replace an existing file of that name; ``False`` keeps it unchanged.

        Raises:
            InvalidTypeError: the name or the data has the wrong type.
            InvalidValueError: the name is not below the log directory.
        """
        content: Any = data.encode(errors="replace") if isinstance(data, str) else data
        if type(name) is not str or not isinstance(content, bytes):
            message = (
                f"add_file: expected a str as name, and bytes or a str, got {name!r:.60} and "
                f"{type(data).__name__}"
            )
            raise InvalidTypeError(message)
        path = str(side_file_path(as_utf8(name)))
        args = (path, content if overwrite else Change(keep, content))
        self._put(name, _build_file, args, 0, None, len(content))


def keep(data: bytes, existing: bytes | None) -> bytes:
    """Return the content of a file that must not be overwritten."""
    return data if existing is None else existing


def _build_file(_: str, path: str, content: bytes | Change) -> list[File]:
    return [File("", path, content)]
