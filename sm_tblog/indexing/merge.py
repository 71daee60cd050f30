"""Merges parts, and the generation before, to a new generation of an index.

One tag is merged after the other, and for each tag one run after the other, so memory holds the
row groups that contain the current run, and never a whole file. The result depends only on the
points: not on how they were divided into parts.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.indexing.points import OPTIONS, PointWriter, Summary, runs_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sm_tblog.indexing.entries import RunEntry
    from sm_tblog.readers.point_table import Scalars

__all__ = ["Merged", "Origin", "merge"]


class Origin(NamedTuple):
    """A file of points.

    Attributes:
        path: a local file.
        groups: the tag of each of its row groups.
        runs: the runs that are taken from it.
    """

    path: Path
    groups: Sequence[str]
    runs: frozenset[str]


class Merged(NamedTuple):
    """Local files: points, the summary of each tag and run, and hyperparameters.

    Attributes:
        groups: the tag of each row group of ``scalars``.
    """

    scalars: Path
    summary: Path
    hparams: Path
    groups: Sequence[str]


def merge(origins: Sequence[Origin], entries: Mapping[str, RunEntry], scratch: Path) -> Merged:
    """Write the files of a generation.

    Args:
        origins: where the points of the runs are. Each run is taken from one of them.
        entries: the runs by name.
        scratch: the folder for the files.
    """
    origin_of = {run: origin for origin in origins for run in origin.runs}
    runs_of: dict[str, list[str]] = {}
    for name in sorted(entries):
        for tag in entries[name].scalars:
            runs_of.setdefault(tag, []).append(name)
    groups = [_groups_by_tag(origin) for origin in origins]
    numbers = {id(origin): number for number, origin in enumerate(origins)}
    result = Merged(
        scratch / "scalars.parquet", scratch / "summary.parquet", scratch / "hparams.parquet", []
    )
    with closing(PointWriter(result.scalars)) as writer:
        for tag in sorted(runs_of):
            cursors: dict[int, _Cursor] = {}
            for run in runs_of[tag]:
                number = numbers[id(origin_of[run])]
                if number not in cursors:
                    wanted = groups[number].get(tag, ())
                    cursors[number] = _Cursor(origins[number], wanted)
                for points in cursors[number].take(run):
                    writer.add(tag, run, points)
            for cursor in cursors.values():
                cursor.close()
    _write_summary(result.summary, writer.summaries, entries)
    _write_hparams(result.hparams, entries)
    return result._replace(groups=writer.groups)


def _groups_by_tag(origin: Origin) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, tag in enumerate(origin.groups):
        found.setdefault(tag, []).append(number)
    return found


class _Cursor:
    """The runs of one tag in one file, in order."""

    def __init__(self, origin: Origin, groups: Sequence[int]) -> None:
        self._parts = _read(origin, groups)
        self._next = next(self._parts, None)
        self._last = max(origin.runs)

    def take(self, run: str) -> Iterator[Scalars]:
        """Return the points of a run, skipping those of runs before it."""
        found = []
        while self._next is not None and self._next[0] <= run:
            if self._next[0] == run:
                found.append(self._next[1])
            self._next = next(self._parts, None)
        yield from joined(found)
        if run == self._last:
            self.close()

    def close(self) -> None:
        """Forget the current row group."""
        self._next = None
        self._parts.close()


def joined(parts: list[Scalars]) -> Iterator[Scalars]:
    """Yield the parts of a run's points as one."""
    if len(parts) == 1:
        yield parts[0]
    elif parts:
        import numpy as np

        yield type(parts[0])(*map(np.concatenate, zip(*parts, strict=True)))


def _read(origin: Origin, groups: Sequence[int]) -> Any:
    from pyarrow import parquet

    if not groups:
        return
    with closing(parquet.ParquetFile(origin.path, memory_map=True)) as file:
        yield from runs_in(file, groups)


def _write_summary(
    path: Path, summaries: Sequence[Summary], entries: Mapping[str, RunEntry]
) -> None:
    """Write one row for each tag of each run, also for tags that are no scalars."""
    import pyarrow as pa
    from pyarrow import parquet

    known = {(one.tag, one.run): one for one in summaries}
    pairs = sorted((tag, name) for name, entry in entries.items() for tag in entry.tags)
    empty = Summary("", "", 0, *[None] * (len(Summary._fields) - 3))  # type: ignore[arg-type]
    rows = [known.get(pair, empty) for pair in pairs]
    types = {"count": pa.int64(), "first_step": pa.int64(), "last_step": pa.int64()}
    columns = {
        "tag": pa.array([tag for tag, _ in pairs], pa.string()),
        "run": pa.array([run for _, run in pairs], pa.string()),
        "plugin": pa.array([entries[run].tags[tag] for tag, run in pairs], pa.string()),
    }
    names = "count", *Summary._fields[3:]
    for number, name in enumerate(names, 2):
        columns[name] = pa.array([row[number] for row in rows], types.get(name, pa.float64()))
    parquet.write_table(pa.table(columns), path, compression=OPTIONS["compression"])


def _write_hparams(path: Path, entries: Mapping[str, RunEntry]) -> None:
    """Write one row for each hyperparameter of each run."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        (name, key, value)
        for name in sorted(entries)
        for key, value in sorted(entries[name].hparams.items())
    ]
    numbers = [None if isinstance(value, str) else float(value) for _, _, value in rows]
    texts = [
        value
        if isinstance(value, str)
        else str(value).lower()
        if value is True or value is False
        else repr(value)
        for _, _, value in rows
    ]
    table = pa.table(
        {
            "run": pa.array([row[0] for row in rows], pa.string()),
            "name": pa.array([row[1] for row in rows], pa.string()),
            "number": pa.array(numbers, pa.float64()),
            "text": pa.array(texts, pa.string()),
        }
    )
    parquet.write_table(table, path, compression=OPTIONS["compression"])
