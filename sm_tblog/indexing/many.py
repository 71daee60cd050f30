"""Reads many runs: from an index where it is current, from their event files otherwise."""

from __future__ import annotations

import contextlib
from functools import cached_property, partial
from itertools import groupby
from posixpath import join
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError
from sm_tblog.indexing.entries import states_of
from sm_tblog.indexing.opened import Index, default_folder
from sm_tblog.indexing.parts import run_files
from sm_tblog.readers.event_source import EventSource
from sm_tblog.readers.events import as_url, find_runs
from sm_tblog.readers.globs import split_glob
from sm_tblog.readers.loader import RunLoader
from sm_tblog.readers.point_table import Scalars
from sm_tblog.readers.reading import find_run, load_run
from sm_tblog.readers.run import Run, check_count
from sm_tblog.readers.runs import Job, Runs
from sm_tblog.readers.selection import Selection
from sm_tblog.readers.tables import require
from sm_tblog.readers.tag_dict import TagDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sm_tblog._types import PathLike
    from sm_tblog.indexing.entries import RunEntry
    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.events import RunFiles
    from sm_tblog.readers.runs import Progress
    from sm_tblog.readers.selection import Restarts, Since, Steps, Tags

__all__ = ["IndexedRun", "read_many"]

BLOCK_ROWS = 1 << 21
"""Rows that are read from the index at a time."""

ROW_BYTES = 48
"""Memory of a row while it is read."""

REQUEST_BYTES = 4 << 20
"""Bytes that take as long as a request."""

_ATTEMPTS = 3
"""Times that an index is opened which is updated at the same time."""


