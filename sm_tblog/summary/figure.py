"""Matplotlib figures, logged as pictures.

A figure is drawn at the call, on the calling thread; the worker thread does the rest, from the
pixels to the file. Matplotlib does not allow more. Its parser for formulas, which include the
labels of logarithmic axes, is shared by the whole process, and laying out a figure is not locked
against drawing another: while a worker thread draws, ``tight_layout`` raises in the training
script. Also, ticks and fonts are created when a figure is drawn, from the settings at that time:
outside its ``plt.style.context``, a figure on black gets black ticks. Copying the figure to another
process and drawing it there would take a tenth of the time, but lose styles, fonts, and anything
that cannot be pickled.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sm_tblog._types import UInt8Array

__all__ = ["close_figures", "draw_figures", "figure_value"]

_GRID_COLUMNS = 8


def draw_figures(figures: Any, tag: str) -> list[UInt8Array]:
    """Return the pixels of figures.

    Args:
        figures: a Matplotlib figure, an object with a ``figure`` attribute (an Axes, a seaborn
            grid), or a list of either.
        tag: the tag, for error messages.

    Returns:
        Red, green, blue and opacity of each figure, shape (H, W, 4); sizes may differ.

    Raises:
        InvalidTypeError: an object is not a figure and does not belong to one.
        InvalidValueError: the list is empty, or Matplotlib cannot draw a figure.
    """
    if not (found := [_figure_of(one, tag) for one in _as_list(figures)]):
        message = f"{tag!r}: got no figure to draw"
        raise InvalidValueError(message)
    return [_draw(figure, tag) for figure in found]


def _as_list(figures: Any) -> Sequence[Any]:
    return figures if isinstance(figures, (list, tuple)) else [figures]


def _figure_of(owner: Any, tag: str) -> Any:
    if (figure := _maybe_figure(owner)) is not None:
        return figure
    kind = f"{type(owner).__module__}.{type(owner).__qualname__}"
    message = f"{tag!r}: add_figure expects Matplotlib figures, got {kind}"
    if hasattr(owner, "to_image"):  # as in Plotly
        message += (
            "; TensorBoard shows no HTML: draw it with figure.to_image('png'), open the result "
            "with Pillow, and log it with add_image"
        )
    raise InvalidTypeError(message)


def _maybe_figure(owner: Any) -> Any:
    """Return the figure that ``owner`` is or belongs to; None if there is none."""
    matplotlib_figure = sys.modules.get("matplotlib.figure")
    if matplotlib_figure is None:  # then no figure can exist
        return None
    for _ in range(4):  # an object, its Axes, its SubFigure, and its Figure
        if isinstance(owner, matplotlib_figure.Figure):
            return owner
        owner = getattr(owner, "figure", None)
    return None


def _draw(figure: Any, tag: str) -> UInt8Array:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    original_canvas = figure.canvas
    try:
        # On a separate canvas, whose pixels later drawing does not change.
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())
    except Exception as error:
        message = f"{tag!r}: Matplotlib cannot draw the figure: {error}"
        raise InvalidValueError(message) from error
    finally:
        figure.set_canvas(original_canvas)


def close_figures(figures: Any) -> None:
    """Close the figures among these objects with ``pyplot.close``."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:  # then no figure is registered
        return
    for owner in _as_list(figures):
        if (figure := _maybe_figure(owner)) is not None:
            pyplot.close(figure)


def figure_value(tag: str, pictures: Sequence[UInt8Array]) -> Any:
    """Return a ``Summary.Value`` of an image of one or several pictures on a white background.

    Args:
        tag: the tag, used unchanged.
        pictures: as returned by ``draw_figures``. Several form a grid of eight columns, with cells
            as large as the largest picture.
    """
    from sm_tblog.summary.image import grid_value

    height, width, _ = np.max([picture.shape for picture in pictures], axis=0)
    count = len(pictures)
    if count > _GRID_COLUMNS:  # fill the last row
        count = -(-count // _GRID_COLUMNS) * _GRID_COLUMNS
    pages = np.full((count, height, width, 3), 255, np.uint8)
    for page, picture in zip(pages, pictures, strict=False):
        page[: picture.shape[0], : picture.shape[1]] = _on_white(picture)
    return grid_value(tag, pages, "NHWC")[0]


def _on_white(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a picture blended onto white; shape (H, W, 3)."""
    colors, opacity = picture[..., :3], picture[..., 3:]
    if (opacity == 255).all():
        return colors
    opaque = opacity.astype(np.uint16)
    mixed: npt.NDArray[np.uint8] = ((colors * opaque + 255 * (255 - opaque) + 127) // 255).astype(
        np.uint8
    )
    return mixed
