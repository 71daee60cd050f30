"""Draw a matrix as a picture: a colour for each cell, a name for each row and column.

The cells contain numbers if they fit; otherwise there is a colour scale. TensorBoard shows an image
about 350 pixels wide, and shrinks a larger one without smoothing. So pictures are as small as is
legible.

They are drawn with Pillow, in Matplotlib's font. Matplotlib itself would need an object for every
cell, and fifteen times the processor time for twenty classes; and its parser and settings are
shared by the whole process, so a worker thread would interfere with the script (see ``figure``).

All lengths are in pixels.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._types import as_utf8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.ImageFont import FreeTypeFont

    from sm_tblog._types import Float64Array, UInt8Array

__all__ = ["draw_matrix"]

_WIDTH = 400
_MARGIN, _GAP = 16, 8
_SCALE_WIDTH, _SCALE_NUMBERS = 12, 48
_MAX_NAME_WIDTH = 150
_MIN_FONT_SIZE = 9

_COLOR_STOPS = np.array(
    [(246, 249, 253), (199, 219, 240), (132, 178, 219), (62, 125, 186), (14, 60, 120)], np.float64
)
"""Colours from zero to the largest number, evenly spaced."""

_BLACK, _GREY, _LIGHT_GREY, _WHITE = (33, 37, 41), (108, 117, 125), (160, 168, 176), (255, 255, 255)


class _Canvas(NamedTuple):
    """The image to draw on, and the position of the matrix on it."""

    image: Any
    draw: Any
    left: int
    top: int
    cell: int
    side: int


def draw_matrix(matrix: Float64Array, names: Sequence[str], title: str, note: str) -> UInt8Array:
    """Return a picture of a matrix.

    Args:
        matrix: non-negative numbers of shape (classes, classes).
        names: the names of the classes, truncated if they are too long.
        title: the text above the matrix, truncated if it is too long; "" for none.
        note: the text below the title; "" for none.

    Returns:
        The picture, shape (H, W, 3).
    """
    from PIL import Image, ImageDraw

    cell = _cell_size(len(matrix))
    side = cell * len(matrix)
    font = _font(min(max(cell * 3 // 4, _MIN_FONT_SIZE), 13))
    heading, small = _font(15, "bold"), _font(12)
    title = _truncated(title, heading, _WIDTH)
    names = [_truncated(name, font, _MAX_NAME_WIDTH) for name in names]
    longest = round(max(map(font.getlength, names)))
    is_upright = longest > cell - _GAP // 2
    texts, number_font = _numbers(matrix, cell)

    left = _MARGIN + small.size + _GAP + longest + _GAP
    top = _MARGIN + 24 * bool(title) + 22 * bool(note)
    right = _MARGIN if number_font else 2 * _GAP + _SCALE_WIDTH + _SCALE_NUMBERS
    headings = round(max(heading.getlength(title), small.getlength(note))) + _MARGIN
    bottom = _GAP + (longest if is_upright else font.size) + 2 * _GAP + small.size + _MARGIN
    size = left + max(side + right, headings), top + side + bottom
    image = Image.new("RGB", size, _WHITE)
    canvas = _Canvas(image, ImageDraw.Draw(image), left, top, cell, side)

    canvas.draw.text((left, _MARGIN - 4), title, _BLACK, heading)
    canvas.draw.text((left, top - 22), note, _GREY, small)
    high = float(matrix.max()) or 1.0
    colors = _colors(matrix / high)
    _paint_cells(canvas, colors)
    if number_font:
        _write_numbers(canvas, texts, number_font, colors)
    else:
        _draw_scale(canvas, high, small)
    _write_names(canvas, names, font, is_upright=is_upright)
    canvas.draw.text((left + side / 2, image.height - _MARGIN), "predicted", _GREY, small, "ms")
    _write_rotated(canvas, (_MARGIN + small.size / 2, top + side / 2), "true", _GREY, small)
    return np.asarray(image)


def _cell_size(count: int) -> int:
    """Return the size of a cell; up to 20 classes there is room for a number."""
    if count > 100:
        return max(960 // count, 2)
    return min(max(_WIDTH // count, 27 if count <= 20 else 10), 64)


@lru_cache(maxsize=32)
def _font(size: int, weight: str = "normal") -> FreeTypeFont:
    """Return the font set in Matplotlib, which has the characters of the script's figures."""
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont(FontProperties(weight=weight)), size)


def _colors(shares: Float64Array) -> UInt8Array:
    """Return the colours of shares from 0 to 1; shape (…, 3)."""
    stops = np.linspace(0, 1, len(_COLOR_STOPS))
    channels = [np.interp(shares, stops, channel) for channel in _COLOR_STOPS.T]
    colors: UInt8Array = np.stack(channels, axis=-1).round().astype(np.uint8)
    return colors


