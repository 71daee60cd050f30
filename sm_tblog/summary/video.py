"""Videos: animated images, which TensorBoard's Images tab plays.

TensorBoard has no tab for videos. It puts the bytes of an image's record into an ``<img>`` element,
and a browser plays every animated image format that it supports. Observed with TensorBoard 2.21 and
Chromium, with the default loader and with ``--load_fast=false``, in the Images and the Time Series
tab:

========  =======================  ================================================================
format    served as                shown
========  =======================  ================================================================
GIF       image/gif                plays; 256 colors per frame, delays in hundredths of a second
APNG      image/png                plays; lossless
WebP      application/octet-stream plays, because browsers detect the type; the smallest
MP4       application/octet-stream a broken image: an ``<img>`` does not play videos
========  =======================  ================================================================

GIF is the default: it is served with its type, and torch's and tensorboardX's writers use it. Each
frame has its own palette: its colors if there are at most 256, otherwise those of an octree.
Compared with the median cut of those writers, an octree takes a tenth of the time, needs up to a
fifth fewer bytes, and has a 1 dB lower signal-to-noise ratio for photographs. Dithering would add
bytes and noise.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.arrays.convert import resolve
from sm_tblog.arrays.pixels import arranged, as_bytes, tiled
from sm_tblog.summary.image import picture_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from sm_tblog._types import UInt8Array
    from sm_tblog.arrays.convert import Deferred

__all__ = ["video_value"]


class _Codec(NamedTuple):
    """An animated format.

    Attributes:
        name: Pillow's name of the format.
        unit: the unit of a frame's duration, in milliseconds.
        min_duration: the shortest duration of a frame, in milliseconds. Browsers replace shorter
            ones by a tenth of a second.
        max_duration: the longest duration of a frame, in milliseconds.
        options: further options for Pillow.
    """

    name: str
    unit: int
    min_duration: int
    max_duration: float
    options: Mapping[str, Any]


_CODECS = {
    "gif": _Codec("GIF", 10, 20, 655_350, {}),
    "apng": _Codec("PNG", 1, 11, 65_535, {}),
    "webp": _Codec(
        "WEBP", 1, 11, math.inf, {"quality": 80, "method": 0, "allow_mixed": True}
    ),  # adds frames
}


def video_value(
    tag: str, pixels: npt.NDArray[Any] | Deferred, layout: str, fps: float, codec: str
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of an animated image, and a warning on what was changed.

    Args:
        tag: the tag, used unchanged.
        pixels: real numbers, as for ``as_bytes``.
        layout: the names of the axes, as returned by ``snapshot_pixels``. Several videos form a
            grid.
        fps: frames per second.
        codec: ``"gif"``, ``"apng"`` or ``"webp"``.
    """
    array = resolve(pixels, tag)
    videos, warning = as_bytes(arranged(array, layout, "NTHWC"))
    frames = tiled(videos, *_grid_shape(len(videos)))
    chosen = _CODECS[codec]
    max_fps = 1000 / chosen.min_duration
    if fps > max_fps:
        slower = f"browsers play at most {max_fps:.0f} frames per second of {codec}, not {fps:g}"
        warning = f"{warning}; {slower}" if warning else slower
    durations = _durations(len(frames), min(fps, max_fps), chosen.unit)
    encoded, cut = _encode(frames, durations, chosen)
    if cut:
        longest = f"{chosen.max_duration / 1000:g} s, the longest that {codec} can show one picture"
        shorter = f"stills are cut to {longest}, so the video is {cut / 1000:g} s shorter"
        warning = f"{warning}; {shorter}" if warning else shorter
    return picture_value(tag, encoded, frames.shape[1:]), warning


def _grid_shape(count: int) -> tuple[int, int]:
    """Return the rows and columns of a grid of videos, as in torch's and tensorboardX's writers.

    The number of cells is the next power of two, with as many columns as rows or twice as many.
    """
    rows = 1 << (count.bit_length() - 1) // 2
    cells = 1 << (count - 1).bit_length()
    return rows, cells // rows


def _durations(frames: int, fps: float, unit: int) -> list[int]:
    """Return each frame's duration in ms, in whole units whose rounding errors do not add up."""
    ends = np.rint(np.arange(frames + 1) * (1000 / fps / unit))
    durations: list[int] = (np.diff(ends).astype(np.int64) * unit).tolist()
    return durations


def _short_stills(pictures: list[Any], durations: list[int], max_duration: float) -> list[int]:
    """Return the frames to keep, so that no picture stands still for longer than possible.

    Pillow makes one frame of equal frames that follow each other, and fails if it is too long.
    """
    if sum(durations) <= max_duration:
        return [*range(len(pictures))]
    kept: list[int] = []
    still = 0
    before = b""
    for i, picture in enumerate(pictures):
        pixels = picture.convert("RGBA").tobytes()  # those of different palettes may be equal
        still = still * (pixels == before) + durations[i]
        before = pixels
        if still <= max_duration:
            kept.append(i)
    return kept


def _encode(frames: UInt8Array, durations: list[int], codec: _Codec) -> tuple[bytes, int]:
    """Return frames of shape (T, H, W, C) as an animation that loops forever.

    Returns:
        The animation, and the milliseconds by which it is shorter than ``durations``.
    """
    from PIL import Image

    channels = frames.shape[-1]
    pictures = [Image.fromarray(frame[..., 0] if channels == 1 else frame) for frame in frames]
    options = dict(codec.options)
    if codec.name == "GIF" and channels in (1, 3):
        pictures = list(map(_with_palette, pictures))
    elif codec.name == "GIF":
        pictures = [picture.convert("RGBA") for picture in pictures]
        options["disposal"] = 2  # else transparent pixels show the previous frame
    kept = _short_stills(pictures, durations, codec.max_duration)
    shown = [durations[i] for i in kept]
    file = io.BytesIO()
    pictures[kept[0]].save(
        file,
        codec.name,
        save_all=True,
        append_images=[pictures[i] for i in kept[1:]],
        duration=shown,
        loop=0,
        **options,
    )
    return file.getvalue(), sum(durations) - sum(shown)


def _with_palette(picture: Any) -> Any:
    """Return a Pillow image with at most 256 colors, unchanged if it has no more."""
    from PIL import Image

    few = picture.getcolors(256) is not None
    method = Image.Quantize.MEDIANCUT if few else Image.Quantize.FASTOCTREE
    return picture.quantize(256, method=method, dither=Image.Dither.NONE)
