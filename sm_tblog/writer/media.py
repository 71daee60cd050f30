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
_VIDEO_FORMATS = ("mp4", "h264", "webm", "avi", "mov")

_MIN_FPS = 0.02
"""In frames per second. APNG stores the duration of a frame as at most 65,535 ms."""

_MAX_CHANNELS = 8
_MAX_SAMPLE_RATE = 1 << 28
"""In samples per second. A WAV file stores bytes per second in 32 bits."""

_MAX_SOUND_BYTES = 1 << 30
"""Encoded sounds of this size stay well below protobuf's 2 GiB."""


class MediaMethods(BaseWriter):
    """Methods that log images, videos and sounds."""

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Log an image.

        The call copies the pixels, on their own device; the worker thread encodes the image.

        Args:
            tag: the image's name, used as is.
            img_tensor: pixels of any library and device, or a Pillow image. 1, 2, 3 or 4 channels
                are grey, grey and alpha, RGB and RGBA. uint8 is used as is, bool is black and
                white, and uint16 uses its full range. Other integers are from 0 to 255 or, if none
                is above 1, black and white. Floats are from 0 to 1, or from 0 to 255 if none is
                negative and one is above 2. Values outside the range are clipped, and NaN is black.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            dataformats: the axes: ``"CHW"``, ``"HWC"``, ``"HW"`` or another order of these letters.
                An array with two axes may always be passed as HW. With an N, or with one more axis
                in front, it is a batch and makes a grid, as in ``add_images``. Not needed for
                Pillow images.

        Raises:
            InvalidTypeError: the tag or step has the wrong type, or ``img_tensor`` is not an array
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
            tag: the batch's name, used as is.
            img_tensor: as in ``add_image``, with a batch axis; or a list of such images of equal
                size, for which ``dataformats`` need not contain N.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            dataformats: the axes: ``"NCHW"``, ``"NHWC"``, ``"NHW"`` or another order.
            grid: show the batch as one image with rows of eight, as torch's and tensorboardX's
                writers do. ``False`` shows each image separately, as samples of the tag.
            max_outputs: the maximum number of images to log, counted from the first; by default
                all.

        Raises:
            InvalidTypeError: as in ``add_image``.
            InvalidValueError: as in ``add_image``, or ``max_outputs`` is not a positive int.
            MissingDependencyError: Pillow is not installed.
        """
        if self._enabled:
            check_tag(tag)
            if max_outputs is not None and (type(max_outputs) is not int or max_outputs < 1):
                message = f"{tag!r}: max_outputs must be a positive int, got {max_outputs!r:.60}"
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
        """Log an image with boxes drawn on it, for example around detected objects.

        tensorboardX's order of the last arguments, ``dataformats, labels``, is accepted too.

        Args:
            tag: the image's name, used as is.
            img_tensor: as in ``add_image``.
            box_tensor: left, top, right and bottom of each box, in pixels; shape (boxes, 4).
                Further columns, such as scores and classes, are ignored.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            rescale: factor by which the image is scaled. A str is interpreted as ``dataformats``.
            dataformats: as in ``add_image``.
            labels: one per box. Non-ASCII characters are shown as question marks.

        Raises:
            InvalidTypeError: the tag or step has the wrong type, or an array does not contain real
                numbers.
            InvalidValueError: as in ``add_image``; the boxes have another shape; the numbers of
                labels and boxes differ; or ``rescale`` is not positive.
            MissingDependencyError: Pillow is not installed.
        """
        if self._enabled:
            check_tag(tag)
            if isinstance(rescale, str):  # tensorboardX's dataformats and labels
                labels = labels if dataformats == "CHW" else dataformats
                dataformats = rescale
            scale = 1.0 if isinstance(rescale, str) else float(as_number(rescale, tag, "rescale"))
            if not 0 < scale < math.inf:
                message = f"{tag!r}: rescale must be a positive number, got {rescale!r:.60}"
                raise InvalidValueError(message)
            check_pillow("add_image_with_boxes")
            names = _as_labels(labels, tag)
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

        The call copies the pixels, on their own device; the worker thread encodes the video.

        Args:
            tag: the video's name, used as is.
            vid_tensor: pixels as in ``add_image``. Several videos are shown side by side.
            global_step: any integer; by default ``writer.step``.
            fps: frames per second, at least 0.02. Browsers play at most 50 with GIF and 91 with the
                other codecs.
            walltime: seconds since the epoch; by default now.
            dataformats: the axes: N, T (frames), C, H and W in any order. An array with four axes
                may be passed as TCHW, and one with three as THW, in the order that remains of
                ``dataformats``.
            codec: ``"gif"`` has 256 colors per frame; ``"apng"`` is lossless; ``"webp"`` is the
                smallest. TensorBoard cannot show MP4.

        Raises:
            InvalidTypeError: the tag, step or fps has the wrong type, or ``vid_tensor`` is not an
                array of real numbers.
            InvalidValueError: the shape does not fit ``dataformats``; there are no pixels or more
                than 1 GiB; the codec is unknown; or ``fps`` is out of range.
            MissingDependencyError: Pillow is not installed, or lacks WebP.
        """
        if self._enabled:
            check_tag(tag)
            _check_codec(codec, tag)
            rate = float(as_number(fps, tag, "fps"))
            if not _MIN_FPS <= rate < math.inf:
                message = f"{tag!r}: fps must be a number of at least {_MIN_FPS}, got {fps!r:.60}"
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
        """Log a sound, as a 16-bit WAV file.

        The call copies the samples, on their own device; the worker thread encodes them.

        Args:
            tag: the sound's name, used as is.
            snd_tensor: floats from -1 to 1, which are clipped otherwise; or int16, int32 or uint8
                that use their full range. Shape (L,), (C, L) or (L, C): of two axes, the shorter
                one is the channel axis, with at most 8 channels; if they are equal, the second one
                is.
            global_step: any integer; by default ``writer.step``.
            sample_rate: samples per second; rounded to an integer.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag, step or sample rate has the wrong type, or ``snd_tensor`` is
                not an array of such samples.
            InvalidValueError: the shape is not as above; there are no samples, or more than 1 GiB;
                or the sample rate is out of range.
        """
        if self._enabled:
            check_tag(tag)
            rate = float(as_number(sample_rate, tag, "sample_rate"))
            if not 1 <= rate < _MAX_SAMPLE_RATE:
                message = (
                    f"{tag!r}: sample_rate must be a number from 1 to {_MAX_SAMPLE_RATE:,}, "
                    f"got {sample_rate!r:.60}"
                )
                raise InvalidValueError(message)
            if isinstance(shape := getattr(snd_tensor, "shape", None), tuple):
                _check_sound(shape, tag)  # before the copy
            samples = snapshot(snd_tensor, tag)
            _check_sound(samples.shape, tag)
            if samples.dtype is not None:
                from sm_tblog.summary.audio import check_samples

                check_samples(samples.dtype, tag)
            self._put(tag, _build_audio, (samples, rate), global_step, walltime, samples.nbytes)


