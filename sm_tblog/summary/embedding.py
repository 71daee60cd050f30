"""Embeddings: the files that TensorBoard's Projector reads.

The Projector takes nothing from event files. In a run's folder it looks for
``projector_config.pbtxt``, a ``ProjectorConfig`` in text format. That lists embeddings, each with
the paths of a matrix, of labels and of a sheet of pictures, all below the folder
(tensorboard/plugins/projector/projector_plugin.py). Here they are in
``embeddings/<tag>/<step>/``, and the list is written when they are:

========================  =======================================================================
``tensors.bytes``         the matrix as raw float32
``tensors.tsv``           the same as text, where TensorBoard would take the raw bytes for text
``metadata.tsv``          labels, a line each; with several columns a header comes first
``sprite.png``            pictures, side by side
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
from sm_tblog._types import Change
from sm_tblog.arrays.convert import Deferred, resolve
from sm_tblog.arrays.pixels import arranged, as_bytes
from sm_tblog.format import schema
from sm_tblog.summary.png import encode_png

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from sm_tblog._types import UInt8Array

    Content = bytes | Change

__all__ = ["CONFIG", "encode_embedding", "encode_labels", "encode_matrix", "encode_sheet", "listed"]

CONFIG = "projector_config.pbtxt"

_DRAWN = 100_000
"""How many points TensorBoard 2.21 asks for."""

_COMPONENTS = 3
"""It draws three principal components, and nothing at all of a matrix with fewer columns."""

_SHEET = 8192
"""The largest width and height of a sheet that it takes, in pixels."""

_BREAKS = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029", " "))

_UNQUOTED = str.maketrans(
    {
        **{chr(code): " " for code in (*range(32), 127)},
        "#": "\N{FULLWIDTH NUMBER SIGN}",
        "%": "\N{FULLWIDTH PERCENT SIGN}",
        "&": "\N{FULLWIDTH AMPERSAND}",
        "+": "\N{FULLWIDTH PLUS SIGN}",
    }
)
"""What an embedding's name may not hold, for TensorBoard's page puts it into a URL as it is. The
full-width forms look alike."""


def encode_embedding(
    tag: str,
    step: int,
    matrix: npt.NDArray[Any] | Deferred,
    header: Sequence[str] = (),
    labels: Iterable[Any] | Deferred | None = None,
    pictures: tuple[npt.NDArray[Any] | Deferred, str] | None = None,
) -> tuple[dict[str, Content], str]:
    """Return an embedding's files, in the order in which they are to be written, and a remark.

    A row that holds NaN or infinities is left out with its label and picture: the Projector would
    show nothing at all.

    Args:
        tag: any; the tag and step are the embedding's name.
        step: the global step.
        matrix: real numbers of shape (points, dimensions).
        header: the names of the labels' columns, if they have columns.
        labels: for each point a label, or with a header a sequence of as many.
        pictures: for each point one, and their layout as in ``pixels``.

    Returns:
        The files' contents by their names, as in ``File``; and what there is to say.

    Raises:
        InvalidTypeError: a matrix that was on a device does not hold real numbers.
        InvalidValueError: no row is finite.
    """
    points = _as_float32(_on_host(matrix, tag))
    kept: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(points), axis=1)
    count = int(kept.sum())
    if not count:
        message = f"each of the {len(kept):,} rows holds NaN or infinities"
        raise InvalidValueError(message)
    remarks = []
    if count < len(kept):
        left_out = f"{len(kept) - count:,} of {len(kept):,} rows hold NaN or infinities"
        remarks.append(f"{left_out}, and are left out")
        points = points[kept]
    if count == 1:
        remarks.append("TensorBoard lists no embedding of one point")
    if count > _DRAWN:
        remarks.append(f"TensorBoard shows the first {_DRAWN:,} of {count:,} points")

    folder = f"embeddings/{_folder_name(tag)}/{step:05d}"
    data, ending = encode_matrix(points)
    entry = schema.EmbeddingInfo(tensor_name=f"{_shown_name(tag)}:{step:05d}")
    entry.tensor_shape.extend(points.shape)
    entry.tensor_path = f"{folder}/tensors.{ending}"
    files: dict[str, Content] = {entry.tensor_path: data}
    if labels is not None:
        rows = labels.array() if isinstance(labels, Deferred) else labels
        entry.metadata_path = f"{folder}/metadata.tsv"
        files[entry.metadata_path], remark = encode_labels(compress(rows, kept), header)
        remarks.append(remark)
    if pictures is not None:
        pixels, layout = pictures
        images = arranged(_on_host(pixels, tag), layout, "NHWC")
        entry.sprite.image_path = f"{folder}/sprite.png"
        sheet, side, remark = encode_sheet(images[kept][:_DRAWN])
        files[entry.sprite.image_path] = sheet
        entry.sprite.single_image_dim.extend((side, side))
        remarks.append(remark)
    files[CONFIG] = Change(listed, entry.SerializeToString())
    return files, "; ".join(filter(None, remarks))


def _on_host(values: npt.NDArray[Any] | Deferred, tag: str) -> npt.NDArray[Any]:
    return resolve(values, tag)


def _as_float32(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a matrix with at least as many columns as are drawn; those added are zero."""
    with np.errstate(over="ignore"):  # becomes infinite, and that is said
        points = matrix.astype("<f4", copy=False)
    missing = _COMPONENTS - points.shape[1]
    return np.pad(points, ((0, 0), (0, missing))) if missing > 0 else points


