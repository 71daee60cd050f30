"""Which reader a model is for: by what it offers, and without importing a framework.

A model is read while the caller waits, since it may change afterwards. Whatever goes wrong in a
model, or in what a reader expects of a framework's release, ends in a graph that shows less and a
remark; only what is no model at all is refused.
"""

from __future__ import annotations

from typing import Any, Protocol

from sm_tblog._errors import InvalidTypeError
from sm_tblog.summary.graph import jax, keras, onnx, sklearn, tensorflow, torch, trees
from sm_tblog.summary.graph.base import Graph, GraphBuilder, describe, first_line

__all__ = ["read_graph"]


class _Reader(Protocol):
    """A module that reads the models of a framework."""

    def accepts(self, model: Any, inputs: Any, /) -> bool:
        """Return whether the model is of this framework; imports nothing for it."""

    def read(self, model: Any, /, *, inputs: Any, verbose: bool) -> Graph:
        """Return the model's graph; may raise anything."""


_READERS: tuple[_Reader, ...] = (keras, torch, onnx, tensorflow, trees, sklearn, jax)
"""The first that accepts a model reads it: with PyTorch as backend, a model of Keras is a module of
PyTorch as well, a booster may be an estimator, and many things can be called."""

_KINDS = (
    "a module of PyTorch or Keras, a function with its input (PyTorch, JAX, TensorFlow), a jaxpr, "
    "an ONNX model, an estimator (scikit-learn, XGBoost) or a GraphDef"
)


def read_graph(model: Any, inputs: Any, *, verbose: bool = False) -> Graph:
    """Return the graph of a model.

    Args:
        model: of any kind that there is a reader for.
        inputs: what the model is called with, or None.
        verbose: print the graph, and let warnings of the model through.

    Raises:
        InvalidTypeError: there is no reader for it.
    """
    reader = next((each for each in _READERS if each.accepts(model, inputs)), None)
    if reader is None:
        hint = "; a function needs input_to_model" if callable(model) and inputs is None else ""
        message = f"a graph is made of {_KINDS}; got {type(model).__name__}{hint}"
        raise InvalidTypeError(message)
    try:
        graph = reader.read(model, inputs=inputs, verbose=verbose)
    except Exception as error:  # noqa: BLE001 - it is the model's, or the framework's
        kind = type(model).__name__
        node = GraphBuilder()
        node.add(kind, kind)
        remark = f"the graph is one node, as reading the model has failed: {first_line(error)}"
        graph = Graph(kind, node.nodes(), remark)
    if verbose:
        print(describe(graph))  # noqa: T201 - it is what verbose asks for
    return graph
