"""Collects the events of a run into NumPy columns.

All scalars of a run go in file order to four columns: number of the tag, step, wall time, value.
At the end, NumPy removes the superseded scalars and sorts the rest by tag.

A scalar may be written as a ``simple_value``, or as a tensor of one element whose tag belongs to
the scalars plugin. The plugin may be given only with a tag's first value.

``SessionLog.START`` at a step supersedes earlier points at and after this step, as in TensorBoard's
``EventAccumulator``. The latter has another rule for files without a version or with a version
below 2: a decreasing step supersedes earlier points. All writers in use write version 2, but a
damaged first record makes any file look older; so this rule is not implemented here.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from sm_tblog.format import schema
from sm_tblog.format.crc32c import masked_crc32c
from sm_tblog.format.records import FOOTER, HEADER
from sm_tblog.readers.elements import maybe_number
from sm_tblog.readers.record_layout import Value
from sm_tblog.readers.record_shapes import RecordShapes

if TYPE_CHECKING:
    from sm_tblog._types import Float64Array, IndexArray, Int64Array
    from sm_tblog.readers.record_shapes import Rows

__all__ = ["Columns", "Scalars"]

_SCALARS = "scalars"

_KINDS = {
    "simple_value": _SCALARS,
    "histo": "histograms",
    "image": "images",
    "audio": "audio",
    "tensor": "tensors",
}
"""The plugin of a value, by its field, if its metadata names none."""


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


class _Table(NamedTuple):
    """Scalars of several tags, in the order in which they were written; each shape (n,)."""

    tags: Any  # numbers of the tags, int32
    steps: Int64Array
    wall_times: Float64Array
    values: Float64Array


class Columns:
    """Collects the events of one run, added in order.

    Attributes:
        tags: the plugin that shows each tag, in the order in which the tags first appear.
    """

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self._numbers: dict[str, int] = {}  # of the scalar tags
        self._tables: list[_Table] = []
        self._points: list[tuple[int, int, float, float]] = []  # after the tables
        self._count = 0  # of all points
        self._starts: list[tuple[int, int]] = []  # number of points before, and the step
        self._shapes = RecordShapes(self._only_scalars)
        self._templates = _TemplateNumbers()

    def add_event(self, event: Any) -> None:
        """Add the next event."""
        step = _start_of(event)
        if step is not None:
            self._starts.append((self._count, step))
        points = self._points_of(event)
        self._points += points
        self._count += len(points)

    def add_records(
        self, data: memoryview, starts: IndexArray, lengths: IndexArray
    ) -> tuple[list[int], int]:
        """Add the events of consecutive records, up to the first whose checksum differs.

        Args:
            data: a buffer.
            starts: offsets of the records in the buffer; intp, shape (n,).
            lengths: lengths of their data; intp, shape (n,).

        Returns:
            The numbers of the records that are no events, and the number of records before the
            first damaged one.
        """
        batches = self._shapes.decode(data, starts, lengths)
        is_single = np.ones(len(starts), bool)
        intact = len(starts)
        for rows in batches:
            is_single[rows.records] = False
            damaged = np.flatnonzero(rows.is_damaged)
            if len(damaged):
                intact = min(intact, int(rows.records[damaged[0]]))
        events: dict[int, Any] = {}
        invalid: list[int] = []
        for record in np.flatnonzero(is_single[:intact]).tolist():
            begin = int(starts[record]) + HEADER
            end = begin + int(lengths[record])
            content = data[begin:end]
            if masked_crc32c(content) != int.from_bytes(data[end : end + FOOTER], "little"):
                intact = record
                break
            try:
                events[record] = schema.Event.FromString(content)
            except DecodeError:
                invalid.append(record)
        self._add_batch([rows.before(intact) for rows in batches], events, intact)
        return invalid, intact

    def scalars(self) -> dict[str, Scalars]:
        """Return the points of each scalar tag, without the superseded ones."""
        self._close_table()
        tags = _joined([table.tags for table in self._tables], np.int32)
        order = _stable_order(tags, len(self._numbers))
        if self._starts:
            steps = _joined([table.steps for table in self._tables], np.int64)
            keep = np.ones(len(steps), bool)
            for before, step in self._starts:
                keep[:before] &= steps[:before] < step
            order = order[keep[order]]
            tags = tags[keep]
            del steps, keep
        ends = np.cumsum(np.bincount(tags, minlength=len(self._numbers))).tolist()
        del tags
        steps = _joined([table.steps for table in self._tables], np.int64)[order]
        wall_times = _joined([table.wall_times for table in self._tables], np.float64)[order]
        values = _joined([table.values for table in self._tables], np.float64)[order]
        return {
            tag: Scalars(steps[begin:end], wall_times[begin:end], values[begin:end])
            for tag, begin, end in zip(self._numbers, [0, *ends], ends, strict=False)
        }

    def _add_batch(self, batches: list[Rows], events: dict[int, Any], intact: int) -> None:
        """Add records that were decoded together, and the events between them."""
        counts = np.zeros(intact, np.intp)  # of each record's points
        appearances: list[tuple[int, int]] = []  # of templates: first record, number
        for rows in batches:
            counts[rows.records] = rows.values.shape[1]
            new = np.flatnonzero(~self._templates.are_known(rows.templates))
            numbers, firsts = np.unique(rows.templates[new], return_index=True)
            appearances += zip(rows.records[new[firsts]].tolist(), numbers.tolist(), strict=True)
        points: list[tuple[int, tuple[int, int, float, float]]] = []
        starts: list[tuple[int, int]] = []
        for record, template in sorted([*appearances, *((record, -1) for record in events)]):
            if template >= 0:
                values = self._shapes.templates[template]
                registered = [self._register_scalar(value.tag, value.plugin) for value in values]
                self._templates.set(template, registered)
                continue
            event = events[record]
            step = _start_of(event)
            if step is not None:
                starts.append((record, step))
            found = self._points_of(event)
            counts[record] = len(found)
            points += [(record, point) for point in found]
        ends = np.cumsum(counts)
        begins = ends - counts
        self._starts += [(self._count + int(begins[record]), step) for record, step in starts]
        self._close_table()
        size = int(ends[-1]) if intact else 0
        table = _Table(np.empty(size, np.int32), np.empty(size, np.int64), *np.empty((2, size)))
        for rows in batches:
            numbers = self._templates.numbers(rows.templates, rows.values.shape[1])
            for column in range(rows.values.shape[1]):
                places = begins.take(rows.records) + column
                table.tags[places] = numbers[:, column]
                table.steps[places] = rows.steps
                table.wall_times[places] = rows.wall_times
                table.values[places] = rows.values[:, column]
        column = 0
        for i, (record, point) in enumerate(points):
            column = column + 1 if i and points[i - 1][0] == record else 0
            place = int(begins[record]) + column
            for numbers, number in zip(table, point, strict=True):
                numbers[place] = number
        if size:
            self._tables.append(table)
        self._count += size

    def _close_table(self) -> None:
        """Turn the single points into a table."""
        if self._points:
            tags, steps, wall_times, values = zip(*self._points, strict=True)
            self._tables.append(
                _Table(
                    np.array(tags, np.int32),
                    np.array(steps, np.int64),
                    np.array(wall_times, np.float64),
                    np.array(values, np.float64),
                )
            )
            self._points.clear()

    def _points_of(self, event: Any) -> list[tuple[int, int, float, float]]:
        """Return the number of the tag, step, wall time and value of each scalar of an event."""
        points = []
        for value in event.summary.value:
            scalar = self._scalar_of(value)
            if scalar.number is None:
                self.tags.setdefault(scalar.tag, scalar.plugin)
            else:
                number = self._register_scalar(scalar.tag, scalar.plugin)
                points.append((number, event.step, event.wall_time, scalar.number))
        return points

    def _only_scalars(self, data: bytes) -> list[Value] | None:
        """Return the scalars of an event, None if the data are anything else."""
        try:
            event = schema.Event.FromString(data)
        except DecodeError:
            return None
        values = [self._scalar_of(value) for value in event.summary.value]
        return None if any(value.number is None for value in values) else values

    def _scalar_of(self, value: Any) -> Value:
        tag = value.tag or value.node_name  # TensorFlow 1 writes the latter
        field = value.WhichOneof("value")
        plugin = value.metadata.plugin_data.plugin_name if value.HasField("metadata") else ""
        number = None
        if field == "simple_value":
            number = value.simple_value
        elif field == "tensor" and (plugin or self.tags.get(tag)) == _SCALARS:
            number = maybe_number(value.tensor)
        return Value(tag, plugin or _KINDS.get(field, ""), number)

    def _register_scalar(self, tag: str, plugin: str) -> int:
        self.tags.setdefault(tag, plugin)
        return self._numbers.setdefault(tag, len(self._numbers))


class _TemplateNumbers:
    """The numbers of the tags of each template, set in the order of their first appearance."""

    def __init__(self) -> None:
        self._begins = np.empty(0, np.intp)  # positions of the numbers, -1 for unknown
        self._flat = array("q")

    def are_known(self, templates: IndexArray) -> Any:
        """Return whether the numbers of each template are set; bool, shape (n,)."""
        missing = int(templates.max(initial=-1)) + 1 - len(self._begins)
        if missing > 0:
            added = np.full(max(missing, len(self._begins)), -1, np.intp)
            self._begins = np.concatenate([self._begins, added])
        return self._begins.take(templates) >= 0

    def set(self, template: int, numbers: list[int]) -> None:
        """Set the numbers of the tags of a template."""
        self._begins[template] = len(self._flat)
        self._flat.extend(numbers)

    def numbers(self, templates: IndexArray, count: int) -> Any:
        """Return the numbers of the tags of templates with ``count`` scalars each."""
        flat = np.array(self._flat, np.int32)
        return flat[self._begins.take(templates)[:, np.newaxis] + np.arange(count)]


def _start_of(event: Any) -> int | None:
    """Return the step at which a run starts again, None for any other event."""
    if event.WhichOneof("what") != "session_log":
        return None
    if event.session_log.status != schema.SessionLog.START:
        return None
    return int(event.step)


def _joined(arrays: list[Any], dtype: Any) -> Any:
    return np.concatenate([np.empty(0, dtype), *arrays])


def _stable_order(tags: Any, count: int) -> IndexArray:
    """Return the order that sorts by tag. NumPy sorts 16 bits in linear time."""
    order = np.argsort(tags.astype(np.uint16), kind="stable")
    if count > 1 << 16:
        order = order[np.argsort((tags[order] >> 16).astype(np.uint16), kind="stable")]
    return order
