"""An index that is read."""

from __future__ import annotations

import io
import threading
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError, StoreError
from sm_tblog.indexing.entries import Contents
from sm_tblog.indexing.folder import open_folder
from sm_tblog.indexing.manifest import maybe_read_manifest
from sm_tblog.indexing.points import GROUP_ROWS
from sm_tblog.readers.point_table import Scalars
from sm_tblog.readers.tables import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sm_tblog.indexing.entries import RunEntry
    from sm_tblog.readers.event_stream import Damage

__all__ = ["Index", "Rows", "default_folder"]

FOLDER = "sm_tblog_index"

MAX_READ = 16 << 20
"""Bytes that are read with one request."""

FOOTER = 1 << 20
"""Bytes at the end of the points that are read first."""


def default_folder(logdir: str) -> str:
    """Return the folder of the index of a log directory."""
    return f"{logdir.rstrip('/') or '/'}/{FOLDER}".replace("//sm_", "/sm_")


class Rows(NamedTuple):
    """Where the points of a tag in a run are: first row among those of the tag, and how many."""

    tag: str
    first: int
    size: int


class Index:
    """An index of many runs, as returned by ``sm_tblog.index``.

    It consists of Parquet files, which DuckDB, Polars and pandas can open. An object belongs to one
    generation of the index. Its files stay until the index has been updated twice.

    Attributes:
        path: the folder of the index, a path or URL.
        failed: why runs could not be indexed, by run.
    """

    def __init__(
        self,
        path: str,
        storage_options: Mapping[str, Any] | None = None,
        failed: Mapping[str, tuple[Damage, ...]] | None = None,
    ) -> None:
        self.path = path.rstrip("/")
        self.failed = dict(failed or {})
        self._folder = open_folder(path, storage_options or {})
        self._manifest = maybe_read_manifest(self._folder)
        self._lock = threading.Lock()

    @property
    def is_complete(self) -> bool:
        """Whether there is an index; False after reading the first of several shards."""
        return self._manifest is not None

    @property
    def generation(self) -> str:
        """A name that depends on the runs and the states of their files.

        Raises:
            InvalidValueError: there is no index.
        """
        return str(self._current.generation)

    @property
    def scalars(self) -> str:
        """The path or URL of the points, a Parquet file sorted by tag, run and step.

        Columns: ``tag``, ``run``, ``step``, ``wall_time`` (seconds since the epoch), ``value``.

        Raises:
            InvalidValueError: there is no index.
        """
        return self._path_of("scalars")

    @property
    def summary(self) -> str:
        """The path or URL of a Parquet file with one row for each tag of each run.

        Columns: ``tag``, ``run``, ``plugin``, ``count``, ``first_step``, ``last_step``,
        ``first_wall_time``, ``last_wall_time``, ``first``, ``last``, ``min``, ``max``. NaN is
        ignored in ``min`` and ``max``. For a tag without scalars, ``count`` is 0 and the columns
        after it are null.

        Raises:
            InvalidValueError: there is no index.
        """
        return self._path_of("summary")

    @property
    def hparams(self) -> str:
        """The path or URL of a Parquet file with one row for each hyperparameter of each run.

        Columns: ``run``, ``name``, ``number`` (null for text; 0 or 1 for a bool), ``text``.

        Raises:
            InvalidValueError: there is no index.
        """
        return self._path_of("hparams")

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.entries)

    def __repr__(self) -> str:
        """Return the path and the number of runs."""
        return f"<Index {self.path!r}: {len(self) if self.is_complete else 0:,} runs>"

    @cached_property
    def entries(self) -> Mapping[str, RunEntry]:
        """What is known about each run."""
        return self._contents.entries

    @cached_property
    def rows(self) -> Mapping[str, Sequence[Rows]]:
        """Where the points of each run are."""
        parquet = require("pyarrow.parquet", "an index", "parquet")
        data = self._folder.get(self._current.files["summary"][0])
        if data is None:
            raise self._outdated
        table = parquet.read_table(io.BytesIO(data), columns=["tag", "run", "count"])
        found: dict[str, list[Rows]] = {}
        first, last_tag = 0, None
        for tag, run, count in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if tag != last_tag:
                first, last_tag = 0, tag
            if count:
                found.setdefault(run, []).append(Rows(tag, first, count))
                first += count
        return found

    def read(
        self, runs: Iterable[str], has_tag: Callable[[str], bool]
    ) -> dict[str, dict[str, Scalars]]:
        """Return the points of some runs.

        Raises:
            StoreError: they cannot be read, for example because the index has been updated twice.
        """
        parts: dict[str, dict[str, list[Scalars]]] = {run: {} for run in runs}
        wanted: dict[int, list[tuple[str, str, int, int]]] = {}  # by row group
        for run, pieces in parts.items():
            for tag, first, count in self.rows.get(run, ()):
                if has_tag(tag):
                    pieces[tag] = []
                    self._plan(wanted, run, tag, first, first + count)
        for group, columns in self._groups(sorted(wanted)):
            for run, tag, begin, end in wanted[group]:
                piece = Scalars(*(np.array(column[begin:end]) for column in columns))
                parts[run][tag].append(piece)
        return {
            run: {tag: _joined(pieces) for tag, pieces in found.items()}
            for run, found in parts.items()
        }

    def cost(self, runs: Iterable[str], has_tag: Callable[[str], bool]) -> tuple[int, int]:
        """Return the number of requests and of bytes that ``read`` needs."""
        wanted: dict[int, list[tuple[str, str, int, int]]] = {}
        for run in runs:
            for tag, first, count in self.rows.get(run, ()):
                if has_tag(tag):
                    self._plan(wanted, run, tag, first, first + count)
        spans = self._spans(sorted(wanted))
        return len(spans), sum(end - start for start, end, _ in spans)

    def _plan(
        self,
        wanted: dict[int, list[tuple[str, str, int, int]]],
        run: str,
        tag: str,
        first: int,
        end: int,
    ) -> None:
        """Note which rows of which row groups are needed."""
        while first < end:
            number, begin = divmod(first, GROUP_ROWS)
            stop = min(end - first, GROUP_ROWS - begin)
            group = self._first_groups[tag] + number
            wanted.setdefault(group, []).append((run, tag, begin, begin + stop))
            first += stop

    def _groups(self, groups: Sequence[int]) -> Iterable[tuple[int, list[Any]]]:
        """Iterate over the columns of row groups."""
        from pyarrow import parquet

        name = self._current.files["scalars"][0]
        for start, end, numbers in self._spans(groups):
            data = self._folder.read(name, start, end)
            if len(data) < end - start:
                raise self._outdated
            part = _Part(data, start, self._current.files["scalars"][1])
            with parquet.ParquetFile(part, metadata=self._footer, pre_buffer=False) as file:
                for number in numbers:
                    table = file.read_row_group(number, columns=list(Scalars._fields))
                    yield number, [table[column].to_numpy() for column in Scalars._fields]

    def _spans(self, groups: Sequence[int]) -> list[tuple[int, int, list[int]]]:
        """Return the parts of the file that contain row groups: start, end, row groups."""
        spans: list[tuple[int, int, list[int]]] = []
        for group in groups:
            start, end = self._bounds(group)
            if spans and spans[-1][1] == start and end - spans[-1][0] <= MAX_READ:
                spans[-1] = spans[-1][0], end, [*spans[-1][2], group]
            else:
                spans.append((start, end, [group]))
        return spans

    def _bounds(self, group: int) -> tuple[int, int]:
        """Return the first byte of a row group, and the byte after the last."""
        found = self._footer.row_group(group)
        columns = [found.column(number) for number in range(found.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        ends = [
            start + column.total_compressed_size
            for start, column in zip(starts, columns, strict=True)
        ]
        return min(starts), max(ends)

    @property
    def _current(self) -> Any:
        if self._manifest is None:
            message = f"there is no index in {self.path!r}; create one with sm_tblog.index"
            raise InvalidValueError(message)
        return self._manifest

    @cached_property
    def _contents(self) -> Contents:
        contents = Contents.decode(self._folder.get(self._current.files["runs"][0]) or b"")
        if contents is None:
            raise self._outdated
        return contents

    @cached_property
    def _first_groups(self) -> Mapping[str, int]:
        numbered = enumerate(self._contents.groups)
        return {tag: next(group)[0] for tag, group in groupby(numbered, key=lambda one: one[1])}

    @property
    def _footer(self) -> Any:
        with self._lock:
            return self._read_footer

    @cached_property
    def _read_footer(self) -> Any:
        parquet = require("pyarrow.parquet", "an index", "parquet")
        name, size = self._current.files["scalars"]
        start = max(0, size - FOOTER)
        while True:
            data = self._folder.read(name, start, size)
            if len(data) < size - start:
                raise self._outdated
            length = int.from_bytes(data[-8:-4], "little") + 8
            if length <= len(data):
                return parquet.read_metadata(_Part(data, start, size))
            start = size - length

    @property
    def _outdated(self) -> StoreError:
        return StoreError(f"the index in {self.path} has been updated since it was opened")

    def _path_of(self, kind: str) -> str:
        return f"{self.path}/{self._current.files[kind][0]}"


class _Part(io.RawIOBase):
    """A part of a file, at its place in the file."""

    def __init__(self, data: bytes, start: int, size: int) -> None:
        super().__init__()
        self._data = data
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the file."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position in the file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into ``buffer``."""
        begin = self._position - self._start
        data = self._data[begin : begin + len(buffer)] if begin >= 0 else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _joined(parts: Sequence[Scalars]) -> Scalars:
    if len(parts) == 1:
        return parts[0]
    return Scalars(*map(np.concatenate, zip(*parts, strict=True)))
