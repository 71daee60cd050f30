"""clu: a ``MetricWriter`` for loops of JAX, without TensorFlow.

::

    from sm_tblog.adapters.clu import MetricWriter

    writer = MetricWriter("runs/a")
    writer.write_hparams({"lr": 1e-3})
    writer.write_scalars(step, {"loss": loss})

It has the methods of ``clu.metric_writers.MetricWriter`` and goes wherever one of those does:
``MultiWriter``, ``AsyncWriter``, ``write_values``. clu itself is not needed, and its own writers
need TensorFlow. Nothing has to be asynchronous: arrays on a device are not waited for.
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
    """Writes metrics to TensorBoard.

    As with clu's writers, a script that runs on several hosts gives it to the first of them:
    ``MetricWriter(folder, enabled=jax.process_index() == 0)``.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer.
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
        """Write tensors, for plugins of their own.

        Args:
            step: of all of them.
            values: arrays by tag.
            metadata: for a tag its ``SummaryMetadata``, a message or its bytes. Needs tensorboard.

        Raises:
            MissingDependencyError: there is metadata, and tensorboard is not installed.
        """
        for tag, value in values.items():
            one = metadata.get(tag) if metadata else None
            if one is None:
                self._target.writer.add_tensor(tag, value, step)
            else:
                summary = _summary(tag, value, one)
                self._target.writer.file_writer.add_summary(summary, step)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write numbers.

        Args:
            step: of all of them.
            scalars: by tag; arrays with one element too, on any device.
        """
        self._target.writer.log(scalars, step)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Write images.

        Args:
            step: of all of them.
            images: by tag, shape (N, H, W, C) or (H, W, C): N are samples of one tag.
        """
        for tag, batch in images.items():
            formats = "NHWC" if np.ndim(batch) == 4 else "HWC"
            if formats == "HWC":
                self._target.writer.add_image(tag, batch, step, dataformats=formats)
            else:
                self._target.writer.add_images(tag, batch, step, dataformats=formats, grid=False)

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        """Write videos, which clu's own writers leave out.

        Args:
            step: of all of them.
            videos: by tag, shape (N, T, H, W, C) or (T, H, W, C): N are shown side by side.
        """
        for tag, video in videos.items():
            formats = "NTHWC" if np.ndim(video) == 5 else "THWC"
            self._target.writer.add_video(tag, video, step, dataformats=formats)

    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None:
        """Write sounds.

        Args:
            step: of all of them.
            audios: by tag, shape (N, T, C). Of several, the tags are ``<tag>/0``, ``<tag>/1``, ….
            sample_rate: samples a second.

        Raises:
            InvalidValueError: the shape is another.
        """
        for tag, clips in audios.items():
            if np.ndim(clips) != 3:
                message = f"{tag!r}: sounds have shape (N, T, C), got {np.shape(clips)}"
                raise InvalidValueError(message)
            for number, clip in enumerate(clips):
                name = tag if len(clips) == 1 else f"{tag}/{number}"
                self._target.writer.add_audio(name, clip, step, sample_rate)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write texts.

        Args:
            step: of all of them.
            texts: Markdown by tag.
        """
        for tag, text in texts.items():
            self._target.writer.add_text(tag, text, step)

    def write_histograms(
        self, step: int, arrays: Mapping[str, Any], num_buckets: Mapping[str, int] | None = None
    ) -> None:
        """Write histograms.

        Args:
            step: of all of them.
            arrays: by tag.
            num_buckets: how many buckets, by tag; by default TensorBoard's.
        """
        for tag, values in arrays.items():
            bins = (num_buckets or {}).get(tag) or "tensorflow"
            self._target.writer.add_histogram(tag, values, step, bins)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Write hyperparameters of the run.

        Args:
            hparams: as ``Writer.hparams`` takes them, nested ones too.
        """
        self._target.writer.hparams(hparams)

    def flush(self) -> None:
        """Wait until all that was written is stored."""
        self._target.flush()

    def close(self) -> None:
        """Have everything stored, and close the file."""
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
    """Return a ``Summary`` of one tensor with metadata."""
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.util.tensor_util import make_tensor_proto
    except ImportError as error:
        message = f"{tag!r}: metadata needs tensorboard: pip install tensorboard ({error})"
        raise MissingDependencyError(message) from error
    data = metadata if isinstance(metadata, bytes) else metadata.SerializeToString()
    tensor = make_tensor_proto(np.asarray(value))
    one = Summary.Value(tag=tag, tensor=tensor, metadata=SummaryMetadata.FromString(data))
    return Summary(value=[one])