def _folder_name(tag: str) -> str:
    """Return a folder's name for a tag, which no other tag has.

    Also where a file system tells upper from lower case badly, or takes 255 bytes for a name.
    """
    if re.fullmatch(r"[a-z0-9_-]{1,64}", tag):
        return tag
    digest = hashlib.sha256(tag.encode(errors="surrogatepass")).hexdigest()
    return f"{re.sub(r'[^a-z0-9_-]+', '_', tag.lower())[:40]}.{digest[:16]}"


def _shown_name(tag: str) -> str:
    """Return a tag as TensorBoard can ask for it."""
    return tag.encode(errors="replace").decode().translate(_UNQUOTED)


def encode_matrix(points: npt.NDArray[np.float32]) -> tuple[bytes, str]:
    """Return a file of little-endian float32, and the ending of its name.

    TensorBoard reads a file as text, line by line, and as raw numbers if a line is not UTF-8. So
    where the first line of raw numbers is, they are written as text: as few digits as give each
    number back.
    """
    data = points.tobytes()
    try:
        data.partition(b"\n")[0].decode()
    except UnicodeDecodeError:
        return data, "bytes"
    lines = ("\t".join(row) for row in points.astype(str).tolist())
    return "".join(f"{line}\n" for line in lines).encode(), "tsv"


def encode_labels(rows: Iterable[Any], header: Sequence[str] = ()) -> tuple[bytes, str]:
    """Return a file with a line for each point, and a remark on what is not written as it is.

    TensorBoard's page splits the file at line breaks and tabs and passes over blank lines. It takes
    the first line for a header if and only if there are several columns.

    Args:
        rows: labels; with a header, sequences of as many labels.
        header: the names of the columns.
    """
    lines = ["\t".join(name.translate(_BREAKS) for name in header)] if len(header) > 1 else []
    broken = 0
    for row in rows:
        cells = [_as_text(cell) for cell in (row if header else (row,))]
        line = "\t".join(cell.translate(_BREAKS) for cell in cells)
        broken += line != "\t".join(cells)
        lines.append(line if line.strip() else f"-{line}")
    data = "".join(f"{line}\n" for line in lines).encode(errors="replace")
    return data, f"tabs and line breaks in {broken:,} labels become spaces" if broken else ""


def _as_text(label: Any) -> str:
    if isinstance(label, bytes):
        return label.decode(errors="replace")
    return str(label.item() if hasattr(label, "detach") else label)  # PyTorch


def encode_sheet(images: npt.NDArray[Any]) -> tuple[bytes, int, str]:
    """Return pictures side by side as a PNG, the side of each in pixels, and a remark.

    TensorBoard's shader wants as many rows as columns, and finds a picture's place by a division
    of floats, which is exact if their number is a power of two. It draws squares, and nothing
    where a sheet is transparent. A picture is made smaller if the sheet would be too large.

    Args:
        images: of any dtype, shape (N, H, W, C), with one to four channels.
    """
    tiles, remark = as_bytes(images)
    count, *size, channels = tiles.shape
    across = 1 << -(-(count - 1).bit_length() // 2)
    side = min(max(size), _SHEET // across)
    height, width = (max(length * side // max(size), 1) for length in size)
    if [height, width] != size:
        shrunk = f"pictures of {size[1]} x {size[0]} pixels become {width} x {height}"
        remark = "; ".join(filter(None, (remark, f"{shrunk}, for the sheet would be too large")))
    top, left = (side - height) // 2, (side - width) // 2
    depth = channels + (channels % 2 and height != width)  # adds transparency beside the picture
    sheet = np.zeros((across, side, across, side, depth), np.uint8)
    for row in range(-(-count // across)):
        part = tiles[row * across : (row + 1) * across]
        part = _shrunk(_shrunk(part, 1, height), 2, width)
        places = sheet[row, top : top + height, : len(part), left : left + width].swapaxes(0, 1)
        places[..., -1] = 255
        places[..., :channels] = part
    return encode_png(sheet.reshape(across * side, across * side, depth)), side, remark


def _shrunk(tiles: UInt8Array, axis: int, length: int) -> UInt8Array:
    """Return the means of neighbours along an axis, ``length`` of them."""
    before = tiles.shape[axis]
    if length == before:
        return tiles
    edges = np.arange(length + 1) * before // length
    sums = np.add.reduceat(tiles, edges[:-1], axis=axis, dtype=np.uint32)
    counts = np.diff(edges).reshape([-1 if i == axis else 1 for i in range(tiles.ndim)])
    means: UInt8Array = (sums // counts).astype(np.uint8)
    return means


def listed(entry: bytes, held: bytes | None) -> bytes:
    """Return a list of embeddings with one more, or with another one of that name.

    The rest stays as it is, comments too, unless an embedding has to go that another program has
    listed: then the list is written anew, without its comments.

    Args:
        entry: the embedding, a serialized ``EmbeddingInfo``.
        held: the list so far, None if there is none.

    Raises:
        InvalidValueError: what is there is no list of embeddings.
    """
    embedding = schema.EmbeddingInfo.FromString(entry)
    config = schema.ProjectorConfig()
    try:
        text = (held or b"").decode()
        text_format.Parse(text, config, allow_unknown_field=True)
    except (UnicodeDecodeError, text_format.ParseError) as error:
        message = (
            f"{CONFIG} cannot be read and is left as it is, without {embedding.tensor_name!r}; "
            f"mend or remove it: {error}"
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
