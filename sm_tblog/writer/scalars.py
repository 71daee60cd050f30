"""Scalars: one at a time, many at one step, or several in one chart."""

from __future__ import annotations

import logging
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog._types import Series, as_utf8
from sm_tblog.arrays.convert import as_number
from sm_tblog.writer.arguments import check_mapping, check_tag
from sm_tblog.writer.layouts import LayoutMethods
from sm_tblog.writer.naming import one_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ScalarMethods"]

logger = logging.getLogger("sm_tblog")

_MAX_DEPTH = 32
"""Levels of nesting beyond which a mapping is assumed to contain itself."""


class ScalarMethods(LayoutMethods):
    """Methods that log scalars."""

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
        display_name: str = "",
        summary_description: str = "",
        step: Any = None,
    ) -> None:
        """Log one number.

        Args:
            tag: the curve's name, used as is.
            scalar_value: anything that represents a number: Python and NumPy numbers, Decimal,
                Fraction, bool, or an array of any library with one element, on any device. A number
                on an accelerator is copied without waiting for the device.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch, or a datetime of the standard library, of pandas or
                of NumPy; by default now.
            new_style: write a tensor of the scalars plugin, as TensorFlow 2 does, instead of the
                shorter ``simple_value``. TensorBoard shows both alike.
            double_precision: write a float64 instead of a float32. Implies ``new_style``.
                TensorBoard 2.21 only shows such curves with ``--load_fast=false``.
            display_name: the name that TensorBoard shows instead of the tag.
            summary_description: Markdown, shown beside the chart.
            step: alias of ``global_step``.

        Raises:
            InvalidTypeError: the tag, value or step has the wrong type.
            InvalidValueError: the value does not have exactly one element. If tag, value and step
                are a str, a float and an int, the worker thread checks that the step fits an int64
                and that the tag has at most 1,048,576 characters: otherwise the row is left out,
                counted in ``rows_dropped`` and logged.
        """
        pipeline = self._pipeline
        if (
            type(scalar_value) is float
            and type(global_step) is int
            and type(tag) is str
            and walltime is None
            and step is None
            and not (new_style or double_precision or display_name or summary_description)
        ):
            pipeline.extend((tag, scalar_value, global_step, self._clock()))
            if len(pipeline.rows) > pipeline.limit:
                pipeline.on_limit()
            return
        style = (new_style, double_precision, display_name, summary_description)
        series = _as_series(tag, *style) if any(style) else tag
        self._add_rows(
            ((series, tag, scalar_value),), one_step("add_scalar", global_step, step), walltime
        )

    def log(
        self,
        values: Mapping[str, Any],
        step: Any = None,
        walltime: float | None = None,
        global_step: Any = None,
    ) -> None:
        """Log many numbers at one step.

        Args:
            values: numbers by tag, each as in ``add_scalar``. The values of a nested mapping are
                logged as ``tag/key``.
            step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            global_step: alias of ``step``.

        Raises:
            InvalidTypeError: a tag, a value or the step has the wrong type.
            InvalidValueError: a value does not have exactly one element, or the step does not fit
                an int64; the latter as in ``add_scalar``.
        """
        check_mapping(values, "log")
        if type(step) is int and walltime is None and global_step is None:
            now = self._clock()
            rows: list[Any] = []
            for tag, value in values.items():
                if type(value) is not float or type(tag) is not str:
                    break
                rows += (tag, value, step, now)
            else:
                pipeline = self._pipeline
                pipeline.extend(rows)
                if len(pipeline.rows) > pipeline.limit:
                    pipeline.on_limit()
                return
        step = one_step("log", global_step, step)
        self._add_rows(((tag, tag, value) for tag, value in _flatten(values)), step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: Any = None,
        walltime: float | None = None,
        layout: bool = False,
    ) -> None:
        """Log several numbers that belong in one chart.

        Args:
            main_tag: the chart's name.
            tag_scalar_dict: numbers by curve, each as in ``add_scalar``.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            layout: ``False`` makes each curve a run of its own below the log directory, named
                ``<main_tag>_<curve>``, as PyTorch does, with ``_`` for each slash; a curve whose
                run would be that of an earlier curve gets a number at the end. ``True`` keeps all
                curves in this run, as ``<main_tag>/<curve>``, and defines a chart of them for the
                Custom Scalars tab.

        Raises:
            InvalidTypeError: a tag, a value or the step has the wrong type.
            InvalidValueError: a value does not have exactly one element, or the step does not fit
                an int64.
        """
        check_tag(main_tag)
        check_mapping(tag_scalar_dict, repr(main_tag))
        if layout:
            self._extend_chart(main_tag, tag_scalar_dict)
        rows = [
            (
                f"{main_tag}/{key}" if layout else Series(main_tag, self._curve_run(main_tag, key)),
                f"{main_tag}/{key}",
                value,
            )
            for key, value in tag_scalar_dict.items()
        ]
        self._add_rows(rows, global_step, walltime)

    def _curve_run(self, main_tag: str, key: Any) -> str:
        """Return the run of a curve of ``add_scalars``, which no other curve of the chart has."""
        name = as_utf8(str(key))
        preferred = run = f"{_as_folder(main_tag)}_{_as_folder(name)}"
        for number in count(2):
            place = self._location, main_tag, run
            is_new = place not in self._curves
            if self._curves.setdefault(place, name) == name:
                break
            run = f"{preferred}_{number}"
        if is_new and run != preferred:
            other = self._curves[self._location, main_tag, preferred]
            logger.warning(
                "add_scalars: the curves %r and %r of %r would both be the run %r; the latter is "
                "logged as the run %r. Rename one of them to choose its run",
                other,
                name,
                main_tag,
                preferred,
                run,
            )
        return run

    def _add_rows(
        self, rows: Iterable[tuple[Any, str, Any]], step: Any, walltime: float | None
    ) -> None:
        """Add all rows, or none if one is invalid, at one step.

        Args:
            rows: series, name for messages, and value of each row.
            step: any integer; None is ``writer.step``.
            walltime: seconds since the epoch; None is now.
        """
        if not self._enabled:
            return
        now = self._as_time(walltime)
        flat: list[Any] = []
        for series, name, value in rows:
            check_tag(name)
            flat += (series, as_number(value, name), self._as_step(step, name), now)
        self._pipeline.extend(flat)
        if len(self._pipeline.rows) > self._pipeline.limit:
            self._pipeline.on_limit()


