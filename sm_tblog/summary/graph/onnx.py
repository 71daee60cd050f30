"""ONNX models: nodes, with initializers as parameters and subgraphs as scopes.

Names determine the scopes. A name such as ``/encoder/fc/MatMul`` contains the scope. A node whose
name does not is put in the scope of its initializers, such as ``encoder.fc.weight``, because
exporters keep the names of parameters.
"""

from __future__ import annotations

import os
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from sm_tblog.summary.graph.base import Graph, GraphBuilder, TensorSpec, first_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sm_tblog.summary.graph.base import Ref

__all__ = ["accepts", "load", "read"]

_DTYPES = (
    "",
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool"),
    *("float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "uint4", "int4"),
    *("float4_e2m1", "float8_e8m0", "uint2", "int2"),
)
"""Names of element types, indexed by ``TensorProto.DataType`` of onnx.proto."""

_FLOAT, _INT, _STRING, _GRAPH, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 5, 6, 7, 8
"""Types of attributes, from ``AttributeProto.AttributeType`` of onnx.proto."""


def accepts(model: Any, inputs: Any = None) -> bool:
    """Return whether this is a ``ModelProto``."""
    del inputs
    return hasattr(model, "opset_import") and hasattr(getattr(model, "graph", None), "initializer")


def load(model: Any) -> Any:
    """Return the ``ModelProto`` in a file, without loading weights from external files.

    Args:
        model: the path of a file; or a ``ModelProto``, which is returned unchanged.

    Raises:
        InvalidTypeError: ``model`` is neither.
        InvalidValueError: the file cannot be read.
        MissingDependencyError: onnx is not installed.
    """
    if accepts(model):
        return model
    if not isinstance(model, (str, os.PathLike)):
        message = f"an ONNX model must be a path or a ModelProto, got {type(model).__name__}"
        raise InvalidTypeError(message)
    try:
        import onnx
    except ImportError as error:
        message = "reading ONNX files needs onnx: pip install 'sm-tblog[onnx]'"
        raise MissingDependencyError(message) from error
    try:
        return onnx.load(os.fspath(model), load_external_data=False)
    except Exception as error:
        message = f"{model!s} cannot be read as an ONNX model: {first_line(error)}"
        raise InvalidValueError(message) from error


def read(model: Any, **_: Any) -> Graph:
    """Return the graph of a ``ModelProto``, which is not modified."""
    model = _with_shapes(_without_weights(model))
    name = model.graph.name or "model"
    reader = _Reader(model.functions)
    reader.add_model(model.graph, reader.graph.scope(name))
    return Graph(name, reader.graph.nodes())


def _without_weights(model: Any) -> Any:
    """Return a copy without the values of large tensors; small ones may define shapes."""
    small = type(model)()
    small.opset_import.extend(model.opset_import)
    small.ir_version = model.ir_version
    small.functions.extend(model.functions)
    for field, value in model.graph.ListFields():
        if field.name == "name":
            small.graph.name = value
        elif field.name in {"node", "input", "output", "value_info", "sparse_initializer"}:
            getattr(small.graph, field.name).extend(value)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() < 1024:
            small.graph.initializer.append(tensor)
        else:
            copy = small.graph.initializer.add(name=tensor.name, data_type=tensor.data_type)
            copy.dims.extend(tensor.dims)
    return small


def _with_shapes(model: Any) -> Any:
    """Return the model with the shapes that onnx can infer."""
    try:
        from onnx import shape_inference

        return shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 - use the shapes stored in the model
        return model


class _Reader:
    """Adds ONNX graphs to a graph.

    Args:
        functions: the functions that nodes may call.
    """

    def __init__(self, functions: Iterable[Any]) -> None:
        self.graph = GraphBuilder()
        self._functions = {(function.domain, function.name): function for function in functions}
        self._specs: dict[str, TensorSpec] = {}
        self._initializers: dict[str, TensorSpec] = {}
        self._parameters: dict[str, Ref] = {}

    def add_model(self, graph: Any, scope: str) -> None:
        """Add the main graph, with its inputs and outputs outside the scope."""
        self._collect_specs(graph)
        origins: dict[str, Ref] = {}
        for value in graph.input:
            if value.name not in self._initializers:
                origins[value.name] = self.graph.add("Input", value.name, (), [_spec(value)])
        self._add_nodes(graph.node, scope, origins)
        for value in graph.output:
            inputs = self._inputs([value.name], scope, origins)
            self.graph.add("Output", value.name, inputs, [_spec(value)])

    def _collect_specs(self, graph: Any) -> None:
        for value in (*graph.value_info, *graph.input, *graph.output):
            self._specs[value.name] = _spec(value)
        for tensor in graph.initializer:
            self._initializers[tensor.name] = _tensor_spec(tensor)
        for tensor in graph.sparse_initializer:
            spec = TensorSpec(tuple(tensor.dims), _dtype(tensor.values.data_type))
            self._initializers[tensor.values.name] = spec

    def _add_nodes(self, nodes: Iterable[Any], scope: str, origins: dict[str, Ref]) -> None:
        for node in nodes:
            inside, _, name = f"{scope}/{self._scoped_name(node)}".rpartition("/")
            inputs = self._inputs(node.input, inside, origins)
            bodies = [a for a in node.attribute if a.type == _GRAPH]
            function = self._functions.get((node.domain, node.op_type))
            if bodies or function:
                inside = self.graph.scope(f"{inside}/{name}")
            for attribute in bodies:
                body = attribute.g
                self._collect_specs(body)
                inner_origins = {
                    **origins,
                    **_bound_inputs(node, [value.name for value in body.input], origins),
                }
                outputs = [value.name for value in body.output]
                below = f"{inside}/{attribute.name}" if len(bodies) > 1 else inside
                self._add_nodes(body.node, below, inner_origins)
                inputs = [*inputs, *self._inputs(outputs, below, inner_origins)]
            if function:
                inner_origins = _bound_inputs(node, function.input, origins)
                self._add_nodes(function.node, inside, inner_origins)
                output_refs = self._inputs(function.output, inside, inner_origins)
            else:
                specs = [self._specs.get(each, TensorSpec(None, "")) for each in node.output]
                attributes = dict(_settings(node.attribute))
                ref = self.graph.add(node.op_type, f"{inside}/{name}", inputs, specs, attributes)
                output_refs = [ref._replace(output=i) for i in range(len(node.output))]
            origins.update(zip(node.output, output_refs, strict=False))

    def _scoped_name(self, node: Any) -> str:
        """Return the name of a node relative to the scope of its graph."""
        name = node.name.strip("/") or node.op_type
        if "/" in name:
            return str(name)
        paths = [_path(each).split("/")[:-1] for each in node.input if each in self._initializers]
        shared = takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
        return "/".join([*(steps[0] for steps in shared), name])

    def _inputs(self, names: Iterable[str], scope: str, origins: dict[str, Ref]) -> list[Ref]:
        """Return the origins of values; an initializer is added to the scope of its first use."""
        found = []
        for name in filter(None, names):  # an omitted input has an empty name
            if name not in origins and name in self._initializers:
                origins[name] = self._parameter(name, scope)
            if name in origins:
                found.append(origins[name])
        return found

    def _parameter(self, name: str, scope: str) -> Ref:
        if name not in self._parameters:
            path = _path(name)
            own = path.rpartition("/")[2] if "/" in scope else path
            spec = self._initializers[name]
            self._parameters[name] = self.graph.add("Parameter", f"{scope}/{own}", (), [spec])
        return self._parameters[name]


def _bound_inputs(node: Any, names: Iterable[str], origins: Mapping[str, Ref]) -> dict[str, Ref]:
    """Return the origins of a node's inputs by the parameter names of its body or function."""
    pairs = zip(names, node.input, strict=False)
    return {name: origins[value] for name, value in pairs if value in origins}


def _path(name: str) -> str:
    return name.strip("/").replace(".", "/")


def _settings(attributes: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    for attribute in attributes:
        values: Mapping[int, Any] = {
            _FLOAT: f"{attribute.f:g}",
            _INT: attribute.i,
            _STRING: attribute.s.decode(errors="replace"),
            _FLOATS: [f"{value:g}" for value in attribute.floats],
            _INTS: list(attribute.ints),
            _STRINGS: [value.decode(errors="replace") for value in attribute.strings],
        }
        if attribute.type in values:
            yield attribute.name, values[attribute.type]


def _spec(value: Any) -> TensorSpec:
    """Return the spec of a ``ValueInfoProto``."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return TensorSpec(None, _dtype(kind.elem_type))
    lengths = (d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return TensorSpec(tuple(lengths), _dtype(kind.elem_type))


def _tensor_spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tuple(tensor.dims), _dtype(tensor.data_type))


def _dtype(number: int) -> str:
    return _DTYPES[number] if number < len(_DTYPES) else ""
