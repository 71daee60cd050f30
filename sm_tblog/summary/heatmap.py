"""A matrix as a picture: a colour for each cell, a name for each row and column.

Numbers stand in the cells if they fit; otherwise a scale says what the colours mean. TensorBoard
shows an image about 350 pixels wide, and shrinks a larger one without smoothing. So pictures are as
small as can be read.

They are drawn with Pillow, in Matplotlib's font. Matplotlib itself would need an object for every
cell, and fifteen times the processor time for twenty classes; and its formulas and settings belong
to the whole process, where a worker gets in the script's way (see ``figure``).

All lengths are in pixels.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.ImageFont import FreeTypeFont

    from sm_tblog._types import Float64Array, UInt8Array

__all__ = ["draw_matrix"]

_SIDE = 400
_MARGIN, _GAP = 16, 8
_SCALE_WIDTH, _SCALE_NUMBERS = 12, 48
_LONGEST_NAME = 150
_SMALLEST_LETTERS = 9

_RAMP = np.array(
    [(246, 249, 253), (199, 219, 240), (132, 178, 219), (62, 125, 186), (14, 60, 120)], np.float64
)
"""Colours from nothing to the largest number, evenly spaced."""

_INK, _GREY, _PALE, _PAPER = (33, 37, 41), (108, 117, 125), (160, 168, 176), (255, 255, 255)


class _Sheet(NamedTuple):
    """What is drawn on, and where on it the matrix stands."""

    image: Any
    pen: Any
    left: int
    top: int
    cell: int
    side: int


def draw_matrix(matrix: Float64Array, names: Sequence[str], title: str, note: str) -> UInt8Array:
    """Return a picture of a matrix.

    Args:
        matrix: shape (classes, classes), not negative.
        names: of the classes; those too long to show are cut.
        title: stands above, cut like them; "" for none.
        note: stands below the title; "" for none.

    Returns:
        The picture, shape (H, W, 3).
    """
    from PIL import Image, ImageDraw

    cell = _cell_size(len(matrix))
    side = cell * len(matrix)
    font = _font(min(max(cell * 3 // 4, _SMALLEST_LETTERS), 13))
    heading, small = _font(15, "bold"), _font(12)
    title = _shortened(title, heading, _SIDE)
    names = [_shortened(name, font, _LONGEST_NAME) for name in names]
    longest = round(max(map(font.getlength, names)))
    is_upright = longest > cell - _GAP // 2
    texts, number_font = _numbers(matrix, cell)

    left = _MARGIN + small.size + _GAP + longest + _GAP
    top = _MARGIN + 24 * bool(title) + 22 * bool(note)
    right = _MARGIN if number_font else 2 * _GAP + _SCALE_WIDTH + _SCALE_NUMBERS
    headings = round(max(heading.getlength(title), small.getlength(note))) + _MARGIN
    bottom = _GAP + (longest if is_upright else font.size) + 2 * _GAP + small.size + _MARGIN
    size = left + max(side + right, headings), top + side + bottom
    image = Image.new("RGB", size, _PAPER)
    sheet = _Sheet(image, ImageDraw.Draw(image), left, top, cell, side)

    sheet.pen.text((left, _MARGIN - 4), title, _INK, heading)
    sheet.pen.text((left, top - 22), note, _GREY, small)
    high = float(matrix.max()) or 1.0
    colors = _colors(matrix / high)
    _paint_cells(sheet, colors)
    if number_font:
        _write_numbers(sheet, texts, number_font, colors)
    else:
        _draw_scale(sheet, high, small)
    _write_names(sheet, names, font, is_upright=is_upright)
    sheet.pen.text((left + side / 2, image.height - _MARGIN), "predicted", _GREY, small, "ms")
    _write_upwards(sheet, (_MARGIN + small.size / 2, top + side / 2), "true", _GREY, small)
    return np.asarray(image)


def _cell_size(count: int) -> int:
    """Return how large a cell is; up to 20 classes there is room for a number."""
    if count > 100:
        return max(960 // count, 2)
    return min(max(_SIDE // count, 27 if count <= 20 else 10), 64)


@lru_cache(maxsize=32)
def _font(size: int, weight: str = "normal") -> FreeTypeFont:
    """Return Matplotlib's font, as the script has set it: it has the letters of its figures."""
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont(FontProperties(weight=weight)), size)


def _colors(shares: Float64Array) -> UInt8Array:
    """Return the colours of shares from 0 to 1; shape (…, 3)."""
    stops = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(shares, stops, channel) for channel in _RAMP.T]
    colors: UInt8Array = np.stack(channels, axis=-1).round().astype(np.uint8)
    return colors


