"""Encode PNGs with Pillow, with settings that suit what training scripts log.

Compression is most of the work. A photograph's rows, stored as differences from their neighbours,
are noise around zero without repeated strings worth a search: run-length and Huffman coding alone
take half the processor time of the usual level 6, for the same size. Plots take 60 % of the time,
and 6 % more bytes.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sm_tblog._types import UInt8Array

__all__ = ["encode_png"]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def encode_png(pixels: UInt8Array) -> bytes:
    """Return a picture as a PNG.

    Args:
        pixels: uint8, shape (H, W, C), with one to four channels.
    """
    from PIL import Image

    height, width, channels = pixels.shape
    image = Image.frombytes(_MODES[channels], (width, height), pixels.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()
