"""What all methods of the writer share: opening, queueing, barriers and copies.

Every ``add_*`` method does as little as possible on the calling thread: it buffers a number or a
copy of an array, and the worker thread does the rest (see ``pipeline``). An invalid argument raises
at the call; later failures do not (see ``_errors``).
"""

from __future__ import annotations

import contextlib
import time
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sm_tblog import ranks
from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import as_step
from sm_tblog.pipeline.batching import Item
from sm_tblog.pipeline.disabled import DisabledPipeline
from sm_tblog.pipeline.run_view import RunView
from sm_tblog.pipeline.worker import Pipeline
from sm_tblog.sinks.base import as_sink, open_sink
from sm_tblog.storage.base import scheme_of
from sm_tblog.writer.arguments import (
    absolute,
    as_first_step,
    as_given,
    as_run,
    as_tag_cleaner,
    as_url,
    as_wall_time,
    check_at_least,
    check_flag,
    check_tag,
    is_same_place,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sm_tblog._types import OnError, Overflow, PathLike, Stats

__all__ = ["BaseWriter"]

OF_THE_DIRECTORY = ("log_dir", "logdir", "file_writer", "all_writers")
OF_THE_SETTINGS = ("purge_step", "max_queue", "flush_secs", "filename_suffix", "default_bins")
"""Attributes of ``AttributeMethods`` that a subclass may assign."""


class BaseWriter:
    """The base class of all method families; ``Writer`` documents the arguments."""

    def __init__(
        self,
        logdir: PathLike | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int | None = None,
        flush_secs: float | None = None,
        filename_suffix: str = "",
        write_to_disk: bool = True,
        log_dir: PathLike | None = None,
        comet_config: Mapping[str, Any] | None = None,
        *,
        sinks: Sequence[Any] | None = None,
        resume: Literal["append"] | int = "append",
        clean_tags: bool = False,
        enabled: bool = True,
        on_error: OnError = "warn",
        overflow: Overflow = "block",
        rank_zero_only: bool = False,
        max_bytes: int = 32 << 20,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if logdir is not None and log_dir is not None and logdir != log_dir:
            message = f"logdir and log_dir are aliases, got {logdir!r} and {log_dir!r}"
            raise InvalidValueError(message)
        if comet_config and not comet_config.get("disabled", False):
            message = "comet_config: this library does not support Comet"
            raise InvalidValueError(message)
        if overflow not in ("block", "drop"):
            message = f"overflow must be 'block' or 'drop', got {overflow!r}"
            raise InvalidValueError(message)
        if sinks is not None and (isinstance(sinks, str) or not hasattr(sinks, "__iter__")):
            message = f"sinks must be a sequence of names, objects and functions, got {sinks!r}"
            raise InvalidTypeError(message)
        if resume != "append":
            resume = as_first_step(resume, "resume")
            if purge_step not in (None, resume):
                message = f"purge_step and resume are aliases, got {purge_step} and {resume}"
                raise InvalidValueError(message)
            purge_step = resume
        check_flag("enabled", enabled)
        check_at_least("max_queue", max_queue, 0)
        check_at_least("flush_secs", flush_secs, 0)
        check_at_least("max_bytes", max_bytes, 1)
        self._log_dir = as_url(logdir or log_dir) or _default_logdir(comment)
        self._given_log_dir = as_given(logdir or log_dir, self._log_dir)
        self._location = absolute(self._log_dir)
        self._purge_step = None if purge_step is None else as_first_step(purge_step, "purge_step")
        self._config: dict[str, Any] = {
            "max_queue": max_queue,
            "flush_secs": flush_secs,
            "filename_suffix": filename_suffix,
            "sinks": sinks,
            "clean_tags": clean_tags,
            "enabled": enabled and write_to_disk,
            "on_error": on_error,
            "overflow": overflow,
            "rank_zero_only": rank_zero_only,
            "max_bytes": max_bytes,
            "storage_options": storage_options,
        }
        self._forget_assigned()
        self._step: int = self.__dict__.get("_step", 0)  # a subclass may have assigned ``step``
        self._clock: Callable[[], float] = time.time
        self._charts: dict[tuple[str, str], tuple[str, Any]] = {}
        self._curves: dict[tuple[str, str, str], str] = {}  # see ``ScalarMethods._curve_run``
        self._open()
        if self._enabled and ranks.is_in_training_job():
            _log_upload_plan(self._location, is_given=bool(logdir or log_dir))

    def _forget_assigned(self) -> None:
        """Forget what a subclass assigned earlier to attributes that the constructor sets.

        A log directory that it assigned stays as it is, in its own type, if it is the same one.
        """
        for name in (*OF_THE_DIRECTORY, *OF_THE_SETTINGS):
            if name in self.__dict__ and not is_same_place(self.__dict__[name], self._log_dir):
                del self.__dict__[name]

    def _open(self) -> None:
        config = self._config
        self._enabled = config["enabled"] and not (config["rank_zero_only"] and ranks.rank() != 0)
        options = {
            "filename_suffix": config["filename_suffix"],
            "purge_step": self._purge_step,
            "storage_options": dict(config["storage_options"] or {}),
        }
        names_and_sinks = ["events"] if config["sinks"] is None else list(config["sinks"])
        self._sinks = [
            open_sink(sink, self._location, **options) if isinstance(sink, str) else as_sink(sink)
            for sink in names_and_sinks
        ]
        self._pipeline: Pipeline | RunView | DisabledPipeline
        if not self._enabled:
            self._pipeline = DisabledPipeline()
            return
        has_events = any(sink == "events" for sink in names_and_sinks if isinstance(sink, str))
        if scheme_of(self._location) == "file":
            # Scripts save checkpoints in writer.log_dir. If this fails, the first write fails
            # too, and its error is handled there.
            with contextlib.suppress(OSError):
                Path(self._location).mkdir(parents=True, exist_ok=True)
        self._pipeline = Pipeline(
            self._sinks,
            name=self._location,
            flush_secs=config["flush_secs"],
            max_queue=config["max_queue"],
            max_bytes=config["max_bytes"],
            overflow=config["overflow"],
            on_error=config["on_error"],
            rename=as_tag_cleaner(config["clean_tags"]),
            find_kinds=partial(_find_kinds, self._location) if has_events else None,
        )
        if self._purge_step is not None:
            # The marker must supersede only existing data, not what a child logs from now on.
            self._put("purge_step", _build_nothing, (), self._purge_step, None)
        finalizer = weakref.finalize(self, self._pipeline.close_without_waiting)
        finalizer.atexit = False  # at exit, pipeline.lifecycle closes pipelines and waits

    def _put(
        self,
        tag: str,
        build: Any,
        args: tuple[Any, ...],
        step: Any,
        walltime: float | None,
        nbytes: int = 0,
        run: str = "",
    ) -> None:
        """Queue an item: the worker thread calls ``build(tag, *args)`` and logs the result.

        Args:
            tag: as the user passed it; with ``clean_tags``, ``build`` receives it cleaned.
            build: see ``Item.build``.
            args: immutable objects, or copies that nothing else uses.
            step: any integer; None is ``writer.step``.
            walltime: seconds since the epoch; None is now.
            nbytes: the memory that ``args`` occupy, in bytes.
            run: the directory below the log directory.
        """
        if self._enabled:
            check_tag(tag)
            step, now = self._as_step(step, tag), self._as_time(walltime)
            self._pipeline.put(Item(run, tag, step, now, nbytes + 512, build, args))

    def child(self, run: str) -> Self:
        """Return a writer for a subdirectory, which TensorBoard shows as a separate run.

        The child shares this writer's settings, worker thread and files. Nothing is created until
        something is logged. ``flush`` and ``close`` of the child store everything; the files are
        closed by this writer's ``close``. A copied or pickled child is an independent writer.

        Args:
            run: the name of the subdirectory, or a relative path with ``/``.

        Raises:
            InvalidTypeError: ``run`` is not a str.
            InvalidValueError: it is empty, or not below the log directory.
        """
        child = object.__new__(type(self))
        state = {k: v for k, v in self.__dict__.items() if k not in OF_THE_DIRECTORY}
        child.__dict__.update({**state, **self._child_state(as_run(run))})
        return child

    def _child_state(self, run: str) -> dict[str, Any]:
        """Return the attributes in which a child differs from this writer."""
        pipeline: Any = self._pipeline
        if isinstance(pipeline, RunView):
            pipeline = RunView(pipeline.pipeline, f"{pipeline.run}/{run}", self)
        elif self._enabled:
            pipeline = RunView(pipeline, run, self)
        log_dir, location = (
            f"{folder.rstrip('/')}/{run}" for folder in (self._log_dir, self._location)
        )
        return {
            "_pipeline": pipeline,
            "_charts": {},
            "_log_dir": log_dir,
            "_given_log_dir": as_given(self._given_log_dir, log_dir),
            "_location": location,
        }

    # Steps, times and barriers.

    def _as_step(self, step: Any, tag: str) -> int:
        return self._step if step is None else as_step(step, tag)

    def _as_time(self, walltime: Any) -> float:
        return self._clock() if walltime is None else as_wall_time(walltime)

    @contextlib.contextmanager
    def use_metadata(
        self, *, global_step: Any = None, walltime: float | None = None
    ) -> Iterator[Self]:
        """Set the default step and time of all calls in a ``with`` block, as in tensorboardX.

        Args:
            global_step: any integer; by default the current ``writer.step``.
            walltime: seconds since the epoch; by default the time of each call.

        Raises:
            InvalidTypeError: the step or time has the wrong type.
        """
        previous = self._step, self._clock
        self._step = self._as_step(global_step, "use_metadata")
        if walltime is not None:
            self._clock = partial(float, self._as_time(walltime))
        try:
            yield self
        finally:
            self._step, self._clock = previous

    def flush(self, timeout: float | None = None, *, force: bool = False) -> bool:
        """Wait until everything logged so far is stored and visible to readers.

        Args:
            timeout: the maximum wait in seconds. By default, wait as long as the worker thread
                makes progress; give up on a store that hangs after 30 s, and on a value that is
                being built after 5 minutes.
            force: on an object store, wait for its acknowledgement even if it was asked less than a
                second ago, or is known to be down. Without ``force``, a call returns as soon as
                everything is on the local disk, and the upload follows within that second, or once
                the store is available again. A script may therefore call ``flush`` at every step.

        Returns:
            Whether everything logged since the last barrier is stored. If not, this has been logged
            once, and ``stats`` reports what is kept for another attempt and what was dropped.

        Raises:
            TBLogError: with ``on_error="raise"``, the first failure since the last barrier.
        """
        return self._pipeline.flush(timeout, force=force)

    def close(self, timeout: float | None = None) -> bool:
        """Store everything, close the files and stop the worker thread.

        Logging after this starts new files. The argument, the return value and the exceptions are
        those of ``flush``.
        """
        return self._pipeline.close(timeout)

    def stats(self) -> Stats:
        """Return counters of what was written, dropped and stored, and of failures."""
        return self._pipeline.stats()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the writer."""
        self.close()

    def __repr__(self) -> str:
        """Return an expression that creates a writer for the same directory."""
        return f"{type(self).__name__}({self._log_dir!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Return directory and settings, without open resources and ``purge_step``."""
        opened = ("_pipeline", "_enabled", "_sinks", "file_writer", "all_writers")
        state = {k: v for k, v in dict(self.__dict__).items() if k not in opened}
        return {**state, "_purge_step": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Log to the same directory, in a separate file."""
        self.__dict__.update(state)
        self._open()


def _build_nothing(tag: str) -> list[Any]:  # noqa: ARG001 - the signature of a builder
    return []


def _find_kinds(logdir: str, run: str) -> dict[str, str]:
    """Return the kinds of data by tag in the earlier files of a run, if they are local."""
    with contextlib.suppress(OSError, ValueError):  # a ValueError is about a NUL or a surrogate
        if scheme_of(logdir) == "file" and any(Path(logdir, run).glob("*tfevents*")):
            from sm_tblog.sinks.kinds import find_kinds  # few processes need it

            return find_kinds(logdir, run)
    return {}


def _log_upload_plan(logdir: str, *, is_given: bool) -> None:
    """Log whether and when SageMaker uploads a local directory of a training job."""
    if scheme_of(logdir) == "file":
        from sm_tblog.sagemaker.logdir import report_logdir

        report_logdir(logdir, is_given=is_given)


def _default_logdir(comment: str) -> str:
    if ranks.is_in_training_job():
        from sm_tblog.sagemaker.logdir import default_logdir

        return default_logdir(comment)
    import socket  # importing it takes as long as importing the rest of this module

    return str(Path("runs") / f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}{comment}")
