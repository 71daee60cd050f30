"""Media: images, videos and sounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from sm_tblog.arrays.convert import as_number, snapshot
from sm_tblog.arrays.pixels import check_size, snapshot_pixels
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_pillow, check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MediaMethods"]

_build_grid = builder("image.grid_value")
_build_samples = builder("image.samples_value")
_build_boxes = builder("image.boxes_value")
_build_video = builder("video.video_value")
_build_audio = builder("audio.audio_value")

_CODECS = ("gif", "apng", "webp")
_FILMS = ("mp4", "h264", "webm", "avi", "mov")

_SLOWEST = 0.02
"""Frames a second. APNG counts a frame's time in at most 65,535 ms."""

_MOST_CHANNELS = 8
_HIGHEST_RATE = 1 << 28
"""A WAV file counts bytes a second with 32 bits."""

_LARGEST_SOUND = 1 << 30
"""Bytes: encoded, they stay well below protobuf's 2 GiB."""


class MediaMethods(BaseWriter):
    """What logs images, videos and sounds."""

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Log an image.

        The pixels are copied, on their own device; encoding is the worker's.

        Args:
            tag: the image's name, taken as it is.
            img_tensor: pixels of any library and device, or a Pillow image. 1, 2, 3 or 4 channels
                are grey, grey and alpha, RGB and RGBA. uint8 is taken as it is, bool as black and
                white, uint16 over its whole range, other integers from 0 to 255 or, if none is
                above 1, as black and white; floats from 0 to 1, or from 0 to 255 if none is
                negative and one is above 2. What lies outside is clipped, and NaN is black.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            dataformats: what the axes are: ``"CHW"``, ``"HWC"``, ``"HW"`` or another order of
                these letters. An array of two axes may be given as HW whatever it says. With an N,
                or with an axis more in front, it is a batch and makes a grid, as in
                ``add_images``. A Pillow image needs none.

        Raises:
            InvalidTypeError: the tag or step is of the wrong kind, or ``img_tensor`` not an array
                of real numbers.
            InvalidValueError: the shape does not fit ``dataformats``, or there are no pixels or
                more than 1 GiB.
            MissingDependencyError: Pillow is not installed.
        """
        if self._enabled:
            self._add_pixels(_build_grid, tag, img_tensor, dataformats, global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
        *,
        grid: bool = True,
        max_outputs: int | None = None,
    ) -> None:
        """Log a batch of images.

        Args:
            tag: the batch's name, taken as it is.
            img_tensor: as in ``add_image``, with a batch axis; or a list of such images, equal in
                size, whose ``dataformats`` need not name it.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            dataformats: what the axes are: ``"NCHW"``, ``"NHWC"``, ``"NHW"`` or another order.
            grid: show the batch as one image, in rows of eight, as the peers do. ``False`` shows
                each image by itself, as samples of the tag.
            max_outputs: log no more than the first so many images.

        Raises:
            InvalidTypeError: as in ``add_image``.
            InvalidValueError: as in ``add_image``, or ``max_outputs`` is not a positive int.
            MissingDependencyError: Pillow is not installed.
        """
        if self._enabled:
            check_tag(tag)
            if max_outputs is not None and (type(max_outputs) is not int or max_outputs < 1):
                message = f"{tag!r}: max_outputs is a positive int, got {max_outputs!r:.60}"
                raise InvalidValueError(message)
            build = _build_grid if grid else _build_samples
            self._add_pixels(
                build, tag, img_tensor, dataformats, global_step, walltime, max_outputs
            )

    def _add_pixels(
        self,
        build: Any,
        tag: str,
        values: Any,
        dataformats: str,
        step: Any,
        walltime: float | None,
        max_outputs: int | None = None,
    ) -> None:
        check_tag(tag)
        check_pillow("logging images")
        pixels, layout = snapshot_pixels(values, tag, dataformats)
        self._put(tag, build, (pixels, layout, max_outputs), step, walltime, pixels.nbytes)

    def add_image_with_boxes(
        self,
        tag: str,
        img_tensor: Any,
        box_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        rescale: float | str = 1,
        dataformats: str = "CHW",
        labels: str | Sequence[str] | None = None,
    ) -> None:
        """Log an image with boxes drawn on it, as of detected objects.

        tensorboardX's order of the last arguments, ``dataformats, labels``, is understood too.

        Args:
            tag: the image's name, taken as it is.
            img_tensor: as in ``add_image``.
            box_tensor: left, top, right and bottom of each box, in pixels; shape (boxes, 4).
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            rescale: the size to be shown, in sizes of the image. A str is taken as ``dataformats``.
            dataformats: as in ``add_image``.
            labels: one for each box. Characters beyond ASCII are shown as question marks.

        Raises:
            InvalidTypeError: the tag or step is of the wrong kind, or an array does not hold real
                numbers.
            InvalidValueError: as in ``add_image``; the boxes are not of that shape; there are
                more or fewer labels; or ``rescale`` is not positive.
            MissingDependencyError: Pillow is not installed.
        """
        if self._enabled:
            check_tag(tag)
            if isinstance(rescale, str):  # tensorboardX has dataformats and labels here
                labels = labels if dataformats == "CHW" else dataformats
                dataformats = rescale
            scale = 1.0 if isinstance(rescale, str) else float(as_number(rescale, tag))
            if not 0 < scale < math.inf:
                message = f"{tag!r}: rescale is a positive number, got {rescale!r:.60}"
                raise InvalidValueError(message)
            check_pillow("add_image_with_boxes")
            names = _as_names(labels, tag)
            boxes = snapshot(box_tensor, tag)
            _check_boxes(boxes.shape, names, tag)
            pixels, layout = snapshot_pixels(img_tensor, tag, dataformats)
            check_size(math.prod(pixels.shape) * scale**2, pixels.shape, tag)
            args = (pixels, layout, boxes, names, scale)
            nbytes = pixels.nbytes + boxes.nbytes
            self._put(tag, _build_boxes, args, global_step, walltime, nbytes)

    def add_video(
        self,
        tag: str,
        vid_tensor: Any,
        global_step: Any = None,
        fps: float = 4,
        walltime: float | None = None,
        dataformats: str = "NTCHW",
        *,
        codec: str = "gif",
    ) -> None:
        """Log a video, which the Images tab plays.

        The pixels are copied, on their own device; encoding is the worker's.

        Args:
            tag: the video's name, taken as it is.
            vid_tensor: pixels as in ``add_image``. Several videos are shown side by side.
            global_step: any integer; by default ``writer.step``.
            fps: frames a second, 0.02 or more. Browsers play at most 50 of a GIF, 91 of the others.
            walltime: seconds since the epoch; by default now.
            dataformats: what the axes are: N, T (frames), C, H and W in any order. An array of
                four axes may be given as TCHW, and one of three as THW, by what remains of it.
            codec: ``"gif"`` has 256 colors a frame; ``"apng"`` is without loss; ``"webp"`` is the
                smallest. TensorBoard shows no MP4.

        Raises:
            InvalidTypeError: the tag, step or fps is of the wrong kind, or ``vid_tensor`` not an
                array of real numbers.
            InvalidValueError: the shape does not fit ``dataformats``; there are no pixels or more
                than 1 GiB; there is no such codec; or ``fps`` is out of range.
            MissingDependencyError: Pillow is not installed, or has no WebP.
        """
        if self._enabled:
            check_tag(tag)
            _check_codec(codec, tag)
            rate = float(as_number(fps, tag))
            if not _SLOWEST <= rate < math.inf:
                message = f"{tag!r}: fps is a number, {_SLOWEST} or more, got {fps!r:.60}"
                raise InvalidValueError(message)
            pixels, layout = snapshot_pixels(vid_tensor, tag, dataformats, "NTCHW")
            args = (pixels, layout, rate, codec)
            self._put(tag, _build_video, args, global_step, walltime, pixels.nbytes)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: float = 44100,
        walltime: float | None = None,
    ) -> None:
        """Log a sound, as a WAV file of 16 bits.

        The samples are copied, on their own device; encoding is the worker's.

        Args:
            tag: the sound's name, taken as it is.
            snd_tensor: floats from -1 to 1, clipped if they are not; or int16, int32 or uint8 over
                their whole range. Shape (L,), (C, L) or (L, C): of two axes the shorter is the
                channels, 8 at most; if they are equal, the second.
            global_step: any integer; by default ``writer.step``.
            sample_rate: samples a second; rounded to an integer.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag, step or sample rate is of the wrong kind, or ``snd_tensor``
                not an array of such samples.
            InvalidValueError: the shape is another; there are no samples, or more than 1 GiB; or
                the sample rate is out of range.
        """
        if self._enabled:
            check_tag(tag)
            rate = float(as_number(sample_rate, tag))
            if not 1 <= rate < _HIGHEST_RATE:
                message = (
                    f"{tag!r}: sample_rate is a number from 1 to {_HIGHEST_RATE:,}, "
                    f"got {sample_rate!r:.60}"
                )
                raise InvalidValueError(message)
            if isinstance(shape := getattr(snd_tensor, "shape", None), tuple):
                _check_sound(shape, tag)  # before it is copied
            samples = snapshot(snd_tensor, tag)
            _check_sound(samples.shape, tag)
            if samples.dtype is not None:
                from sm_tblog.summary.audio import check_samples

                check_samples(samples.dtype, tag)
            self._put(tag, _build_audio, (samples, rate), global_step, walltime, samples.nbytes)


def _as_names(labels: Any, tag: str) -> tuple[str, ...] | None:
    """Return labels of boxes as a tuple; a str is one."""
    if labels is None:
        return None
    if not hasattr(labels, "__iter__"):
        message = f"{tag!r}: labels are a sequence of str, got {labels!r:.60}"
        raise InvalidTypeError(message)
    return (labels,) if isinstance(labels, str) else tuple(map(str, labels))


def _check_boxes(shape: tuple[int, ...], labels: Sequence[str] | None, tag: str) -> None:
    """Raise if this is not the shape of boxes, or there are not as many labels."""
    if math.prod(shape) and (len(shape) not in (1, 2) or shape[-1] != 4):
        message = f"{tag!r}: boxes have shape (boxes, 4), left, top, right and bottom, got {shape}"
        raise InvalidValueError(message)
    count = math.prod(shape) // 4
    if labels is not None and len(labels) != count:
        message = f"{tag!r}: each box has a label or none, got {len(labels)} for {count} boxes"
        raise InvalidValueError(message)


def _check_sound(shape: tuple[int, ...], tag: str) -> None:
    """Raise if this is not the shape of a sound, or of a larger one than a record may hold."""
    lengths = [length for length in shape if length != 1]
    channels = min(lengths) if len(lengths) == 2 else 1
    if 0 in lengths or len(lengths) > 2 or channels > _MOST_CHANNELS:
        message = (
            f"{tag!r}: a sound has shape (L,), (C, L) or (L, C), with {_MOST_CHANNELS} channels at "
            f"most and not empty, got {shape}; log the sounds of a batch one by one"
        )
        raise InvalidValueError(message)
    if 2 * math.prod(shape) > _LARGEST_SOUND:
        message = f"{tag!r}: a record holds 1 GiB of 16-bit samples, got shape {shape}"
        raise InvalidValueError(message)


def _check_codec(codec: Any, tag: str) -> None:
    """Raise if videos cannot be encoded so.

    Raises:
        InvalidValueError: there is no such codec.
        MissingDependencyError: Pillow is not installed, or has no WebP.
    """
    if codec not in _CODECS:
        why = "; TensorBoard shows videos as images, and browsers show no films there"
        message = (
            f"{tag!r}: codec is one of {', '.join(map(repr, _CODECS))}, got {codec!r:.60}"
            f"{why if str(codec).lower() in _FILMS else ''}"
        )
        raise InvalidValueError(message)
    check_pillow("add_video")
    if codec == "webp":
        from PIL import features

        if not features.check("webp"):
            message = f"{tag!r}: this build of Pillow has no WebP; use codec='gif' or 'apng'"
            raise MissingDependencyError(message)
