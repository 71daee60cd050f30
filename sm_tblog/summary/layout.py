"""Custom scalars: which curves are drawn in one chart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sm_tblog.format import schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LAYOUT_TAG", "layout_value"]

LAYOUT_TAG = "custom_scalars__config__"


def layout_value(_: str, charts: Mapping[str, Sequence[str]]) -> Any:
    """Return a ``Summary.Value`` that lays out charts, each of several curves.

    Args:
        charts: the tags of each chart, by its title. A chart stands in the category that its
            title's first part names.
    """
    layout = schema.Layout()
    categories: dict[str, Any] = {}
    for title, tags in charts.items():
        name = title.partition("/")[0]
        if name not in categories:
            categories[name] = layout.category.add(title=name)
        chart = categories[name].chart.add(title=title)
        chart.multiline.tag.extend(f"^{re.escape(tag)}$" for tag in tags)
    value = schema.Value(tag=LAYOUT_TAG)
    value.metadata.plugin_data.plugin_name = "custom_scalars"
    value.metadata.data_class = schema.DATA_CLASS_TENSOR
    value.tensor.dtype = schema.DT_STRING
    value.tensor.tensor_shape.SetInParent()
    value.tensor.string_val.append(layout.SerializeToString())
    return value
