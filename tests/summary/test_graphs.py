"""Graphs: what TensorBoard's graph plugin shows, through both of its loaders; names; bad input."""

import contextlib
import inspect
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tensorboard")

from google import protobuf
from google.protobuf import text_format
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.graph.graphs_plugin import GraphsPlugin

from sm_tblog import InvalidTypeError, Writer
from sm_tblog.summary.graph.base import Graph, GraphBuilder, Ref, TensorSpec, describe
from sm_tblog.summary.graph.encoding import encode_graph

SPEC = TensorSpec((2, 3), "float32")


class Tab:
    """TensorBoard's graph plugin over a data provider."""

    def __init__(self, logdir, provider):
        self.plugin = GraphsPlugin(TBContext(logdir=str(logdir), data_provider=provider))

    def info(self):
        return self.plugin.info_impl(RequestContext(), "")

    def graph(self, tag=None, run="."):
        body, _ = self.plugin.graph_impl(RequestContext(), run, tag, False, "")
        return text_format.Parse(body, GraphDef())


def python_loader(logdir, stack):
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


def data_server(logdir, stack):
    server = pytest.importorskip("tensorboard_data_server")
    grpc = pytest.importorskip("grpc")
    from tensorboard.data.grpc_provider import GrpcDataProvider
    from tensorboard.data.proto import data_provider_pb2_grpc

    if server.server_binary() is None:
        pytest.skip("the data server has no binary for this platform")
    port = logdir.with_name("port")
    command = [server.server_binary(), f"--logdir={logdir}", "--reload=once", "--port=0"]
    command += ["--die-after-stdin", f"--port-file={port}", "--verbose"]
    process = stack.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    )
    stack.callback(process.stdin.close)
    assert any("Finished load cycle" in line for line in process.stderr)
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port.read_text().strip()}"))
    return GrpcDataProvider("", data_provider_pb2_grpc.TensorBoardDataProviderStub(channel))


@pytest.fixture(params=[python_loader, data_server], ids=lambda loader: loader.__name__)
def tab(request):
    """``tab(logdir)``: the tab as TensorBoard shows it, by each of its loaders."""
    with contextlib.ExitStack() as stack:
        yield lambda logdir: Tab(logdir, request.param(logdir, stack))


class Estimator:
    """What is enough of a model to have a graph."""

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def fit(self):
        raise NotImplementedError

    def get_params(self, deep=True):
        return {"alpha": self.alpha}


class Other(Estimator):
    pass


def test_a_graph_without_a_tag_is_its_runs_own(tmp_path, tab):
    with Writer(tmp_path / "logs") as writer:
        writer.add_graph(Estimator(alpha=0.5))
    shown = tab(tmp_path / "logs")
    assert shown.info() == {".": {"run": ".", "tags": {}, "run_graph": True}}
    nodes = {node.name: node for node in shown.graph().node}
    assert list(nodes) == ["X", "Estimator", "output"]
    assert nodes["Estimator"].input == ["X"]
    assert nodes["Estimator"].attr["alpha"].s == b"0.5"


def test_graphs_with_tags_stand_side_by_side(tmp_path, tab):
    with Writer(tmp_path / "logs") as writer:
        writer.add_graph(Estimator())
        writer.add_graph(Other(), tag="another")
        writer.add_graph(Estimator(alpha=2), tag="net/third")
    shown = tab(tmp_path / "logs")
    row = {"conceptual_graph": False, "op_graph": True, "profile": False}
    tags = {tag: {"tag": tag, **row} for tag in ("another", "net/third")}
    assert shown.info() == {".": {"run": ".", "tags": tags, "run_graph": True}}
    assert [node.op for node in shown.graph().node] == ["Input", "Estimator", "Output"]
    assert [node.op for node in shown.graph("another").node] == ["Input", "Other", "Output"]
    assert shown.graph("net/third").node[1].attr["alpha"].s == b"2"


