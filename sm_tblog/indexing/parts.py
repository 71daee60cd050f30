"""Converts the event files of some runs to a part of an index.

``convert`` is a pure function of its task: it may run in any process on any machine, and again. A
part consists of a file of points and, written after it, a file that lists its runs. So whatever
ends a process, each part is complete or is not there.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from posixpath import join
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from sm_tblog._errors import TBLogError
from sm_tblog.indexing.entries import Contents, RunEntry, fingerprint
from sm_tblog.indexing.folder import open_folder
from sm_tblog.indexing.points import PointWriter, in_order
from sm_tblog.readers.contents.hparams import merged_hparams
from sm_tblog.readers.events import EventFile, RunFiles
from sm_tblog.readers.loader import RunLoader
from sm_tblog.readers.selection import Selection
from sm_tblog.readers.trees import open_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sm_tblog.indexing.entries import FileState
    from sm_tblog.readers.base import Source
    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.point_table import Scalars

__all__ = ["PART", "Converted", "Task", "convert", "run_files", "tasks_for"]

PART = "part-"
"""What the names of parts start with."""

MAX_RUNS, MAX_BYTES = 32, 256 << 20
"""Maximum number of runs in a task, and of bytes of their event files if there are several."""

THREADS = 16
"""Runs that a task reads at the same time."""

MAX_CACHED = 8 << 20
"""Maximum size of a file that is read whole."""

_PLAIN = (bool, float, str)
"""Types of hyperparameters that a table holds."""


@dataclass(frozen=True)
class Task:
    """Some runs, and where their part is written. A task can be pickled.

    Attributes:
        logdir: the log directory.
        folder: the folder of the index.
        runs: the states of the files of each run, sorted by run.
        storage_options: as for ``read``.
    """

    logdir: str
    folder: str
    runs: Mapping[str, tuple[FileState, ...]]
    storage_options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the part, which depends on the runs and the states of their files."""
        return PART + fingerprint(self.runs)


class Converted(NamedTuple):
    """The result of a task.

    Attributes:
        name: the name of the part.
        runs: number of runs in the task.
        failed: why runs could not be read, by run; they are not in the part.
    """

    name: str
    runs: int
    failed: Mapping[str, tuple[Damage, ...]]


class _Loaded(NamedTuple):
    entry: RunEntry
    scalars: Mapping[str, Scalars]  # sorted by step


def tasks_for(
    logdir: str,
    folder: str,
    runs: Mapping[str, tuple[FileState, ...]],
    storage_options: Mapping[str, Any],
) -> list[Task]:
    """Divide runs into tasks."""
    tasks: list[dict[str, tuple[FileState, ...]]] = []
    room = 0
    for name in sorted(runs):
        size = sum(file.size for file in runs[name])
        if not tasks or len(tasks[-1]) == MAX_RUNS or size > room:
            tasks.append({})
            room = MAX_BYTES
        tasks[-1][name] = runs[name]
        room -= size
    return [Task(logdir, folder, one, dict(storage_options)) for one in tasks]


def convert(task: Task) -> Converted:
    """Read the runs of a task, and write their part.

    Raises:
        StoreError: the part cannot be written.
    """
    folder = open_folder(task.folder, task.storage_options)
    loaded: dict[str, _Loaded] = {}
    failed: dict[str, tuple[Damage, ...]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda name: _load(task, name), task.runs)
        for name, result in zip(task.runs, results, strict=True):
            if isinstance(result, _Loaded):
                loaded[name] = result
            else:
                failed[name] = result
    with folder.scratch() as scratch:
        path = scratch / "points"
        with closing(PointWriter(path)) as writer:
            for tag in sorted({tag for one in loaded.values() for tag in one.scalars}):
                for name in sorted(loaded):
                    if tag in loaded[name].scalars:
                        writer.add(tag, name, loaded[name].scalars[tag])
        folder.put_file(f"{task.name}.parquet", path)
    contents = Contents({name: one.entry for name, one in loaded.items()}, writer.groups)
    folder.put(f"{task.name}.json.gz", contents.encode())
    return Converted(task.name, len(task.runs), failed)


def _load(task: Task, name: str) -> _Loaded | tuple[Damage, ...]:
    """Return a run and its points sorted by step, or why it cannot be read."""
    files = task.runs[name]
    run = run_files(task.logdir, name, files, task.storage_options)
    run = run._replace(files=[file._replace(source=_cached(file.source)) for file in run.files])
    loader = RunLoader(Selection())
    loader.load(run)
    damages = tuple(loader.damages)
    if unread := tuple(damage for damage in damages if not damage.size):
        return unread
    scalars = loader.columns.points.scalars()
    entry = RunEntry(
        name,
        files,
        dict(loader.tags),
        list(scalars),
        _hparams_of(loader, scalars),
        damages,
        all(map(in_order, scalars.values())),
    )
    return _Loaded(entry, {tag: _by_step(points) for tag, points in scalars.items()})


def run_files(
    logdir: str, name: str, files: Sequence[FileState], storage_options: Mapping[str, Any]
) -> RunFiles:
    """Return how to read the files of a run whose names are known."""
    path = logdir if name == "." else join(logdir, name)
    found = []
    for file in files:
        url = join(path, file.name)
        source = open_tree(url, storage_options).file()
        found.append(EventFile(url, source._replace(size=file.size, version=file.version)))

    def read_side(side: str) -> bytes:
        return open_tree(path, storage_options).read_file("", side)

    return RunFiles(name, path, found, read_side)


def _cached(source: Source) -> Source:
    """Return a small file as one that is read only once."""
    if source.size is None or source.size > MAX_CACHED:
        return source
    kept: list[bytes] = []

    def content() -> bytes:
        if not kept:
            with source.open(0) as file:
                kept.append(b"".join(iter(lambda: file.read(MAX_CACHED), b"")))
        return kept[0]

    def open_file(offset: int) -> BinaryIO:
        file = io.BytesIO(content())
        file.seek(offset)
        return file

    return source._replace(open=open_file, read=lambda start, end: content()[start:end])


def _by_step(points: Scalars) -> Scalars:
    if in_order(points):
        return points
    order = np.argsort(points.step, kind="stable")
    return points.take(order)


def _hparams_of(loader: RunLoader, scalars: Mapping[str, Scalars]) -> dict[str, bool | float | str]:
    """Return the hyperparameters that have one value, sorted by name."""
    try:
        found = merged_hparams(loader.hparams.hparams, loader.columns.hparams, scalars).values
    except TBLogError:
        return {}
    return {name: found[name] for name in sorted(found) if isinstance(found[name], _PLAIN)}
