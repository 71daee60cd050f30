"""Audio: WAV files of 16-bit samples, which every browser plays.

The format is that of TensorFlow 2: a string tensor, with metadata that declares a WAV. The older
``Summary.Audio``, which torch's and tensorboardX's writers use, loses its type in TensorBoard's
default loader: the sound is then served as untyped bytes, which not every browser plays.
"""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError
from sm_tblog.arrays.convert import Deferred
from sm_tblog.format import schema

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["audio_value", "check_samples"]

_FULL_SCALE = 32_767
"""The sample that represents 1.0: the largest int16."""


def check_samples(dtype: np.dtype[Any], tag: str) -> None:
    """Raise an error if samples of this dtype have no known range.

    Raises:
        InvalidTypeError: the dtype is neither a float nor int16, int32 or uint8.
    """
    as_float = dtype.kind == "f" or (dtype.kind == "V" and np.can_cast(dtype, np.float64))
    if not as_float and dtype.newbyteorder("=") not in (np.int16, np.int32, np.uint8):
        message = (
            f"{tag!r}: samples must be floats from -1 to 1, or int16, int32 or uint8 over their "
            f"whole range, got dtype {dtype}; convert them to one of these"
        )
        raise InvalidTypeError(message)


def audio_value(
    tag: str, samples: npt.NDArray[Any] | Deferred, sample_rate: float
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of a sound, and a warning on samples that were changed.

    Args:
        tag: the tag, used unchanged.
        samples: floats from -1 to 1, or int16, int32 or uint8 over their whole range. One axis, or
            two, of which the shorter is the channels; axes of length 1 do not count.
        sample_rate: samples per second.

    Raises:
        InvalidTypeError: samples from a device are of another dtype.
    """
    array = samples.array() if isinstance(samples, Deferred) else samples
    check_samples(array.dtype, tag)
    pcm, warning = _as_int16(_as_frames(array))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(pcm.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(round(sample_rate))
        writer.writeframesraw(pcm.astype("<i2", copy=False).tobytes())
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "audio"
    content = schema.AudioPluginData(encoding=schema.AudioPluginData.WAV)
    value.metadata.plugin_data.content = content.SerializeToString()
    value.metadata.data_class = schema.DATA_CLASS_BLOB_SEQUENCE
    value.tensor.dtype = schema.DT_STRING
    value.tensor.tensor_shape.dim.add(size=1)
    value.tensor.string_val.append(file.getvalue())
    return value, warning


def _as_frames(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return samples as an array of shape (length, channels)."""
    samples = samples.squeeze()
    if samples.ndim < 2:
        return samples.reshape(-1, 1)
    return samples.T if samples.shape[0] < samples.shape[1] else samples


def _as_int16(samples: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int16], str]:
    """Return samples as int16, and a warning on those that are out of range.

    Floats are multiplied by 32,767 and truncated, not rounded, as in PyTorch's writer.
    """
    if samples.dtype.kind == "i":
        return (samples >> (samples.dtype.itemsize * 8 - 16)).astype(np.int16), ""
    if samples.dtype.kind == "u":
        return (samples.astype(np.int16) - 128) << 8, ""
    if samples.dtype != np.float64:
        samples = samples.astype(np.float32)
    warnings = []
    if nan := int(np.isnan(samples).sum()):
        warnings.append(f"{nan} of {samples.size} samples are NaN and silent")
        samples = np.where(np.isnan(samples), samples.dtype.type(0), samples)
    if (peak := float(np.abs(samples).max())) > 1:
        warnings.append(f"samples up to {peak:.4g} are clipped to -1 to 1")
        samples = samples.clip(-1, 1)
    return (samples * _FULL_SCALE).astype(np.int16), "; ".join(warnings)
