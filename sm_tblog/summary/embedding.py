"""Embeddings: the files that TensorBoard's Projector reads.

The Projector reads nothing from event files. It looks in a run's folder for
``projector_config.pbtxt``, a ``ProjectorConfig`` in text format, which lists embeddings. Each has
the paths of a matrix, of labels and of a sprite sheet, all below the folder
(tensorboard/plugins/projector/projector_plugin.py). This module puts them into
``embeddings/<tag>/<step>/``; the config is written after them:

========================  =======================================================================
``tensors.bytes``         the matrix as raw float32
``tensors.tsv``           the same as text, if TensorBoard would mistake the raw bytes for text
``metadata.tsv``          one label per line; with several columns, a header comes first
``sprite.png``            the pictures, in a grid
========================  =======================================================================
"""

from __future__ import annotations

import hashlib
import re
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import text_format

from sm_tblog._errors import InvalidValueError
from sm_tblog._types import Change, as_utf8
from sm_tblog.arrays.convert import Deferred, resolve
from sm_tblog.arrays.pixels import arranged, as_bytes
from sm_tblog.format import schema
from sm_tblog.summary.png import encode_png

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from sm_tblog._types import UInt8Array

    Content = bytes | Change

__all__ = [
    "CONFIG",
    "encode_embedding",
    "encode_labels",
    "encode_matrix",
    "encode_sheet",
    "updated_config",
]

CONFIG = "projector_config.pbtxt"

_MAX_POINTS = 100_000
"""The number of points that TensorBoard 2.21 requests."""

_MIN_COLUMNS = 3
"""TensorBoard draws three principal components, and nothing for a matrix with fewer columns."""

_MAX_SHEET_SIDE = 8192
"""The largest width and height of a sprite sheet that TensorBoard accepts, in pixels."""

_TO_SPACES = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029", " "))

_UNESCAPED = str.maketrans(
    {
        **{chr(code): " " for code in (*range(32), 127)},
        "#": "\N{FULLWIDTH NUMBER SIGN}",
        "%": "\N{FULLWIDTH PERCENT SIGN}",
        "&": "\N{FULLWIDTH AMPERSAND}",
        "+": "\N{FULLWIDTH PLUS SIGN}",
    }
)
"""Replaces characters that break an embedding's name, which TensorBoard's page puts into a URL
without escaping. The full-width forms look similar."""


def encode_embedding(
    tag: str,
    step: int,
    matrix: npt.NDArray[Any] | Deferred,
    header: Sequence[str] = (),
    labels: Iterable[Any] | Deferred | None = None,
    pictures: tuple[npt.NDArray[Any] | Deferred, str] | None = None,
) -> tuple[dict[str, Content], str]:
    """Return an embedding's files, in the order in which to write them, and a warning.

    Rows with NaN or infinities are left out with their labels and pictures; otherwise the Projector
    would show nothing.

    Args:
        tag: any tag; the tag and step form the embedding's name.
        step: the global step.
        matrix: real numbers of shape (points, dimensions).
        header: the names of the label columns, if there are several.
        labels: one label for each point or, with a header, one sequence of labels of its length.
        pictures: one picture for each point, and their layout as in ``pixels``.

    Returns:
        The files' contents by name, as in ``File``; and a warning on what differs from the input.

    Raises:
        InvalidTypeError: a matrix from a device does not hold real numbers.
        InvalidValueError: no row is finite.
    """
    points = _as_float32(_on_host(matrix, tag))
    kept: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(points), axis=1)
    count = int(kept.sum())
    if not count:
        message = f"all {len(kept):,} rows contain NaN or infinities"
        raise InvalidValueError(message)
    warnings = []
    if count < len(kept):
        left_out = f"{len(kept) - count:,} of {len(kept):,} rows contain NaN or infinities"
        warnings.append(f"{left_out} and are left out")
        points = points[kept]
    if count == 1:
        warnings.append("TensorBoard does not list an embedding of one point")
    if count > _MAX_POINTS:
        warnings.append(f"TensorBoard shows only the first {_MAX_POINTS:,} of {count:,} points")

    folder = f"embeddings/{_folder_name(tag)}/{step:05d}"
    data, ending = encode_matrix(points)
    entry = schema.EmbeddingInfo(tensor_name=f"{_shown_name(tag)}:{step:05d}")
    entry.tensor_shape.extend(points.shape)
    entry.tensor_path = f"{folder}/tensors.{ending}"
    files: dict[str, Content] = {entry.tensor_path: data}
    if labels is not None:
        rows = labels.array() if isinstance(labels, Deferred) else labels
        entry.metadata_path = f"{folder}/metadata.tsv"
        files[entry.metadata_path], warning = encode_labels(compress(rows, kept), header)
        warnings.append(warning)
    if pictures is not None:
        pixels, layout = pictures
        images = arranged(_on_host(pixels, tag), layout, "NHWC")
        entry.sprite.image_path = f"{folder}/sprite.png"
        sheet, side, warning = encode_sheet(images[kept][:_MAX_POINTS])
        files[entry.sprite.image_path] = sheet
        entry.sprite.single_image_dim.extend((side, side))
        warnings.append(warning)
    files[CONFIG] = Change(updated_config, entry.SerializeToString())
    return files, "; ".join(filter(None, warnings))


