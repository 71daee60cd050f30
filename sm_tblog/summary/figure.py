"""Figures of Matplotlib, as pictures.

A figure is drawn at the call, in the thread of the caller; what remains, from the pixels to the
file, is the worker's. Matplotlib does not allow more. What it parses formulas with, the labels of
logarithmic axes among them, belongs to the whole process, and laying a figure out is not locked
against drawing another: while a worker draws, ``tight_layout`` raises in the training script. And
ticks and fonts are made as a figure is drawn, from the settings of that moment: outside of its
``plt.style.context`` a figure on black gets black ticks. A copy to draw in another process would
take a tenth of the time, but leave out styles, fonts, and whatever cannot be pickled.
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

_COLUMNS = 8


def draw_figures(figures: Any, tag: str) -> list[UInt8Array]:
    """Return the pixels of figures.

    Args:
        figures: a figure of Matplotlib, what belongs to one and names it as ``figure`` (an Axes, a
            grid of seaborn's), or a list of either.
        tag: named in errors.

    Returns:
        Red, green, blue and opacity, shape (H, W, 4), of each figure; sizes may differ.

    Raises:
        InvalidTypeError: it is no figure.
        InvalidValueError: the list is empty, or Matplotlib cannot draw a figure.
    """
    if not (found := [_figure_of(one, tag) for one in _as_list(figures)]):
        message = f"{tag!r}: got no figure to draw"
        raise InvalidValueError(message)
    return [_drawn(figure, tag) for figure in found]


def _as_list(figures: Any) -> Sequence[Any]:
    return figures if isinstance(figures, (list, tuple)) else [figures]


def _figure_of(owner: Any, tag: str) -> Any:
    if (figure := _maybe_figure(owner)) is not None:
        return figure
    kind = f"{type(owner).__module__}.{type(owner).__qualname__}"
    message = f"{tag!r}: add_figure takes figures of Matplotlib, got {kind}"
    if hasattr(owner, "to_image"):  # as Plotly has it
        message += (
            "; TensorBoard shows no HTML: draw it with figure.to_image('png'), open that with "
            "Pillow, and log the picture by add_image"
        )
    raise InvalidTypeError(message)


def _maybe_figure(owner: Any) -> Any:
    """Return the figure that this is or belongs to, None if there is none."""
    matplotlib_figure = sys.modules.get("matplotlib.figure")
    if matplotlib_figure is None:  # then no one can have made one
        return None
    for _ in range(4):  # something's Axes, its SubFigure, and that one's Figure
        if isinstance(owner, matplotlib_figure.Figure):
            return owner
        owner = getattr(owner, "figure", None)
    return None


def _drawn(figure: Any, tag: str) -> UInt8Array:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shown_on = figure.canvas
    try:
        # On a canvas of its own, whose pixels no later drawing changes.
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())
    except Exception as error:
        message = f"{tag!r}: Matplotlib cannot draw the figure: {error}"
        raise InvalidValueError(message) from error
    finally:
        figure.set_canvas(shown_on)


def close_figures(figures: Any) -> None:
    """Close what is a figure among these, as ``pyplot.close`` does."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:  # then no figure is kept open
        return
    for owner in _as_list(figures):
        if (figure := _maybe_figure(owner)) is not None:
            pyplot.close(figure)


def figure_value(tag: str, pictures: Sequence[UInt8Array]) -> Any:
    """Return a ``Summary.Value`` of an image of one or several pictures, on white.

    Args:
        tag: the tag, taken as it is.
        pictures: as ``draw_figures`` returns them. Several make a grid of eight columns, each cell
            as large as the largest picture.
    """
    from sm_tblog.summary.image import grid_value

    height, width, _ = np.max([picture.shape for picture in pictures], axis=0)
    count = len(pictures) if len(pictures) < _COLUMNS else -(-len(pictures) // _COLUMNS) * _COLUMNS
    pages = np.full((count, height, width, 3), 255, np.uint8)
    for page, picture in zip(pages, pictures, strict=False):
        page[: picture.shape[0], : picture.shape[1]] = _on_white(picture)
    return grid_value(tag, pages, "NHWC")[0]


def _on_white(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the colours that a picture has on white paper; shape (H, W, 3)."""
    colors, opacity = picture[..., :3], picture[..., 3:]
    if (opacity == 255).all():
        return colors
    opaque = opacity.astype(np.uint16)
    mixed: npt.NDArray[np.uint8] = ((colors * opaque + 255 * (255 - opaque) + 127) // 255).astype(
        np.uint8
    )
    return mixed
