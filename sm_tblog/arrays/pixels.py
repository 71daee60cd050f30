"""Convert arrays of any dtype and layout to pixels.

A layout names an array's axes, one letter each, as in ``"NCHW"``: N pictures, T frames, C channels,
H rows, W columns. There are 1 (grey), 2 (grey and alpha), 3 (red, green, blue) or 4 (red, green,
blue, alpha) channels.

``snapshot_pixels`` runs on the calling thread and checks only the shape; the rest runs on the
worker thread.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import snapshot

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog._types import UInt8Array
    from sm_tblog.arrays.convert import Deferred

__all__ = ["arranged", "as_bytes", "check_size", "snapshot_pixels", "tiled"]

_MAX_BYTES = 1 << 30
"""Largest size of a record's pixels, in bytes; encoded, they stay well below protobuf's 2 GiB."""

_CHUNK = 1 << 15
"""Values converted at a time, so that intermediate results stay in the processor's cache."""

_PLAIN_MODES = ("1", "L", "LA", "RGB", "RGBA", "F", "I")
"""Pillow modes that need no conversion, besides those of 16 bits."""


def snapshot_pixels(
    values: Any, tag: str, dataformats: str, letters: str = "NCHW"
) -> tuple[npt.NDArray[Any] | Deferred, str]:
    """Return a copy of pictures that is unaffected by later changes to them, and its layout.

    Args:
        values: an array of any library on any device, a Pillow image, or a list of either.
        tag: the tag, for error messages.
        dataformats: the layout, in any order and case. For an image layout without N, an array with
            one more axis has N first, and an array with one axis less has no C. For a video, an
            array with one axis less has no N, and one with two less has neither N nor C. Ignored
            for Pillow images.
        letters: the letters of a layout, ``"NCHW"`` for images and ``"NTCHW"`` for videos. H, W and
            T are required.

    Raises:
        InvalidTypeError: the values are not real numbers, or the layout is not a str.
        InvalidValueError: the layout is invalid or does not fit the array; or the array is empty,
            or too large for a record.
    """
    array: npt.NDArray[Any] | Deferred
    if _is_pillow(values):
        array, dataformats = _read_pillow(values, tag), "HWC"
    elif isinstance(values, (list, tuple)) and any(map(_is_pillow, values)):
        array = snapshot([_read_pillow(v, tag) if _is_pillow(v) else v for v in values], tag)
        dataformats = "THWC" if "T" in letters else "NHWC"
    else:
        if isinstance(shape := getattr(values, "shape", None), tuple):
            check_size(math.prod(shape), shape, tag)  # before it is copied
        array = snapshot(values, tag)
    check_size(math.prod(array.shape), array.shape, tag)
    return array, _layout(array.shape, dataformats, letters, tag)


def check_size(nbytes: float, shape: tuple[int, ...], tag: str) -> None:
    """Raise an error if there are no pixels, or too many for a record.

    Args:
        nbytes: the size of the pixels, one byte per channel.
        shape: the shape, for error messages.
        tag: the tag, for error messages.

    Raises:
        InvalidValueError: there are no pixels, or too many.
    """
    if not 0 < nbytes <= _MAX_BYTES:
        size = (
            f"{nbytes / _MAX_BYTES:.3g} GiB of pixels, but a record holds 1"
            if nbytes
            else "no pixels"
        )
        message = f"{tag!r}: got shape {shape}: {size}"
        raise InvalidValueError(message)


def _is_pillow(value: Any) -> bool:
    return hasattr(type(value), "getbands")


def _read_pillow(image: Any, tag: str) -> npt.NDArray[Any]:
    """Return a copy of an image's pixels, shape (H, W, C)."""
    mode = image.mode
    try:
        if mode not in _PLAIN_MODES and not mode.startswith("I;16"):
            with_alpha = mode in ("PA", "La", "RGBa") or "transparency" in image.info
            image = image.convert("RGBA" if with_alpha else "RGB")
        pixels = np.array(image)
    except Exception as error:
        message = f"{tag!r}: cannot read the image {image!r:.80}: {error}"
        raise InvalidValueError(message) from error
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _layout(shape: tuple[int, ...], dataformats: Any, letters: str, tag: str) -> str:
    """Return the layout of an array of the given shape."""
    if not isinstance(dataformats, str):
        message = f"{tag!r}: dataformats must be a str such as {letters!r}, got {dataformats!r:.60}"
        raise InvalidTypeError(message)
    axes = dataformats.upper()
    needed = set(letters) - {"N", "C"}
    if not needed <= set(axes) <= set(letters) or len(set(axes)) < len(axes):
        message = (
            f"{tag!r}: dataformats must name each axis by one of the letters {letters}, "
            f"including {', '.join(sorted(needed))}; got {dataformats!r}"
        )
        raise InvalidValueError(message)
    if "T" in letters:
        choices = [axes, axes.replace("N", ""), axes.replace("N", "").replace("C", "")]
    elif "N" in axes:
        choices = [axes]
    else:
        choices = [axes, axes.replace("C", ""), "N" + axes]
    for layout in choices:
        if len(layout) == len(shape) and _channels(layout, shape) <= 4:
            return layout
    wanted = " or ".join(f"({', '.join(layout)})" for layout in dict.fromkeys(choices))
    hint = ""
    if "C" in axes[:-1] and len(shape) in map(len, choices) and shape[-1] <= 4:
        hint = f"; if the channels come last, pass dataformats={axes.replace('C', '') + 'C'!r}"
    message = (
        f"{tag!r}: dataformats={dataformats!r} needs shape {wanted}, C from 1 to 4, "
        f"got {shape}{hint}"
    )
    raise InvalidValueError(message)


