"""Embeddings: points in many dimensions."""

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
"""About how much memory a label keeps."""


class EmbeddingMethods(BaseWriter):
    """What logs embeddings."""

    def add_embedding(
        self,
        mat: Any,
        metadata: Any = None,
        label_img: Any = None,
        global_step: Any = None,
        tag: str = "default",
        metadata_header: Sequence[str] | None = None,
    ) -> None:
        """Log points in many dimensions for the Projector tab, with labels and pictures.

        The arrays are copied, on their own device. The same tag and step replaces what was logged;
        whatever else the log folder's list of embeddings names stays in it.

        A point with NaN or infinities is left out, line breaks and tabs in labels become spaces,
        and pictures are made smaller where they have to be; each is said once for the tag.

        Args:
            mat: real numbers of shape (points, dimensions), stored as float32. Where there are
                fewer than three dimensions, zeros are added: TensorBoard needs three.
            metadata: for each point a label, anything that ``str`` makes one of. With a header,
                for each point a sequence of labels. Or a mapping from columns' names to labels, as
                a pandas data frame is one.
            label_img: for each point a picture of the same size: an array of shape (points,
                channels, height, width), (points, height, width, channels) or (points, height,
                width), with one to four channels; or a list of arrays or Pillow images. Pixels
                mean what they do for ``add_images``. They need not be square.
            global_step: any integer; by default ``writer.step``.
            tag: the embedding's name, taken as it is.
            metadata_header: the names of the labels' columns.

        Raises:
            InvalidTypeError: the tag, step or ``metadata`` is of the wrong kind, or an array does
                not hold real numbers.
            InvalidValueError: the shapes are not as above, there are not as many labels or
                pictures as points, or a point has not as many labels as there are columns.
            MissingDependencyError: ``label_img`` is given, and Pillow is not installed.
        """
        if self._enabled:
            check_tag(tag)
            matrix = snapshot(mat, tag)
            if matrix.ndim != 2 or 0 in matrix.shape:
                message = (
                    f"{tag!r}: an embedding has shape (points, dimensions), with at least one of "
                    f"each; got shape {matrix.shape}"
                )
                raise InvalidValueError(message)
            points = matrix.shape[0]
            header, labels = _copied_labels(metadata, metadata_header, points, tag)
            pictures = None
            nbytes = matrix.nbytes + (0 if labels is None else points * _LABEL_BYTES)
            if label_img is not None:
                check_pillow("label_img")
                pictures = snapshot_pixels(label_img, tag, _layout_of(label_img, tag))
                _check_count(points, pictures[0].shape[0], "pictures", tag)
                nbytes += pictures[0].nbytes
            step = self._as_step(global_step, tag)
            args = step, matrix, header, labels, pictures
            self._put(tag, _build_embedding, args, step, None, nbytes)


def _build_embedding(tag: str, *args: Any) -> tuple[list[File], str]:
    files, remark = _encode_embedding(tag, *args)
    return [File("", name, data) for name, data in files.items()], remark


def _check_count(points: int, found: int, what: str, tag: str) -> None:
    if found != points:
        message = f"{tag!r}: {points} points and {found} {what}; each point has one"
        raise InvalidValueError(message)


def _layout_of(pictures: Any, tag: str) -> str:
    """Return which axes pictures have, going by their shape; of a list, by the first one's."""
    if hasattr(pictures, "shape"):
        one = tuple(pictures.shape[1:])
    else:
        one = np.shape(next(iter(pictures), ())) if hasattr(pictures, "__iter__") else ()
    if len(one) == 3 and one[0] in _CHANNELS:
        return "NCHW"
    if len(one) == 3 and one[2] in _CHANNELS:
        return "NHWC"
    if len(one) == 2:
        return "NHW"
    message = (
        f"{tag!r}: pictures have shape (points, channels, height, width), (points, height, width, "
        f"channels) or (points, height, width), and 1 to 4 channels; got one of shape {one}"
    )
    raise InvalidValueError(message)


def _copied_labels(
    metadata: Any, names: Sequence[str] | None, points: int, tag: str
) -> tuple[tuple[str, ...], Any]:
    """Return the names of columns, and for each point a label or, if there are names, a row."""
    if hasattr(metadata, "keys") and getattr(metadata, "ndim", 2) == 2:  # not a pandas Series
        names = names or tuple(metadata)
        metadata = _rows_of(metadata, points, tag)
    header = tuple(map(str, names or ()))
    if metadata is None and not header:
        return header, None
    if hasattr(metadata, "shape"):
        labels = snapshot(metadata, tag, kinds="biufcMmOSU")
        _check_count(points, (labels.shape or (0,))[0], "labels", tag)
        if labels.ndim == 1 and len(header) == 1:
            header = ()  # the only column needs no name
        if header:
            _check_width(header, labels.shape[1:], "the metadata's rows", tag)
        return header, labels
    if isinstance(metadata, (str, bytes)) or not hasattr(metadata, "__iter__"):
        message = f"{tag!r}: metadata is a sequence of labels, got {metadata!r:.60}"
        raise InvalidTypeError(message)
    rows = tuple(map(_as_row, metadata) if header else metadata)
    _check_count(points, len(rows), "labels", tag)
    for number, row in enumerate(rows if header else ()):
        _check_width(header, (len(row),), f"row {number} of the metadata", tag)
    return header, rows


def _rows_of(columns: Any, points: int, tag: str) -> list[tuple[Any, ...]]:
    copies = [tuple(columns[name]) for name in columns]
    for name, column in zip(columns, copies, strict=True):
        _check_count(points, len(column), f"labels in column {name!r}", tag)
    return list(zip(*copies, strict=True))


def _as_row(row: Any) -> tuple[Any, ...]:
    """Return a row of labels; where there is one column, a label is one as well."""
    is_row = isinstance(row, (list, tuple)) or len(getattr(row, "shape", ())) == 1
    return tuple(row) if is_row else (row,)


def _check_width(header: tuple[str, ...], shape: tuple[int, ...], what: str, tag: str) -> None:
    if shape != (len(header),):
        message = f"{tag!r}: {what} of shape {shape} for the columns {', '.join(header):.60}"
        raise InvalidValueError(message)
