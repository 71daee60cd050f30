"""OpenVINO's intermediate representation: an XML file of layers and edges.

The weights are in a separate file, which is not read. Files with a document type are rejected:
hostile XML files use entities, and OpenVINO's files have none.
"""

from __future__ import annotations

import os
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.summary.graph.base import Graph, GraphBuilder, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog._types import PathLike
    from sm_tblog.summary.graph.base import Ref

__all__ = ["read"]

_OPS = {"Parameter": "Input", "Result": "Output"}
"""Types of layers that have other names in the graphs of other frameworks."""

_KINDS = {"FP": "float", "BF": "bfloat", "I": "int", "U": "uint", "BOOL": "bool"}
"""Prefixes of element types: OpenVINO's names and ours."""


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Reject a document type."""
        del pubid, system
        message = f"it has a document type, {name!r}, which no OpenVINO file has"
        raise InvalidValueError(message)


def read(path: PathLike) -> Graph:
    """Return the graph in an ``.xml`` file.

    Raises:
        InvalidTypeError: ``path`` is not a path.
        InvalidValueError: the file does not exist, or is not an OpenVINO model.
    """
    try:
        file = Path(os.fspath(path))
    except TypeError as error:
        message = f"an OpenVINO graph must be the path of an .xml file, got {path!r:.60}"
        raise InvalidTypeError(message) from error
    try:
        root = ET.parse(file, ET.XMLParser(target=_Builder())).getroot()  # noqa: S314 - see above
        graph = GraphBuilder()
        name = root.get("name") or file.stem
        _add_net(graph, root, graph.scope(name))
    except (OSError, ET.ParseError, ValueError, KeyError) as error:
        message = f"{path!s} cannot be read as an OpenVINO graph: {error}"
        raise InvalidValueError(message) from error
    if not graph.nodes():
        message = f"{path!s} cannot be read as an OpenVINO graph: it has no layers"
        raise InvalidValueError(message)
    return Graph(name, graph.nodes())


def _add_net(graph: GraphBuilder, net: Any, scope: str, *, inside: bool = False) -> None:
    """Add the layers of a net; the body of a layer is a net in its scope, without outside edges."""
    layers = {layer.attrib["id"]: layer for layer in net.iterfind("layers/layer")}
    sources: dict[str, list[Any]] = {key: [] for key in layers}
    for edge in sorted(net.iterfind("edges/edge"), key=lambda edge: int(edge.get("to-port", "0"))):
        sources[edge.attrib["to-layer"]].append(edge)
    before = {key: [edge.attrib["from-layer"] for edge in edges] for key, edges in sources.items()}
    refs: dict[str, Ref] = {}
    for key in TopologicalSorter(before).static_order():
        layer = layers[key]
        kind, name = layer.attrib["type"], layer.attrib["name"]
        inputs = [
            refs[edge.attrib["from-layer"]]._replace(output=_position(layers, edge))
            for edge in sources[key]
        ]
        bodies = [part for part in layer if part.find("layers") is not None]
        for body in bodies:
            _add_net(graph, body, f"{scope}/{name}/{body.tag}", inside=True)
        is_input_or_output = kind in _OPS and not inside
        full = (
            name
            if is_input_or_output
            else f"{scope}/{name}/{kind}"
            if bodies
            else f"{scope}/{name}"
        )
        specs = [_spec(port) for port in layer.iterfind("output/port")]
        data = layer.find("data")
        settings = {} if data is None else data.attrib
        refs[key] = graph.add(_OPS.get(kind, kind), full, inputs, specs, settings)


def _position(layers: Mapping[str, Any], edge: Any) -> int:
    """Return the index of the layer output that an edge starts from."""
    ports = [port.get("id") for port in layers[edge.attrib["from-layer"]].iterfind("output/port")]
    return ports.index(edge.get("from-port")) if edge.get("from-port") in ports else 0


def _spec(port: Any) -> TensorSpec:
    lengths = [dim.text or "" for dim in port.iterfind("dim")]
    shape = tuple(int(length) if length.isdigit() else -1 for length in lengths)
    precision = port.get("precision", "")
    kind = precision.rstrip("0123456789")
    return TensorSpec(shape, _KINDS.get(kind, kind) + precision[len(kind) :])
