"""Graphs of models, as ``GraphDef`` messages.

A run's graph is an event, with a ``GraphDef`` or, by TensorFlow 1, a ``MetaGraphDef``. A graph with
a tag is in a ``RunMetadata`` message: one graph for each function that was traced, or those that
ran on the devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.format import schema
from sm_tblog.readers.contents.tensors import strings_of
from sm_tblog.readers.contents.values import the_tensor
from sm_tblog.readers.wire import fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PLUGINS", "RUN_GRAPH", "graph_of_event", "graph_of_value"]

RUN_GRAPH = "__run_graph__"
"""The name that TensorBoard gives to the graph of a run."""

PLUGINS = {"graph_run_metadata", "graph_run_metadata_graph"}

# Field numbers of tensorflow/core/protobuf/meta_graph.proto and config.proto.
_META_GRAPH = 2
_PARTITION_GRAPHS, _FUNCTION_GRAPHS, _BEFORE_OPTIMIZATION = 3, 4, 2


def graph_of_event(event: Any, _: str) -> Any:
    """Return the ``GraphDef`` of an event."""
    if event.WhichOneof("what") == "graph_def":
        return schema.GraphDef.FromString(event.graph_def)
    return _merged(_submessages(event.meta_graph_def, _META_GRAPH))


def graph_of_value(value: Any, _: str) -> Any:
    """Return the ``GraphDef`` of a tensor with ``RunMetadata``.

    As in TensorBoard, the nodes of several functions get the prefix ``graph_<n>/``.
    """
    (metadata,) = strings_of(the_tensor(value)).reshape(-1)
    functions = _submessages(metadata, _FUNCTION_GRAPHS)
    graphs = [
        graph for function in functions for graph in _submessages(function, _BEFORE_OPTIMIZATION)
    ]
    return _merged(graphs or _submessages(metadata, _PARTITION_GRAPHS))


def _submessages(data: bytes, number: int) -> list[bytes]:
    return [
        data[found.start : found.end]
        for found in fields_of(data, 0, len(data))
        if found.number == number and found.kind == 2
    ]


def _merged(graphs: Sequence[bytes]) -> Any:
    if not graphs:
        message = "it contains no graph"
        raise InvalidValueError(message)
    if len(graphs) == 1:
        return schema.GraphDef.FromString(graphs[0])
    merged = schema.GraphDef()
    for number, data in enumerate(graphs, 1):
        graph = schema.GraphDef.FromString(data)
        prefix = f"graph_{number}/"
        for node in graph.node:
            node.name = prefix + node.name
            node.input[:] = [
                f"^{prefix}{name[1:]}" if name.startswith("^") else prefix + name
                for name in node.input
            ]
        merged.MergeFrom(graph)
    return merged
