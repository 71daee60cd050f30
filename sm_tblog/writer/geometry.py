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
    """What logs meshes."""

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

        The arrays are copied, on their own device. That faces and colors are in their ranges is
        found out by the worker: a mesh where they are not is left out, counted and said.

        Args:
            tag: the mesh's name, taken as it is.
            vertices: real numbers of shape (vertices, 3), or (batch, vertices, 3) for several
                meshes side by side.
            colors: of the vertices, red, green and blue; shaped like ``vertices``. Integers from
                0 to 255, or floats from 0 to 1; floats of which one is above 2 are taken as from
                0 to 255.
            faces: triangles, as positions of vertices, counted from 0; shape (faces, 3) or
                (batch, faces, 3). Without faces it is a point cloud. Colors and faces without a
                batch dimension hold for every mesh of the batch.
            config_dict: the scene for THREE.js: ``camera``, ``lights`` and ``material``, each with
                a class ``cls`` and its arguments.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag or step is of the wrong kind, an array does not hold real
                numbers, or ``config_dict`` is not a dict that JSON can hold.
            InvalidValueError: the shapes are not as above, or ``config_dict`` holds NaN.
        """
        if self._enabled:
            check_tag(tag)
            points = snapshot(vertices, tag)
            hues = None if colors is None else snapshot(colors, tag)
            triangles = None if faces is None else snapshot(faces, tag)
            _check_shapes(tag, points, hues, triangles)
            args = (points, triangles, hues, _as_json(tag, config_dict))
            nbytes = sum(array.nbytes for array in (points, hues, triangles) if array is not None)
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
            message = (
                f"{tag!r}: {name} have shape ({name}, 3) or (batch, {name}, 3), got {array.shape}"
            )
            raise InvalidValueError(message)
        if array.ndim == 3 and array.shape[0] not in (1, batch):
            message = f"{tag!r}: {array.shape[0]} meshes' {name} for {batch} meshes' vertices"
            raise InvalidValueError(message)
    if colors is not None and colors.shape[-2] != vertices.shape[-2]:
        message = (
            f"{tag!r}: each vertex has a color, got vertices of shape {vertices.shape} and colors "
            f"of shape {colors.shape}"
        )
        raise InvalidValueError(message)


def _as_json(tag: str, config: Any) -> str:
    if config is not None and not isinstance(config, dict):
        message = f"{tag!r}: config_dict is a dict, got {config!r:.60}"
        raise InvalidTypeError(message)
    try:
        return json.dumps(config or {}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"{tag!r}: JSON cannot hold config_dict: {error}"
        kind = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind(message) from error
