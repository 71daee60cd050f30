"""Reads many runs from their event files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.readers.events import as_url, find_runs
from sm_tblog.readers.globs import split_glob
from sm_tblog.readers.reading import load_run
from sm_tblog.readers.runs import Job, Runs
from sm_tblog.readers.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sm_tblog._types import PathLike
    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.events import RunFiles
    from sm_tblog.readers.run import Run
    from sm_tblog.readers.runs import Progress
    from sm_tblog.readers.selection import Restarts, Since, Steps, Tags

__all__ = ["EventSource", "check_workers", "read_many"]


def read_many(
    path: PathLike,
    *,
    tags: Tags = None,
    steps: Steps = None,
    since: Since = None,
    restarts: Restarts = "marks",
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

    Args:
        path: a log directory, whose runs are all selected, or a pattern that selects runs: ``*``,
            ``?`` and ``[…]`` match within one folder's name, and ``**`` matches any number of
            folders. A pattern such as ``**/*tfevents*`` selects the runs of matching event files.
        tags: as for ``read``.
        steps: as for ``read``.
        since: as for ``read``.
        restarts: as for ``read``.
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
        InvalidValueError: the log directory does not exist, there is no file system for the URL, or
            an argument has an unknown value.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: the log directory cannot be listed.
    """
    selection = Selection(tags, steps, since, restarts)
    check_workers(workers)
    glob = split_glob(as_url(path))
    found = find_runs(glob.base, storage_options, is_deep=True, prefix=glob.prefix)
    selected = sorted(filter(glob.selects, found), key=lambda run: run.name)
    return Runs(as_url(path), EventSource(selected, selection, storage_options), workers, progress)


class EventSource:
    """Runs that are read from their event files, one at a time.

    Args:
        runs: the runs, sorted by name.
        selection: which tags and points are kept.
        storage_options: as for ``read``.
    """

    def __init__(
        self,
        runs: Sequence[RunFiles],
        selection: Selection,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        self.files = {run.name: run for run in runs}
        self._load = partial(load_run, selection=selection, storage_options=storage_options)

    @property
    def names(self) -> Sequence[str]:
        """The names of all runs, in order."""
        return list(self.files)

    @property
    def damages(self) -> Mapping[str, tuple[Damage, ...]]:
        """What could not be listed, by run."""
        return {name: run.damages for name, run in self.files.items() if run.damages}

    def jobs(self, names: Iterable[str]) -> Iterator[Job]:
        """Iterate over jobs that each read one run."""
        for name in names:
            files = self.files[name]
            size = sum(file.source.size or 0 for file in files.files)
            yield Job([name], size, partial(self._load_one, files))

    def _load_one(self, files: RunFiles) -> list[Run]:
        return [self._load(files)]


def check_workers(workers: object) -> None:
    """Raise an error unless ``workers`` is a positive number."""
    if not isinstance(workers, int) or isinstance(workers, bool):
        message = f"workers must be an int, got {workers!r:.60}"
        raise InvalidTypeError(message)
    if workers < 1:
        message = f"workers must be positive, got {workers}"
        raise InvalidValueError(message)
