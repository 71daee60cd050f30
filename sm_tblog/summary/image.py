"""Images: one, a grid, several of one step, one with boxes drawn on it.

One image is written as a ``Summary.Image``, as the peers write it: TensorBoard's two loaders show
it, and ``EventAccumulator.Images`` gives it back. That message has no room for a second image, so
several samples of a step are written as a string tensor, as TensorFlow 2 writes them: width,
height, and then a PNG each. Both forms may follow each other in one tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidValueError
from sm_tblog.arrays.convert import Deferred, resolve
from sm_tblog.arrays.pixels import arranged, as_bytes, tiled
from sm_tblog.format import schema
from sm_tblog.summary.png import encode_png

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sm_tblog._types import UInt8Array

__all__ = ["boxes_value", "grid_value", "picture_value", "samples_value"]

_PLUGIN = "images"

_GRID_COLUMNS = 8
"""As in the peers' grids."""

_LINE_WIDTH = 2
_LABEL_MARGIN = 1


def picture_value(tag: str, encoded: bytes, shape: Sequence[int]) -> Any:
    """Return a ``Summary.Value`` of one image that is encoded already.

    Args:
        tag: the tag, taken as it is.
        encoded: in a format that browsers show.
        shape: height, width and channels.
    """
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = _PLUGIN
    value.image.height, value.image.width, value.image.colorspace = shape
    value.image.encoded_image_string = encoded
    return value


def grid_value(
    tag: str, pixels: npt.NDArray[Any] | Deferred, layout: str, max_outputs: int | None = None
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of one image, and a remark on its pixels.

    Args:
        tag: the tag, taken as it is.
        pixels: real numbers, as ``as_bytes`` takes them.
        layout: names the axes, as ``snapshot_pixels`` returns it. Several images make a grid of
            eight columns.
        max_outputs: no more than the first so many images.
    """
    images, remark = _as_images(tag, pixels, layout, max_outputs)
    grid = _as_grid(images)
    return picture_value(tag, encode_png(grid), grid.shape), remark


def samples_value(
    tag: str, pixels: npt.NDArray[Any] | Deferred, layout: str, max_outputs: int | None = None
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of several images, each by itself, and a remark on their pixels.

    Takes what ``grid_value`` does.
    """
    images, remark = _as_images(tag, pixels, layout, max_outputs)
    _, height, width, _ = images.shape
    strings = [str(width).encode(), str(height).encode(), *map(encode_png, images)]
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = _PLUGIN
    value.metadata.plugin_data.content = schema.ImagePluginData().SerializeToString()
    value.metadata.data_class = schema.DATA_CLASS_BLOB_SEQUENCE
    value.tensor.dtype = schema.DT_STRING
    value.tensor.tensor_shape.dim.add(size=len(strings))
    value.tensor.string_val.extend(strings)
    return value, remark


def boxes_value(
    tag: str,
    pixels: npt.NDArray[Any] | Deferred,
    layout: str,
    boxes: npt.NDArray[Any] | Deferred,
    labels: Sequence[str] | None,
    rescale: float,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of an image with boxes drawn on it, and a remark on its pixels.

    Args:
        tag: the tag, taken as it is.
        pixels: as for ``grid_value``.
        layout: as for ``grid_value``.
        boxes: left, top, right and bottom of each, in pixels; shape (boxes, 4).
        labels: one for each box.
        rescale: the size to be shown, in sizes of the image.

    Raises:
        InvalidValueError: a box is not finite.
    """
    from PIL import Image

    images, remark = _as_images(tag, pixels, layout)
    grid = _as_grid(images)
    alpha = grid.shape[-1] in (2, 4)
    canvas = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
    canvas = canvas.convert("RGBA" if alpha else "RGB")
    _draw_boxes(tag, canvas, boxes, labels)
    if rescale != 1:
        size = (max(int(canvas.width * rescale), 1), max(int(canvas.height * rescale), 1))
        canvas = canvas.resize(size, Image.Resampling.LANCZOS)
    drawn = np.asarray(canvas)
    return picture_value(tag, encode_png(drawn), drawn.shape), remark


def _as_images(
    tag: str,
    pixels: npt.NDArray[Any] | Deferred,
    layout: str,
    max_outputs: int | None = None,
) -> tuple[UInt8Array, str]:
    """Return bytes of shape (N, H, W, C), and a remark on them."""
    array = resolve(pixels, tag)
    images, remark = as_bytes(arranged(array, layout, "NHWC")[:max_outputs])
    return images, remark


def _as_grid(images: UInt8Array) -> UInt8Array:
    """Return images of shape (N, H, W, C) side by side, shape (H, W, C)."""
    columns = min(len(images), _GRID_COLUMNS)
    grid: UInt8Array = tiled(images[:, np.newaxis], -(-len(images) // columns), columns)[0]
    return grid


def _draw_boxes(
    tag: str,
    canvas: Any,
    boxes: npt.NDArray[Any] | Deferred,
    labels: Sequence[str] | None,
) -> None:
    """Draw red boxes on a Pillow image, with each label at the box's left bottom corner."""
    from PIL import ImageDraw

    corners = boxes.array() if isinstance(boxes, Deferred) else boxes
    corners = corners.reshape(-1, 4).astype(np.float64)
    if not np.isfinite(corners).all():
        message = f"{tag!r}: the corners of boxes are finite numbers, got {corners.tolist()!r:.80}"
        raise InvalidValueError(message)
    size = np.array([canvas.width, canvas.height] * 2)
    draw = ImageDraw.Draw(canvas)
    for i, (left, top, right, bottom) in enumerate(np.clip(corners, -size, 2 * size).tolist()):
        outline = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
        draw.line(outline, fill="red", width=_LINE_WIDTH)
        ink = _as_ink(labels[i]) if labels else None
        if ink is not None:
            x, y = int(left), int(bottom) - ink.height - 2 * _LABEL_MARGIN
            draw.rectangle([x, y, x + ink.width + 2 * _LABEL_MARGIN, bottom], fill="red")
            canvas.paste("black", (x + _LABEL_MARGIN, y + _LABEL_MARGIN), ink)


def _as_ink(text: str) -> Any:
    """Return a line of text as a Pillow image of what is printed, None if that is nothing.

    What Pillow's own font does not have, beyond ASCII, is a question mark.
    """
    from PIL import Image, ImageDraw

    line = " ".join(text.encode("ascii", "replace").decode().split())
    page = Image.new("L", (16 * len(line) + 16, 32))
    ImageDraw.Draw(page).text((0, 0), line, fill=255)
    bounds = page.getbbox()
    return page.crop(bounds) if bounds else None
