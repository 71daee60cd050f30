"""Files beside the event files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError
from sm_tblog.sinks.base import File
from sm_tblog.storage.base import side_file_path
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FileMethods"]


class FileMethods(BaseWriter):
    """What writes files that TensorBoard's plugins, or people, look for in a run's folder."""

    def add_file(self, name: str, data: bytes | str | Callable[[bytes | None], bytes]) -> None:
        """Write a file into the log folder, wherever that is, replacing one of the same name.

        The worker writes it, after what was logged before; on an object store it is uploaded with
        the rest.

        Args:
            name: a relative path below the log folder.
            data: what the file is to hold, a str in UTF-8; or a function, called by the worker,
                from what it holds, None where there is none, to that.

        Raises:
            InvalidTypeError: the name or the data is of another kind.
            InvalidValueError: the name is not below the log folder.
        """
        content: Any = data.encode() if isinstance(data, str) else data
        if type(name) is not str or not (isinstance(content, bytes) or callable(content)):
            message = (
                f"add_file: a name and bytes, a str or a function are needed, got {name!r:.60} and "
                f"{type(data).__name__}"
            )
            raise InvalidTypeError(message)
        path = str(side_file_path(name))
        nbytes = len(content) if isinstance(content, bytes) else 0
        self._put(name, _build_file, (path, content), 0, None, nbytes)


def _build_file(_: str, path: str, content: Any) -> list[File]:
    return [File("", path, content)]
