"""Where an adapter logs: a folder, or a writer that the user has.

Adapters are made early, copied, pickled and sent to other processes, often to write nothing there.
So the writer of a folder is made when there is something to log, and belongs to the process that
logs; a copy makes one of its own.
"""

from __future__ import annotations

import copy
import os
from typing import Any

from sm_tblog import InvalidTypeError, MissingDependencyError, Writer

__all__ = ["Target", "missing"]


class Target:
    """A log folder, whose writer is made at its first use; or a writer, which is left open.

    Args:
        target: a path or URL; or a ``Writer``; or None for the folder that ``Writer`` chooses.
        options: arguments of ``Writer``, for a folder. By default only the process of rank 0
            writes; a writer that is given decides that itself.

    Attributes:
        is_owned: whether the writer is made here, and so closed here.

    Raises:
        InvalidTypeError: ``target`` is neither, or there are options for a writer that exists.
    """

    def __init__(self, target: Any = None, **options: Any) -> None:
        if not isinstance(target, (str, os.PathLike, Writer, type(None))):
            message = f"a log folder or a Writer is needed, got {target!r:.60}"
            raise InvalidTypeError(message)
        given = target if isinstance(target, Writer) else None
        self.is_owned = given is None
        if options and not self.is_owned:
            message = f"the writer exists; it cannot be given {', '.join(options)}"
            raise InvalidTypeError(message)
        self._target: Any = target
        self._options = {"rank_zero_only": True, **options}
        self._writer: Writer | None = given

    @property
    def writer(self) -> Writer:
        """The writer; of a folder, made now if it is not there yet."""
        if self._writer is None:
            self._writer = Writer(self._target, **self._options)
        return self._writer

    @property
    def is_open(self) -> bool:
        """Whether there is a writer, so that something may have been logged."""
        return self._writer is not None

    def resumed(self, step: int) -> Target:
        """Return a target that supersedes what the folder has from a step on, and close this one.

        A writer that was given is kept as it is: when it was made, its user knew what to supersede.

        Args:
            step: the first one that is superseded.
        """
        self.close()
        if not self.is_owned:
            return self
        folder = self._target if self._writer is None else self._writer.log_dir
        return Target(folder, **{**self._options, "purge_step": step})

    def flush(self) -> None:
        """Have what was logged stored, if anything was."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Have what was logged stored, and close the writer if it was made here.

        Logging again goes on in the same folder, in a new file.
        """
        if self._writer is not None:
            if self.is_owned:
                self._writer.close()
            else:
                self._writer.flush()

    def __repr__(self) -> str:
        """Return where it is."""
        return f"{type(self).__name__}({self._target!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Target:
        """Return a target with the same writer, if that was given: its user goes on to close it."""
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return where to log. A writer that was made here is made again, in the same folder."""
        if not self.is_owned or self._writer is None:
            return dict(self.__dict__)
        return {**self.__dict__, "_writer": None, "_target": self._writer.log_dir}


def missing(package: str, error: ImportError, extra: str = "") -> MissingDependencyError:
    """Return what an adapter raises whose framework cannot be imported.

    Args:
        package: what to install.
        error: why it could not be imported.
        extra: the extra of this library that brings it, if one does.
    """
    install = f"pip install 'sm-tblog[{extra}]'" if extra else f"pip install {package}"
    return MissingDependencyError(f"this adapter needs {package}: {install} ({error})")
