"""Custom scalars: charts that each show several curves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sm_tblog._types import as_utf8
from sm_tblog.format import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["layout_value"]


def layout_value(
    tag: str,
    charts: Iterable[tuple[str, str, str, tuple[str, ...]]],
    clean: Callable[[str], str] = str,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of the custom_scalars plugin, and a warning on failing charts.

    Args:
        tag: the tag that the plugin looks for.
        charts: category, title, kind and tags of each chart. The tags depend on the kind:
            ``"Curves"``: tags; ``"Multiline"``: tags, or regular expressions that TensorBoard
            matches at the start of tags; ``"Margin"``: the tags of a curve, its lower and its upper
            bound.
        clean: a function that converts a tag from the form in ``charts`` to the form written.
    """
    layout = schema.Layout()
    categories: dict[str, Any] = {}
    warning = ""
    for given_category, given_title, kind, tags in charts:
        category, title = as_utf8(given_category), as_utf8(given_title)
        if category not in categories:
            categories[category] = layout.category.add(title=category)
        chart = categories[category].chart.add(title=title)
        if kind != "Multiline" and any("(" in clean(given) for given in tags):
            # TensorBoard reads the text after the first parenthesis as the run, for the color.
            warning = f"TensorBoard cannot draw the chart {title!r}: a tag contains a parenthesis"
        if kind == "Margin":
            value, lower, upper = map(clean, tags)
            chart.margin.series.add(value=value, lower=lower, upper=upper)
        elif kind == "Multiline":
            for given in tags:
                chart.multiline.tag.extend(map(as_utf8, _patterns(given, clean(given))))
        else:
            chart.multiline.tag.extend(_exact_pattern(clean(given)) for given in tags)
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "custom_scalars"
    value.metadata.data_class = schema.DATA_CLASS_TENSOR
    value.tensor.dtype = schema.DT_STRING
    value.tensor.tensor_shape.SetInParent()
    value.tensor.string_val.append(layout.SerializeToString())
    return value, warning


def _exact_pattern(tag: str) -> str:
    return f"^{re.escape(tag)}$"


def _patterns(given: str, tag: str) -> tuple[str, ...]:
    """Return patterns for all matches of ``given`` and for a tag of that name (``c++/loss``)."""
    try:
        return (given,) if re.match(given, tag) else (given, _exact_pattern(tag))
    except re.error:
        return (_exact_pattern(tag),)