def read_many(
    path: PathLike,
    *,
    tags: Tags = None,
    steps: Steps = None,
    since: Since = None,
    restarts: Restarts = "marks",
    index: PathLike | bool = True,
    check: bool = True,
    workers: int = 16,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Runs:
    """Find many runs, and read them when they are asked for.

    ::

        runs = sm_tblog.read_many("s3://bucket/experiment/**", tags="eval/*")
        for name, run in runs.items():
            print(name, run.scalars["eval/loss"].value.min())

    The runs are found with one request for each thousand objects. A file is read with one request.
    Files and folders that cannot be read do not raise an exception: they are in ``runs.errors``
    and in the ``damages`` of their run.

    If ``sm_tblog.index`` has written an index of the log directory, the scalars of all runs whose
    files have not changed since then come from the index.

    Args:
        path: a log directory, whose runs are all selected, or a pattern that selects runs: ``*``,
            ``?`` and ``[…]`` match within one folder's name, and ``**`` matches any number of
            folders. A pattern such as ``**/*tfevents*`` selects the runs of matching event files.
        tags: as for ``read``.
        steps: as for ``read``.
        since: as for ``read``.
        restarts: as for ``read``. The index is only used for ``"marks"``.
        index: the folder of the index, if it is not in the log directory; False uses no index.
        check: whether to list the log directory and compare it with the index. If False, the runs
            are those of the index, as they were when it was written; this needs a handful of
            requests for any number of runs.
        workers: number of files that are read at the same time.
        progress: called with the number of runs that are read and the number of all runs, after
            each run of a loop over ``items()`` or ``values()``, or of ``load()``.
        storage_options: as for a writer; for other URLs than S3's, passed to the file system.

    Returns:
        The runs by name, sorted. As in TensorBoard, the name is the folder below the log directory,
        or "." for the log directory itself. The log directory is the part of ``path`` before the
        first folder with a pattern.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: the log directory does not exist, there is no file system for the URL, an
            argument has an unknown value, or ``check`` is False and there is no index.
        MissingDependencyError: a package is not installed.
        StoreError: the log directory cannot be listed.
    """
    selection = Selection(tags, steps, since, restarts)
    check_count("workers", workers, 1)
    glob = split_glob(as_url(path))
    options = dict(storage_options or {})
    opened = None
    if index is not False and restarts == "marks":
        where = default_folder(glob.base) if index is True else as_url(index)
        opened = _maybe_open(where, options, is_required=not check or index is not True)
    if not check:
        if opened is None:
            message = "check=False needs an index, which is only used with restarts='marks'"
            raise InvalidValueError(message)
        current = {
            name: entry
            for name, entry in sorted(opened.entries.items())
            if glob.selects(name, (file.name for file in entry.files))
        }
        selected: list[RunFiles] = []
    else:
        found = find_runs(glob.base, options, is_deep=True, prefix=glob.prefix)
        chosen = (run for run in found if glob.selects(run.name, (one.name for one in run.files)))
        selected = sorted(chosen, key=lambda run: run.name)
        current = {} if opened is None else _current(selected, opened)
    source = EventSource(selected, selection, options)
    if opened is None or not current:
        return Runs(as_url(path), source, workers, progress)
    indexed = _IndexedSource(glob.base, source, opened, current, selection, options)
    return Runs(as_url(path), indexed, workers, progress)


def _maybe_open(url: str, options: Mapping[str, Any], *, is_required: bool) -> Index | None:
    """Return an index, None if there is none or if it cannot be used.

    Raises:
        TBLogError: an index that is required cannot be used.
    """
    try:
        return _open(url, options, is_required=is_required)
    except (StoreError, MissingDependencyError):
        if is_required:
            raise
        return None


def _open(url: str, options: Mapping[str, Any], *, is_required: bool) -> Index | None:
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(StoreError):  # perhaps it was updated while it was opened
            return _open_once(url, options, is_required=is_required)
    return _open_once(url, options, is_required=is_required)


def _open_once(url: str, options: Mapping[str, Any], *, is_required: bool) -> Index | None:
    opened = Index(url, options)
    if not opened.is_complete and not is_required:
        return None
    require("pyarrow", "an index", "parquet")
    len(opened)
    return opened


def _current(runs: Sequence[RunFiles], opened: Index) -> dict[str, RunEntry]:
    """Return the runs whose files are as they were when they were indexed."""
    found = {}
    for run in runs:
        entry = opened.entries.get(run.name)
        if entry is not None and not run.damages and entry.files == states_of(run):
            found[run.name] = entry
    return found


class _IndexedSource:
    """Runs that are read from an index, and others from their event files."""

    def __init__(
        self,
        base: str,
        others: EventSource,
        opened: Index,
        entries: Mapping[str, RunEntry],
        selection: Selection,
        options: Mapping[str, Any],
    ) -> None:
        self._base = base
        self._files = others.files
        self.damages = others.damages
        self._index = opened
        self._entries = entries
        self._selection = selection
        self._options = options
        self.names = sorted({*self._files, *entries})

    def jobs(self, names: Iterable[str]) -> Iterator[Job]:
        """Iterate over jobs: blocks of indexed runs, and single other runs."""
        for is_indexed, group in groupby(names, key=self._is_indexed):
            if not is_indexed:
                yield from (self._event_job([name]) for name in group)
                continue
            for block in self._blocks(group):
                yield self._job(block)

    def _is_indexed(self, name: str) -> bool:
        """Return whether the index has a run's points in the order in which they were written."""
        return name in self._entries and self._entries[name].is_in_order

    def _blocks(self, names: Iterable[str]) -> Iterator[list[str]]:
        block: list[str] = []
        rows = 0
        for name in names:
            more = self._rows_of(name)
            if block and rows + more > BLOCK_ROWS:
                yield block
                block, rows = [], 0
            block.append(name)
            rows += more
        if block:
            yield block

    def _rows_of(self, name: str) -> int:
        try:
            found = self._index.rows.get(name, ())
        except StoreError:
            return BLOCK_ROWS  # the job reads the event files
        return sum(one.size for one in found if self._selection.has_tag(one.tag))

    def _job(self, names: list[str]) -> Job:
        """Return a job that reads from the index, or from event files if that is less work."""
        files = [file for name in names for file in self._entries[name].files]
        from_events = len(files) * REQUEST_BYTES + sum(file.size for file in files)
        try:
            requests, size = self._index.cost(names, self._selection.has_tag)
        except StoreError:
            return self._event_job(names)
        if requests * REQUEST_BYTES + size > from_events:
            return self._event_job(names)
        rows = sum(map(self._rows_of, names))
        return Job(names, rows * ROW_BYTES, partial(self._load, names))

    def _event_job(self, names: list[str]) -> Job:
        files = [self._files_of(name) for name in names]
        size = sum(file.source.size or 0 for run in files for file in run.files)
        return Job(names, size, partial(self._load_events, names))

    def _files_of(self, name: str) -> RunFiles:
        if name in self._files:
            return self._files[name]
        return run_files(self._base, name, self._entries[name].files, self._options)

    def _load_events(self, names: list[str]) -> list[Run]:
        return [load_run(self._files_of(name), self._selection, self._options) for name in names]

    def _load(self, names: list[str]) -> list[Run]:
        try:
            found = self._index.read(names, self._selection.has_tag)
        except StoreError:  # the index has been updated twice since it was opened
            return self._load_events(names)
        return [
            IndexedRun(
                join(self._base, name) if name != "." else self._base,
                self._entries[name],
                found[name],
                self._selection,
                partial(self._files_of, name),
                self._options,
            )
            for name in names
        ]


class IndexedRun(Run):
    """A run whose tags and scalars come from an index. All else is read from its event files."""

    def __init__(
        self,
        path: str,
        entry: RunEntry,
        points: Mapping[str, Scalars],
        selection: Selection,
        files: Callable[[], RunFiles],
        options: Mapping[str, Any],
    ) -> None:
        self.path = path
        self._find = partial(find_run, path, options)
        self._entry = entry
        self._points = points
        self._selection = selection
        self._files = files

    @cached_property
    def _loader(self) -> RunLoader:  # type: ignore[override]
        """What the event files contain, read when something else than scalars is asked for."""
        loader = RunLoader(self._selection)
        loader.load(self._files())
        return loader

    @property
    def tags(self) -> dict[str, str]:
        """The plugin that shows each tag, in the order in which the tags first appear."""
        if self._is_read:
            return super().tags
        has_tag = self._selection.has_tag
        return TagDict({tag: kind for tag, kind in self._entry.tags.items() if has_tag(tag)})

    @cached_property
    def scalars(self) -> dict[str, Scalars]:
        """The points of each scalar tag, in the order in which they were written."""
        if self._is_read:
            return TagDict(self._loader.columns.points.scalars())
        tags = filter(self._selection.has_tag, self._entry.scalars)
        return TagDict({tag: self._select(self._points.get(tag, _NONE)) for tag in tags})

    @property
    def damages(self) -> tuple[Damage, ...]:
        """The bytes, files and folders that could not be read."""
        return super().damages if self._is_read else self._entry.damages

    def refresh(self) -> dict[str, Scalars]:
        """Read what the run has grown by, as ``Run.refresh`` does.

        The first call reads the whole run.
        """
        if self._is_read:
            return super().refresh()
        before = self.scalars
        self._loader.load(self._find())
        self._forget()
        new = {}
        for tag, points in self.scalars.items():
            known = len(before[tag].step) if tag in before else 0
            added = points.take(slice(known, None))
            if len(added.step):
                new[tag] = added
        return new

    @property
    def _is_read(self) -> bool:
        return "_loader" in self.__dict__

    def _select(self, points: Scalars) -> Scalars:
        if not self._selection.has_points:
            return points
        keep = self._selection.points(points.step, points.wall_time)
        return points.take(keep)


_NONE = Scalars(np.empty(0, np.int64), np.empty(0), np.empty(0))
