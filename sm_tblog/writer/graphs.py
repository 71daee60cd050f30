"""Graphs of models, for the Graphs tab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError
from sm_tblog.sinks.base import Event
from sm_tblog.summary import builder
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from sm_tblog._types import PathLike
    from sm_tblog.summary.graph.base import Graph

__all__ = ["GraphMethods"]

_encode_event = builder("graph.graph_event")
_build_value = builder("graph.graph_value")


class GraphMethods(BaseWriter):
    """What logs graphs."""

    def add_graph(
        self,
        model: Any,
        input_to_model: Any = None,
        verbose: bool = False,
        use_strict_trace: bool = True,
        *,
        tag: str | None = None,
        walltime: float | None = None,
    ) -> None:
        """Log the graph of a model.

        What a model does is read while the call lasts; encoding is the worker's. A PyTorch module
        is run once with the input, and is afterwards as it was: its mode, parameters, buffers and
        attributes, and the random generators. If it does not run, its modules are shown without
        what goes between them, and that is said once. A model in distributed training that talks
        to other processes has to be logged in all of them.

        Args:
            model: a module of PyTorch; a model of Keras 3; a function of PyTorch, JAX or
                TensorFlow, which needs an input; a module of Flax; a closed jaxpr; a
                ``ModelProto`` of ONNX; an estimator of scikit-learn; a booster of XGBoost, of
                which the first ten trees are shown; a ``GraphDef`` or what has one.
            input_to_model: what the model is called with: a tuple or list of arguments, a mapping
                of keyword arguments (PyTorch), or the only argument. Without it, a PyTorch module
                or a Keras model by subclassing is shown as a tree of what it consists of.
            verbose: print the graph, a line for each node, and let warnings of the model through.
            use_strict_trace: accepted for the peers' sake: the lists and dictionaries of a model
                are recorded whether it is true or false.
            tag: under which name the graph stands in the tab. A run has one graph without a tag
                and one for each tag: which of several TensorBoard shows depends on its loader.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the model is of no kind that is known, or the tag is not a str.
        """
        del use_strict_trace
        if self._enabled:
            from sm_tblog.summary.graph.reading import read_graph

            self._put_graph(read_graph(model, input_to_model, verbose=verbose), tag, walltime)

    def add_onnx_graph(
        self,
        prototxt: Any = None,
        *,
        onnx_model_file: Any = None,
        tag: str | None = None,
        walltime: float | None = None,
    ) -> None:
        """Log the graph of an ONNX model. Its weights are shown by their shapes.

        Args:
            prototxt: the path of an ``.onnx`` file, which needs onnx to be read, or a
                ``ModelProto``.
            onnx_model_file: another name of ``prototxt``.
            tag: see ``add_graph``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: neither a path nor a model, or not one of the two names.
            InvalidValueError: the file cannot be read.
            MissingDependencyError: onnx is needed and not installed.
        """
        if (prototxt is None) == (onnx_model_file is None):
            message = "add_onnx_graph: prototxt and onnx_model_file are one argument, give one"
            raise InvalidTypeError(message)
        if self._enabled:
            from sm_tblog.summary.graph.onnx import load
            from sm_tblog.summary.graph.reading import read_graph

            model = load(onnx_model_file if prototxt is None else prototxt)
            self._put_graph(read_graph(model, None), tag, walltime)

    def add_openvino_graph(
        self, xmlname: PathLike, *, tag: str | None = None, walltime: float | None = None
    ) -> None:
        """Log the graph of an OpenVINO model.

        Args:
            xmlname: the path of the ``.xml`` file; the ``.bin`` file is not needed.
            tag: see ``add_graph``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: not a path.
            InvalidValueError: the file cannot be read, or has a document type, which could be
                hostile.
        """
        if self._enabled:
            from sm_tblog.summary.graph import openvino

            self._put_graph(openvino.read(xmlname), tag, walltime)

    def _put_graph(self, graph: Graph, tag: str | None, walltime: float | None) -> None:
        if tag is not None:
            self._put(tag, _build_value, (graph,), None, walltime, graph.nbytes)
        else:
            args = graph, self._as_time(walltime)
            name = f"graph of {graph.name}"
            self._put(name, _build_event, args, None, walltime, graph.nbytes)


def _build_event(_: str, graph: Graph, wall_time: float) -> tuple[list[Event], str]:
    return [Event("", _encode_event(graph, wall_time))], graph.remark
