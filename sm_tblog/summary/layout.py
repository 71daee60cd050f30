"""Custom scalars: which curves are drawn in one chart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sm_tblog.format import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["layout_value"]


def layout_value(
    tag: str,
    charts: Iterable[tuple[str, str, str, tuple[str, ...]]],
    clean: Callable[[str], str] = str,
) -> tuple[Any, str]:
    """Return a ``Summary.Value`` of the custom_scalars plugin, and what it cannot draw.

    Args:
        tag: the one that the plugin looks for.
        charts: category, title, kind and tags of each. The tags are, by kind:
            ``"Curves"``, tags; ``"Multiline"``, regular expressions, which TensorBoard compares
            with the beginnings of tags, or tags; ``"Margin"``, the tags of a curve and of its
            lower and upper bound.
        clean: from tags as they are given to tags as they are written.
    """
    layout = schema.Layout()
    categories: dict[str, Any] = {}
    remark = ""
    for category, title, kind, tags in charts:
        if category not in categories:
            categories[category] = layout.category.add(title=category)
        chart = categories[category].chart.add(title=title)
        if kind != "Multiline" and any("(" in clean(given) for given in tags):
            # It finds a curve's run, and so its color, behind the first parenthesis.
            remark = f"TensorBoard fails to draw the chart {title!r}: a tag has a parenthesis"
        if kind == "Margin":
            value, lower, upper = map(clean, tags)
            chart.margin.series.add(value=value, lower=lower, upper=upper)
        elif kind == "Multiline":
            for given in tags:
                chart.multiline.tag.extend(_patterns(given, clean(given)))
        else:
            chart.multiline.tag.extend(_exactly(clean(given)) for given in tags)
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "custom_scalars"
    value.metadata.data_class = schema.DATA_CLASS_TENSOR
    value.tensor.dtype = schema.DT_STRING
    value.tensor.tensor_shape.SetInParent()
    value.tensor.string_val.append(layout.SerializeToString())
    return value, remark


def _exactly(tag: str) -> str:
    return f"^{re.escape(tag)}$"


def _patterns(given: str, tag: str) -> tuple[str, ...]:
    """Return what matches all that ``given`` does, and the tag of that name: ``c++/loss``."""
    try:
        return (given,) if re.match(given, tag) else (given, _exactly(tag))
    except re.error:
        return (_exactly(tag),)
