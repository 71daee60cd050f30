"""Keras 3 models, on any backend: layers as nodes, in the models that they belong to.

A functional or sequential model knows what goes where. A model by subclassing is told only by its
``call``, which is therefore run once on symbolic tensors, without computing; it must have been
built for that. What is known of an unbuilt one is its layers.
"""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.summary.graph.base import Graph, GraphBuilder, TensorSpec, first_line, flattened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sm_tblog.summary.graph.base import Ref

__all__ = ["accepts", "read"]


def accepts(model: Any, inputs: Any) -> bool:
    """Return whether this is a layer or model of Keras 3."""
    del inputs
    keras = sys.modules.get("keras")
    return isinstance(model, getattr(keras, "Layer", ()))


def read(model: Any, inputs: Any, **_: Any) -> Graph:
    """Return the graph of a model.

    Args:
        model: a layer or model.
        inputs: for a model by subclassing, arrays or tensors: a tuple or list of arguments, or the
            only argument; ignored by others.
    """
    remark = ""
    function = _function_of(model)
    if function is None and inputs is not None:
        try:
            function = _called(model, inputs)
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            remark = f"the graph has layers alone: {first_line(error)}"
    reader = _Reader()
    scope = reader.graph.scope(model.name)
    if function is None:
        reader.add_tree(model, scope, ())
        return Graph(model.name, reader.graph.nodes(), remark)
    given = [
        reader.graph.add("Input", tensor.name, (), [_spec(tensor)]) for tensor in function.inputs
    ]
    made = reader.add_function(function, scope, given)
    tensor_kind = sys.modules["keras"].KerasTensor
    outputs = flattened(function._outputs_struct, tensor_kind, "output")  # noqa: SLF001 - for names
    origins = dict(zip(map(id, function.outputs), made, strict=True))
    for name, tensor in outputs:
        reader.graph.add("Output", name, [origins[id(tensor)]], [_spec(tensor)])
    return Graph(model.name, reader.graph.nodes())


def _function_of(layer: Any) -> Any:
    """Return what knows the graph of tensors, or None."""
    function = getattr(layer, "_functional", layer)  # a Sequential keeps it, if it is built
    return function if isinstance(function, sys.modules["keras"].Function) else None


def _called(model: Any, inputs: Any) -> Any:
    """Return the function that a model's ``call`` computes, and leave no trace in its layers."""
    keras = sys.modules["keras"]
    if not model.built:
        message = "the model has not been built, by calling it once"
        raise InvalidValueError(message)
    args = inputs if isinstance(inputs, (tuple, list)) else [inputs]
    names = [*inspect.signature(model.call).parameters, *map(str, range(len(args)))]
    symbols = [
        keras.tree.map_structure(partial(_symbol, name=name), arg)
        for name, arg in zip(names, args, strict=False)
    ]
    layers = list(_layers(model))
    nodes = [layer._inbound_nodes for layer in layers]  # noqa: SLF001 - calling adds to them
    nodes += [layer._outbound_nodes for layer in layers]  # noqa: SLF001
    lengths = [len(each) for each in nodes]
    try:
        return keras.Function(symbols, model.call(*symbols))
    finally:
        for each, length in zip(nodes, lengths, strict=True):
            del each[length:]


def _symbol(array: Any, name: str) -> Any:
    keras = sys.modules["keras"]
    dtype = keras.backend.standardize_dtype(array.dtype)
    return keras.KerasTensor(array.shape, dtype, name=name)


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec.of(tensor.shape, tensor.dtype)


def _layers(layer: Any) -> Iterator[Any]:
    """Iterate over a layer and all below it."""
    yield layer
    for inner in getattr(layer, "_layers", ()):
        yield from _layers(inner)


class _Reader:
    """Adds what it is shown to a graph."""

    def __init__(self) -> None:
        self.graph = GraphBuilder()
        self._weights: dict[int, Ref] = {}

    def add_function(self, function: Any, scope: str, given: Sequence[Ref]) -> list[Ref]:
        """Add a graph of tensors to a scope, and return where its outputs come from."""
        origins = dict(zip(map(id, function.inputs), given, strict=False))
        by_depth = function._nodes_by_depth  # noqa: SLF001 - inputs are deepest
        for depth in sorted(by_depth, reverse=True):
            for node in by_depth[depth]:
                layer = node.operation
                if node.is_input:
                    continue
                inside = self.graph.scope(f"{scope}/{layer.name}")
                inputs = [origins[id(tensor)] for tensor in node.input_tensors]
                inner = _function_of(layer)
                if inner is None:
                    made = self._add_layer(layer, inside, inputs, node.output_tensors)
                else:
                    made = self.add_function(inner, inside, inputs)
                origins.update(zip(map(id, node.output_tensors), made, strict=False))
        return [origins[id(tensor)] for tensor in function.outputs]

    def add_tree(self, layer: Any, scope: str, before: Sequence[Ref]) -> Sequence[Ref]:
        """Add a layer and all below it; what follows on what is known in a Sequential."""
        layers = getattr(layer, "layers", None)
        if not layers:
            return self._add_layer(layer, scope, before, None)
        in_a_row = isinstance(layer, sys.modules["keras"].Sequential)
        for inner in layers:
            after = self.add_tree(inner, self.graph.scope(f"{scope}/{inner.name}"), before)
            before = after if in_a_row else ()
        return before

    def _add_layer(
        self, layer: Any, scope: str, inputs: Iterable[Ref], outputs: Sequence[Any] | None
    ) -> list[Ref]:
        weights = [self._weight(weight, layer, scope) for weight in getattr(layer, "weights", ())]
        kind = type(layer).__name__
        specs = [] if outputs is None else [_spec(tensor) for tensor in outputs]
        ref = self.graph.add(kind, f"{scope}/{kind}", [*inputs, *weights], specs, _settings(layer))
        return [ref._replace(output=i) for i in range(max(1, len(specs)))]

    def _weight(self, weight: Any, layer: Any, scope: str) -> Ref:
        if id(weight) not in self._weights:
            path = weight.path.split("/")
            below = path[path.index(layer.name) + 1 :] if layer.name in path else path[-1:]
            name = f"{scope}/{'/'.join(below)}"
            attributes = {"trainable": weight.trainable}
            self._weights[id(weight)] = self.graph.add(
                "Parameter", name, (), [_spec(weight)], attributes
            )
        return self._weights[id(weight)]


def _settings(layer: Any) -> dict[str, Any]:
    """Return the settings of a layer that are plain values."""
    try:
        config = layer.get_config()
    except Exception:  # noqa: BLE001 - a layer need not have one
        return {}
    plain = (bool, int, float, str, tuple, list)
    return {k: v for k, v in config.items() if isinstance(v, plain) and k not in ("name", "dtype")}