def _paint_cells(sheet: _Sheet, colors: UInt8Array) -> None:
    """Paint one pixel for each cell, enlarge them, and draw lines between if there is room."""
    from PIL import Image

    cells = Image.fromarray(colors).resize((sheet.side, sheet.side), Image.Resampling.NEAREST)
    sheet.image.paste(cells, (sheet.left, sheet.top))
    right, bottom = sheet.left + sheet.side - 1, sheet.top + sheet.side - 1
    for line in range(sheet.cell, sheet.side, sheet.cell) if sheet.cell > 10 else ():
        x, y = sheet.left + line, sheet.top + line
        sheet.pen.line((x, sheet.top, x, bottom), _PAPER)
        sheet.pen.line((sheet.left, y, right, y), _PAPER)


def _numbers(matrix: Float64Array, cell: int) -> tuple[list[list[str]], FreeTypeFont | None]:
    """Return what to write into the cells, and a font in which the longest fits, None for none."""
    if cell < 2 * _SMALLEST_LETTERS:
        return [], None
    is_whole = bool((matrix == np.round(matrix)).all())
    texts = [[_number(number, is_whole=is_whole) for number in row] for row in matrix.tolist()]
    longest = max(map(_font(100).getlength, {text for row in texts for text in row}))
    size = int(min(cell * 85 / longest, cell * 0.4, 15))
    return texts, _font(size) if size >= _SMALLEST_LETTERS else None


def _number(number: float, *, is_whole: bool) -> str:
    """Return a number as it is written into a cell: 0, 12, 3456, 12.3k, or 0.25."""
    if number == 0:
        return "0"
    if is_whole and number < 10_000:
        return f"{number:.0f}"
    return _compact(number) if is_whole or number >= 100 else f"{number:.2f}"


def _compact(number: float) -> str:
    """Return a number in three digits: 0.125, 12.5, 1.25k."""
    number = float(f"{number:.3g}")
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"


def _write_numbers(
    sheet: _Sheet, texts: list[list[str]], font: FreeTypeFont, colors: UInt8Array
) -> None:
    is_light = colors @ (0.299, 0.587, 0.114) > 120  # luma, as in ITU-R BT.601
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            ink = _PALE if text == "0" else _INK if is_light[row, column] else _PAPER
            x = sheet.left + (column + 0.5) * sheet.cell
            y = sheet.top + (row + 0.5) * sheet.cell
            sheet.pen.text((x, y), text, ink, font, "mm")


def _draw_scale(sheet: _Sheet, high: float, font: FreeTypeFont) -> None:
    """Draw which colours stand for which numbers."""
    from PIL import Image

    x = sheet.left + sheet.side + 2 * _GAP
    ramp = Image.fromarray(_colors(np.linspace(1, 0, sheet.side)[:, np.newaxis]))
    sheet.image.paste(ramp.resize((_SCALE_WIDTH, sheet.side)), (x, sheet.top))
    for share, anchor in ((0.0, "ls"), (0.5, "lm"), (1.0, "lt")):
        at = x + _SCALE_WIDTH + 6, sheet.top + sheet.side * (1 - share)
        sheet.pen.text(at, _compact(high * share), _GREY, font, anchor)


def _write_names(
    sheet: _Sheet, names: Sequence[str], font: FreeTypeFont, *, is_upright: bool
) -> None:
    """Write the names of rows and columns; not of all where cells are smaller than letters."""
    below = sheet.top + sheet.side + _GAP
    for number in range(0, len(names), -(-(font.size + 1) // sheet.cell)):
        name, middle = names[number], (number + 0.5) * sheet.cell
        sheet.pen.text((sheet.left - _GAP, sheet.top + middle), name, _INK, font, "rm")
        if is_upright:
            end = below + font.getlength(name) / 2
            _write_upwards(sheet, (sheet.left + middle, end), name, _INK, font)
        else:
            sheet.pen.text((sheet.left + middle, below), name, _INK, font, "mt")


def _write_upwards(
    sheet: _Sheet, middle: tuple[float, float], text: str, ink: Any, font: FreeTypeFont
) -> None:
    """Write text that is read from below."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (round(font.getlength(text)) + 1, font.size * 5 // 4))
    ImageDraw.Draw(mask).text((0, mask.height / 2), text, 255, font, "lm")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    corner = round(middle[0] - mask.width / 2), round(middle[1] - mask.height / 2)
    sheet.image.paste(ink, corner, mask)


def _shortened(text: str, font: FreeTypeFont, width: int) -> str:
    """Return text on one line, cut where it would be wider than that."""
    text = re.sub(r"\s+", " ", text).encode(errors="replace").decode()
    text = text[: width + 1]  # a letter is a pixel wide, at least
    if font.getlength(text) <= width:
        return text
    lengths = range(len(text))
    fitting = bisect_right(lengths, width, key=lambda n: font.getlength(f"{text[:n]}…")) - 1
    return f"{text[: max(fitting, 0)]}…"
