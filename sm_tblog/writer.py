"""The front: what a training script calls.

Every ``add_*`` does as little as it can and returns: it takes a number or a copy of an array, and
the worker does the rest (see ``pipeline``). A bad argument raises at the call; whatever fails later
does not (see ``_errors``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time as _time
import weakref
from functools import cache
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from sm_tblog import _process
from sm_tblog._batching import Item
from sm_tblog._disabled import DisabledPipeline
from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog._types import Series
from sm_tblog.file_writer import FileWriter
from sm_tblog.pipeline import Pipeline
from sm_tblog.sinks.base import as_sink, open_sink
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path
from sm_tblog.summary import builder
from sm_tblog.summary.convert import as_number, as_step, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sm_tblog._types import OnError, Overflow, PathLike, Stats

__all__ = ["SummaryWriter", "Writer"]

logger = logging.getLogger("sm_tblog")

_build_text = builder("text.text_value")
_build_histogram = builder("histogram.histogram_value")
_build_raw_histogram = builder("histogram.raw_histogram_value")
_build_layout = builder("layout.layout_value")


class Writer:
    """Logs to TensorBoard from any training script.

    ::

        from sm_tblog import Writer

        with Writer("runs/first") as writer:
            for step, batch in enumerate(batches):
                writer.add_scalar("loss", train(batch), step)

    Any number of threads may use one writer. A forked child that logs writes into a file of its
    own; one that does not leaves no trace. A pickled or copied writer logs to the same folder, in
    a file of its own, from its first use on. Logging after ``close`` begins a new file.

    The arguments up to ``comet_config`` are those of ``torch.utils.tensorboard.SummaryWriter`` and
    tensorboardX's; the others are this library's own.

    Args:
        logdir: the log folder, a path or URL. By default ``runs/<date>_<host><comment>``.
        comment: the end of the default folder's name.
        purge_step: what earlier files in the folder hold at this step and after is superseded;
            for a run that resumes from a checkpoint. The mark is written at once.
        max_queue: rows that may wait before the worker is woken ahead of its tick, twice a second.
            By default 16,384. A small number costs processor time and gains nothing.
        flush_secs: at most so many seconds pass before what was logged is stored; by default what
            suits the place, 1 locally.
        filename_suffix: the end of every file's name.
        write_to_disk: ``False`` is ``enabled=False``.
        log_dir: another name of ``logdir``.
        comet_config: accepted for tensorboardX's sake if it asks for nothing.
        sinks: where batches go: names (``"events"``, ``"jsonl"``, ``"console"`` and those of the
            entry-point group ``sm_tblog.sinks``), objects with ``write``, ``flush`` and ``close``,
            or functions of a batch. By default ``["events"]``.
        enabled: ``False`` makes every call do nothing.
        on_error: what happens to a failure on the worker besides being counted: ``"warn"`` says it
            once through the logger ``sm_tblog``, ``"raise"`` also has ``flush`` and ``close``
            raise it, a function is called with the exception.
        overflow: what happens when the memory for waiting rows is used up: ``"block"`` waits for
            the worker while it gets something done, ``"drop"`` drops new rows and counts them.
        rank_zero_only: be enabled only in the process of rank 0 of a distributed job.
        max_bytes: memory for rows that wait, for values that wait, and for what each sink keeps
            while its store refuses it.
        storage_options: passed to the store.

    Raises:
        InvalidTypeError: an argument is of the wrong kind.
        InvalidValueError: there is no such sink, or no store for the URL.
        MissingDependencyError: a sink or store needs a package that is not installed.
    """

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
        _check_at_least("max_queue", max_queue, 0)
        _check_at_least("flush_secs", flush_secs, 0)
        _check_at_least("max_bytes", max_bytes, 1)
        self._log_dir = _as_url(logdir or log_dir) or _default_logdir(comment)
        self._purge_step = None if purge_step is None else as_step(purge_step, "purge_step")
        self._config: dict[str, Any] = {
            "max_queue": max_queue,
            "flush_secs": flush_secs,
            "filename_suffix": filename_suffix,
            "sinks": sinks,
            "enabled": enabled and write_to_disk,
            "on_error": on_error,
            "overflow": overflow,
            "rank_zero_only": rank_zero_only,
            "max_bytes": max_bytes,
            "storage_options": storage_options,
        }
        self._step = 0
        self._charts: dict[str, list[str]] = {}
        self._open()

    def _open(self) -> None:
        config = self._config
        self._enabled = config["enabled"] and not (
            config["rank_zero_only"] and _process.rank() != 0
        )
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
        self._pipeline: Pipeline | DisabledPipeline
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
        )
        if self._purge_step is not None:
            # Superseded is what was there before this moment, not what a child logs from now on.
            self._put("purge_step", list, (), self._purge_step, None)
        finalizer = weakref.finalize(self, self._pipeline.close_without_waiting)
        finalizer.atexit = False  # at exit pipelines are closed by _process, which waits

    # Scalars.

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
        display_name: str = "",
        summary_description: str = "",
    ) -> None:
        """Log one number.

        Args:
            tag: the curve's name, taken as it is.
            scalar_value: anything like a number: Python's and NumPy's, Decimal, Fraction, bool, or
                an array of any library with one element, on any device. One on an accelerator is
                copied without waiting for the device.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            new_style: write a tensor of the scalars plugin, as TensorFlow 2 does, instead of the
                shorter ``simple_value``. TensorBoard shows both alike.
            double_precision: write a float64 instead of a float32. Implies ``new_style``.
                TensorBoard 2.21 shows such curves with ``--load_fast=false`` only.
            display_name: what TensorBoard shows instead of the tag.
            summary_description: Markdown, shown beside the chart.

        Raises:
            InvalidTypeError: the tag, value or step is of the wrong kind.
            InvalidValueError: the value has not one element. A step that does not fit an int64 is
                found out by the worker: the row is left out, counted and said.
        """
        pipeline = self._pipeline
        if (
            type(scalar_value) is float
            and type(global_step) is int
            and type(tag) is str
            and walltime is None
            and not (new_style or double_precision or display_name or summary_description)
        ):
            pipeline.extend((tag, scalar_value, global_step, time()))
            if len(pipeline.rows) > pipeline.limit:
                pipeline.relieve()
            return
        style = (new_style, double_precision, display_name, summary_description)
        series = _as_series(tag, *style) if any(style) else tag
        self._add_rows(((series, tag, scalar_value),), global_step, walltime)

    def log(
        self, values: Mapping[str, Any], step: Any = None, walltime: float | None = None
    ) -> None:
        """Log many numbers at one step.

        Args:
            values: numbers by tag, each as in ``add_scalar``; a mapping instead of a number logs
                its own values as ``tag/key``.
            step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: a tag, value or the step is of the wrong kind.
            InvalidValueError: a value has not one element, or the step does not fit an int64.
        """
        _check_mapping(values, "log")
        if type(step) is int and walltime is None:
            now = time()
            rows: list[Any] = []
            for tag, value in values.items():
                if type(value) is not float or type(tag) is not str:
                    break
                rows += (tag, value, step, now)
            else:
                pipeline = self._pipeline
                pipeline.extend(rows)
                if len(pipeline.rows) > pipeline.limit:
                    pipeline.relieve()
                return
        self._add_rows(((tag, tag, value) for tag, value in _flat(values)), step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: Any = None,
        walltime: float | None = None,
        layout: bool = False,
    ) -> None:
        """Log several numbers that belong in one chart.

        Args:
            main_tag: the chart's name.
            tag_scalar_dict: numbers by curve, each as in ``add_scalar``.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            layout: ``False`` makes each curve a run of its own below the log folder, named
                ``<main_tag>_<curve>``, as PyTorch does. ``True`` keeps all in this run, as
                ``<main_tag>/<curve>``, and lays them out as one chart of the Custom Scalars tab.

        Raises:
            InvalidTypeError: a tag, value or the step is of the wrong kind.
            InvalidValueError: a value has not one element, or the step does not fit an int64.
        """
        _check_tag(main_tag)
        _check_mapping(tag_scalar_dict, repr(main_tag))
        if layout:
            self._extend_chart(main_tag, tag_scalar_dict)
        folder = _as_folder(main_tag)
        rows = (
            (
                f"{main_tag}/{key}" if layout else Series(main_tag, f"{folder}_{_as_folder(key)}"),
                f"{main_tag}/{key}",
                value,
            )
            for key, value in tag_scalar_dict.items()
        )
        self._add_rows(rows, global_step, walltime)

    def _add_rows(
        self, rows: Iterable[tuple[Any, str, Any]], step: Any, walltime: float | None
    ) -> None:
        """Add rows of series, name for messages, and value, at one step, all or none."""
        if not self._enabled:
            return
        now = _as_time(walltime)
        flat: list[Any] = []
        for series, name, value in rows:
            _check_tag(name)
            flat += (series, as_number(value, name), self._as_step(step, name), now)
        self._pipeline.extend(flat)
        if len(self._pipeline.rows) > self._pipeline.limit:
            self._pipeline.relieve()

    def _extend_chart(self, title: str, tags: Iterable[str]) -> None:
        """Write the layout anew if a chart gets curves that it did not have."""
        chart = self._charts.setdefault(title, [])
        new = [tag for name in tags if (tag := f"{title}/{name}") not in chart]
        if new:
            chart.extend(new)
            charts = {name: list(tags) for name, tags in self._charts.items()}
            self._put(title, _build_layout, (charts,), 0, None)

    # What is more than a number.

    def add_text(
        self,
        tag: str,
        text_string: str | Sequence[Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log Markdown text.

        Args:
            tag: the text's name, taken as it is.
            text_string: Markdown; a sequence of strings, or of rows of strings, makes a table.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag, text or step is of the wrong kind.
        """
        if isinstance(text_string, bytes):
            text_string = text_string.decode(errors="replace")
        if not hasattr(text_string, "__iter__"):
            message = f"{tag!r}: a text is a str or a sequence of str, got {text_string!r:.60}"
            raise InvalidTypeError(message)
        text = _frozen(text_string)
        self._put(tag, _build_text, (tag, text), global_step, walltime, len(text))

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: str | int | Sequence[float] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Log how an array's values are distributed.

        The array is copied, on its own device; counting is the worker's. NaN and infinities are
        left out, and said once for the tag. An array without elements makes an empty histogram.

        Args:
            tag: the histogram's name, taken as it is.
            values: real numbers of any shape, dtype, library and device.
            global_step: any integer; by default ``writer.step``.
            bins: ``"tensorflow"`` for TensorBoard's default buckets, otherwise what
                ``numpy.histogram`` takes.
            walltime: seconds since the epoch; by default now.
            max_bins: with NumPy's bins, merge neighbours until there are no more than this.

        Raises:
            InvalidTypeError: the tag, step or bins are of the wrong kind, or ``values`` not an
                array of real numbers.
            InvalidValueError: NumPy cannot make such bins.
        """
        if self._enabled:
            _check_tag(tag)
            if not (isinstance(bins, str) and bins == "tensorflow"):
                from sm_tblog.summary.histogram import check_bins

                check_bins(bins, tag)
            array = snapshot(values, tag)
            self._put(
                tag,
                _build_histogram,
                (tag, array, bins, max_bins),
                global_step,
                walltime,
                array.nbytes,
            )

    def add_histogram_raw(
        self,
        tag: str,
        min: float,
        max: float,
        num: float,
        sum: float,
        sum_squares: float,
        bucket_limits: Any,
        bucket_counts: Any,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log a histogram that was counted elsewhere.

        Args:
            tag: the histogram's name, taken as it is.
            min: the smallest value.
            max: the largest value.
            num: how many values.
            sum: of the values.
            sum_squares: of the values.
            bucket_limits: right edges, ascending; shape (buckets,).
            bucket_counts: shape (buckets,).
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: there are not as many limits as counts, or they do not ascend.
        """
        from sm_tblog.summary.histogram import check_buckets

        limits, counts = snapshot(bucket_limits, tag), snapshot(bucket_counts, tag)
        check_buckets(limits, counts, tag)
        moments = [as_number(number, tag) for number in (min, max, num, sum, sum_squares)]
        args = (tag, limits, counts, *moments)
        self._put(tag, _build_raw_histogram, args, global_step, walltime)

    def _put(
        self,
        tag: str,
        build: Any,
        args: tuple[Any, ...],
        step: Any,
        walltime: float | None,
        nbytes: int = 0,
    ) -> None:
        if self._enabled:
            _check_tag(tag)
            step, now = self._as_step(step, tag), _as_time(walltime)
            self._pipeline.put(Item("", tag, step, now, nbytes + 512, build, args))

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

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was logged before is stored, where a reader sees it.

        Args:
            timeout: seconds. By default as long as the worker gets something done; a store that
                hangs is given up after 30 s.

        Returns:
            Whether all that was logged since the last barrier is stored. If not, that has been said
            once, and ``stats`` tells what is kept, to be offered again, and what was dropped.

        Raises:
            TBLogError: with ``on_error="raise"``, what has gone wrong since the last barrier.
        """
        return self._pipeline.flush(timeout)

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
        return FileWriter(self._pipeline, self._log_dir)

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


SummaryWriter = Writer
"""The name under which the peers have it."""


def _check_at_least(name: str, value: Any, least: int) -> None:
    if value is None and name != "max_bytes":
        return
    if not isinstance(value, (int, float)) or value < least:
        message = f"{name} is a number, {least} or more, not {value!r}"
        raise (InvalidValueError if isinstance(value, (int, float)) else InvalidTypeError)(message)


def _default_logdir(comment: str) -> str:
    import socket  # takes as long to import as the rest of this module

    return str(Path("runs") / f"{_time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}{comment}")


def _as_url(logdir: PathLike | None) -> str:
    if logdir is None:
        return ""
    try:
        url = os.fspath(logdir)
    except TypeError as error:
        message = f"logdir is a path or URL, got {logdir!r}"
        raise InvalidTypeError(message) from error
    return os.fsdecode(url)


def _as_folder(name: str) -> str:
    """Return a curve's name as the end of a folder's."""
    return str(name).replace("/", "_").replace("\\", "_")


def _as_time(walltime: Any) -> float:
    return time() if walltime is None else float(as_number(walltime, "walltime"))


def _as_series(
    tag: Any, new_style: Any, double_precision: Any, display_name: str, description: str
) -> Series:
    _check_tag(tag)
    if isinstance(new_style, str):  # tensorboardX has display_name and description here
        display_name, description = new_style, double_precision or ""
        new_style = double_precision = False
    if double_precision:
        _warn_of_double_precision()
    return Series(
        tag, "", bool(new_style), bool(double_precision), display_name or "", description or ""
    )


@cache
def _warn_of_double_precision() -> None:
    """Say, once, what would else look like lost data: measured with its data server 0.7.2."""
    logger.warning(
        "double_precision: TensorBoard's default loader shows no float64 scalars; start it with "
        "--load_fast=false to see them"
    )


def _check_tag(tag: Any) -> None:
    if not isinstance(tag, str):
        message = f"a tag is a str, got {tag!r:.60} ({type(tag).__name__})"
        raise InvalidTypeError(message)


def _check_mapping(values: Any, what: str) -> None:
    if not hasattr(values, "items"):
        message = f"{what}: a mapping of numbers by tag is needed, got {values!r:.60}"
        raise InvalidTypeError(message)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for tag, value in values.items():
        _check_tag(tag)
        if hasattr(value, "items"):
            yield from _flat(value, f"{prefix}{tag}/")
        else:
            yield prefix + tag, value


def _frozen(text: Any) -> Any:
    """Return nested sequences of strings as tuples."""
    return (
        text
        if isinstance(text, str) or not hasattr(text, "__iter__")
        else tuple(map(_frozen, text))
    )
