"""Layouts of the Custom Scalars tab.

TensorBoard uses the last layout of a run. Each writer therefore has a single layout, which every
call extends, and writes all of it whenever it changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import as_tag_cleaner
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LayoutMethods"]

LAYOUT_TAG = "custom_scalars__config__"

_build_layout = builder("layout.layout_value")


class LayoutMethods(BaseWriter):
    """Methods that define charts of the Custom Scalars tab."""

    def add_custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Define charts of several curves for the Custom Scalars tab.

        The charts are added to those that the writer defined before; a chart with the same category
        and title is replaced. Log the curves themselves with ``add_scalar``, before or after.

        ::

            writer.add_custom_scalars(
                {
                    "losses": {
                        "both": ["Multiline", ["loss/train", "loss/val"]],
                        "range": ["Margin", ["loss/mean", "loss/min", "loss/max"]],
                    }
                }
            )

        Args:
            layout: the charts of each category by title, and for each chart its kind and its tags.
                ``"Multiline"`` draws every curve whose tag equals one of the chart's tags, or
                matches one as a regular expression, from the start of the tag. ``"Margin"`` draws a
                curve between two others; its tags are those of the curve, the lower bound and the
                upper bound.

        Raises:
            InvalidTypeError: a part of the layout has the wrong type.
            InvalidValueError: the kind of a chart is unknown, a chart has no tags, or a margin
                chart does not have three.
        """
        if self._enabled:
            self._charts.update(_as_charts(layout))
            self._put_layout()

    def add_custom_scalars_multilinechart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Define a chart of several curves; see ``add_custom_scalars``.

        Args:
            tags: the tags of the curves, or regular expressions.
            category: the category of the chart.
            title: the title of the chart.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: there are no tags.
        """
        self.add_custom_scalars({category: {title: ("Multiline", tags)}})

    def add_custom_scalars_marginchart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Define a chart of a curve between two others; see ``add_custom_scalars``.

        Args:
            tags: the tags of the curve, the lower bound and the upper bound.
            category: the category of the chart.
            title: the title of the chart.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: there are not exactly three tags.
        """
        self.add_custom_scalars({category: {title: ("Margin", tags)}})

    def _extend_chart(self, title: str, names: Iterable[str]) -> None:
        """Add curves to a chart, unless ``add_custom_scalars`` has defined it."""
        if self._enabled:
            key = title.partition("/")[0], title
            kind, curves = self._charts.setdefault(key, ("Curves", {}))
            new = dict.fromkeys(tag for name in names if (tag := f"{title}/{name}") not in curves)
            if kind == "Curves" and new:
                curves.update(new)
                self._put_layout()

    def _put_layout(self) -> None:
        """Write the layout, again if another thread changed it, so that the last is complete."""
        clean = as_tag_cleaner(self._config["clean_tags"])
        written = None
        while written != (charts := self._list_charts()):
            self._put(LAYOUT_TAG, _build_layout, (charts, clean), 0, None)
            written = charts

    def _list_charts(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        """Return category, title, kind and tags of every chart that has tags."""
        charts = list(self._charts.items())
        return [(*names, kind, tuple(tags)) for names, (kind, tags) in charts if tags]


def _as_charts(layout: Any) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Return the kind and tags of each chart, by category and title."""
    _check_mapping(layout, "a layout must map categories to charts")
    charts = {}
    for category, titled_charts in layout.items():
        _check_mapping(titled_charts, f"category {category!r} must map titles to charts")
        for title, chart in titled_charts.items():
            where = f"chart {title!r} in category {category!r}"
            if not isinstance(category, str) or not isinstance(title, str):
                message = f"{where}: the category and the title must be str"
                raise InvalidTypeError(message)
            charts[category, title] = _as_chart(chart, where)
    return charts


def _check_mapping(value: Any, expected: str) -> None:
    if not isinstance(value, Mapping):
        message = f"custom scalars: {expected}, got {value!r:.60}"
        raise InvalidTypeError(message)


def _as_chart(chart: Any, where: str) -> tuple[str, tuple[str, ...]]:
    if not _is_list(chart) or len(chart) != 2:
        message = f"{where} must be a list of its kind and its tags, got {chart!r:.60}"
        raise InvalidTypeError(message)
    kind, given = chart
    if not isinstance(kind, str) or (kind := kind.capitalize()) not in {"Multiline", "Margin"}:
        message = f"{where}: the kind must be 'Multiline' or 'Margin', got {kind!r:.60}"
        raise InvalidValueError(message)
    tags = tuple(given) if _is_list(given) else (None,)
    if not all(isinstance(tag, str) for tag in tags):
        message = f"{where}: the tags must be a list of str, got {given!r:.60}"
        raise InvalidTypeError(message)
    if kind == "Margin" and len(tags) != 3:
        message = f"{where}: expected three tags, of a curve and its bounds, got {given!r:.60}"
        raise InvalidValueError(message)
    if not tags:
        message = f"{where} has no tags"
        raise InvalidValueError(message)
    return kind, tags


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))
