"""Layouts of the Custom Scalars tab.

TensorBoard takes the last layout of a run. So a writer has one, to which every call adds, and
writes it whole whenever it changes.
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
    """What lays out charts."""

    def add_custom_scalars(self, layout: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Lay out charts of several curves, for the Custom Scalars tab.

        The charts add to those that the writer has laid out before; one of the same category and
        title is replaced. The curves themselves are logged by ``add_scalar``, before or after.

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
            layout: for each category its charts, for each chart its kind and its tags.
                ``"Multiline"`` draws every tag that matches one of its tags, as a regular
                expression from its beginning on, or is equal to one. ``"Margin"`` draws a curve
                between two others; its tags are the curve's, the lower's and the upper's.

        Raises:
            InvalidTypeError: a part of the layout is of the wrong kind.
            InvalidValueError: there is no such kind of chart, it has no tags, or a margin chart
                has not three.
        """
        if self._enabled:
            self._charts.update(_as_charts(layout))
            self._put_layout()

    def add_custom_scalars_multilinechart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Lay out a chart of several curves; see ``add_custom_scalars``.

        Args:
            tags: the curves', or regular expressions.
            category: what the chart stands under.
            title: the chart's.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: there are no tags.
        """
        self.add_custom_scalars({category: {title: ("Multiline", tags)}})

    def add_custom_scalars_marginchart(
        self, tags: Sequence[str], category: str = "default", title: str = "untitled"
    ) -> None:
        """Lay out a chart of a curve between two others; see ``add_custom_scalars``.

        Args:
            tags: the curve's, the lower's and the upper's.
            category: what the chart stands under.
            title: the chart's.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: there are not three tags.
        """
        self.add_custom_scalars({category: {title: ("Margin", tags)}})

    def _extend_chart(self, title: str, names: Iterable[str]) -> None:
        """Add curves to a chart, unless ``add_custom_scalars`` has laid it out."""
        if self._enabled:
            key = title.partition("/")[0], title
            kind, curves = self._charts.setdefault(key, ("Curves", {}))
            new = dict.fromkeys(tag for name in names if (tag := f"{title}/{name}") not in curves)
            if kind == "Curves" and new:
                curves.update(new)
                self._put_layout()

    def _put_layout(self) -> None:
        """Write the layout; again if another thread has changed it, so that the last is whole."""
        clean = as_tag_cleaner(self._config["clean_tags"]) or str
        written = None
        while written != (charts := self._listed_charts()):
            self._put(LAYOUT_TAG, _build_layout, (charts, clean), 0, None)
            written = charts

    def _listed_charts(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        """Return category, title, kind and tags of every chart that has any."""
        charts = list(self._charts.items())
        return [(*names, kind, tuple(tags)) for names, (kind, tags) in charts if tags]


def _as_charts(layout: Any) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Return kind and tags of each chart, by category and title."""
    _check_mapping(layout, "a layout is a mapping of charts by category")
    charts = {}
    for category, of_category in layout.items():
        _check_mapping(of_category, f"{category!r} is a mapping of charts by title")
        for title, chart in of_category.items():
            where = f"the chart {title!r} of {category!r}"
            if not isinstance(category, str) or not isinstance(title, str):
                message = f"{where}: a category and a title are str"
                raise InvalidTypeError(message)
            charts[category, title] = _as_chart(chart, where)
    return charts


def _check_mapping(value: Any, says: str) -> None:
    if not isinstance(value, Mapping):
        message = f"custom scalars: {says}, got {value!r:.60}"
        raise InvalidTypeError(message)


def _as_chart(chart: Any, where: str) -> tuple[str, tuple[str, ...]]:
    if not _is_list(chart) or len(chart) != 2:
        message = f"{where} is a list of its kind and its tags, got {chart!r:.60}"
        raise InvalidTypeError(message)
    kind, given = chart
    if not isinstance(kind, str) or (kind := kind.capitalize()) not in {"Multiline", "Margin"}:
        message = f"{where} is of the kind 'Multiline' or 'Margin', not {kind!r:.60}"
        raise InvalidValueError(message)
    tags = tuple(given) if _is_list(given) else (None,)
    if not all(isinstance(tag, str) for tag in tags):
        message = f"{where} has a list of tags, each a str, not {given!r:.60}"
        raise InvalidTypeError(message)
    if kind == "Margin" and len(tags) != 3:
        message = f"{where} has the tags of a curve and of its bounds, three, not {given!r:.60}"
        raise InvalidValueError(message)
    if not tags:
        message = f"{where} has no tags"
        raise InvalidValueError(message)
    return kind, tags


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))
