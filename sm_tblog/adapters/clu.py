"""clu: a ``MetricWriter`` for JAX training loops, without TensorFlow.

::

    from sm_tblog.adapters.clu import MetricWriter

    writer = MetricWriter("runs/a")
    writer.write_hparams({"lr": 1e-3})
    writer.write_scalars(step, {"loss": loss})

It has the methods of ``clu.metric_writers.MetricWriter`` and works wherever one is accepted:
``MultiWriter``, ``AsyncWriter``, ``write_values``. It does not need clu, whose own writers need
TensorFlow. ``AsyncWriter`` is not necessary: writing does not wait for arrays on a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog import InvalidValueError, MissingDependencyError
from sm_tblog.adapters._target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from types import TracebackType

    from typing_extensions import Self

    from sm_tblog import Writer

__all__ = ["MetricWriter"]


class MetricWriter:
    """Metric writer that writes to TensorBoard.

    As with clu's writers, only the first of several hosts should write:
    ``MetricWriter(logdir, enabled=jax.process_index() == 0)``.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        **writer_options: Any,
    ) -> None:
        self._target = Target(logdir_or_writer, **writer_options)

    def write_summaries(
        self, step: int, values: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Write tensors, for custom plugins.

        Args:
            step: the step of all values.
            values: arrays by tag.
            metadata: ``SummaryMetadata`` by tag, as messages or bytes. Needs tensorboard.

        Raises:
            MissingDependencyError: metadata is given and tensorboard is not installed.
        """
        for tag, value in values.items():
            tag_metadata = metadata.get(tag) if metadata else None
            if tag_metadata is None:
                self._target.writer.add_tensor(tag, value, step)
            else:
                summary = _summary(tag, value, tag_metadata)
                self._target.writer.file_writer.add_summary(summary, step)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write numbers.

        Args:
            step: the step of all values.
            scalars: numbers or arrays with one element, on any device, by tag.
        """
        self._target.writer.log(scalars, step)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Write images.

        Args:
            step: the step of all images.
            images: arrays of shape (N, H, W, C) or (H, W, C), by tag. N images are samples of one
                tag.
        """
        for tag, batch in images.items():
            layout = "NHWC" if np.ndim(batch) == 4 else "HWC"
            if layout == "HWC":
                self._target.writer.add_image(tag, batch, step, dataformats=layout)
            else:
                self._target.writer.add_images(tag, batch, step, dataformats=layout, grid=False)

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        """Write videos, which clu's own writers leave out.

        Args:
            step: the step of all videos.
            videos: arrays of shape (N, T, H, W, C) or (T, H, W, C), by tag. N videos are shown side
                by side.
        """
        for tag, video in videos.items():
            layout = "NTHWC" if np.ndim(video) == 5 else "THWC"
            self._target.writer.add_video(tag, video, step, dataformats=layout)

    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None:
        """Write audio clips.

        Args:
            step: the step of all clips.
            audios: arrays of shape (N, T, C), by tag. If N > 1, the tags are ``<tag>/0``,
                ``<tag>/1``, ….
            sample_rate: samples per second.

        Raises:
            InvalidValueError: an array has a different shape.
        """
        for tag, clips in audios.items():
            if np.ndim(clips) != 3:
                message = f"{tag!r}: audio must have shape (N, T, C), got {np.shape(clips)}"
                raise InvalidValueError(message)
            for number, clip in enumerate(clips):
                name = tag if len(clips) == 1 else f"{tag}/{number}"
                self._target.writer.add_audio(name, clip, step, sample_rate)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write texts.

        Args:
            step: the step of all texts.
            texts: Markdown by tag.
        """
        for tag, text in texts.items():
            self._target.writer.add_text(tag, text, step)

    def write_histograms(
        self, step: int, arrays: Mapping[str, Any], num_buckets: Mapping[str, int] | None = None
    ) -> None:
        """Write histograms.

        Args:
            step: the step of all histograms.
            arrays: arrays by tag.
            num_buckets: the number of buckets by tag; by default TensorBoard's.
        """
        for tag, values in arrays.items():
            bins = (num_buckets or {}).get(tag) or "tensorflow"
            self._target.writer.add_histogram(tag, values, step, bins)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Write hyperparameters of the run.

        Args:
            hparams: a mapping, possibly nested, as for ``Writer.hparams``.
        """
        self._target.writer.hparams(hparams)

    def flush(self) -> None:
        """Wait until everything written so far is stored."""
        self._target.flush()

    def close(self) -> None:
        """Store everything and close the file."""
        self._target.close()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def _summary(tag: str, value: Any, metadata: Any) -> Any:
    """Return a ``Summary`` with one tensor and its metadata."""
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.util.tensor_util import make_tensor_proto
    except ImportError as error:
        message = f"{tag!r}: metadata needs tensorboard: pip install tensorboard ({error})"
        raise MissingDependencyError(message) from error
    data = metadata if isinstance(metadata, bytes) else metadata.SerializeToString()
    tensor = make_tensor_proto(np.asarray(value))
    summary_value = Summary.Value(tag=tag, tensor=tensor, metadata=SummaryMetadata.FromString(data))
    return Summary(value=[summary_value])
