"""Keras 3 models, on any backend: layers as nodes, with nested models as scopes.

A functional or sequential model stores its graph. The graph of a subclassed model is defined only
by its ``call``, which is therefore run once on symbolic tensors, without computing. The model must
be built for that; for an unbuilt model, the graph shows only the layers.
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
    """Return whether this is a Keras 3 layer or model."""
    del inputs
    keras = sys.modules.get("keras")
    return isinstance(model, getattr(keras, "Layer", ()))


def read(model: Any, inputs: Any, **_: Any) -> Graph:
    """Return the graph of a model.

    Args:
        model: a layer or model.
        inputs: arrays or tensors for a subclassed model: a tuple or list of arguments, or the only
            argument; ignored for other models.
    """
    warning = ""
    function = _function_of(model)
    if function is None and inputs is not None:
        try:
            function = _traced(model, inputs)
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            warning = f"the graph shows only the layers: {first_line(error)}"
    reader = _Reader()
    scope = reader.graph.scope(model.name)
    if function is None:
        reader.add_tree(model, scope, ())
        return Graph(model.name, reader.graph.nodes(), warning)
    input_refs = [
        reader.graph.add("Input", tensor.name, (), [_spec(tensor)]) for tensor in function.inputs
    ]
    output_refs = reader.add_function(function, scope, input_refs)
    tensor_kind = sys.modules["keras"].KerasTensor
    outputs = flattened(function._outputs_struct, tensor_kind, "output")  # noqa: SLF001 - for names
    origins = dict(zip(map(id, function.outputs), output_refs, strict=True))
    for name, tensor in outputs:
        reader.graph.add("Output", name, [origins[id(tensor)]], [_spec(tensor)])
    return Graph(model.name, reader.graph.nodes())


def _function_of(layer: Any) -> Any:
    """Return the ``Function`` of a layer, which has the graph of tensors; None if there is none."""
    function = getattr(layer, "_functional", layer)  # a Sequential has it once it is built
    return function if isinstance(function, sys.modules["keras"].Function) else None


def _traced(model: Any, inputs: Any) -> Any:
    """Return the function that a model's ``call`` computes; leave the layers unchanged."""
    keras = sys.modules["keras"]
    if not model.built:
        message = "the model has not been built; call it once first"
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
    """Yield a layer and all layers inside it."""
    yield layer
    for inner in getattr(layer, "_layers", ()):
        yield from _layers(inner)


class _Reader:
    """Adds layers to a graph."""

    def __init__(self) -> None:
        self.graph = GraphBuilder()
        self._weights: dict[int, Ref] = {}

    def add_function(self, function: Any, scope: str, input_refs: Sequence[Ref]) -> list[Ref]:
        """Add a graph of tensors to a scope; return the origins of its outputs."""
        origins = dict(zip(map(id, function.inputs), input_refs, strict=False))
        by_depth = function._nodes_by_depth  # noqa: SLF001 - inputs have the greatest depth
        for depth in sorted(by_depth, reverse=True):
            for node in by_depth[depth]:
                layer = node.operation
                if node.is_input:
                    continue
                inside = self.graph.scope(f"{scope}/{layer.name}")
                inputs = [origins[id(tensor)] for tensor in node.input_tensors]
                inner = _function_of(layer)
                if inner is None:
                    output_refs = self._add_layer(layer, inside, inputs, node.output_tensors)
                else:
                    output_refs = self.add_function(inner, inside, inputs)
                origins.update(zip(map(id, node.output_tensors), output_refs, strict=False))
        return [origins[id(tensor)] for tensor in function.outputs]

    def add_tree(self, layer: Any, scope: str, before: Sequence[Ref]) -> Sequence[Ref]:
        """Add a layer and all layers inside it; only those of a Sequential are connected."""
        layers = getattr(layer, "layers", None)
        if not layers:
            return self._add_layer(layer, scope, before, None)
        is_sequential = isinstance(layer, sys.modules["keras"].Sequential)
        for inner in layers:
            after = self.add_tree(inner, self.graph.scope(f"{scope}/{inner.name}"), before)
            before = after if is_sequential else ()
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
    """Return the settings of a layer that have simple values."""
    try:
        config = layer.get_config()
    except Exception:  # noqa: BLE001 - a layer may have no config
        return {}
    plain = (bool, int, float, str, tuple, list)
    return {k: v for k, v in config.items() if isinstance(v, plain) and k not in ("name", "dtype")}
