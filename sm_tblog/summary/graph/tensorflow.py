"""TensorFlow: a ``GraphDef``, or objects that can be converted to one."""

from __future__ import annotations

from typing import Any

from sm_tblog.summary.graph.base import Graph

__all__ = ["accepts", "read"]


def accepts(model: Any, inputs: Any = None) -> bool:
    """Return whether this is a ``GraphDef``, a ``tf.Graph`` or a TensorFlow function."""
    del inputs
    is_message = all(hasattr(model, name) for name in ("SerializeToString", "node", "versions"))
    holder = getattr(model, "graph", model)  # a concrete function has a graph
    names = "as_graph_def", "get_concrete_function"
    return is_message or any(hasattr(holder, name) for name in names)


def read(model: Any, inputs: Any, **_: Any) -> Graph:
    """Return the graph as a serialized ``GraphDef``.

    Args:
        model: a ``GraphDef``, a ``tf.Graph``, a concrete function, or a ``tf.function``.
        inputs: the arguments to trace a ``tf.function`` with: a tuple or list, or the only
            argument; None for a function without arguments.
    """
    name = getattr(model, "__name__", None) or getattr(model, "name", None) or type(model).__name__
    if hasattr(model, "get_concrete_function"):
        args = inputs if isinstance(inputs, (tuple, list)) else () if inputs is None else (inputs,)
        model = model.get_concrete_function(*args)
    if hasattr(getattr(model, "graph", None), "as_graph_def"):
        model = model.graph
    if hasattr(model, "as_graph_def"):
        model = model.as_graph_def(add_shapes=True)
    data: bytes = model.SerializeToString()
    return Graph(str(name), data)
