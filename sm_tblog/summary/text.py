"""Text: Markdown in the Text tab."""

from __future__ import annotations

from typing import Any

import numpy as np

from sm_tblog.format import schema

__all__ = ["text_value"]


def text_value(tag: str, text: Any) -> Any:
    """Return a ``Summary.Value`` of the text plugin.

    Args:
        tag: the tag, used unchanged.
        text: a Markdown string, or strings in one or two dimensions, which TensorBoard shows as a
            table.
    """
    array = np.asarray(text, dtype=object)
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "text"
    value.metadata.plugin_data.content = schema.TextPluginData().SerializeToString()
    value.metadata.data_class = schema.DATA_CLASS_TENSOR
    value.tensor.dtype = schema.DT_STRING
    for length in array.shape:
        value.tensor.tensor_shape.dim.add(size=length)
    value.tensor.tensor_shape.SetInParent()
    value.tensor.string_val.extend(str(item).encode(errors="replace") for item in array.flat)
    return value
