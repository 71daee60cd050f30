"""Select the reader for a model by its attributes, without importing a framework.

A model is read on the calling thread, because it may change afterwards. If the model fails, or a
framework's release differs from what a reader expects, the graph shows less and has a warning. Only
an object that is not a model is rejected.
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
        """Return whether the model belongs to this framework; must not import anything."""

    def read(self, model: Any, /, *, inputs: Any, verbose: bool) -> Graph:
        """Return the graph of the model; may raise any exception."""


_READERS: tuple[_Reader, ...] = (keras, torch, onnx, tensorflow, trees, sklearn, jax)
"""The readers; the first that accepts a model reads it.

The order matters: with the PyTorch backend, a Keras model is also a PyTorch module; a booster may
be an estimator; and many objects are callable.
"""

_KINDS = (
    "a PyTorch or Keras module, a function with its input (PyTorch, JAX, TensorFlow), a jaxpr, "
    "an ONNX model, an estimator (scikit-learn, XGBoost) or a GraphDef"
)


def read_graph(model: Any, inputs: Any, *, verbose: bool = False) -> Graph:
    """Return the graph of a model.

    Args:
        model: a model that one of the readers accepts.
        inputs: the input for the model, or None.
        verbose: print the graph, and do not suppress warnings of the model.

    Raises:
        InvalidTypeError: no reader accepts the model.
    """
    reader = next((each for each in _READERS if each.accepts(model, inputs)), None)
    if reader is None:
        hint = "; a function needs input_to_model" if callable(model) and inputs is None else ""
        message = f"a graph needs {_KINDS}; got {type(model).__name__}{hint}"
        raise InvalidTypeError(message)
    try:
        graph = reader.read(model, inputs=inputs, verbose=verbose)
    except Exception as error:  # noqa: BLE001 - a fault of the model or framework
        kind = type(model).__name__
        node = GraphBuilder()
        node.add(kind, kind)
        warning = (
            f"the graph is a single node, because reading the model failed: {first_line(error)}"
        )
        graph = Graph(kind, node.nodes(), warning)
    if verbose:
        print(describe(graph))  # noqa: T201 - requested by verbose
    return graph
