"""Reads the event files of runs into memory."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidValueError, MissingDependencyError
from sm_tblog.readers.columns import Columns, Scalars
from sm_tblog.readers.event_stream import Damage, EventStream
from sm_tblog.readers.events import find_runs, mapped_errors, read_file, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from sm_tblog._types import PathLike
    from sm_tblog.readers.events import RunFiles

__all__ = ["DamagedFileWarning", "Run", "read", "read_all"]

_MAX_NAMED_RUNS = 3
"""Maximum number of runs that an error names."""


class DamagedFileWarning(UserWarning):
    """Some bytes of an event file are not part of a complete event, or could not be read.

    This may temporarily happen for the tail of a file that is being written.
    """


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The data of one run, without points superseded by a later ``SessionLog.START``.

    Attributes:
        path: the path or URL that was read.
        tags: the plugin that shows each tag (``"scalars"``, ``"histograms"``, ``"images"``,
            ``"text"``, …), in the order in which the tags first appear; ``"tensors"`` for a tensor
            without a plugin, ``""`` if the plugin is unknown.
        scalars: the points of each tag as a triple ``step, wall_time, value`` of arrays, in the
            order in which they were written.
        damages: the bytes, files and folders that could not be read.
    """

    path: str
    tags: dict[str, str]
    scalars: dict[str, Scalars]
    damages: tuple[Damage, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return the scalars as a table with one row for each point.

        ``run.to_pandas().pivot_table(index="step", columns="tag", values="value")`` has one column
        for each tag instead; ``pd.to_datetime(table["wall_time"], unit="s")`` returns UTC times.

        Returns:
            A table with the columns ``tag`` (str), ``step`` (int64), ``wall_time`` (seconds since
            the epoch, float64) and ``value`` (float64), grouped by tag in the order of ``scalars``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            message = "to_pandas needs pandas: pip install 'sm-tblog[pandas]'"
            raise MissingDependencyError(message) from error
        none = Scalars(np.empty(0, np.int64), np.empty(0), np.empty(0))
        points = [none, *self.scalars.values()]  # concatenate rejects an empty list
        counts = [len(scalars.step) for scalars in self.scalars.values()]
        return pd.DataFrame(
            {
                "tag": pd.Index(list(self.scalars), dtype=str).repeat(counts),
                "step": np.concatenate([scalars.step for scalars in points]),
                "wall_time": np.concatenate([scalars.wall_time for scalars in points]),
                "value": np.concatenate([scalars.value for scalars in points]),
            }
        )

    def __repr__(self) -> str:
        """Return the path and the numbers of tags and scalars."""
        points = sum(len(points.step) for points in self.scalars.values())
        return f"<Run {self.path!r}: {len(self.tags):,} tags, {points:,} scalars>"


def read(path: PathLike, *, storage_options: Mapping[str, Any] | None = None) -> Run:
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
        storage_options: as for a writer; for other URLs than S3's, passed to the file system.

    Raises:
        InvalidTypeError: ``path`` is neither a string nor a path.
        InvalidValueError: ``path`` does not exist or contains no event files, or there is no file
            system for the URL.
        MissingDependencyError: the file system needs a package that is not installed.
        StoreError: the store, the folder or all of its event files cannot be read.
    """
    runs = find_runs(path, storage_options)
    found = next(runs, None)
    if found is None:
        message = f"there are no event files in {path!r}"
        raise InvalidValueError(message)
    if found.name != ".":
        names = [found.name, *(run.name for run in islice(runs, _MAX_NAMED_RUNS))]
        listed = ", ".join(names[:_MAX_NAMED_RUNS])
        listed += ", …" if len(names) > _MAX_NAMED_RUNS else ""
        message = (
            f"there are no event files in {path!r} itself, only in folders below it: {listed}; "
            "read one of these, or all of them with sm_tblog.readers.read_all()"
        )
        raise InvalidValueError(message)
    run, errors = _load(found)
    if found.files and len(errors) == len(found.files):
        first, error = errors[0]
        with mapped_errors(first):
            raise error
    _warn(run)
    return run


def read_all(
    logdir: PathLike, *, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Run]:
    """Read every run at and below a log directory.

    Arguments, warnings and exceptions are those of ``read``, except that having no runs is not an
    error, and neither are files and folders that cannot be read: their runs have an entry in
    ``damages``, and may be empty. A folder is read once, however many links lead to it.

    Returns:
        The runs by name, sorted. As in TensorBoard, the name is the folder below ``logdir``, or
        "." for ``logdir`` itself.
    """
    found = sorted(find_runs(logdir, storage_options), key=lambda run: run.name)
    runs = {run.name: _load(run)[0] for run in found}
    for run in runs.values():
        _warn(run)
    return runs


def _load(run: RunFiles) -> tuple[Run, list[tuple[str, OSError]]]:
    """Return a run, and the paths of the files that cannot be opened with the errors."""
    columns = Columns()
    damages = list(run.damages)
    errors = []
    for file in run.files:
        stream = EventStream(file.path, columns)
        try:
            with file.open() as content:
                read_file(content, stream)
        except OSError as error:
            errors.append((file.path, error))
            damages.append(Damage(file.path, 0, 0, reason_of(error)))
        damages += stream.damages
    return Run(run.path, columns.tags, columns.scalars(), tuple(damages)), errors


def _warn(run: Run) -> None:
    for damage in run.damages:
        warnings.warn(str(damage), DamagedFileWarning, stacklevel=3)  # the reader's caller
