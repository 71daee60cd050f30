"""Decodes the events of a run into columns.

A scalar may be written as a ``simple_value``, or as a tensor of one element whose tag belongs to
the scalars plugin. The plugin may be given only with a tag's first value.

TensorBoard's ``EventAccumulator`` has another rule for files without a version or with a version
below 2: a decreasing step supersedes earlier points. All writers in use write version 2, but a
damaged first record makes any file look older; so this rule is not implemented here.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from sm_tblog.format import schema
from sm_tblog.format.crc32c import masked_crc32c
from sm_tblog.format.records import FOOTER, HEADER
from sm_tblog.readers.content_index import ContentIndex, Place
from sm_tblog.readers.elements import maybe_number
from sm_tblog.readers.point_table import Point, Points, PointTable
from sm_tblog.readers.record_layout import Value
from sm_tblog.readers.record_shapes import RecordShapes
from sm_tblog.readers.selection import Selection

if TYPE_CHECKING:
    from sm_tblog._types import IndexArray
    from sm_tblog.readers.record_shape import Rows

__all__ = ["Columns"]

_SCALARS, _HPARAMS, _MESH = "scalars", "hparams", "mesh"

_KINDS = {**schema.PLUGINS, "tensor": "tensors"}
"""The plugin of a value, by its field, if its metadata names none."""

_GRAPHS = frozenset({"graph_def", "meta_graph_def"})

_RUN_GRAPH = "__run_graph__", "graphs"
"""TensorBoard's name of the graph of a run, and the plugin."""

_FIELDS = {field.name: field.number for field in schema.Value.DESCRIPTOR.fields}


