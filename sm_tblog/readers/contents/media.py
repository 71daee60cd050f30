"""Images and sounds, as they were encoded, and as arrays."""

from __future__ import annotations

import io
import warnings
import wave
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidValueError, MissingDependencyError
from sm_tblog.readers.contents.lazy import checked
from sm_tblog.readers.contents.tensors import strings_of
from sm_tblog.readers.contents.values import the_tensor

if TYPE_CHECKING:
    import numpy.typing as npt

    from sm_tblog._types import UInt8Array

__all__ = ["Audio", "Image", "audio_of", "images_of"]

_MAX_PIXELS = 1 << 28
"""Pixels of all frames of an image that are decoded."""

_MAX_FREE_PIXELS, _MAX_PIXELS_PER_BYTE = 1 << 24, 8256
"""Pixels of a frame that are decoded: so many, and more for each byte. That is the ratio of a PNG
of one color. A few bytes that claim more are damaged, and would take a gigabyte of memory."""

_PIXEL_MODES = {"L", "LA", "RGB", "RGBA"}
"""Pillow's modes of 8 bits a channel that need no conversion."""


@dataclass(frozen=True)
class Image:
    """An image as it was logged.

    Attributes:
        encoded: the bytes of a PNG, JPEG, GIF, … file.
        width: width in pixels, as logged.
        height: height in pixels, as logged.
    """

    encoded: bytes
    width: int
    height: int
    _where: str = field(default="the image", compare=False)

    def to_numpy(self) -> UInt8Array:
        """Decode the image, with the extra ``media``.

        Returns:
            uint8, shape (height, width, channels), with 1 (gray), 2 (gray, alpha), 3 (RGB) or
            4 (RGBA) channels; for an animation, shape (frames, height, width, channels). Of 16 bits
            a channel, the upper eight.

        Raises:
            InvalidValueError: it cannot be decoded, has more than 2^28 pixels in all frames, or
                claims far more pixels than its bytes can hold.
            MissingDependencyError: Pillow is not installed.
        """
        return checked(_pixels_of, self.encoded, self._where)

    def __repr__(self) -> str:
        """Return the size."""
        return f"<Image of {self.width} x {self.height} pixels, {len(self.encoded):,} bytes>"


@dataclass(frozen=True)
class Audio:
    """A sound as it was logged.

    Attributes:
        encoded: the bytes of a WAV file, or in another format that was written.
        sample_rate: samples per second; None if it was not written and the sound is not a WAV file.
        label: a text that TensorFlow 1 may have stored with it.
    """

    encoded: bytes
    sample_rate: float | None
    label: str = ""
    _where: str = field(default="the sound", compare=False)

    def to_numpy(self) -> npt.NDArray[Any]:
        """Decode a WAV file.

        Returns:
            The samples, shape (frames, channels): uint8 of 8 bits, int16 of 16, int32 of 24 or 32.

        Raises:
            InvalidValueError: it cannot be decoded, or is not a WAV file of integers.
        """
        return checked(_samples_of, self.encoded, self._where)

    def __repr__(self) -> str:
        """Return the sample rate and the size."""
        return f"<Audio at {self.sample_rate} Hz, {len(self.encoded):,} bytes>"


def images_of(value: Any, where: str) -> tuple[Image, ...]:
    """Return the images of a ``Summary.Image``, or of a tensor of width, height and images."""
    if value.WhichOneof("value") == "image":
        image = value.image
        return (Image(image.encoded_image_string, image.width, image.height, where),)
    width, height, *encoded = strings_of(the_tensor(value)).reshape(-1)
    return tuple(Image(data, int(width), int(height), where) for data in encoded)


def audio_of(value: Any, where: str) -> tuple[Audio, ...]:
    """Return the sounds of a ``Summary.Audio``, or of a tensor of sounds and maybe labels."""
    if value.WhichOneof("value") == "audio":
        data = value.audio.encoded_audio_string
        return (Audio(data, value.audio.sample_rate or _sample_rate(data), "", where),)
    rows = strings_of(the_tensor(value))
    if rows.ndim != 2:
        rows = rows.reshape(-1, 1)
    return tuple(
        Audio(data, _sample_rate(data), b"".join(label).decode(errors="replace"), where)
        for data, *label in rows
    )


def _pixels_of(encoded: bytes, where: str) -> UInt8Array:
    try:
        from PIL import Image as Pillow
    except ImportError as error:
        message = "to_numpy needs Pillow: pip install 'sm-tblog[media]'"
        raise MissingDependencyError(message) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on large images: the limit below is ours
        with Pillow.open(io.BytesIO(encoded)) as picture:
            pixels = picture.width * picture.height
            if pixels > min(_MAX_PIXELS, _MAX_FREE_PIXELS + _MAX_PIXELS_PER_BYTE * len(encoded)):
                message = f"{where}: {len(encoded):,} bytes that claim to be {pixels:,} pixels"
                raise InvalidValueError(message)
            frames = getattr(picture, "n_frames", 1)
            if frames * pixels > _MAX_PIXELS:
                message = f"{where}: more than {_MAX_PIXELS:,} pixels are not decoded; see encoded"
                raise InvalidValueError(message)
            if frames == 1:
                return _frame_of(picture)
            return _animation_of(picture, frames)


def _frame_of(picture: Any) -> UInt8Array:
    if picture.mode.startswith("I"):
        deep: Any = np.asarray(picture)[..., np.newaxis]
        upper: UInt8Array = (deep >> 8).astype(np.uint8)
        return upper
    if picture.mode == "1":
        picture = picture.convert("L")
    elif picture.mode not in _PIXEL_MODES:
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    pixels = np.array(picture, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


def _animation_of(picture: Any, count: int) -> UInt8Array:
    frames = []
    for number in range(count):
        picture.seek(number)
        frames.append(np.array(picture.convert("RGBA"), np.uint8))
    pixels = np.stack(frames)
    return pixels if (pixels[..., 3] < 255).any() else np.ascontiguousarray(pixels[..., :3])


def _sample_rate(encoded: bytes) -> float | None:
    try:
        with wave.open(io.BytesIO(encoded)) as sound:
            return float(sound.getframerate())
    except Exception:  # noqa: BLE001 - no WAV file, or a damaged one, whose decoding raises errors
        return None


def _samples_of(encoded: bytes, _: str) -> npt.NDArray[Any]:
    if not encoded.startswith((b"RIFF", b"RIFX")):
        message = "only WAV files are decoded; the bytes are in encoded"
        raise InvalidValueError(message)
    with wave.open(io.BytesIO(encoded)) as sound:
        channels, width = sound.getnchannels(), sound.getsampwidth()
        data = sound.readframes(sound.getnframes())
    data = data[: len(data) // (channels * width) * channels * width]
    if width == 3:
        octets = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(octets), 4), np.uint8)
        wide[:, 1:] = octets
        samples = wide.view("<i4").ravel() >> 8
    else:
        samples = np.frombuffer(data, {1: "u1", 2: "<i2", 4: "<i4"}[width])
    return samples.astype(samples.dtype.newbyteorder("=")).reshape(-1, channels)
