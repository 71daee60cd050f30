"""Embeddings, from the Projector's side files in the run's folder."""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import text_format

from sm_tblog._errors import InvalidValueError
from sm_tblog.format import schema
from sm_tblog.readers.contents.lazy import checked
from sm_tblog.readers.contents.media import Image
from sm_tblog.readers.events import mapped_errors
from sm_tblog.summary.embedding import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["Embedding", "embeddings_of"]


class Embedding:
    """An embedding. Its files are read when an attribute is first used.

    Raises:
        InvalidValueError: on access: a file is not what the Projector's list says, or outside of
            the run's folder.
        StoreError: on access: a file cannot be read.

    Attributes:
        name: its name in the Projector; the name of a tag is followed by ``:`` and the step.
    """

    def __init__(self, info: Any, read: Callable[[str], bytes], path: str) -> None:
        self.name = str(info.tensor_name or info.tensor_path.rpartition("/")[2])
        self._info = info
        self._read_side = read
        self._path = path

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The points; float32, shape (points, dimensions)."""
        if not self._info.tensor_path:
            message = f"embedding {self.name!r}: its points are in a TensorFlow checkpoint"
            raise InvalidValueError(message)
        data = self._read(self._info.tensor_path)
        return checked(self._matrix_of, data, self._where(self._info.tensor_path))

    @cached_property
    def metadata(self) -> npt.NDArray[Any] | None:
        """The labels; str objects, shape (points,) or, with a ``header``, (points, columns).

        None if there are none.
        """
        rows = self._rows
        if rows is None:
            return None
        labels = np.empty((len(rows), max(map(len, rows), default=1)), object)
        labels[:] = ""
        for label, row in zip(labels, rows, strict=True):
            label[: len(row)] = row
        return labels[1:] if self.header else labels.reshape(-1)

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the labels' columns; empty if there is one column."""
        rows = self._rows
        return tuple(rows[0]) if rows and len(rows[0]) > 1 else ()

    @cached_property
    def sprite(self) -> Image | None:
        """The pictures of all points in one image; None if there are none.

        Its width and height are those of the picture of one point.
        """
        sprite = self._info.sprite
        if not sprite.image_path:
            return None
        width, height = (*sprite.single_image_dim, 0, 0)[:2]
        where = self._where(sprite.image_path)
        return Image(self._read(sprite.image_path), width, height, where)

    def __repr__(self) -> str:
        """Return the name."""
        return f"<Embedding {self.name!r}>"

    @cached_property
    def _rows(self) -> list[list[str]] | None:
        if not self._info.metadata_path:
            return None
        text = self._read(self._info.metadata_path).decode(errors="replace")
        lines = text.replace("\r\n", "\n").split("\n")
        return [line.split("\t") for line in lines if line.strip()]

    def _read(self, name: str) -> bytes:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            message = f"{self._where(name)} is outside of the run's folder, and is not read"
            raise InvalidValueError(message)
        with mapped_errors(f"{self._path}/{path}"):
            return self._read_side(str(path))

    def _where(self, name: str) -> str:
        return f"embedding {self.name!r}: {name}"

    def _matrix_of(self, data: bytes, _: str) -> npt.NDArray[np.float32]:
        """Return the points of lines of text or, if they are not UTF-8, of raw float32."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return np.frombuffer(data, "<f4").reshape(tuple(self._info.tensor_shape)).astype("f4")
        if not text.strip():
            return np.empty((0, 0), np.float32)
        return np.loadtxt(
            io.StringIO(text), np.float32, delimiter="\t", comments=None, ndmin=2, encoding=None
        )


def embeddings_of(read: Callable[[str], bytes], path: str) -> dict[str, Embedding]:
    """Return the embeddings that a run's list names; none if there is no list.

    Args:
        read: returns the content of a file in the run's folder.
        path: the run's folder, for errors.

    Raises:
        InvalidValueError: the list cannot be decoded.
        StoreError: the list cannot be read.
    """
    where = f"{path}/{CONFIG}"
    try:
        with mapped_errors(where):
            data = read(CONFIG)
    except OSError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return {}
        raise
    config = checked(_decoded, data, where)
    found = (Embedding(info, read, path) for info in config.embeddings)
    return {embedding.name: embedding for embedding in found}


def _decoded(data: bytes, _: str) -> Any:
    config = schema.ProjectorConfig()
    text_format.Parse(data.decode(), config, allow_unknown_field=True)
    return config
