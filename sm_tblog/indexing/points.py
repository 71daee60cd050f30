"""Files of points: sorted by tag, run and step, with one row group for each tag or a part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.readers.point_table import Scalars
from sm_tblog.readers.tables import PARQUET_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["GROUP_ROWS", "OPTIONS", "PointWriter", "Summary", "in_order", "runs_in"]

GROUP_ROWS = 1 << 18
"""Number of rows in each row group of a tag but the last. Another number is another ``FORMAT``."""

OPTIONS: dict[str, Any] = {
    **PARQUET_OPTIONS,
    "use_dictionary": ["tag", "run"],
    # Readers then see text instead of dictionaries, which some cannot sort or join.
    "store_schema": False,
}


class Summary(NamedTuple):
    """What the summary table says about the points of one tag in one run."""

    tag: str
    run: str
    rows: int
    first_step: int
    last_step: int
    first_wall_time: float
    last_wall_time: float
    first: float
    last: float
    min: float
    max: float


class PointWriter:
    """Writes the points of tags and runs, which are added in order.

    Args:
        path: a local file.

    Attributes:
        groups: the tag of each row group.
        summaries: one entry for each tag and run that has points.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        text = pa.dictionary(pa.int32(), pa.string())
        fields = {"tag": text, "run": text, "step": pa.int64()}
        fields |= {"wall_time": pa.float64(), "value": pa.float64()}
        self._pa = pa
        self._schema = pa.schema(list(fields.items()))
        sorting = [parquet.SortingColumn(column) for column in range(3)]
        self._file = parquet.ParquetWriter(path, self._schema, **OPTIONS, sorting_columns=sorting)
        self._tag = ""
        self._pending: list[tuple[str, Scalars]] = []
        self._rows = 0
        self.groups: list[str] = []
        self.summaries: list[Summary] = []

    def add(self, tag: str, run: str, points: Scalars) -> None:
        """Add the points of a tag in a run, sorted by step."""
        if not len(points.step):
            return
        if tag != self._tag:
            self._flush()
            self._tag = tag
        self.summaries.append(_summarize(tag, run, points))
        while len(points.step):
            room = GROUP_ROWS - self._rows
            part, points = points.take(slice(room)), points.take(slice(room, None))
            self._pending.append((run, part))
            self._rows += len(part.step)
            if self._rows == GROUP_ROWS:
                self._flush()

    def close(self) -> None:
        """Complete the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        """Write the pending points as a row group."""
        if not self._rows:
            return
        pa = self._pa
        counts = [len(points.step) for _, points in self._pending]
        runs = pa.array([run for run, _ in self._pending], pa.string())
        codes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        zeros = np.zeros(self._rows, np.int32)
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(zeros), pa.array([self._tag], pa.string())),
            pa.DictionaryArray.from_arrays(pa.array(codes), runs),
            *(
                pa.array(np.concatenate([points[column] for _, points in self._pending]))
                for column in range(3)
            ),
        ]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        self._file.write_table(table, row_group_size=self._rows)
        self.groups.append(self._tag)
        self._pending, self._rows = [], 0


def in_order(points: Scalars) -> bool:
    """Return whether the steps never decrease."""
    return bool(np.all(points.step[1:] >= points.step[:-1]))


def runs_in(file: Any, groups: Sequence[int]) -> Iterator[tuple[str, Scalars]]:
    """Iterate over the runs in row groups of one tag, in order; a run may come in several parts.

    Args:
        file: a ``ParquetFile``.
        groups: the numbers of the row groups.
    """
    for group in groups:
        table = file.read_row_group(group, columns=["run", "step", "wall_time", "value"])
        runs = table["run"].combine_chunks().dictionary_encode()
        codes = runs.indices.to_numpy()
        columns = [table[name].to_numpy() for name in Scalars._fields]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        names = runs.dictionary.to_pylist()
        for begin, end in zip(starts, [*starts[1:], len(codes)], strict=True):
            yield names[codes[begin]], Scalars(*columns).take(slice(begin, end))


def _summarize(tag: str, run: str, points: Scalars) -> Summary:
    step, wall_time, value = points
    with np.errstate(invalid="ignore"):
        least, most = np.fmin.reduce(value), np.fmax.reduce(value)
    return Summary(
        *(tag, run, len(step), int(step[0]), int(step[-1])),
        *(float(wall_time[0]), float(wall_time[-1]), float(value[0]), float(value[-1])),
        *(float(least), float(most)),
    )
