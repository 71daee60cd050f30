"""Images: a single image, a grid, several samples of one step, or an image with boxes.

A single image is written as a ``Summary.Image``, as in torch's and tensorboardX's writers: both
TensorBoard loaders show it, and ``EventAccumulator.Images`` returns it. That message holds only one
image, so several samples of a step are written as a string tensor, as in TensorFlow 2: width,
height, then one PNG per sample. A tag may contain both forms.
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
"""As in the grids of torch's and tensorboardX's writers."""

_LINE_WIDTH = 2
_LABEL_MARGIN = 1


def picture_value(tag: str, encoded: bytes, shape: Sequence[int]) -> Any:
    """Return a ``Summary.Value`` of one image that is already encoded.

    Args:
        tag: the tag, used unchanged.
        encoded: the image in a format that browsers show.
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
    """Return a ``Summary.Value`` of one image, and a warning on its pixels.

    Args:
        tag: the tag, used unchanged.
        pixels: real numbers, as for ``as_bytes``.
        layout: the names of the axes, as returned by ``snapshot_pixels``. Several images form a
            grid of eight columns.
        max_outputs: the maximum number of images, the first ones; None for all.
    """
    images, warning = _as_images(tag, pixels, layout, max_outputs)
    grid = _as_grid(images)
    return picture_value(tag, encode_png(grid), grid.shape), warning


def samples_value(
    tag: str, pixels: npt.NDArray[Any] | Deferred, layout: str, max_outputs: int | None = None
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of several separate images, and a warning on their pixels.

    The arguments are those of ``grid_value``.
    """
    images, warning = _as_images(tag, pixels, layout, max_outputs)
    _, height, width, _ = images.shape
    strings = [str(width).encode(), str(height).encode(), *map(encode_png, images)]
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = _PLUGIN
    value.metadata.plugin_data.content = schema.ImagePluginData().SerializeToString()
    value.metadata.data_class = schema.DATA_CLASS_BLOB_SEQUENCE
    value.tensor.dtype = schema.DT_STRING
    value.tensor.tensor_shape.dim.add(size=len(strings))
    value.tensor.string_val.extend(strings)
    return value, warning


def boxes_value(
    tag: str,
    pixels: npt.NDArray[Any] | Deferred,
    layout: str,
    boxes: npt.NDArray[Any] | Deferred,
    labels: Sequence[str] | None,
    rescale: float,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of an image with boxes drawn on it, and a warning on its pixels.

    Args:
        tag: the tag, used unchanged.
        pixels: as for ``grid_value``.
        layout: as for ``grid_value``.
        boxes: left, top, right and bottom of each box, in pixels; shape (boxes, 4), and any further
            columns are ignored.
        labels: one label for each box; None for no labels.
        rescale: the factor by which the image is resized.

    Raises:
        InvalidValueError: the corners of a box are not finite.
    """
    from PIL import Image

    images, warning = _as_images(tag, pixels, layout)
    grid = _as_grid(images)
    alpha = grid.shape[-1] in (2, 4)
    canvas = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
    canvas = canvas.convert("RGBA" if alpha else "RGB")
    _draw_boxes(tag, canvas, boxes, labels)
    if rescale != 1:
        size = (max(int(canvas.width * rescale), 1), max(int(canvas.height * rescale), 1))
        canvas = canvas.resize(size, Image.Resampling.LANCZOS)
    drawn = np.asarray(canvas)
    return picture_value(tag, encode_png(drawn), drawn.shape), warning


def _as_images(
    tag: str,
    pixels: npt.NDArray[Any] | Deferred,
    layout: str,
    max_outputs: int | None = None,
) -> tuple[UInt8Array, str]:
    """Return pixels as bytes of shape (N, H, W, C), and a warning on them."""
    array = resolve(pixels, tag)
    images, warning = as_bytes(arranged(array, layout, "NHWC")[:max_outputs])
    return images, warning


def _as_grid(images: UInt8Array) -> UInt8Array:
    """Return a grid, shape (H, W, C), of images of shape (N, H, W, C)."""
    columns = min(len(images), _GRID_COLUMNS)
    grid: UInt8Array = tiled(images[:, np.newaxis], -(-len(images) // columns), columns)[0]
    return grid


def _draw_boxes(
    tag: str,
    canvas: Any,
    boxes: npt.NDArray[Any] | Deferred,
    labels: Sequence[str] | None,
) -> None:
    """Draw red boxes on a Pillow image, each with its label at the bottom left corner."""
    from PIL import ImageDraw

    corners = boxes.array() if isinstance(boxes, Deferred) else boxes
    corners = corners[..., :4].reshape(-1, 4).astype(np.float64)
    if not np.isfinite(corners).all():
        message = f"{tag!r}: the corners of boxes must be finite, got {corners.tolist()!r:.80}"
        raise InvalidValueError(message)
    size = np.array([canvas.width, canvas.height] * 2)
    draw = ImageDraw.Draw(canvas)
    for i, (left, top, right, bottom) in enumerate(np.clip(corners, -size, 2 * size).tolist()):
        outline = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
        draw.line(outline, fill="red", width=_LINE_WIDTH)
        mask = _text_mask(labels[i]) if labels else None
        if mask is not None:
            x, y = int(left), int(bottom) - mask.height - 2 * _LABEL_MARGIN
            draw.rectangle([x, y, x + mask.width + 2 * _LABEL_MARGIN, bottom], fill="red")
            canvas.paste("black", (x + _LABEL_MARGIN, y + _LABEL_MARGIN), mask)


def _text_mask(text: str) -> Any:
    """Return a line of text as a cropped Pillow mask; None if it has no visible pixels.

    Pillow's own font has only ASCII; other characters become question marks.
    """
    from PIL import Image, ImageDraw

    line = " ".join(text.encode("ascii", "replace").decode().split())
    page = Image.new("L", (16 * len(line) + 16, 32))
    ImageDraw.Draw(page).text((0, 0), line, fill=255)
    bounds = page.getbbox()
    return page.crop(bounds) if bounds else None