class Columns:
    """Collects the events of one run, added in order.

    Args:
        selection: which tags and points are kept.

    Attributes:
        tags: the plugin that shows each tag, in the order in which the tags first appear.
        points: the scalars.
        contents: the places of all other values.
        graphs: the places of the graphs of the run, without a tag.
        hparams: the contents of the hparams plugin's data, whatever is selected, in order; a
            dictionary, so that each is kept once.
        mesh_data: the content of the mesh plugin's data for each tag.
    """

    def __init__(self, selection: Selection | None = None) -> None:
        selection = selection or Selection()
        self.tags: dict[str, str] = {}
        self.points = PointTable(selection)
        self.contents = ContentIndex(selection)
        self.graphs = ContentIndex(Selection())
        self.hparams: dict[bytes, None] = {}
        self.mesh_data: dict[str, bytes] = {}
        self._selection = selection
        self._plugins: dict[str, str] = {}  # of all tags, also of those that are not kept
        self._shapes = RecordShapes(self._only_scalars)
        self._templates = _TemplateNumbers()

    def add_event(self, event: Any, place: Place) -> None:
        """Add the next event, which lies at ``place``."""
        step = self._start_of(event)
        if step is not None:
            self.points.start(step)
        self.points.append(self._points_of(event, place))

    def add_records(
        self, data: memoryview, starts: IndexArray, lengths: IndexArray, file: int, offset: int
    ) -> tuple[list[int], int]:
        """Add the events of consecutive records, up to the first whose checksum differs.

        Args:
            data: a buffer that continues for ``SUFFIX`` bytes after the last record.
            starts: offsets of the records in the buffer; intp, shape (n,).
            lengths: lengths of their data; intp, shape (n,).
            file: the number of the file.
            offset: the buffer's offset in the file.

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
        events: dict[int, tuple[Any, Place]] = {}
        invalid: list[int] = []
        for record in np.flatnonzero(is_single[:intact]).tolist():
            begin = int(starts[record]) + HEADER
            end = begin + int(lengths[record])
            content = data[begin:end]
            if masked_crc32c(content) != int.from_bytes(data[end : end + FOOTER], "little"):
                intact = record
                break
            try:
                event = schema.Event.FromString(content)
            except (DecodeError, UnicodeDecodeError):  # the latter of pure-Python protobuf
                invalid.append(record)
            else:
                events[record] = event, Place(file, offset + begin, end - begin)
        self._add_batch([rows.before(intact) for rows in batches], events, intact)
        return invalid, intact

    def add_repeated(self, data: memoryview) -> int:
        """Add the first events, as far as they repeat a sequence of earlier ones.

        Args:
            data: a buffer with ``SUFFIX`` bytes after its contents.

        Returns:
            Where the records end that were added.
        """
        batches, count, end = self._shapes.decode_repeated(data)
        if count:
            self._add_batch(batches, {}, count)
        return end

    @property
    def window(self) -> int:
        """Number of bytes to decode before ``add_repeated`` is worth another attempt."""
        return self._shapes.window

    def _add_batch(
        self, batches: list[Rows], events: dict[int, tuple[Any, Place]], intact: int
    ) -> None:
        """Add records that were decoded together, and the events between them."""
        counts = np.zeros(intact, np.intp)  # of each record's points
        appearances: list[tuple[int, int]] = []  # of templates: first record, number
        for rows in batches:
            counts[rows.records] = rows.values.shape[1]
            new = np.flatnonzero(~self._templates.are_known(rows.templates))
            templates, firsts = np.unique(rows.templates[new], return_index=True)
            records = rows.records[new[firsts]]
            appearances += zip(records.tolist(), templates.tolist(), strict=True)
        points: dict[int, list[Point]] = {}
        starts: list[tuple[int, int]] = []
        for record, template in sorted([*appearances, *((record, -1) for record in events)]):
            if template >= 0:
                values = self._shapes.templates[template]
                self._templates.set(template, [self._register_scalar(value) for value in values])
                continue
            event, place = events[record]
            step = self._start_of(event)
            if step is not None:
                starts.append((record, step))
            found = self._points_of(event, place)
            if found:
                points[record] = found
                counts[record] = len(found)
        begins = np.cumsum(counts) - counts
        joined = self._join(batches, points, begins, int(counts.sum()))
        self.points.extend(joined, [(int(begins[record]), step) for record, step in starts])

    def _join(
        self, batches: list[Rows], points: dict[int, list[Point]], begins: IndexArray, size: int
    ) -> Points:
        """Return the points of records in order, each record's from its place in ``begins`` on."""
        if len(batches) == 1 and batches[0].values.shape == (size, 1):
            (rows,) = batches
            tags = self._templates.numbers(rows.templates, 1)
            return Points(tags[:, 0], rows.steps, rows.wall_times, rows.values[:, 0])
        joined = Points.empty(size)
        for rows in batches:
            tags = self._templates.numbers(rows.templates, rows.values.shape[1])
            for column in range(rows.values.shape[1]):
                places = begins.take(rows.records) + column
                joined.tag[places] = tags[:, column]
                joined.step[places] = rows.steps
                joined.wall_time[places] = rows.wall_times
                joined.value[places] = rows.values[:, column]
        for record, found in points.items():
            for index, point in enumerate(found, int(begins[record])):
                for column, number in zip(joined, point, strict=True):
                    column[index] = number
        return joined

    def _start_of(self, event: Any) -> int | None:
        """Return the step at which a run starts again, None for any other event."""
        if event.WhichOneof("what") != "session_log":
            return None
        if event.session_log.status != schema.SessionLog.START:
            return None
        self.contents.start(event.step)
        return int(event.step)

    def _points_of(self, event: Any, place: Place) -> list[Point]:
        """Return the scalars of an event, and note the places of its other contents."""
        what = event.WhichOneof("what")
        if what in _GRAPHS:
            self.graphs.append(_RUN_GRAPH, event, place)
        points = []
        for part, value in enumerate(event.summary.value):
            scalar = self._scalar_of(value)
            if scalar.number is not None:
                tag = self._register_scalar(scalar)
                points.append(Point(tag, event.step, event.wall_time, scalar.number))
            else:
                self._add_content(value, scalar, event, place, part)
        return points

    def _add_content(
        self, value: Any, described: Value, event: Any, place: Place, part: int
    ) -> None:
        content = value.metadata.plugin_data.content
        is_kept = self._register(described)
        if described.plugin == _HPARAMS:  # all is in the metadata
            self.hparams.pop(content, None)
            self.hparams[content] = None
        elif is_kept:
            if described.plugin == _MESH and content:
                self.mesh_data.setdefault(described.tag, content)
            field = _FIELDS.get(value.WhichOneof("value"), 0)
            self.contents.append((described.tag, described.plugin), event, place, part, field)

    def _only_scalars(self, data: bytes) -> list[Value] | None:
        """Return the scalars of an event, None if the data are anything else."""
        try:
            event = schema.Event.FromString(data)
        except (DecodeError, UnicodeDecodeError):  # the latter of pure-Python protobuf
            return None
        values = [self._scalar_of(value) for value in event.summary.value]
        return None if any(value.number is None for value in values) else values

    def _scalar_of(self, value: Any) -> Value:
        tag = value.tag or value.node_name  # TensorFlow 1 writes the latter
        field = value.WhichOneof("value")
        plugin = value.metadata.plugin_data.plugin_name if value.HasField("metadata") else ""
        number = None
        if field == "tensor":
            plugin = plugin or self._plugins.get(tag, "")
        if field == "simple_value":
            number = value.simple_value
        elif field == "tensor" and plugin == _SCALARS:
            number = maybe_number(value.tensor)
        return Value(tag, plugin or _KINDS.get(field, ""), number)

    def _register_scalar(self, value: Value) -> int:
        """Return the number of a scalar's tag, -1 if it is not kept."""
        self._register(value)
        return self.points.number_of(value.tag)

    def _register(self, value: Value) -> bool:
        """Note the tag of a value, and return whether it is kept."""
        if value.tag not in self._plugins:
            self._plugins[value.tag] = value.plugin
            if self._selection.has_tag(value.tag):
                self.tags[value.tag] = value.plugin
        return value.tag in self.tags


class _TemplateNumbers:
    """The numbers of the tags of each template, set in the order of their first appearance."""

    def __init__(self) -> None:
        self._begins = np.empty(0, np.intp)  # positions of the numbers, -1 for unknown
        self._flat = array("q")
        self._as_array = np.empty(0, np.int32)

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
        if len(self._as_array) != len(self._flat):
            self._as_array = np.array(self._flat, np.int32)
        begins = self._begins.take(templates)[:, np.newaxis]
        return self._as_array.take(begins + np.arange(count))
