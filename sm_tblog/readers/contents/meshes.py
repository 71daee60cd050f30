"""Meshes, joined from the tags of their vertices, faces and colors."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.format import schema
from sm_tblog.readers.contents.lazy import Contents, LazyValues

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from sm_tblog._types import IndexArray

__all__ = ["Mesh", "joined_mesh", "part_of"]


class Mesh(NamedTuple):
    """A batch of meshes or point clouds.

    Attributes:
        vertices: shape (batch, vertices, 3); float32 by all known writers.
        faces: indices of vertices; shape (batch, faces, 3); int32, by torch's and tensorboardX's
            writers float32; None for a point cloud.
        colors: a color of each vertex, from 0 to 255; shape (batch, vertices, 3); uint8, by
            torch's and tensorboardX's writers float32; None if there are none.
        config: the configuration of the scene, in JSON.
    """

    vertices: npt.NDArray[Any] | None
    faces: npt.NDArray[Any] | None
    colors: npt.NDArray[Any] | None
    config: str


class _Meshes(LazyValues[Mesh]):
    """Meshes whose parts are values of other sequences.

    Args:
        parts: for each part that occurs, its values and the row of each mesh, -1 for none.
        size: the number of meshes.
        config: see ``Mesh``.
    """

    def __init__(
        self, parts: dict[str, tuple[LazyValues[Any], IndexArray]], size: int, config: str
    ) -> None:
        self._parts = parts
        self._size = size
        self._config = config

    def __len__(self) -> int:
        return self._size

    def _take(self, rows: IndexArray) -> _Meshes:
        parts = {name: (values, indices[rows]) for name, (values, indices) in self._parts.items()}
        return _Meshes(parts, len(rows), self._config)

    def _at(self, row: int, *, ahead: bool = False) -> Mesh:
        found: dict[str, Any] = {}
        for name, (values, indices) in self._parts.items():
            if indices[row] >= 0:
                found[name] = values._at(int(indices[row]), ahead=ahead)  # noqa: SLF001 - its kind
        return Mesh(found.get("VERTEX"), found.get("FACE"), found.get("COLOR"), self._config)


def part_of(content: bytes) -> tuple[str, str, str]:
    """Return the mesh's name, the part and the configuration, of the content of a plugin's data.

    Raises:
        DecodeError: it is not of the mesh plugin.
    """
    data = schema.MeshPluginData.FromString(content)
    kinds = schema.MeshPluginData.ContentType
    part = kinds.Name(data.content_type) if data.content_type in kinds.values() else "UNDEFINED"
    return data.name, part, data.json_config


def joined_mesh(parts: Mapping[str, Contents], config: str) -> Contents:
    """Return the meshes of one name.

    The parts of equal step belong together; of several at one step, the first of each, and so on.

    Args:
        parts: the values of ``"VERTEX"``, ``"FACE"`` and ``"COLOR"``, as far as there are any.
        config: see ``Mesh``.
    """
    leading = next(parts[name] for name in ("VERTEX", "FACE", "COLOR") if name in parts)
    keys = _occurrences(leading)
    joined = {}
    for name, contents in parts.items():
        rows = {key: row for row, key in enumerate(_occurrences(contents))}
        indices = np.array([rows.get(key, -1) for key in keys], np.intp)
        joined[name] = contents.value, indices
    return Contents(leading.step, leading.wall_time, _Meshes(joined, len(keys), config))


def _occurrences(contents: Contents) -> list[tuple[int, int]]:
    """Return for each value its step, and the number of earlier values at that step."""
    seen: Counter[int] = Counter()
    keys = []
    for step in contents.step.tolist():
        keys.append((step, seen[step]))
        seen[step] += 1
    return keys
