"""Meshes and point clouds: one tag each for vertices, faces and colors.

TensorBoard's plugin reads float32 vertices, int32 faces and uint8 colors, each with a batch
dimension, and combines them by the name in their metadata (tensorboard/plugins/mesh/metadata.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidValueError
from sm_tblog.arrays.convert import resolve
from sm_tblog.format import schema
from sm_tblog.summary.tensor import tensor_proto

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog._types import UInt8Array
    from sm_tblog.arrays.convert import Deferred

__all__ = ["mesh_values"]

_MAX_UNIT_COLOR = 2.0
"""If no float is larger than this, colors range from 0 to 1, and any excess over 1 is a rounding
error; on a scale from 0 to 255 all of them would be black."""

_MAX_VERTICES = 1 << 16
"""The number of vertices that TensorBoard 2.21 can index in faces: it stores them in 16 bits."""


def mesh_values(
    tag: str,
    vertices: npt.NDArray[Any] | Deferred,
    faces: npt.NDArray[Any] | Deferred | None,
    colors: npt.NDArray[Any] | Deferred | None,
    config: str,
) -> tuple[list[Any], str]:
    """Return a ``Summary.Value`` of the mesh plugin for each array, and a warning.

    Args:
        tag: the mesh's name, used unchanged.
        vertices: real numbers of shape (vertices, 3) or (batch, vertices, 3).
        faces: indices of vertices, from 0; shape (faces, 3), for the whole batch, or
            (batch, faces, 3). None for a point cloud.
        colors: of the shape of ``vertices``, or (vertices, 3) for the whole batch. Integers from 0
            to 255, or floats from 0 to 1; if a float is above 2, floats from 0 to 255.
        config: the scene's configuration in JSON.

    Raises:
        InvalidTypeError: an array from a device does not hold real numbers.
        InvalidValueError: a face refers to a vertex that does not exist, or a color is not from 0
            to 255.
    """
    points = _as_vertices(_on_host(vertices, tag))
    batch, count, _ = points.shape
    parts: dict[str, npt.NDArray[Any]] = {"VERTEX": points}
    warnings = []
    if faces is not None:
        parts["FACE"] = _as_faces(_on_host(faces, tag), count)
        if count > _MAX_VERTICES:
            warnings.append(
                "TensorBoard incorrectly draws faces that use vertices beyond the first "
                f"{_MAX_VERTICES:,} of {count:,}"
            )
    if colors is not None:
        parts["COLOR"] = _as_colors(_on_host(colors, tag))
    if bad := int(np.isnan(points).any(axis=-1).sum()):
        warnings.append(
            f"{bad:,} of {batch * count:,} vertices are NaN or infinite and are not drawn"
        )
    kinds = {name: schema.MeshPluginData.ContentType.Value(name) for name in parts}
    components = sum(1 << kind for kind in kinds.values())
    values = []
    for name, array in parts.items():
        whole = np.broadcast_to(array, (batch, *array.shape[-2:]))
        value = schema.Value(tag=f"{tag}_{name}", tensor=tensor_proto(whole))
        value.metadata.data_class = schema.DATA_CLASS_TENSOR
        value.metadata.plugin_data.plugin_name = "mesh"
        value.metadata.plugin_data.content = schema.MeshPluginData(
            name=tag,
            content_type=kinds[name],
            json_config=config,
            shape=whole.shape,
            components=components,
        ).SerializeToString()
        values.append(value)
    return values, "; ".join(warnings)


def _on_host(values: npt.NDArray[Any] | Deferred, tag: str) -> npt.NDArray[Any]:
    return resolve(values, tag)


def _as_vertices(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a batch with infinities replaced by NaN: with one, TensorBoard draws nothing."""
    with np.errstate(over="ignore"):
        vertices = values.astype(np.float32)
    vertices[np.isinf(vertices)] = np.nan
    return vertices[None] if vertices.ndim == 2 else vertices


def _as_faces(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.int32]:
    good = (values >= 0) & (values < count) & (values == np.floor(values))
    if not good.all():
        message = (
            f"a face has three indices of vertices, 0 to {count - 1}; {values[~good][0]} is not one"
        )
        raise InvalidValueError(message)
    return values.astype(np.int32)


def _as_colors(values: npt.NDArray[Any]) -> UInt8Array:
    if values.dtype.kind in "iu":
        if values.size and not 0 <= values.min() <= values.max() <= 255:
            message = f"colors must be from 0 to 255, got {values.min()} to {values.max()}"
            raise InvalidValueError(message)
        return values.astype(np.uint8)
    with np.errstate(over="ignore"):
        colors = values.astype(np.float32)
    if colors.max(initial=0, where=np.isfinite(colors)) <= _MAX_UNIT_COLOR:
        colors *= 255
    return np.rint(np.nan_to_num(colors)).clip(0, 255).astype(np.uint8)