def _as_folder(name: str) -> str:
    """Return a curve's name as the end of a directory name."""
    return as_utf8(str(name)).replace("/", "_").replace("\\", "_")


def _as_series(
    tag: Any, new_style: Any, double_precision: Any, display_name: str, description: str
) -> Series:
    check_tag(tag)
    if isinstance(new_style, str):  # tensorboardX's display_name and description
        display_name, description = new_style, double_precision or ""
        new_style = double_precision = False
    if double_precision:
        _warn_about_double_precision()
    return Series(
        tag, "", bool(new_style), bool(double_precision), display_name or "", description or ""
    )


@cache
def _warn_about_double_precision() -> None:
    """Warn once about data that would otherwise seem lost; observed with data server 0.7.2."""
    logger.warning(
        "double_precision: TensorBoard's default loader does not show float64 scalars; start it "
        "with --load_fast=false to see them"
    )


def _flatten(
    values: Mapping[str, Any], prefix: str = "", parents: tuple[int, ...] = ()
) -> Iterable[tuple[str, Any]]:
    if id(values) in parents or len(parents) > _MAX_DEPTH:
        message = (
            f"log: {prefix[:60]!r} is nested more than {_MAX_DEPTH} levels deep; does it contain "
            "itself?"
        )
        raise InvalidValueError(message)
    for tag, value in values.items():
        check_tag(tag)
        if hasattr(value, "items"):
            yield from _flatten(value, f"{prefix}{tag}/", (*parents, id(values)))
        else:
            yield prefix + tag, value
