"""Serialize graphs in the formats that TensorBoard reads.

A run has one graph of its own, an ``Event`` with a ``GraphDef``, and one graph per tag. The latter
is a tensor of the plugin ``graph_run_metadata_graph`` that holds ``RunMetadata``, with the
``GraphDef`` as the ``pre_optimization_graph`` of its ``function_graphs``. TensorFlow's
``tf.summary.trace_export`` writes the same format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._types import as_utf8
from sm_tblog.format import schema
from sm_tblog.format.scalars import encode_varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog.summary.graph.base import Graph, Node, TensorSpec

__all__ = ["encode_graph", "graph_event", "graph_value"]

_TOO_LARGE = "_too_large_attrs"
"""The attribute in which TensorBoard expects the names of omitted attributes."""

_MAX_ATTRIBUTE_BYTES = 1024
"""Maximum size of an attribute in bytes; the limit that TensorBoard itself applies."""


def encode_graph(nodes: Sequence[Node] | bytes) -> bytes:
    """Return a serialized ``GraphDef``; large attributes are removed from an existing one."""
    if isinstance(nodes, bytes):
        return _without_large_attributes(nodes)
    graph = schema.GraphDef()
    for node in nodes:
        inputs = [
            f"{nodes[ref.node].name}:{ref.output}" if ref.output else nodes[ref.node].name
            for ref in node.inputs
        ]
        name, op, device = as_utf8(node.name), as_utf8(node.op), as_utf8(node.device)
        proto = graph.node.add(name=name, op=op, input=map(as_utf8, inputs), device=device)
        for key, text in node.attributes.items():
            proto.attr[as_utf8(key)].s = text.encode(errors="replace")
        if node.outputs:
            proto.attr["output"].s = ", ".join(map(str, node.outputs)).encode("ascii", "replace")
            shapes = proto.attr["_output_shapes"].list.shape
            shapes.extend(map(_shape, node.outputs))
    data: bytes = graph.SerializeToString()
    return data


def _shape(spec: TensorSpec) -> Any:
    shape = schema.TensorShapeProto(unknown_rank=spec.shape is None)
    for length in spec.shape or ():
        shape.dim.add(size=length)
    return shape


def _without_large_attributes(data: bytes) -> bytes:
    graph = schema.GraphDef.FromString(data)
    for node in graph.node:
        large = [key for key, value in node.attr.items() if value.ByteSize() > _MAX_ATTRIBUTE_BYTES]
        for key in large:
            del node.attr[key]
            node.attr[_TOO_LARGE].list.s.append(key.encode())
    reduced: bytes = graph.SerializeToString()
    return reduced


def graph_event(graph: Graph, wall_time: float) -> bytes:
    """Return a serialized ``Event`` with the graph of a run."""
    event = schema.Event(wall_time=wall_time, graph_def=encode_graph(graph.nodes))
    data: bytes = event.SerializeToString()
    return data


def graph_value(tag: str, graph: Graph) -> tuple[Any, str]:
    """Return a ``Summary.Value`` with the graph of a tag, and the warning of the graph."""
    value = schema.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = "graph_run_metadata_graph"
    value.metadata.plugin_data.content = b"1"  # the version
    value.metadata.data_class = schema.DATA_CLASS_BLOB_SEQUENCE
    value.tensor.dtype = schema.DT_STRING
    value.tensor.tensor_shape.dim.add(size=1)
    functions = _field(2, encode_graph(graph.nodes))  # FunctionGraphs.pre_optimization_graph
    value.tensor.string_val.append(_field(4, functions))  # RunMetadata.function_graphs
    return value, graph.warning


def _field(number: int, data: bytes) -> bytes:
    return encode_varint(number << 3 | 2) + encode_varint(len(data)) + data
