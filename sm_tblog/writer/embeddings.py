"""Embeddings: points in a high-dimensional space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import snapshot
from sm_tblog.arrays.pixels import snapshot_pixels
from sm_tblog.sinks.base import File
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_pillow, check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EmbeddingMethods"]

_encode_embedding = builder("embedding.encode_embedding")

_CHANNELS = range(1, 5)

_LABEL_BYTES = 64
"""Approximate memory of a label, in bytes."""


class EmbeddingMethods(BaseWriter):
    """Methods that log embeddings."""

    def add_embedding(
        self,
        mat: Any,
        metadata: Any = None,
        label_img: Any = None,
        global_step: Any = None,
        tag: str = "default",
        metadata_header: Sequence[str] | None = None,
    ) -> None:
        """Log points in a high-dimensional space for the Projector tab, with labels and pictures.

        The call copies the arrays, on their own devices. The same tag and step replaces what was
        logged before; other entries in the log directory's list of embeddings are kept.

        Points with NaN or infinities are left out, line breaks and tabs in labels become spaces,
        and pictures are scaled down if necessary; each is logged once per tag.

        Args:
            mat: real numbers of shape (points, dimensions), stored as float32. If there are fewer
                than three dimensions, they are padded with zeros, because TensorBoard needs three.
            metadata: one label per point: anything that ``str`` converts. With a header, a sequence
                of labels per point. Or a mapping of column names to labels, such as a pandas data
                frame. Of a mapping of labels to anything else, such as a vocabulary, the keys are
                the labels.
            label_img: one picture per point, all of the same size: an array of shape (points,
                channels, height, width), (points, height, width, channels) or (points, height,
                width), with one to four channels; or a list of arrays or Pillow images. Pixels are
                interpreted as in ``add_images``. Pictures need not be square.
            global_step: any integer; by default ``writer.step``.
            tag: the embedding's name, used as is.
            metadata_header: the column names of the labels; without ``metadata`` it has no effect.

        Raises:
            InvalidTypeError: the tag, step or ``metadata`` has the wrong type, or an array does not
                contain real numbers.
            InvalidValueError: the shapes are not as above, the number of labels or pictures differs
                from the number of points, or the number of a point's labels from the number of
                columns.
            MissingDependencyError: ``label_img`` is given, and Pillow is not installed.
        """
        if self._enabled:
            check_tag(tag)
            matrix = snapshot(mat, tag)
            if matrix.ndim != 2 or 0 in matrix.shape:
                message = (
                    f"{tag!r}: an embedding must have shape (points, dimensions), with at least "
                    f"one of each; got shape {matrix.shape}"
                )
                raise InvalidValueError(message)
            points = matrix.shape[0]
            header, labels = _copy_labels(metadata, metadata_header, points, tag)
            pictures = None
            nbytes = matrix.nbytes + (0 if labels is None else points * _LABEL_BYTES)
            if label_img is not None:
                check_pillow("label_img")
                pictures = snapshot_pixels(label_img, tag, _axes_of(label_img, tag))
                _check_count(points, pictures[0].shape[0], "pictures", tag)
                nbytes += pictures[0].nbytes
            step = self._as_step(global_step, tag)
            args = step, matrix, header, labels, pictures
            self._put(tag, _build_embedding, args, step, None, nbytes)


def _build_embedding(tag: str, *args: Any) -> tuple[list[File], str]:
    files, warning = _encode_embedding(tag, *args)
    return [File("", name, data) for name, data in files.items()], warning


def _check_count(points: int, found: int, what: str, tag: str) -> None:
    if found != points:
        message = f"{tag!r}: got {points} points and {found} {what}; each point must have one"
        raise InvalidValueError(message)


def _axes_of(pictures: Any, tag: str) -> str:
    """Return the axes of pictures, by their shape; for a list, by that of the first picture."""
    if hasattr(pictures, "shape"):
        shape = tuple(pictures.shape[1:])
    else:
        shape = np.shape(next(iter(pictures), ())) if hasattr(pictures, "__iter__") else ()
    if len(shape) == 3 and shape[0] in _CHANNELS:
        return "NCHW"
    if len(shape) == 3 and shape[2] in _CHANNELS:
        return "NHWC"
    if len(shape) == 2:
        return "NHW"
    message = (
        f"{tag!r}: pictures must have shape (points, channels, height, width), (points, height, "
        f"width, channels) or (points, height, width), and 1 to 4 channels; got shape {shape}"
    )
    raise InvalidValueError(message)


def _copy_labels(
    metadata: Any, names: Sequence[str] | None, points: int, tag: str
) -> tuple[tuple[str, ...], Any]:
    """Return the column names, and one label per point, or one row per point if there are names."""
    if metadata is None:
        return (), None  # a header alone has no effect
    if hasattr(metadata, "keys") and getattr(metadata, "ndim", 2) == 2:  # excludes a pandas Series
        if len(metadata) == points and not any(_is_column(metadata[k], points) for k in metadata):
            metadata = list(metadata)  # such as a vocabulary, which maps words to numbers
        else:
            names = names or tuple(metadata)
            metadata = _rows_of(metadata, points, tag)
    header = tuple(map(str, names or ()))
    if hasattr(metadata, "shape"):
        labels = snapshot(metadata, tag, kinds="biufcMmOSU")
        _check_count(points, (labels.shape or (0,))[0], "labels", tag)
        if labels.ndim == 1 and len(header) == 1:
            header = ()  # a single column needs no name
        if header:
            _check_width(header, labels.shape[1:], "the metadata's rows", tag)
        return header, labels
    if isinstance(metadata, (str, bytes)) or not hasattr(metadata, "__iter__"):
        message = f"{tag!r}: metadata must be a sequence of labels, got {metadata!r:.60}"
        raise InvalidTypeError(message)
    rows = tuple(map(_as_row, metadata) if header else metadata)
    _check_count(points, len(rows), "labels", tag)
    for number, row in enumerate(rows if header else ()):
        _check_width(header, (len(row),), f"row {number} of the metadata", tag)
    return header, rows


def _is_column(labels: Any, points: int) -> bool:
    """Return whether these are several labels, or a text of a letter per point, and not a label."""
    if isinstance(labels, (str, bytes)):
        return len(labels) == points
    return hasattr(labels, "__iter__") and getattr(labels, "shape", True) != ()


def _rows_of(columns: Any, points: int, tag: str) -> list[tuple[Any, ...]]:
    for name in columns:
        if not hasattr(columns[name], "__iter__") or getattr(columns[name], "shape", True) == ():
            message = (
                f"{tag!r}: metadata must map column names to one label per point, got "
                f"{columns[name]!r:.60} for {name!r}"
            )
            raise InvalidTypeError(message)
    copies = [tuple(columns[name]) for name in columns]
    for name, column in zip(columns, copies, strict=True):
        _check_count(points, len(column), f"labels in column {name!r}", tag)
    return list(zip(*copies, strict=True))


def _as_row(row: Any) -> tuple[Any, ...]:
    """Return a row of labels; a single column may also consist of bare labels."""
    is_row = isinstance(row, (list, tuple)) or len(getattr(row, "shape", ())) == 1
    return tuple(row) if is_row else (row,)


def _check_width(header: tuple[str, ...], shape: tuple[int, ...], what: str, tag: str) -> None:
    if shape != (len(header),):
        message = (
            f"{tag!r}: {what} must match the columns {', '.join(header):.60}, got shape {shape}"
        )
        raise InvalidValueError(message)
