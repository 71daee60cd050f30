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
    """Methods that log graphs of models."""

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

        The model is read during the call; the worker thread encodes the graph. A PyTorch module
        is run once with the input; its mode, parameters, buffers and attributes, and the random
        generators, are restored afterwards. If it does not run, its modules are shown without the
        data flow between them, and a warning is logged once. The graph of a TorchScript model is
        read without running it; the input only adds shapes. In distributed training, a model that
        communicates with other processes must be logged in all of them.

        Args:
            model: a PyTorch module; a TorchScript model or function; a Keras 3 model; a function of
                PyTorch, JAX or TensorFlow, which needs an input; a Flax module; a closed jaxpr; an
                ONNX ``ModelProto``; a scikit-learn estimator; an XGBoost booster, of which the
                first ten trees are shown; a ``GraphDef``, or an object that has one.
            input_to_model: the input to call the model with: a tuple or list of arguments, a
                mapping of keyword arguments (PyTorch), or the only argument. Without it, a PyTorch
                module or a subclassed Keras model is shown as a tree of its parts.
            verbose: print the graph, one line per node, and do not suppress the model's warnings.
            use_strict_trace: accepted for compatibility with torch's and tensorboardX's writers:
                lists and dictionaries of a model are recorded whether it is true or false.
            tag: the name of the graph in the tab. A run has one graph without a tag and one per
                tag; which of several TensorBoard shows depends on its loader.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the kind of model is unknown, or the tag is not a str.
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
        """Log the graph of an ONNX model, with the shapes of its weights.

        Args:
            prototxt: the path of an ``.onnx`` file, which requires onnx, or a ``ModelProto``.
            onnx_model_file: alias of ``prototxt``.
            tag: as in ``add_graph``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the argument is neither a path nor a model, or not exactly one of the
                two arguments is given.
            InvalidValueError: the file cannot be read.
            MissingDependencyError: onnx is required and not installed.
        """
        if (prototxt is None) == (onnx_model_file is None):
            message = "add_onnx_graph: pass either prototxt or onnx_model_file; they are aliases"
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
            tag: as in ``add_graph``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: ``xmlname`` is not a path.
            InvalidValueError: the file cannot be read, or contains a document type declaration,
                which could be malicious.
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
    return [Event("", _encode_event(graph, wall_time))], graph.warning
