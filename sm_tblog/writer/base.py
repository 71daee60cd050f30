"""What all methods of the writer share: opening, queueing, barriers, copies.

Every ``add_*`` does as little as it can and returns: it takes a number or a copy of an array, and
the worker does the rest (see ``pipeline``). A bad argument raises at the call; whatever fails later
does not (see ``_errors``).
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
from sm_tblog.arrays.convert import as_number, as_step
from sm_tblog.pipeline.batching import Item
from sm_tblog.pipeline.disabled import DisabledPipeline
from sm_tblog.pipeline.run_view import RunView
from sm_tblog.pipeline.worker import Pipeline
from sm_tblog.sinks.base import as_sink, open_sink
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path
from sm_tblog.writer.arguments import as_run, as_tag_cleaner, as_url, check_at_least, check_tag
from sm_tblog.writer.file_writer import FileWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sm_tblog._types import OnError, Overflow, PathLike, Stats

__all__ = ["BaseWriter"]


class BaseWriter:
    """What every family of methods stands on; ``Writer`` says what the arguments are."""

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
            message = f"logdir and log_dir are one argument, got {logdir!r} and {log_dir!r}"
            raise InvalidValueError(message)
        if comet_config and not comet_config.get("disabled", False):
            message = "comet_config: this library does not write to Comet"
            raise InvalidValueError(message)
        if overflow not in ("block", "drop"):
            message = f"overflow is 'block' or 'drop', not {overflow!r}"
            raise InvalidValueError(message)
        if sinks is not None and (isinstance(sinks, str) or not hasattr(sinks, "__iter__")):
            message = f"sinks is a sequence of names, objects and functions, got {sinks!r}"
            raise InvalidTypeError(message)
        if resume != "append":
            resume = as_step(resume, "resume")
            if purge_step not in (None, resume):
                message = f"purge_step and resume name one step, got {purge_step} and {resume}"
                raise InvalidValueError(message)
            purge_step = resume
        check_at_least("max_queue", max_queue, 0)
        check_at_least("flush_secs", flush_secs, 0)
        check_at_least("max_bytes", max_bytes, 1)
        self._log_dir = as_url(logdir or log_dir) or _default_logdir(comment)
        self._purge_step = None if purge_step is None else as_step(purge_step, "purge_step")
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
        self._step = 0
        self._clock: Callable[[], float] = time.time
        self._charts: dict[tuple[str, str], tuple[str, Any]] = {}
        self._open()
        if self._enabled and ranks.is_in_training_job():
            _remark_on(self._log_dir, is_given=bool(logdir or log_dir))

    def _open(self) -> None:
        config = self._config
        self._enabled = config["enabled"] and not (config["rank_zero_only"] and ranks.rank() != 0)
        options = {
            "filename_suffix": config["filename_suffix"],
            "purge_step": self._purge_step,
            "storage_options": dict(config["storage_options"] or {}),
        }
        names_and_sinks = ["events"] if config["sinks"] is None else config["sinks"]
        sinks = [
            open_sink(sink, self._log_dir, **options) if isinstance(sink, str) else as_sink(sink)
            for sink in names_and_sinks
        ]
        self._pipeline: Pipeline | RunView | DisabledPipeline
        if not self._enabled:
            self._pipeline = DisabledPipeline()
            return
        if scheme_of(self._log_dir) == "file":
            # Scripts save checkpoints in writer.log_dir. If this fails, so will the first
            # write, where it is dealt with.
            with contextlib.suppress(OSError):
                local_path(self._log_dir).mkdir(parents=True, exist_ok=True)
        self._pipeline = Pipeline(
            sinks,
            name=self._log_dir,
            flush_secs=config["flush_secs"],
            max_queue=config["max_queue"],
            max_bytes=config["max_bytes"],
            overflow=config["overflow"],
            on_error=config["on_error"],
            rename=as_tag_cleaner(config["clean_tags"]),
        )
        if self._purge_step is not None:
            # Superseded is what was there before this moment, not what a child logs from now on.
            self._put("purge_step", _build_nothing, (), self._purge_step, None)
        finalizer = weakref.finalize(self, self._pipeline.close_without_waiting)
        finalizer.atexit = False  # at exit pipelines are closed by _process, which waits

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
        """Have the worker call ``build(tag, *args)`` and log what it returns.

        Args:
            tag: as the caller gave it; ``build`` is given it cleaned if the user wants that.
            build: see ``Item.build``.
            args: immutable, or copies that belong to ``build`` alone.
            step: any integer; None is ``writer.step``.
            walltime: seconds since the epoch; None is now.
            nbytes: the memory that ``args`` keep.
            run: the folder below the log folder.
        """
        if self._enabled:
            check_tag(tag)
            step, now = self._as_step(step, tag), self._as_time(walltime)
            self._pipeline.put(Item(run, tag, step, now, nbytes + 512, build, args))

    def child(self, run: str) -> Self:
        """Return a writer to a folder below this one's: to TensorBoard, another run.

        It shares this writer's settings, worker and files; nothing is made before something is
        logged. ``flush`` and ``close`` of it store everything; this writer's ``close`` closes the
        files. A copy of it, or a pickled one, is a writer of its own.

        Args:
            run: the folder's name, or a relative path with ``/``.

        Raises:
            InvalidTypeError: not a str.
            InvalidValueError: empty, or not below the log folder.
        """
        child = object.__new__(type(self))
        child.__dict__.update({**self.__dict__, **self._state_of_child(as_run(run))})
        return child

    def _state_of_child(self, run: str) -> dict[str, Any]:
        """Return what the writer of a run below has otherwise."""
        pipeline: Any = self._pipeline
        if isinstance(pipeline, RunView):
            pipeline = RunView(pipeline.pipeline, f"{pipeline.run}/{run}", self)
        elif self._enabled:
            pipeline = RunView(pipeline, run, self)
        folder = f"{self._log_dir.rstrip('/')}/{run}"
        return {"_pipeline": pipeline, "_log_dir": folder, "_charts": {}}

    # Settings, barriers, and what else the peers have.

    @property
    def step(self) -> int:
        """The step of every call that names none; 0 at first."""
        return self._step

    @step.setter
    def step(self, step: Any) -> None:
        self._step = as_step(step, "writer.step")

    def _as_step(self, step: Any, tag: str) -> int:
        return self._step if step is None else as_step(step, tag)

    def _as_time(self, walltime: Any) -> float:
        return self._clock() if walltime is None else float(as_number(walltime, "walltime"))

    @contextlib.contextmanager
    def use_metadata(
        self, *, global_step: Any = None, walltime: float | None = None
    ) -> Iterator[Self]:
        """Give every call in a ``with`` block that names no step or time these, as in tensorboardX.

        Args:
            global_step: any integer; by default ``writer.step`` as it is.
            walltime: seconds since the epoch; by default the time of each call.

        Raises:
            InvalidTypeError: the step or time is of the wrong kind.
        """
        before = self._step, self._clock
        self._step = self._as_step(global_step, "use_metadata")
        if walltime is not None:
            self._clock = partial(float, self._as_time(walltime))
        try:
            yield self
        finally:
            self._step, self._clock = before

    def flush(self, timeout: float | None = None, *, force: bool = False) -> bool:
        """Wait until all that was logged before is stored, where a reader sees it.

        Args:
            timeout: seconds. By default as long as the worker gets something done; a store that
                hangs is given up after 30 s.
            force: on an object store, wait for the store's word also if it was asked less than a
                second ago, or is known to be down. Without it a call returns at once when
                everything is on the local disk, and the upload follows within that second, or when
                the store is back: a script may call ``flush`` at every step.

        Returns:
            Whether all that was logged since the last barrier is stored. If not, that has been said
            once, and ``stats`` tells what is kept, to be offered again, and what was dropped.

        Raises:
            TBLogError: with ``on_error="raise"``, what has gone wrong since the last barrier.
        """
        return self._pipeline.flush(timeout, force=force)

    def close(self, timeout: float | None = None) -> bool:
        """Store everything, close the files and end the worker. Logging again begins new files.

        Takes, returns and raises what ``flush`` does.
        """
        return self._pipeline.close(timeout)

    def stats(self) -> Stats:
        """Return counters: what was written, dropped, stored, and what went wrong."""
        return self._pipeline.stats()

    @property
    def enabled(self) -> bool:
        """Whether calls do anything."""
        return self._enabled

    @property
    def log_dir(self) -> str:
        """The log folder, a path or URL."""
        return self._log_dir

    @property
    def logdir(self) -> str:
        """The log folder, a path or URL."""
        return self._log_dir

    def get_logdir(self) -> str:
        """Return the log folder, a path or URL."""
        return self._log_dir

    @property
    def purge_step(self) -> int | None:
        """The step from which on earlier files are superseded."""
        return self._purge_step

    @property
    def file_writer(self) -> FileWriter:
        """What takes protocol buffers, as the peers' ``file_writer``."""
        return FileWriter(self._pipeline, self._log_dir, self._step, self._clock)

    @property
    def all_writers(self) -> dict[str, FileWriter]:
        """``file_writer`` by the log folder: one writes to all folders below it."""
        return {self._log_dir: self.file_writer}

    def _get_file_writer(self) -> FileWriter:
        """Return ``file_writer``, by the name that Lightning and others call."""
        return self.file_writer

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return how the writer could be made."""
        return f"{type(self).__name__}({self._log_dir!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Return where and how to log: nothing that is open, and nothing that supersedes."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("_pipeline", "_enabled")}
        return {**state, "_purge_step": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Log to the same folder, in a file of its own."""
        self.__dict__.update(state)
        self._open()


def _build_nothing(tag: str) -> list[Any]:  # noqa: ARG001 - as all builders are called
    return []


def _remark_on(logdir: str, *, is_given: bool) -> None:
    """Say what becomes of what is logged to a folder in a training job's container."""
    if scheme_of(logdir) == "file":
        from sm_tblog.sagemaker.logdir import remark_on

        remark_on(str(local_path(logdir)), is_given=is_given)


def _default_logdir(comment: str) -> str:
    if ranks.is_in_training_job():
        from sm_tblog.sagemaker.logdir import default_logdir

        return default_logdir(comment)
    import socket  # takes as long to import as the rest of this module

    return str(Path("runs") / f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}{comment}")