def _on_host(values: npt.NDArray[Any] | Deferred, tag: str) -> npt.NDArray[Any]:
    return resolve(values, tag)


def _as_float32(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a matrix padded with zero columns to at least ``_MIN_COLUMNS``."""
    with np.errstate(over="ignore"):  # becomes infinite, which the warning reports
        points = matrix.astype("<f4", copy=False)
    missing = _MIN_COLUMNS - points.shape[1]
    return np.pad(points, ((0, 0), (0, missing))) if missing > 0 else points


def _folder_name(tag: str) -> str:
    """Return a unique folder name for a tag.

    It stays unique on case-insensitive file systems, and short enough for a limit of 255 bytes.
    """
    if re.fullmatch(r"[a-z0-9_-]{1,64}", tag):
        return tag
    digest = hashlib.sha256(tag.encode(errors="surrogatepass")).hexdigest()
    return f"{re.sub(r'[^a-z0-9_-]+', '_', tag.lower())[:40]}.{digest[:16]}"


def _shown_name(tag: str) -> str:
    """Return a tag as a name that TensorBoard can request."""
    return as_utf8(tag).translate(_UNESCAPED)


def encode_matrix(points: npt.NDArray[np.float32]) -> tuple[bytes, str]:
    """Return a matrix as the bytes of a file, and the file's extension.

    TensorBoard reads a file as lines of text, or as raw little-endian float32 if a line is not
    UTF-8. If the first line of the raw numbers is valid UTF-8, they are written as text instead,
    with as few digits as restore each number exactly.
    """
    data = points.tobytes()
    try:
        data.partition(b"\n")[0].decode()
    except UnicodeDecodeError:
        return data, "bytes"
    lines = ("\t".join(row) for row in points.astype(str).tolist())
    return "".join(f"{line}\n" for line in lines).encode(), "tsv"


def encode_labels(rows: Iterable[Any], header: Sequence[str] = ()) -> tuple[bytes, str]:
    """Return a file with one line for each point, and a warning on labels that were changed.

    TensorBoard's page splits the file at line breaks and tabs and skips blank lines. It interprets
    the first line as a header if and only if there are several columns.

    Args:
        rows: labels; with a header, sequences of labels of its length.
        header: the names of the columns.
    """
    lines = ["\t".join(name.translate(_TO_SPACES) for name in header)] if len(header) > 1 else []
    broken = 0
    for row in rows:
        cells = [_as_text(cell) for cell in (row if header else (row,))]
        line = "\t".join(cell.translate(_TO_SPACES) for cell in cells)
        broken += line != "\t".join(cells)
        lines.append(line if line.strip() else f"-{line}")
    data = "".join(f"{line}\n" for line in lines).encode(errors="replace")
    return data, f"tabs and line breaks in {broken:,} labels become spaces" if broken else ""


def _as_text(label: Any) -> str:
    if isinstance(label, bytes):
        return label.decode(errors="replace")
    return str(label.item() if hasattr(label, "detach") else label)  # PyTorch


def encode_sheet(images: npt.NDArray[Any]) -> tuple[bytes, int, str]:
    """Return a sprite sheet as a PNG, the side of each picture in pixels, and a warning.

    TensorBoard's shader needs as many rows as columns, and locates a picture by a division of
    floats, which is exact if that number is a power of two. It draws square pictures, and nothing
    where the sheet is transparent. Pictures are shrunk if the sheet would be too large.

    Args:
        images: of any dtype, shape (N, H, W, C), with one to four channels.
    """
    tiles, warning = as_bytes(images)
    count, *size, channels = tiles.shape
    columns = 1 << -(-(count - 1).bit_length() // 2)
    side = min(max(size), _MAX_SHEET_SIDE // columns)
    height, width = (max(length * side // max(size), 1) for length in size)
    if [height, width] != size:
        shrunk = f"pictures of {size[1]} x {size[0]} pixels become {width} x {height}"
        warning = "; ".join(filter(None, (warning, f"{shrunk} to fit on one sheet")))
    top, left = (side - height) // 2, (side - width) // 2
    depth = channels + (channels % 2 and height != width)  # transparent beside the picture
    sheet = np.zeros((columns, side, columns, side, depth), np.uint8)
    for row in range(-(-count // columns)):
        part = tiles[row * columns : (row + 1) * columns]
        part = _shrunk(_shrunk(part, 1, height), 2, width)
        cells = sheet[row, top : top + height, : len(part), left : left + width].swapaxes(0, 1)
        cells[..., -1] = 255
        cells[..., :channels] = part
    return encode_png(sheet.reshape(columns * side, columns * side, depth)), side, warning


def _shrunk(tiles: UInt8Array, axis: int, length: int) -> UInt8Array:
    """Return tiles shrunk to ``length`` along an axis by averaging neighbours."""
    before = tiles.shape[axis]
    if length == before:
        return tiles
    edges = np.arange(length + 1) * before // length
    sums = np.add.reduceat(tiles, edges[:-1], axis=axis, dtype=np.uint32)
    counts = np.diff(edges).reshape([-1 if i == axis else 1 for i in range(tiles.ndim)])
    means: UInt8Array = (sums // counts).astype(np.uint8)
    return means


def updated_config(entry: bytes, before: bytes | None) -> bytes:
    """Return a projector config to which an embedding is added, replacing one of the same name.

    The rest stays unchanged, including comments, unless the replaced embedding was listed by
    another program: then the config is reformatted and loses its comments.

    Args:
        entry: the embedding, a serialized ``EmbeddingInfo``.
        before: the config so far, None if there is none.

    Raises:
        InvalidValueError: ``before`` is not a projector config.
    """
    embedding = schema.EmbeddingInfo.FromString(entry)
    config = schema.ProjectorConfig()
    try:
        text = (before or b"").decode()
        text_format.Parse(text, config, allow_unknown_field=True)
    except (UnicodeDecodeError, text_format.ParseError) as error:
        message = (
            f"{CONFIG} cannot be read; it is left unchanged, without {embedding.tensor_name!r}. "
            f"Fix or remove it: {error}"
        )
        raise InvalidValueError(message) from error
    earlier = [one for one in config.embeddings if one.tensor_name == embedding.tensor_name]
    if all(_as_block(one) in text for one in earlier):
        for one in earlier:
            text = text.replace(_as_block(one), "")
    else:
        for one in earlier:
            config.embeddings.remove(one)
        text = text_format.MessageToString(config, as_utf8=True)
    line_end = "\n" if text and not text.endswith("\n") else ""
    return f"{text}{line_end}{_as_block(embedding)}".encode()


def _as_block(embedding: Any) -> str:
    alone = schema.ProjectorConfig(embeddings=[embedding])
    text: str = text_format.MessageToString(alone, as_utf8=True)
    return text
