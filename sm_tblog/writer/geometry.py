"""Geometry: meshes and point clouds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import snapshot
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog.arrays.convert import Deferred

__all__ = ["GeometryMethods"]

_build_mesh = builder("mesh.mesh_values")


class GeometryMethods(BaseWriter):
    """Methods that log meshes."""

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: dict[str, Any] | None = None,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log meshes or point clouds for the Mesh tab.

        The call copies the arrays, on their own devices. The worker thread checks the ranges of
        faces and colors: a mesh with values out of range is left out, counted and logged.

        Args:
            tag: the mesh's name, used as is.
            vertices: real numbers of shape (vertices, 3), or (batch, vertices, 3) for several
                meshes side by side.
            colors: red, green and blue of each vertex; the shape of ``vertices``. Integers from 0
                to 255, or floats from 0 to 1; if any float is above 2, floats are interpreted as 0
                to 255.
            faces: triangles, as indices of vertices counted from 0; shape (faces, 3) or (batch,
                faces, 3). Without faces, a point cloud is shown. Colors and faces without a batch
                dimension apply to every mesh of the batch.
            config_dict: the scene for THREE.js: ``camera``, ``lights`` and ``material``, each with
                its class name as ``cls`` and its arguments.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag or step has the wrong type, an array does not contain real
                numbers, or ``config_dict`` is not a dict that can be encoded as JSON.
            InvalidValueError: the shapes are not as above, or ``config_dict`` contains NaN.
        """
        if self._enabled:
            check_tag(tag)
            vertex_copy = snapshot(vertices, tag)
            color_copy = None if colors is None else snapshot(colors, tag)
            face_copy = None if faces is None else snapshot(faces, tag)
            _check_shapes(tag, vertex_copy, color_copy, face_copy)
            args = (vertex_copy, face_copy, color_copy, _as_json(tag, config_dict))
            copies = (vertex_copy, color_copy, face_copy)
            nbytes = sum(copy.nbytes for copy in copies if copy is not None)
            self._put(tag, _build_mesh, args, global_step, walltime, nbytes)


def _check_shapes(
    tag: str,
    vertices: npt.NDArray[Any] | Deferred,
    colors: npt.NDArray[Any] | Deferred | None,
    faces: npt.NDArray[Any] | Deferred | None,
) -> None:
    batch = vertices.shape[0] if vertices.ndim == 3 else 1
    for name, array in (("vertices", vertices), ("colors", colors), ("faces", faces)):
        if array is None:
            continue
        if array.ndim not in (2, 3) or array.shape[-1] != 3:
            shapes = f"({name}, 3) or (batch, {name}, 3)"
            message = f"{tag!r}: {name} must have shape {shapes}, got {array.shape}"
            raise InvalidValueError(message)
        if array.ndim == 3 and array.shape[0] not in (1, batch):
            message = f"{tag!r}: got {name} of {array.shape[0]} meshes and vertices of {batch}"
            raise InvalidValueError(message)
    if colors is not None and colors.shape[-2] != vertices.shape[-2]:
        message = (
            f"{tag!r}: each vertex must have a color, got vertices of shape {vertices.shape} and "
            f"colors of shape {colors.shape}"
        )
        raise InvalidValueError(message)


def _as_json(tag: str, config: Any) -> str:
    if config is not None and not isinstance(config, dict):
        message = f"{tag!r}: config_dict must be a dict, got {config!r:.60}"
        raise InvalidTypeError(message)
    try:
        return json.dumps(config or {}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{tag!r}: config_dict cannot be encoded as JSON: {error}"
        kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind(message) from error
