"""The destination of an adapter: a log directory, or a writer that the user has created.

Adapters are created early, copied, pickled and sent to other processes, where they often write
nothing. So the writer of a log directory is created when there is something to log, in the process
that logs. A copy of an adapter creates its own writer.
"""

from __future__ import annotations

import copy
import os
from typing import Any

from sm_tblog import InvalidTypeError, MissingDependencyError, Writer

__all__ = ["Target", "missing"]


class Target:
    """A log directory, whose writer is created at first use, or a writer, which is left open.

    Args:
        target: a path or URL, or a ``Writer``. None means the directory that ``Writer`` chooses.
        options: arguments of ``Writer``, for a log directory. By default, only the process of
            rank 0 writes. For a given writer, its own settings apply.

    Attributes:
        is_owned: whether the target creates its writer, and therefore closes it.

    Raises:
        InvalidTypeError: ``target`` is neither a directory nor a writer, or options are given with
            a writer.
    """

    def __init__(self, target: Any = None, **options: Any) -> None:
        if not isinstance(target, (str, os.PathLike, Writer, type(None))):
            message = f"expected a log directory or a Writer, got {target!r:.60}"
            raise InvalidTypeError(message)
        given = target if isinstance(target, Writer) else None
        self.is_owned = given is None
        if options and not self.is_owned:
            message = f"a Writer that already exists cannot be given {', '.join(options)}"
            raise InvalidTypeError(message)
        self._target: Any = _absolute(target)
        self._options = {"rank_zero_only": True, **options}
        self._writer: Writer | None = given

    @property
    def writer(self) -> Writer:
        """The writer. The writer of a log directory is created when this is first read."""
        if self._writer is None:
            self._writer = Writer(self._target, **self._options)
        return self._writer

    @property
    def is_open(self) -> bool:
        """Whether a writer exists, so that something may have been logged."""
        return self._writer is not None

    def resumed(self, step: int) -> Target:
        """Close this target and return one that supersedes earlier data from a step on.

        A given writer is returned unchanged: its user chose what it supersedes.

        Args:
            step: the first step in the log directory that is superseded.
        """
        self.close()
        if not self.is_owned:
            return self
        folder = self._target if self._writer is None else self._writer.log_dir
        return Target(folder, **{**self._options, "purge_step": step})

    def flush(self) -> None:
        """Flush the writer, if there is one."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the writer if the target created it; flush it otherwise.

        Logging again writes a new file in the same directory.
        """
        if self._writer is not None:
            if self.is_owned:
                self._writer.close()
            else:
                self._writer.flush()

    def __repr__(self) -> str:
        """Return a text with the log directory or writer."""
        return f"{type(self).__name__}({self._target!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Target:
        """Return a target that shares a given writer, which its user still closes."""
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without an owned writer.

        A copy creates its own writer, in the same directory.
        """
        if not self.is_owned or self._writer is None:
            return dict(self.__dict__)
        return {**self.__dict__, "_writer": None, "_target": self._writer.log_dir}


def _absolute(target: Any) -> Any:
    """Return a relative path as an absolute one: the writer may be made in another directory."""
    # A URL stays one, also without its second slash, which the writer refuses.
    if target is None or isinstance(target, Writer) or ":/" in os.fsdecode(target):
        return target
    return os.path.abspath(os.path.expanduser(target))  # noqa: PTH100, PTH111 - a str stays one


def missing(package: str, error: ImportError, extra: str = "") -> MissingDependencyError:
    """Return the exception for an adapter whose framework cannot be imported.

    Args:
        package: the package to install.
        error: the error of the failed import.
        extra: the extra of this library that installs the package, if there is one.
    """
    install = f"pip install 'sm-tblog[{extra}]'" if extra else f"pip install {package}"
    return MissingDependencyError(f"this adapter needs {package}: {install} ({error})")
