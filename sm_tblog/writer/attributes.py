"""Attributes of torch's and tensorboardX's writers.

Theirs are plain attributes, which a subclass may assign. Here too: it then reads what it assigned,
and logging is not affected, because this package does not read them. There are two exceptions: an
integer assigned to ``step`` is the default step, and ``default_bins`` are those of histograms.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import as_step
from sm_tblog.pipeline.buffer import WAKE_ROWS
from sm_tblog.writer.base import BaseWriter
from sm_tblog.writer.file_writer import FileWriter, find_event_files

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AttributeMethods"]


class AttributeMethods(BaseWriter):
    """Attributes, and methods that return them."""

    def _attribute(self, name: str, read: Callable[[], Any]) -> Any:
        """Return what a subclass assigned to an attribute, or else its value."""
        return self.__dict__[name] if name in self.__dict__ else read()

    @property
    def step(self) -> Any:
        """The step of calls that pass none; initially 0.

        Assign an integer of any type, or None for 0. A subclass may assign anything else for its
        own purposes, which does not change the default step.
        """
        return self._attribute("step", lambda: self._step)

    @step.setter
    def step(self, step: Any) -> None:
        is_own = type(self).__module__ != _MODULE_OF_WRITER
        try:
            self._step = 0 if step is None else as_step(step, "writer.step")
        except (InvalidTypeError, InvalidValueError):
            if not is_own:
                raise
            self.__dict__["step"] = step
        else:
            self.__dict__.pop("step", None)
            if step is None and is_own:
                self.__dict__["step"] = None

    @property
    def enabled(self) -> Any:
        """Whether calls have any effect."""
        return self._attribute("enabled", lambda: self._enabled)

    @enabled.setter
    def enabled(self, value: Any) -> None:
        if type(self).__module__ == _MODULE_OF_WRITER:
            message = "writer.enabled cannot be assigned; pass enabled=False to the constructor"
            raise AttributeError(message)
        self.__dict__["enabled"] = value

    @property
    def log_dir(self) -> Any:
        """The log directory, a path or URL, of the type in which it was passed.

        A ``~`` in it is expanded. A relative path stays relative, although the files stay in the
        directory that it named when the writer was created.
        """
        return self._attribute("log_dir", lambda: self._given_log_dir)

    @log_dir.setter
    def log_dir(self, value: Any) -> None:
        self.__dict__["log_dir"] = value

    @property
    def logdir(self) -> Any:
        """The log directory, the same as ``log_dir``."""
        return self._attribute("logdir", lambda: self._given_log_dir)

    @logdir.setter
    def logdir(self, value: Any) -> None:
        self.__dict__["logdir"] = value

    def get_logdir(self) -> Any:
        """Return the log directory, the same as ``log_dir``."""
        return self._attribute("log_dir", lambda: self._given_log_dir)

    def event_files(self) -> list[str]:
        """Return the event files that this process has started in the log directory.

        Call it to copy, upload or delete them. Like ``flush``, it waits until everything logged so
        far is stored. If there is no file yet, it starts one, which otherwise the first row does.

        There is usually one file. A new one is started by logging after ``close``, after the file
        was deleted, and when an object has its maximum size. Files of child runs and of other
        processes are not included: use ``writer.child(run).event_files()``, or call it in the
        process that logs.

        Returns:
            Absolute paths, or URLs if the log directory is a URL, in the order in which the files
            were started; the last one grows. With several sinks that write event files, those of
            the first sink come first. Without any, or if the writer is disabled, the list is empty.
            Local files that were deleted are left out.

        Raises:
            TBLogError: with ``on_error="raise"``, the first failure since the last barrier.
        """
        return list(chain.from_iterable(find_event_files(self._pipeline, self._sinks)))

    @property
    def purge_step(self) -> Any:
        """The step from which on earlier files are superseded, or None."""
        return self._attribute("purge_step", lambda: self._purge_step)

    @purge_step.setter
    def purge_step(self, value: Any) -> None:
        self.__dict__["purge_step"] = value

    @property
    def max_queue(self) -> Any:
        """The number of buffered rows that wakes the worker thread."""
        given = self._config["max_queue"]
        return self._attribute("max_queue", lambda: WAKE_ROWS if given is None else given)

    @max_queue.setter
    def max_queue(self, value: Any) -> None:
        self.__dict__["max_queue"] = value

    @property
    def flush_secs(self) -> Any:
        """The maximum time in seconds until logged data is stored."""
        return self._attribute("flush_secs", self._find_flush_secs)

    @flush_secs.setter
    def flush_secs(self, value: Any) -> None:
        self.__dict__["flush_secs"] = value

    def _find_flush_secs(self) -> Any:
        given = self._config["flush_secs"]
        every = (getattr(sink, "flush_secs", 1.0) for sink in self._sinks)
        return min(every, default=1.0) if given is None else given

    @property
    def filename_suffix(self) -> Any:
        """The suffix of every file name."""
        return self._attribute("filename_suffix", lambda: self._config["filename_suffix"])

    @filename_suffix.setter
    def filename_suffix(self, value: Any) -> None:
        self.__dict__["filename_suffix"] = value

    @property
    def default_bins(self) -> Any:
        """The bin edges of ``add_histogram`` in PyTorch and tensorboardX, as a list of numbers.

        The bins here are nearly the same, but counted faster. If you assign others,
        ``add_histogram`` uses those by default.
        """
        return self._attribute("default_bins", _edges)

    @default_bins.setter
    def default_bins(self, value: Any) -> None:
        self.__dict__["default_bins"] = value

    @property
    def file_writer(self) -> Any:
        """A ``FileWriter``, like that of torch's and tensorboardX's writers."""
        return self._attribute("file_writer", self._new_file_writer)

    @file_writer.setter
    def file_writer(self, value: Any) -> None:
        self.__dict__["file_writer"] = value

    @property
    def all_writers(self) -> Any:
        """``{log_dir: file_writer}``: one ``FileWriter`` writes to all subdirectories."""
        return self._attribute("all_writers", lambda: {self._log_dir: self._new_file_writer()})

    @all_writers.setter
    def all_writers(self, value: Any) -> None:
        self.__dict__["all_writers"] = value

    def _get_file_writer(self) -> FileWriter:
        """Return a ``FileWriter``, by the name that Lightning and other frameworks use."""
        return self._new_file_writer()

    def _new_file_writer(self) -> FileWriter:
        return FileWriter(self._pipeline, self._log_dir, self._sinks, self._step, self._clock)


_MODULE_OF_WRITER = "sm_tblog.writer"
"""What this module may not import; the classes of other modules are subclasses of users."""


def _edges() -> list[float]:
    """Return the edges: 0, and on both sides 1e-12 and 1.1 times the previous one, below 1e20."""
    positive = []
    edge = 1e-12
    while edge < 1e20:
        positive.append(edge)
        edge *= 1.1
    return [-one for one in reversed(positive)] + [0] + positive
