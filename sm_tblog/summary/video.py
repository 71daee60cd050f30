"""Videos: animated images, which TensorBoard's Images tab plays.

TensorBoard has no tab for videos. It puts what an image's record holds into an ``<img>`` element,
and a browser plays whatever animated format it knows as an image. Seen with TensorBoard 2.21 and
Chromium, with the default loader and with ``--load_fast=false``, in the Images and in the Time
Series tab:

========  =======================  ================================================================
format    served as                shown
========  =======================  ================================================================
GIF       image/gif                plays; 256 colors a frame, delays in hundredths of a second
APNG      image/png                plays; without loss
WebP      application/octet-stream plays, as browsers look at the bytes; the smallest
MP4       application/octet-stream a broken image: an ``<img>`` plays no films
========  =======================  ================================================================

GIF is the default: it is served with its type, and what the peers write. Each frame has a palette
of its own: its colors, if they are 256 at most, otherwise those of an octree. Beside the median cut
that the peers have, that is a tenth of the time, up to a fifth fewer bytes, and for photographs
1 dB less of likeness to the original. Dithering would add bytes and noise.
"""

from __future__ import annotations

import io
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
        name: Pillow's.
        unit: milliseconds in which it counts a frame's time.
        shortest: milliseconds. Browsers take a tenth of a second for what is shorter.
        options: for Pillow.
    """

    name: str
    unit: int
    shortest: int
    options: Mapping[str, Any]


_CODECS = {
    "gif": _Codec("GIF", 10, 20, {}),
    "apng": _Codec("PNG", 1, 11, {}),
    "webp": _Codec("WEBP", 1, 11, {"quality": 80, "method": 0, "allow_mixed": True}),
}


def video_value(
    tag: str, pixels: npt.NDArray[Any] | Deferred, layout: str, fps: float, codec: str
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of an animated image, and a remark on what is not as given.

    Args:
        tag: the tag, taken as it is.
        pixels: real numbers, as ``as_bytes`` takes them.
        layout: names the axes, as ``snapshot_pixels`` returns it. Several videos are shown side
            by side.
        fps: frames a second.
        codec: ``"gif"``, ``"apng"`` or ``"webp"``.
    """
    array = resolve(pixels, tag)
    videos, remark = as_bytes(arranged(array, layout, "NTHWC"))
    frames = tiled(videos, *_grid_shape(len(videos)))
    chosen = _CODECS[codec]
    most = 1000 / chosen.shortest
    if fps > most:
        slower = f"browsers play at most {most:.0f} frames a second as {codec}, not {fps:g}"
        remark = f"{remark}; {slower}" if remark else slower
    encoded = _encode(frames, _durations(len(frames), min(fps, most), chosen.unit), chosen)
    return picture_value(tag, encoded, frames.shape[1:]), remark


def _grid_shape(count: int) -> tuple[int, int]:
    """Return rows and columns of the grid in which the peers show so many videos.

    It has as many places as the next power of two, and as many columns as rows or twice as many.
    """
    rows = 1 << (count.bit_length() - 1) // 2
    places = 1 << (count - 1).bit_length()
    return rows, places // rows


def _durations(frames: int, fps: float, unit: int) -> list[int]:
    """Return each frame's time in ms, whole units that neither lag behind nor run ahead."""
    ends = np.rint(np.arange(frames + 1) * (1000 / fps / unit))
    durations: list[int] = (np.diff(ends).astype(np.int64) * unit).tolist()
    return durations


def _encode(frames: UInt8Array, durations: list[int], codec: _Codec) -> bytes:
    """Return frames of shape (T, H, W, C) as an animation that begins again at its end."""
    from PIL import Image

    channels = frames.shape[-1]
    pictures = [Image.fromarray(frame[..., 0] if channels == 1 else frame) for frame in frames]
    options = dict(codec.options)
    if codec.name == "GIF" and channels in (1, 3):
        pictures = list(map(_with_palette, pictures))
    elif codec.name == "GIF":
        pictures = [picture.convert("RGBA") for picture in pictures]
        options["disposal"] = 2  # else a frame shows the one before it through its holes
    file = io.BytesIO()
    pictures[0].save(
        file,
        codec.name,
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        **options,
    )
    return file.getvalue()


def _with_palette(picture: Any) -> Any:
    """Return a Pillow image of 256 colors at most, the same ones if there are no more."""
    from PIL import Image

    few = picture.getcolors(256) is not None
    method = Image.Quantize.MEDIANCUT if few else Image.Quantize.FASTOCTREE
    return picture.quantize(256, method=method, dither=Image.Dither.NONE)