def _channels(layout: str, shape: tuple[int, ...]) -> int:
    return shape[layout.index("C")] if "C" in layout else 1


def arranged(array: npt.NDArray[Any], layout: str, wanted: str) -> npt.NDArray[Any]:
    """Return a view with the axes ``wanted``; axes that ``layout`` lacks have length 1."""
    present = array.transpose([layout.index(axis) for axis in wanted if axis in layout])
    view: npt.NDArray[Any] = present[
        tuple(slice(None) if axis in layout else np.newaxis for axis in wanted)
    ]
    return view


def tiled(videos: UInt8Array, rows: int, columns: int) -> UInt8Array:
    """Return one video that shows several in a grid, row by row; unused cells are black.

    Args:
        videos: shape (N, T, H, W, C).
        rows: the number of rows of the grid.
        columns: the number of columns of the grid.

    Returns:
        Shape (T, rows * H, columns * W, C).
    """
    if len(videos) == 1:
        first: UInt8Array = videos[0]
        return first
    _, frames, height, width, channels = videos.shape
    grid = np.zeros((frames, rows * height, columns * width, channels), np.uint8)
    for i, video in enumerate(videos):
        top, left = i // columns * height, i % columns * width
        grid[:, top : top + height, left : left + width] = video
    return grid


def as_bytes(pixels: npt.NDArray[Any]) -> tuple[UInt8Array, str]:
    """Return pixels as bytes, and a warning if some are outside the range of their dtype.

    ==================  ===========================================================================
    uint8               unchanged
    bool                black and white
    uint16              the upper byte of each: 65535 is white
    other integers      0 to 255; a mask of 0 and 1 if none is larger
    floats              0 to 1; 0 to 255 if none is negative and one is above 2
    ==================  ===========================================================================

    A float is multiplied by 255 as a float32 and truncated, not rounded, as in PyTorch's writer, so
    8-bit pixels that were divided by 255 are restored exactly. Values outside the range are
    clipped; NaN is black.
    """
    if pixels.dtype == np.uint8:
        return pixels, ""
    if pixels.dtype.kind == "b":
        return np.where(pixels, np.uint8(255), np.uint8(0)), ""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        return (pixels >> 8).astype(np.uint8), ""
    if pixels.dtype not in (np.float32, np.float64) and pixels.dtype.kind not in "iu":
        pixels = pixels.astype(np.float32)  # float16, bfloat16, float8
    low, high, nan = _range(pixels)
    white, warning = 1.0, ""
    if pixels.dtype.kind in "iu":
        white = 255.0 if high > 1 or low < 0 else 1.0
    elif low >= 0 and high > 2:
        white = 255.0
        warning = f"floats up to {high:.4g} are interpreted as pixels from 0 to 255"
    margin = 0.5 * white / 255  # clipping this much is not visible
    if low < -margin or high > white + margin:
        warning = f"pixels from {low:.4g} to {high:.4g} are clipped to 0 to {white:g}"
    if nan:
        warning += f"{'; ' * bool(warning)}{nan} of {pixels.size} values are NaN and drawn black"
    return _scaled(pixels, 255 / white), warning


def _range(pixels: npt.NDArray[Any]) -> tuple[float, float, int]:
    """Return the minimum and maximum of the finite values, and the number of NaN."""
    low, high = float(pixels.min()), float(pixels.max())
    if math.isfinite(low) and math.isfinite(high):
        return low, high, 0
    finite = pixels[np.isfinite(pixels)]
    nan = int(np.isnan(pixels).sum())
    return (float(finite.min()), float(finite.max()), nan) if finite.size else (0.0, 0.0, nan)


def _scaled(pixels: npt.NDArray[Any], factor: float) -> UInt8Array:
    scaled = np.empty_like(pixels, np.uint8, subok=False)
    chunks = np.nditer(
        [pixels, scaled],
        ["external_loop", "buffered"],
        [["readonly"], ["writeonly"]],
        [np.dtype(np.float32), np.dtype(np.uint8)],
        casting="unsafe",
        buffersize=_CHUNK,
    )
    with chunks, np.errstate(over="ignore"):
        for source, target in chunks:
            values = np.fmax(source * np.float32(factor), np.float32(0))  # fmax makes a NaN 0
            target[...] = np.fmin(values, np.float32(255), out=values)
    return scaled
