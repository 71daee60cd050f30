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
    """Methods that log figures and confusion matrices."""

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: Any = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """Log a Matplotlib figure as an image.

        The figure is drawn during the call, with its own size and resolution, because Matplotlib
        only draws safely in the script's own thread, and in the current style. The worker thread
        encodes it.

        Args:
            tag: the image's name, used as is.
            figure: a figure, an Axes, or any other object with an attribute ``figure``, such as
                seaborn's grids; or a list of them, which becomes one image with eight columns.
            global_step: any integer; by default ``writer.step``.
            close: close the figure, as ``pyplot.close`` does, even if it cannot be drawn or the
                writer is disabled, so that no process accumulates open figures.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument has the wrong type. TensorBoard shows no HTML, so figures
                of Plotly and others must be converted to images first.
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
        """Count a confusion matrix and log it as an image.

        The call copies the arrays, on their own devices; the worker thread counts and draws. Rows
        are true classes, columns are predicted classes. Cells show their numbers if they fit.
        Requires Matplotlib, for its font.

        Args:
            tag: the image's name, used as is.
            labels: the true class of each sample, an integer or a string; any shape, library and
                device.
            predictions: the predicted classes, of the same shape. Scores need an ``argmax`` first.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            class_names: the names of the classes 0, 1, …; if labels are strings, the order of the
                classes. By default the classes are those that occur, in sorted order.
            normalize: divide each number by the sum of its row (``"true"``), of its column
                (``"pred"``) or of all numbers (``"all"``), as in scikit-learn.
            title: shown above the matrix.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: the shapes differ, a class has no name, there are neither labels nor
                names, there are more than 1,000 classes, or ``normalize`` is unknown. Numbers on a
                device are checked on the worker thread instead, because the call does not wait for
                the device.
            MissingDependencyError: Matplotlib is not installed.
        """
        if self._enabled:
            check_tag(tag)
            from sm_tblog.summary.confusion import check_classes, check_options, snapshot_classes

            names = check_options(class_names, normalize, tag)
            true_classes = snapshot_classes(labels, tag)
            predicted_classes = snapshot_classes(predictions, tag)
            check_classes(true_classes, predicted_classes, names, tag)
            args = (true_classes, predicted_classes, names, normalize, str(title))
            nbytes = true_classes.nbytes + predicted_classes.nbytes
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

        The image looks like that of ``add_confusion_matrix``.

        Args:
            tag: the image's name, used as is.
            matrix: counts or shares, shape (classes, classes), with one row per true class, as in
                scikit-learn and torchmetrics.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            class_names: the names of the classes; by default 0, 1, ….
            normalize: as in ``add_confusion_matrix``.
            title: shown above the matrix.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: the matrix is not square, has more than 1,000 classes, does not match
                the number of names, or contains negative or non-finite numbers; or ``normalize`` is
                unknown. Numbers on a device are checked on the worker thread instead, because the
                call does not wait for the device.
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