def _as_labels(labels: Any, tag: str) -> tuple[str, ...] | None:
    """Return the labels of boxes as a tuple; a str is a single label."""
    if labels is None:
        return None
    if not hasattr(labels, "__iter__"):
        message = f"{tag!r}: labels must be a sequence of str, got {labels!r:.60}"
        raise InvalidTypeError(message)
    return (labels,) if isinstance(labels, str) else tuple(map(str, labels))


def _check_boxes(shape: tuple[int, ...], labels: Sequence[str] | None, tag: str) -> None:
    """Raise if boxes have the wrong shape, or the numbers of labels and boxes differ."""
    if math.prod(shape) and shape != (4,) and (len(shape) != 2 or shape[1] < 4):
        message = (
            f"{tag!r}: boxes must have shape (boxes, 4), left top right bottom, or more columns, "
            f"which are ignored; got {shape}"
        )
        raise InvalidValueError(message)
    count = math.prod(shape) // max(shape[-1], 1) if shape else 0
    if labels is not None and len(labels) != count:
        message = f"{tag!r}: got {len(labels)} labels for {count} boxes; label all boxes or none"
        raise InvalidValueError(message)


def _check_sound(shape: tuple[int, ...], tag: str) -> None:
    """Raise if a sound has the wrong shape, or is larger than a record can contain."""
    lengths = [length for length in shape if length != 1]
    channels = min(lengths) if len(lengths) == 2 else 1
    if 0 in lengths or len(lengths) > 2 or channels > _MAX_CHANNELS:
        message = (
            f"{tag!r}: a sound must have shape (L,), (C, L) or (L, C), at most {_MAX_CHANNELS} "
            f"channels and at least one sample, got {shape}; log the sounds of a batch one by one"
        )
        raise InvalidValueError(message)
    if 2 * math.prod(shape) > _MAX_SOUND_BYTES:
        message = f"{tag!r}: a record can contain 1 GiB of 16-bit samples, got shape {shape}"
        raise InvalidValueError(message)


def _check_codec(codec: Any, tag: str) -> None:
    """Raise if videos cannot be encoded with this codec.

    Raises:
        InvalidValueError: the codec is unknown.
        MissingDependencyError: Pillow is not installed, or lacks WebP.
    """
    if codec not in _CODECS:
        reason = "; TensorBoard shows videos as images, where browsers do not play this format"
        message = (
            f"{tag!r}: codec must be one of {', '.join(map(repr, _CODECS))}, got {codec!r:.60}"
            f"{reason if str(codec).lower() in _VIDEO_FORMATS else ''}"
        )
        raise InvalidValueError(message)
    check_pillow("add_video")
    if codec == "webp":
        from PIL import features

        if not features.check("webp"):
            message = f"{tag!r}: this build of Pillow has no WebP; use codec='gif' or 'apng'"
            raise MissingDependencyError(message)
