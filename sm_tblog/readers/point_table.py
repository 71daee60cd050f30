"""The scalars of a run, in the order in which they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.readers.restarts import order_by_tag, rows_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog._types import Float64Array, IndexArray, Int64Array
    from sm_tblog.readers.selection import Selection

__all__ = ["Point", "PointTable", "Points", "Scalars"]


class Scalars(NamedTuple):
    """The points of one curve, in the order in which they were written.

    Attributes:
        step: the global step; int64, shape (n,).
        wall_time: seconds since the epoch; float64, shape (n,).
        value: float64, shape (n,); values written as float32 are converted exactly.
    """

    step: Int64Array
    wall_time: Float64Array
    value: Float64Array

    def take(self, rows: Any) -> Scalars:
        """Return some of the points, given by a slice, indices or a mask."""
        return Scalars(self.step[rows], self.wall_time[rows], self.value[rows])


class Point(NamedTuple):
    """One scalar: the number of its tag, step, wall time and value."""

    tag: int
    step: int
    wall_time: float
    value: float


class Points(NamedTuple):
    """Columns of points of several tags, each of shape (n,)."""

    tag: Any  # int32
    step: Int64Array
    wall_time: Float64Array
    value: Float64Array

    @classmethod
    def empty(cls, size: int) -> Points:
        """Return columns with room for ``size`` points."""
        return cls(np.empty(size, np.int32), np.empty(size, np.int64), *np.empty((2, size)))

    def take(self, rows: Any) -> Points:
        """Return some of the points."""
        return Points(*(column[rows] for column in self))


class PointTable:
    """Collects the points of a run.

    Args:
        selection: which tags and points are kept.

    Attributes:
        numbers: the number of each tag.
    """

    def __init__(self, selection: Selection) -> None:
        self.numbers: dict[str, int] = {}
        self._selection = selection
        self._parts: list[Points] = []
        self._pending: list[Point] = []  # points after the parts
        self._size = 0
        self._starts: list[tuple[int, int]] = []  # number of points before, and the step

    def number_of(self, tag: str) -> int:
        """Return the number of a tag, -1 for a tag that is not kept."""
        if tag not in self.numbers and not self._selection.has_tag(tag):
            return -1
        return self.numbers.setdefault(tag, len(self.numbers))

    def append(self, points: Sequence[Point]) -> None:
        """Add some points."""
        self._pending += points

    def start(self, step: int) -> None:
        """Note that the run starts again at a step."""
        self._close()
        self._starts.append((self._size, step))

    def extend(self, points: Points, starts: Sequence[tuple[int, int]] = ()) -> None:
        """Add many points.

        Args:
            points: the points, which the table may keep.
            starts: where the run starts again: number of ``points`` before, and the step.
        """
        self._close()
        keep = points.tag >= 0
        # With "steps", a point that is not selected may still supersede others.
        if self._selection.has_points and self._selection.restarts != "steps":
            keep &= self._selection.points(points.step, points.wall_time)
        if not keep.all():
            ends = np.cumsum(keep)
            starts = [(int(ends[before - 1]) if before else 0, step) for before, step in starts]
            points = points.take(keep)
        self._starts += [(self._size + before, step) for before, step in starts]
        if len(points.tag):
            self._parts.append(points)
            self._size += len(points.tag)

    @property
    def parts(self) -> int:
        """Number of parts; new points are in later ones."""
        self._close()
        return len(self._parts)

    def scalars(self, first_part: int = 0) -> dict[str, Scalars]:
        """Return the points of each tag, without the superseded ones.

        Args:
            first_part: return only the points from this part on.
        """
        self._close()
        if first_part:
            parts, starts = self._parts[first_part:], []
        else:
            parts, starts = self._parts, self._starts
        order, ends = self._order(_joined(parts, 0), parts, starts)
        size = sum(len(part.tag) for part in parts)
        if len(order) == size:
            places = np.empty(size, np.int32 if size < 1 << 31 else np.int64)
            places[order] = np.arange(size, dtype=places.dtype)
            del order
            columns = [_placed(parts, column, places) for column in (1, 2, 3)]
        else:
            columns = [_joined(parts, column)[order] for column in (1, 2, 3)]
        return {
            tag: Scalars(*(column[begin:end] for column in columns))
            for tag, begin, end in zip(self.numbers, [0, *ends], ends, strict=False)
        }

    def discard(self, keep: int) -> None:
        """Forget all but the last ``keep`` points of each tag."""
        self._close()
        tags = _joined(self._parts, 0)
        order, ends = self._order(tags, self._parts, self._starts)
        begins = [0, *ends]
        rows = [order[max(a, b - keep) : b] for a, b in zip(begins, ends, strict=False)]
        kept = np.sort(np.concatenate([np.empty(0, np.intp), *rows]))
        points = Points(*(_joined(self._parts, column)[kept] for column in range(4)))
        self._parts, self._size, self._starts = [points], len(kept), []

    def _order(
        self, tags: Any, parts: list[Points], starts: list[tuple[int, int]]
    ) -> tuple[IndexArray, list[int]]:
        """Return the rows that are kept, sorted by tag, and where each tag ends."""
        order, ends = order_by_tag(tags, len(self.numbers))
        restarts = self._selection.restarts
        steps = _joined(parts, 1) if starts or restarts == "steps" else None
        keep = None if steps is None else rows_kept(tags, steps, starts, restarts)
        if self._selection.has_points and restarts == "steps":
            selected = self._selection.points(_joined(parts, 1), _joined(parts, 2))
            keep = selected if keep is None else keep & selected
        if keep is not None:
            order = order[keep[order]]
            ends = np.cumsum(np.bincount(tags[keep], minlength=len(self.numbers)))
        return order, ends.tolist()

    def _close(self) -> None:
        """Turn the pending points into a part."""
        if self._pending:
            columns = zip(*self._pending, strict=True)
            types = np.int32, np.int64, np.float64, np.float64
            self._pending = []
            self.extend(Points(*map(np.array, columns, types)))


def _joined(parts: list[Points], column: int) -> Any:
    return np.concatenate([Points.empty(0)[column], *(part[column] for part in parts)])


def _placed(parts: list[Points], column: int, places: Any) -> Any:
    """Return a column with each row at its place, without a copy in the original order."""
    placed = np.empty_like(Points.empty(0)[column], shape=len(places))
    begin = 0
    for part in parts:
        end = begin + len(part.tag)
        placed[places[begin:end]] = part[column]
        begin = end
    return placed