def test_shapes_and_dtypes_are_what_the_tab_reads(tmp_path, tab):
    builder = GraphBuilder()
    specs = [SPEC, TensorSpec((), "int64"), TensorSpec((-1, 0), "bool"), TensorSpec(None, "")]
    first = builder.add("op", "net/first", (), specs, device="cuda:0")
    builder.add("op", "net/second", [first, first._replace(output=2)], [SPEC])
    with Writer(tmp_path / "logs") as writer:
        writer._put_graph(Graph("net", builder.nodes()), None, None)
    first, second = tab(tmp_path / "logs").graph().node
    shapes = first.attr["_output_shapes"].list.shape
    assert [[d.size for d in shape.dim] for shape in shapes] == [[2, 3], [], [-1, 0], []]
    assert [shape.unknown_rank for shape in shapes] == [False, False, False, True]
    assert first.attr["output"].s == b"float32[2, 3], int64[], bool[?, 0], [...]"
    assert first.device == "cuda:0"
    assert list(second.input) == ["net/first", "net/first:2"]


names = st.lists(st.sampled_from(["net", "a", "b", "a_1", "a_2", ""]), max_size=4).map("/".join)


@given(st.lists(st.tuples(names, st.sampled_from(["op", "Parameter"])), max_size=20))
def test_names_are_unique_and_none_is_a_scope_as_well(wanted):
    builder = GraphBuilder()
    for name, op in wanted:
        builder.add(op, name)
    found = [node.name for node in builder.nodes()]
    scopes = {name[: slash.start()] for name in found for slash in re.finditer("/", name)}
    assert len(set(found)) == len(wanted)
    assert not scopes & set(found)


# Protocol buffers before 4 escape what is not ASCII, and the tab shows the escapes.
PROTOBUF = int(protobuf.__version__.partition(".")[0])
TEXT = st.text() if PROTOBUF >= 4 else st.text(st.characters(max_codepoint=0x7E))


@given(TEXT, TEXT)
def test_any_text_reads_the_same_in_the_text_format(name, value):
    builder = GraphBuilder()
    node = builder.add(value, name, (), [SPEC], {"key": value})
    builder.add("op", name, [node])
    text = str(GraphDef.FromString(encode_graph(builder.nodes())))
    # The tab takes what stands between the quotes, and what stands behind a colon for an output.
    assert "\\" not in text
    first, second = builder.nodes()
    assert not re.search(r"[:^\"'\s]", first.name.replace(" ", ""))
    assert second.name != first.name


def test_numbers_in_names_do_not_make_a_series_of_what_is_none():
    builder = GraphBuilder()
    for _ in range(3):
        builder.add("conv", "net/conv")
        builder.add("relu", "net/relu")
    assert [node.name for node in builder.nodes()] == [
        *("net/conv", "net/relu", "net/conv_3", "net/relu_4", "net/conv_5", "net/relu_6")
    ]


def test_a_node_alone_in_its_scope_takes_its_name_but_for_parameters():
    builder = GraphBuilder()
    for _ in range(2):
        builder.add("relu", f"{builder.scope('net/act')}/relu")
    builder.add("Parameter", "net/fc/weight")
    assert [node.name for node in builder.nodes()] == ["net/act", "net/act_2", "net/fc/weight"]


def test_verbose_prints_a_line_for_each_node(capsys):
    with Writer("memory://verbose") as writer:
        writer.add_graph(Estimator(), verbose=True)
        writer.add_graph(Estimator(), verbose=False)
    lines = ["X = Input() -> [...]", "Estimator = Estimator(X)", "output = Output(Estimator)"]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_disabled_writer_looks_at_nothing():
    writer = Writer("memory://disabled", enabled=False)
    writer.add_graph(object())
    writer.add_onnx_graph("nowhere.onnx")
    writer.add_openvino_graph("nowhere.xml")


@pytest.mark.parametrize("model", [None, 3, "model.onnx", object(), Estimator, len])
def test_what_is_no_model_is_refused_with_what_would_be(model):
    with Writer("memory://refused") as writer, pytest.raises(InvalidTypeError) as caught:
        writer.add_graph(model)
    assert "a PyTorch or Keras module" in str(caught.value)
    assert f"got {type(model).__name__}" in str(caught.value)
    assert ("a function needs input_to_model" in str(caught.value)) == callable(model)