def _paint_cells(canvas: _Canvas, colors: UInt8Array) -> None:
    """Paint one pixel per cell, enlarge them, and draw lines between cells if there is room."""
    from PIL import Image

    cells = Image.fromarray(colors).resize((canvas.side, canvas.side), Image.Resampling.NEAREST)
    canvas.image.paste(cells, (canvas.left, canvas.top))
    right, bottom = canvas.left + canvas.side - 1, canvas.top + canvas.side - 1
    for line in range(canvas.cell, canvas.side, canvas.cell) if canvas.cell > 10 else ():
        x, y = canvas.left + line, canvas.top + line
        canvas.draw.line((x, canvas.top, x, bottom), _WHITE)
        canvas.draw.line((canvas.left, y, right, y), _WHITE)


def _numbers(matrix: Float64Array, cell: int) -> tuple[list[list[str]], FreeTypeFont | None]:
    """Return the texts of the cells, and a font in which the longest fits; None if none does."""
    if cell < 2 * _MIN_FONT_SIZE:
        return [], None
    is_whole = bool((matrix == np.round(matrix)).all())
    texts = [[_number(number, is_whole=is_whole) for number in row] for row in matrix.tolist()]
    longest = max(map(_font(100).getlength, {text for row in texts for text in row}))
    size = int(min(cell * 85 / longest, cell * 0.4, 15))
    return texts, _font(size) if size >= _MIN_FONT_SIZE else None


def _number(number: float, *, is_whole: bool) -> str:
    """Return the text of a number in a cell: 0, 12, 3456, 12.3k, or 0.25."""
    if number == 0:
        return "0"
    if is_whole and number < 10_000:
        return f"{number:.0f}"
    return _abbreviated(number) if is_whole or number >= 100 else f"{number:.2f}"


def _abbreviated(number: float) -> str:
    """Return a number with three digits: 0.125, 12.5, 1.25k."""
    number = float(f"{number:.3g}")
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"


def _write_numbers(
    canvas: _Canvas, texts: list[list[str]], font: FreeTypeFont, colors: UInt8Array
) -> None:
    is_light = colors @ (0.299, 0.587, 0.114) > 120  # luma, as in ITU-R BT.601
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = _LIGHT_GREY if text == "0" else _BLACK if is_light[row, column] else _WHITE
            x = canvas.left + (column + 0.5) * canvas.cell
            y = canvas.top + (row + 0.5) * canvas.cell
            canvas.draw.text((x, y), text, color, font, "mm")


def _draw_scale(canvas: _Canvas, high: float, font: FreeTypeFont) -> None:
    """Draw the colour scale."""
    from PIL import Image

    x = canvas.left + canvas.side + 2 * _GAP
    ramp = Image.fromarray(_colors(np.linspace(1, 0, canvas.side)[:, np.newaxis]))
    canvas.image.paste(ramp.resize((_SCALE_WIDTH, canvas.side)), (x, canvas.top))
    for share, anchor in ((0.0, "ls"), (0.5, "lm"), (1.0, "lt")):
        at = x + _SCALE_WIDTH + 6, canvas.top + canvas.side * (1 - share)
        canvas.draw.text(at, _abbreviated(high * share), _GREY, font, anchor)


def _write_names(
    canvas: _Canvas, names: Sequence[str], font: FreeTypeFont, *, is_upright: bool
) -> None:
    """Write the names of rows and columns, skipping some if cells are smaller than letters."""
    below = canvas.top + canvas.side + _GAP
    for number in range(0, len(names), -(-(font.size + 1) // canvas.cell)):
        name, middle = names[number], (number + 0.5) * canvas.cell
        canvas.draw.text((canvas.left - _GAP, canvas.top + middle), name, _BLACK, font, "rm")
        if is_upright:
            end = below + font.getlength(name) / 2
            _write_rotated(canvas, (canvas.left + middle, end), name, _BLACK, font)
        else:
            canvas.draw.text((canvas.left + middle, below), name, _BLACK, font, "mt")


def _write_rotated(
    canvas: _Canvas, middle: tuple[float, float], text: str, color: Any, font: FreeTypeFont
) -> None:
    """Write text rotated by 90 degrees, reading upwards."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (round(font.getlength(text)) + 1, font.size * 5 // 4))
    ImageDraw.Draw(mask).text((0, mask.height / 2), text, 255, font, "lm")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    corner = round(middle[0] - mask.width / 2), round(middle[1] - mask.height / 2)
    canvas.image.paste(color, corner, mask)


def _truncated(text: str, font: FreeTypeFont, width: int) -> str:
    """Return text on one line, truncated to a width."""
    text = as_utf8(re.sub(r"\s+", " ", text))
    text = text[: width + 1]  # a letter is at least one pixel wide
    if font.getlength(text) <= width:
        return text
    lengths = range(len(text))
    fitting = bisect_right(lengths, width, key=lambda n: font.getlength(f"{text[:n]}…")) - 1
    return f"{text[: max(fitting, 0)]}…"
