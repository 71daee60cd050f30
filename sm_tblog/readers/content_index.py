"""Where the values of a run lie that are not scalars.

Contents may be large, so they are not kept: their places in the files are, and they are read when
they are asked for.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.readers.restarts import order_by_tag, rows_kept

if TYPE_CHECKING:
    from sm_tblog._types import Float64Array, IndexArray, Int64Array
    from sm_tblog.readers.selection import Selection

__all__ = ["ContentIndex", "Place", "Places"]


class Place(NamedTuple):
    """Where an event lies.

    Attributes:
        file: the number of the file.
        offset: offset of the event's data in the file.
        length: length of the event's data.
    """

    file: int
    offset: int
    length: int


class Places(NamedTuple):
    """Where the values of one tag lie, in the order in which they were written; each shape (n,).

    Attributes:
        step: the global step; int64.
        wall_time: seconds since the epoch; float64.
        file: the number of the file; int64.
        offset: offset of the event's data in the file; int64.
        length: length of the event's data; int64.
        part: the number of the value in the event, -1 for the event itself; int64.
        field: the number of the value's field in its message; int64.
    """

    step: Int64Array
    wall_time: Float64Array
    file: Int64Array
    offset: Int64Array
    length: Int64Array
    part: Int64Array
    field: Int64Array

    def take(self, rows: Any) -> Places:
        """Return some of the places."""
        columns: Any = (column[rows] for column in self)
        return Places(*columns)


class ContentIndex:
    """Collects the places of the values of each tag and plugin.

    Args:
        selection: which tags and steps are kept.
    """

    def __init__(self, selection: Selection) -> None:
        self.numbers: dict[tuple[str, str], int] = {}
        self._selection = selection
        names = "tag", *Places._fields
        self._columns: dict[str, array[Any]] = {name: array("q") for name in names}
        self._columns["wall_time"] = array("d")
        self._starts: list[tuple[int, int]] = []

    def append(
        self, key: tuple[str, str], event: Any, place: Place, part: int = -1, field: int = 0
    ) -> None:
        """Add a value.

        Args:
            key: its tag, and the plugin that shows it.
            event: the event that contains it.
            place: where the event lies.
            part: see ``Places``.
            field: see ``Places``.
        """
        number = self.numbers.setdefault(key, len(self.numbers))
        row = (number, event.step, event.wall_time, *place, part, field)
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)

    def start(self, step: int) -> None:
        """Note that the run starts again at a step."""
        self._starts.append((len(self._columns["tag"]), step))

    def places(self) -> dict[tuple[str, str], Places]:
        """Return the places of the values of each tag and plugin, without the superseded ones."""
        columns = {name: np.array(column) for name, column in self._columns.items()}
        parts = self._rows(columns)
        del columns["tag"]
        return {
            key: Places(*(column[part] for column in columns.values()))
            for key, part in zip(self.numbers, parts, strict=False)
        }

    def discard(self, keep: int) -> None:
        """Forget all but the last ``keep`` values of each tag and plugin."""
        columns = {name: np.array(column) for name, column in self._columns.items()}
        rows = [part[max(len(part) - keep, 0) :] for part in self._rows(columns)]
        kept = np.sort(np.concatenate([np.empty(0, np.intp), *rows]))
        for name, column in columns.items():
            self._columns[name] = array(self._columns[name].typecode, column[kept].tobytes())
        self._starts = []

    def _rows(self, columns: dict[str, Any]) -> list[IndexArray]:
        """Return the rows of each tag and plugin that are kept."""
        tags, steps = columns["tag"].astype(np.int32), columns["step"]
        keep = np.ones(len(tags), bool)
        kept = rows_kept(tags, steps, self._starts, self._selection.restarts)
        if kept is not None:
            keep &= kept
        if self._selection.has_points:
            keep &= self._selection.points(steps, columns["wall_time"])
        rows = np.flatnonzero(keep)
        order, ends = order_by_tag(tags[rows], len(self.numbers))
        return np.split(rows[order], ends[:-1])