def test_a_tag_is_a_str():
    with (
        Writer("memory://tags") as writer,
        pytest.raises(InvalidTypeError, match="a tag must be a str"),
    ):
        writer.add_graph(Estimator(), tag=3)


def test_a_model_that_cannot_be_read_is_one_node_and_said_once(tmp_path, tab, caplog):
    class Broken(Estimator):
        def get_params(self, deep=True):
            message = "no\nparameters"
            raise RuntimeError(message)

    with Writer(tmp_path / "logs", on_error="raise") as writer:
        writer.add_graph(Broken())
        writer.add_graph(Broken())
    (message,) = [record.getMessage() for record in caplog.records if record.name == "sm_tblog"]
    assert "the graph is a single node, because reading the model failed: no" in message
    assert [node.name for node in tab(tmp_path / "logs").graph().node] == ["Broken"]


def test_describe_names_inputs_and_outputs():
    builder = GraphBuilder()
    x = builder.add("Input", "x", (), [SPEC])
    builder.add("linear", "net/fc/linear", [x, Ref(0, 0)], [TensorSpec((-1,), "float16")])
    lines = describe(Graph("net", builder.nodes())).splitlines()
    assert lines == ["x = Input() -> float32[2, 3]", "net/fc = linear(x, x) -> float16[?]"]


def test_a_graph_def_passes_without_the_values_of_constants(tmp_path, tab, capsys):
    given = GraphDef()
    given.versions.producer = 22
    given.node.add(name="a/w", op="Const").attr["value"].tensor.tensor_content = bytes(5000)
    given.node.add(name="a/b", op="Neg", input=["a/w"]).attr["T"].type = 1
    given.library.function.add().signature.name = "f"
    with Writer(tmp_path / "logs") as writer:
        writer.add_graph(given, verbose=True)
    shown = tab(tmp_path / "logs").graph()
    assert capsys.readouterr().out.startswith("GraphDef: a GraphDef of 5,")
    assert [(node.name, node.op, list(node.input)) for node in shown.node] == [
        ("a/w", "Const", []),
        ("a/b", "Neg", ["a/w"]),
    ]
    assert "value" not in shown.node[0].attr
    assert shown.node[0].attr["_too_large_attrs"].list.s == [b"value"]
    assert shown.node[1].attr["T"].type == 1
    assert shown.library == given.library
    assert shown.versions == given.versions


class TensorFlowGraph:
    def as_graph_def(self, add_shapes=False):
        graph = GraphDef()
        graph.node.add(name="x", op="Placeholder" if add_shapes else "?")
        return graph


class TensorFlowFunction:
    __name__ = "f"

    def get_concrete_function(self, *args):
        self.args = args
        self.graph = TensorFlowGraph()
        return self


@pytest.mark.parametrize(("inputs", "args"), [(None, ()), (3, (3,)), ((3, 4), (3, 4)), ([3], (3,))])
def test_a_function_of_tensorflow_is_traced_with_its_arguments(tmp_path, tab, inputs, args):
    function = TensorFlowFunction()
    with Writer(tmp_path / "logs") as writer:
        writer.add_graph(function, inputs)
    assert function.args == args
    assert [node.op for node in tab(tmp_path / "logs").graph().node] == ["Placeholder"]


@pytest.mark.parametrize("peer", ["torch.utils.tensorboard", "tensorboardX"])
def test_the_peers_signatures_are_ours(peer):
    theirs = pytest.importorskip(peer).SummaryWriter
    for name in ("add_graph", "add_onnx_graph", "add_openvino_graph"):
        if hasattr(theirs, name):
            wanted = list(inspect.signature(getattr(theirs, name)).parameters.values())
            ours = inspect.signature(getattr(Writer, name)).parameters
            assert {parameter.name for parameter in wanted} <= set(ours)
            positional = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
            assert len(positional) == len(wanted)
            for parameter in wanted[1:]:
                if parameter.default is not parameter.empty:
                    assert ours[parameter.name].default == parameter.default
