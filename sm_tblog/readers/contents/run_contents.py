"""What a run contains besides scalars, as far as it has been read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sm_tblog.readers.contents import graphs, media, values
from sm_tblog.readers.contents.lazy import Contents, StoredValues, checked
from sm_tblog.readers.contents.meshes import joined_mesh, part_of
from sm_tblog.readers.tag_dict import TagDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.readers.columns import Columns
    from sm_tblog.readers.content_index import Places
    from sm_tblog.readers.event_reader import EventReader

    Decoder = Callable[[Any, str], Any]

__all__ = ["RunContents"]

_TENSOR = 8
"""The number of the field ``tensor`` in ``Summary.Value``."""

DECODERS: dict[str, Decoder] = {
    "histograms": values.histogram_of,
    "images": media.images_of,
    "audio": media.audio_of,
    "text": values.texts_of,
    "pr_curves": values.pr_curve_of,
    "custom_scalars": values.layout_of,
}
"""How the values of each plugin are decoded."""


class RunContents:
    """The contents of one run. Places that are read later are not part of it.

    Args:
        columns: what has been read.
        reader: reads the events.
    """

    def __init__(self, columns: Columns, reader: EventReader) -> None:
        self._columns = columns
        self._reader = reader
        self._by_plugin: dict[str, dict[str, Contents]] = {}

    def of_plugin(self, plugin: str) -> dict[str, Contents]:
        """Return the values of each tag that a plugin shows."""
        if plugin not in self._by_plugin:
            self._by_plugin[plugin] = TagDict(
                {
                    tag: self._contents(tag, places, DECODERS[plugin])
                    for (tag, shown_by), places in self._places.items()
                    if shown_by == plugin
                }
            )
        return self._by_plugin[plugin]

    @cached_property
    def tensors(self) -> dict[str, Contents]:
        """The tensors of each tag, of any plugin."""
        found: dict[str, Contents] = TagDict()
        for (tag, _), places in self._places.items():
            rows = places.field == _TENSOR
            if rows.any():
                found[tag] = self._contents(tag, places.take(rows), values.tensor_of)
        return found

    @cached_property
    def meshes(self) -> dict[str, Contents]:
        """The meshes of each name."""
        parts: dict[str, dict[str, Contents]] = {}
        configs: dict[str, str] = {}
        for (tag, plugin), places in self._places.items():
            if plugin != "mesh" or tag not in self._columns.mesh_data:
                continue
            data = self._columns.mesh_data[tag]
            name, part, config = checked(lambda data, _: part_of(data), data, repr(tag))
            contents = self._contents(tag, places, values.tensor_of)
            if part != "UNDEFINED":
                parts.setdefault(name, {}).setdefault(part, contents)
                configs.setdefault(name, config)
        return TagDict({name: joined_mesh(parts[name], configs[name]) for name in parts})

    @cached_property
    def graphs(self) -> dict[str, Contents]:
        """The graph of the run, and those with tags."""
        found: dict[str, Contents] = TagDict()
        for (name, _), places in self._columns.graphs.places().items():
            found[name] = self._contents(name, places, graphs.graph_of_event)
        for (tag, plugin), places in self._places.items():
            if plugin in graphs.PLUGINS:
                found[tag] = self._contents(tag, places, graphs.graph_of_value)
        return found

    @cached_property
    def _places(self) -> dict[tuple[str, str], Places]:
        places = self._columns.contents.places()
        return {key: rows for key, rows in places.items() if len(rows.step)}

    def _contents(self, tag: str, places: Places, decode: Decoder) -> Contents:
        lazy = StoredValues(self._reader, tag, places, decode)
        return Contents(places.step, places.wall_time, lazy)
