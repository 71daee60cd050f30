"""Figures and confusion matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.arrays.convert import snapshot
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

__all__ = ["FigureMethods"]

_build_figure = builder("figure.figure_value")
_build_confusion = builder("confusion.confusion_value")
_build_matrix = builder("confusion.matrix_value")


class FigureMethods(BaseWriter):
    """What logs drawings."""

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: Any = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """Log a figure of Matplotlib as an image.

        The figure is drawn at the call, at its own size and resolution; encoding is the worker's.
        Matplotlib draws safely in the script's own thread alone, and in the style of the moment.

        Args:
            tag: the image's name, taken as it is.
            figure: a figure, an Axes, or anything else that names its figure as ``figure``, such
                as seaborn's grids; or a list of them, which becomes one image with eight columns.
            global_step: any integer; by default ``writer.step``.
            close: close the figure, as ``pyplot.close`` does; also if it cannot be drawn, and if
                this writer is disabled, so that no process collects open figures.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument is of the wrong kind. TensorBoard shows no HTML, so that
                figures of Plotly and others have to be made images first.
            InvalidValueError: the list is empty, or Matplotlib cannot draw the figure.
        """
        from sm_tblog.summary.figure import close_figures, draw_figures

        try:
            if self._enabled:
                check_tag(tag)
                pictures = draw_figures(figure, tag)
                nbytes = sum(picture.nbytes for picture in pictures)
                self._put(tag, _build_figure, (pictures,), global_step, walltime, nbytes)
        finally:
            if close:
                close_figures(figure)

    def add_confusion_matrix(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        walltime: float | None = None,
        *,
        class_names: Sequence[Any] | None = None,
        normalize: Literal["true", "pred", "all"] | None = None,
        title: str = "",
    ) -> None:
        """Log how often each class was predicted for each, as an image.

        The arrays are copied, on their own devices; counting and drawing are the worker's. A row
        stands for a true class, a column for a predicted one. Numbers stand in the cells where
        they fit. Needs Matplotlib, for its font.

        Args:
            tag: the image's name, taken as it is.
            labels: the true class of each sample, an integer or a string; any shape, library and
                device.
            predictions: the predicted classes, of the same shape. Scores need an ``argmax`` first.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            class_names: the names of the classes 0, 1, …; if labels are strings, the order of the
                classes. By default the classes are those that occur, in their order.
            normalize: divide each number by the sum of its row (``"true"``), of its column
                (``"pred"``) or of all (``"all"``), as in scikit-learn.
            title: stands above the matrix.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: the shapes differ, a class has no name, there are no labels and no
                names, more than 1,000 classes, or ``normalize`` is unknown. What is on a device is
                not waited for: its numbers are looked at by the worker.
            MissingDependencyError: Matplotlib is not installed.
        """
        if self._enabled:
            check_tag(tag)
            from sm_tblog.summary.confusion import check_classes, check_options, snapshot_classes

            names = check_options(class_names, normalize, tag)
            truth, guess = snapshot_classes(labels, tag), snapshot_classes(predictions, tag)
            check_classes(truth, guess, names, tag)
            args = (truth, guess, names, normalize, str(title))
            nbytes = truth.nbytes + guess.nbytes
            self._put(tag, _build_confusion, args, global_step, walltime, nbytes)

    def add_confusion_matrix_raw(
        self,
        tag: str,
        matrix: Any,
        global_step: Any = None,
        walltime: float | None = None,
        *,
        class_names: Sequence[Any] | None = None,
        normalize: Literal["true", "pred", "all"] | None = None,
        title: str = "",
    ) -> None:
        """Log a confusion matrix that was counted elsewhere, as an image.

        It looks as that of ``add_confusion_matrix``.

        Args:
            tag: the image's name, taken as it is.
            matrix: counts or shares, shape (classes, classes); a row for each true class, as
                scikit-learn and torchmetrics have it.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            class_names: the names of the classes; by default 0, 1, ….
            normalize: as in ``add_confusion_matrix``.
            title: stands above the matrix.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: the matrix is not square, has more than 1,000 classes, another
                number of them than there are names, or numbers that are negative or not finite;
                or ``normalize`` is unknown. What is on a device is not waited for: its numbers are
                looked at by the worker.
            MissingDependencyError: Matplotlib is not installed.
        """
        if self._enabled:
            check_tag(tag)
            from sm_tblog.summary.confusion import check_matrix, check_options

            names = check_options(class_names, normalize, tag)
            counts = snapshot(matrix, tag)
            check_matrix(counts, names, tag)
            args = (counts, names, normalize, str(title))
            self._put(tag, _build_matrix, args, global_step, walltime, counts.nbytes)
