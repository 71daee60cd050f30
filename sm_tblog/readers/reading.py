"""Reads runs, and follows a run that is being written."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError, StoreError
from sm_tblog.readers.events import RunNotFoundError, find_runs, mapped_errors
from sm_tblog.readers.loader import RunLoader
from sm_tblog.readers.run import DamagedFileWarning, Run, check_count
from sm_tblog.readers.selection import Selection
from sm_tblog.storage.base import scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sm_tblog._types import PathLike
    from sm_tblog.readers.events import RunFiles
    from sm_tblog.readers.point_table import Scalars
    from sm_tblog.readers.selection import Restarts, Since, Steps, Tags

__all__ = ["find_run", "follow", "load_run", "read", "read_all"]

_MAX_NAMED_RUNS = 3
"""Maximum number of runs that an error names."""

_LOCAL_INTERVAL, _REMOTE_INTERVAL = 1.0, 10.0
"""Default seconds between two attempts to read a run that is followed."""

logger = logging.getLogger("sm_tblog")


def read(
    path: PathLike,
    *,
    tags: Tags = None,
    steps: Steps = None,
    since: Since = None,
    restarts: Restarts = "marks",
    storage_options: Mapping[str, Any] | None = None,
) -> Run:
    """Read one run.

    ::

        run = sm_tblog.read("runs/first")
        step, wall_time, value = run.scalars["loss"]

    All complete events in the files are returned. For any other bytes, and for a file that cannot
    be read (to its end), there is a ``DamagedFileWarning`` with the file and the offset, and an
    entry in ``damages``.

    Args:
        path: an event file, or a folder that contains event files; a path or a URL that fsspec
            supports (``"s3://…"``, ``"memory://…"``).
        tags: which tags to keep: a pattern such as ``"train/*"``, several patterns, or a function
            that returns whether to keep a tag; by default all.
        steps: which steps to keep: a range such as ``range(1000, 2000)``, or a slice whose ends may
            be missing; by default all.
        since: the earliest wall time to keep: seconds since the epoch, or a ``datetime``.
        restarts: which points are superseded if a run continued from an earlier step. ``"marks"``:
            where the writer marked a restart (``purge_step``, ``resume``), all earlier points at
            and after its step. ``"steps"``: for each tag, all points at and after the step of a
            later point. ``"raw"``: none.
        storage_options: as for a writer; for other URLs than S3's, passed to the file system.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: ``path`` does not exist or contains no event files, there is no file
            system for the URL, or an argument has an unknown value.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: the store, the folder or all of its event files cannot be read.
    """
    run = _open(path, Selection(tags, steps, since, restarts), storage_options)
    _warn(run)
    return run


def read_all(
    logdir: PathLike,
    *,
    tags: Tags = None,
    steps: Steps = None,
    since: Since = None,
    restarts: Restarts = "marks",
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Run]:
    """Read every run at and below a log directory.

    Arguments, warnings and exceptions are those of ``read``, except that having no runs is not an
    error, and neither are files and folders that cannot be read: their runs have an entry in
    ``damages``, and may be empty. A folder is read once, however many links lead to it.

    Returns:
        The runs by name, sorted. As in TensorBoard, the name is the folder below ``logdir``, or
        "." for ``logdir`` itself.
    """
    selection = Selection(tags, steps, since, restarts)
    runs = {}
    all_files = find_runs(logdir, storage_options, is_deep=True)
    for files in sorted(all_files, key=lambda run: run.name):
        runs[files.name] = load_run(files, selection, storage_options)
    for run in runs.values():
        _warn(run)
    return runs


def follow(
    path: PathLike,
    callback: Callable[[dict[str, Scalars]], object] | None = None,
    *,
    interval: float | None = None,
    timeout: float | None = None,
    stop: threading.Event | None = None,
    keep: int = 0,
    tags: Tags = None,
    steps: Steps = None,
    since: Since = None,
    restarts: Restarts = "marks",
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Scalars]]:
    """Iterate over the new points of a run while it is being written.

    ::

        for new in sm_tblog.follow("runs/first", tags="eval/*", timeout=600):
            for tag, (step, wall_time, value) in new.items():
                print(tag, step[-1], value[-1])

    The first item contains the points that are there already. Each byte is read once. The run need
    not exist yet. A store that cannot be read at the moment is asked again.

    Args:
        path: as for ``read``.
        callback: a function that is called with each item instead. ``follow`` then returns when
            following ends, with an empty iterator.
        interval: seconds between two attempts to read; by default 1 for a local path, 10 otherwise.
        timeout: end after this many seconds without new points; by default never.
        stop: end when this event is set.
        keep: number of points of each tag that stay in memory.
        tags: as for ``read``.
        steps: as for ``read``.
        since: as for ``read``.
        restarts: as for ``read``. An item contains points that a later item may supersede.
        storage_options: as for ``read``.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: an argument has an unknown value.
        MissingDependencyError: the file system needs a package that is not installed.
    """
    selection = Selection(tags, steps, since, restarts)
    if interval is None:
        interval = _LOCAL_INTERVAL if scheme_of(str(path)) == "file" else _REMOTE_INTERVAL
    _check_seconds("interval", interval)
    if timeout is not None:
        _check_seconds("timeout", timeout)
    check_count("keep", keep)
    stop = stop or threading.Event()
    items = _follow(path, selection, storage_options, interval, timeout, stop, keep)
    if callback is None:
        return items
    for item in items:
        callback(item)
    return iter(())


def _follow(
    path: PathLike,
    selection: Selection,
    storage_options: Mapping[str, Any] | None,
    interval: float,
    timeout: float | None,
    stop: threading.Event,
    keep: int,
) -> Iterator[dict[str, Scalars]]:
    run: Run | None = None
    last = time.monotonic()
    failing = False
    while not stop.is_set():
        new: dict[str, Scalars] = {}
        try:
            if run is None:
                run = _open(path, selection, storage_options)
                new = {tag: points for tag, points in run.scalars.items() if len(points.step)}
            else:
                new = run.refresh()
            run.discard(keep)
            failing = False
        except (StoreError, RunNotFoundError) as error:
            if not failing and not (run is None and isinstance(error, RunNotFoundError)):
                logger.warning("follow: %s; reading is retried every %g s", error, interval)
            failing = True
        if new:
            last = time.monotonic()
            yield new
        if timeout is not None and time.monotonic() - last >= timeout:
            return
        stop.wait(interval)


def _check_seconds(name: str, seconds: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        message = f"{name} must be a number of seconds, got {seconds!r:.60}"
        raise InvalidTypeError(message)
    if not seconds > 0:
        message = f"{name} must be positive, got {seconds}"
        raise InvalidValueError(message)


def _open(path: PathLike, selection: Selection, storage_options: Mapping[str, Any] | None) -> Run:
    """Read a run without a warning."""
    loader = RunLoader(selection)
    found = find_run(path, storage_options)
    loader.load(found)
    if found.files and len(loader.errors) == len(found.files):
        first, error = loader.errors[0]
        with mapped_errors(first):
            raise error
    return Run(found.path, loader, partial(find_run, found.path, storage_options))


def load_run(
    files: RunFiles, selection: Selection, storage_options: Mapping[str, Any] | None
) -> Run:
    """Return a run whose files have been found. What cannot be read is in ``damages``."""
    loader = RunLoader(selection)
    loader.load(files)
    return Run(files.path, loader, partial(find_run, files.path, storage_options))


def find_run(path: PathLike, storage_options: Mapping[str, Any] | None) -> RunFiles:
    """Return the files of the run at a path.

    Raises:
        RunNotFoundError: there is no run.
    """
    runs = find_runs(path, storage_options)
    found = next(runs, None)
    if found is None:
        message = f"there are no event files in {path!r}"
        raise RunNotFoundError(message)
    if found.name != ".":
        names = [found.name, *(run.name for run in islice(runs, _MAX_NAMED_RUNS))]
        listed = ", ".join(names[:_MAX_NAMED_RUNS])
        listed += ", …" if len(names) > _MAX_NAMED_RUNS else ""
        message = (
            f"there are no event files in {path!r} itself, only in folders below it: {listed}; "
            "read one of these, or all of them with sm_tblog.read_many()"
        )
        raise RunNotFoundError(message)
    return found


def _warn(run: Run) -> None:
    for damage in run.damages:
        warnings.warn(str(damage), DamagedFileWarning, stacklevel=3)  # the reader's caller
