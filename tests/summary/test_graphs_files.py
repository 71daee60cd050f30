"""Graphs from files: ONNX and OpenVINO."""

import sys

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, MissingDependencyError, Writer
from sm_tblog.summary.graph import openvino
from sm_tblog.summary.graph.reading import read_graph


def by_name(graph):
    assert graph.warning == ""
    return {node.name: node for node in graph.nodes}


def inputs_of(nodes, name):
    names = list(nodes)
    return [names[ref.node] for ref in nodes[name].inputs]


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


@pytest.fixture
def model(onnx):
    """A model with initializers, a branch, a loop, a function and two outputs of one node."""
    h, n, t = onnx.helper, onnx.numpy_helper, onnx.TensorProto

    def value(name, kind=t.FLOAT, shape=(2, 3)):
        return h.make_tensor_value_info(name, kind, shape)

    def weight(name, *shape):
        return n.from_array(np.ones(shape, np.float32), name)

    then = h.make_graph([h.make_node("Add", ["h", "shift"], ["t"])], "then", [], [value("t")])
    other = h.make_graph([h.make_node("Neg", ["h"], ["e"])], "else", [], [value("e")])
    body = h.make_graph(
        [h.make_node("Mul", ["a", "shift"], ["b"]), h.make_node("Identity", ["c"], ["d"])],
        "body",
        [value("i", t.INT64, ()), value("c", t.BOOL, ()), value("a")],
        [value("d", t.BOOL, ()), value("b")],
    )
    nodes = [
        h.make_node("Gemm", ["x", "enc.fc.weight", "enc.fc.bias"], ["g"], name="node_linear"),
        h.make_node("Twice", ["g"], ["h"], name="/enc/twice/Twice", domain="own"),
        h.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
        h.make_node("Greater", ["s", "zero"], ["p"]),
        h.make_node("If", ["p"], ["y"], name="choose", then_branch=then, else_branch=other),
        h.make_node("Loop", ["n", "", "y"], ["z"], name="loop", body=body),
        h.make_node("Split", ["z"], ["u", "v"], axis=0, num_outputs=2),
    ]
    twice = h.make_function(
        "own",
        "Twice",
        ["q"],
        ["r"],
        [h.make_node("Add", ["q", "q"], ["r"])],
        [h.make_opsetid("", 18)],
    )
    graph = h.make_graph(
        nodes,
        "net",
        [value("x", shape=("batch", 3)), value("n", t.INT64, ())],
        [value("u", shape=("k", 3)), value("v", shape=("k", 3))],
        [
            weight("enc.fc.weight", 3, 3),
            weight("enc.fc.bias", 3),
            weight("shift", 600, 3),
            weight("zero"),
        ],
    )
    opsets = [h.make_opsetid("", 18), h.make_opsetid("own", 1)]
    return h.make_model(graph, functions=[twice], opset_imports=opsets, ir_version=9)


def test_onnx_nodes_are_in_scopes_with_their_initializers(model):
    nodes = by_name(read_graph(model, None))
    assert {name: inputs_of(nodes, name) for name in nodes if "enc" in name} == {
        "net/enc/fc/weight": [],
        "net/enc/fc/bias": [],
        "net/enc/fc/node_linear": ["x", "net/enc/fc/weight", "net/enc/fc/bias"],
        "net/enc/twice/Twice": ["net/enc/fc/node_linear", "net/enc/fc/node_linear"],
    }
    assert nodes["net/enc/twice/Twice"].op == "Add"
    assert nodes["net/enc/fc/weight"].op == "Parameter"
    assert nodes["x"].outputs == (((-1, 3), "float32"),)
    assert nodes["net/enc/fc/node_linear"].outputs == (((-1, 3), "float32"),)  # inferred
    assert nodes["net/ReduceSum"].attributes == {"keepdims": "0"}


def test_onnx_subgraphs_are_scopes_and_see_what_is_outside(model):
    nodes = by_name(read_graph(model, None))
    choose = ["net/Greater", "net/choose/else_branch", "net/choose/then_branch/Add"]
    assert inputs_of(nodes, "net/choose/choose") == choose
    assert inputs_of(nodes, "net/choose/then_branch/Add") == [
        *("net/enc/twice/Twice", "net/choose/then_branch/shift")
    ]
    assert inputs_of(nodes, "net/loop/Mul") == [
        *("net/choose/choose", "net/choose/then_branch/shift")
    ]
    assert [ref.output for ref in nodes["v"].inputs] == [1]


def test_onnx_models_are_left_as_they_are_and_weights_stay_out(model, tmp_path):
    before = model.SerializeToString(deterministic=True)
    with Writer(tmp_path) as writer:
        writer.add_onnx_graph(model)
    assert model.SerializeToString(deterministic=True) == before
    assert len(before) > writer.stats().bytes_stored


def test_onnx_is_read_from_files_by_both_names(model, onnx, tmp_path, event_files, read_events):
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    logdir = tmp_path / "logs"
    with Writer(logdir, on_error="raise") as writer:
        writer.add_onnx_graph(str(path))
        writer.add_onnx_graph(path)
        writer.add_onnx_graph(onnx_model_file=path)
        writer.add_graph(model)
    (file,) = event_files(logdir)
    graphs = [event.graph_def for event in read_events(file) if event.graph_def]
    assert len(graphs) == 4
    assert len(set(graphs)) == 1


def test_onnx_attributes_of_all_plain_kinds_are_shown(onnx):
    h = onnx.helper
    settings = {"f": 0.5, "i": 3, "s": "text", "fs": [0.5, 1.0], "is": [1, 2], "ss": ["a", "b"]}
    tensor = onnx.numpy_helper.from_array(np.ones(1000, np.float32))
    node = h.make_node("Own", [], ["x"], domain="own", t=tensor, **settings)
    value = h.make_tensor_value_info("x", onnx.TensorProto.BFLOAT16, None)
    graph = h.make_graph([node], "", [], [value])
    nodes = by_name(read_graph(h.make_model(graph), None))
    assert nodes["model"].attributes == {
        "f": "0.5",
        "i": "3",
        "s": "text",
        "fs": "[0.5, 1]",
        "is": "[1, 2]",
        "ss": "[a, b]",
    }
    assert nodes["x"].outputs == ((None, "bfloat16"),)


def test_onnx_names_of_element_types_are_onnx_s_own(onnx):
    from sm_tblog.summary.graph.onnx import _DTYPES

    names = onnx.TensorProto.DataType.Name
    plain = {"FLOAT": "float32", "DOUBLE": "float64", "UNDEFINED": ""}
    for number, dtype in enumerate(_DTYPES):
        name = names(number)
        expected = plain.get(name, name.lower().replace("float8e", "float8_e"))
        assert dtype == expected.replace("float4e", "float4_e")


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ({}, InvalidTypeError, "they are aliases"),
        ({"prototxt": "a", "onnx_model_file": "b"}, InvalidTypeError, "they are aliases"),
        ({"prototxt": 3}, InvalidTypeError, "must be a path or a ModelProto, got int"),
        ({"prototxt": "nowhere.onnx"}, InvalidValueError, "nowhere.onnx cannot be read"),
        ({"prototxt": __file__}, InvalidValueError, "cannot be read as an ONNX model"),
    ],
)
@pytest.mark.usefixtures("onnx")
def test_what_is_no_onnx_is_refused(args, error, says):
    with Writer("memory://refused") as writer, pytest.raises(error, match=says):
        writer.add_onnx_graph(**args)


def test_without_onnx_its_files_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with Writer("memory://refused") as writer, pytest.raises(MissingDependencyError) as caught:
        writer.add_onnx_graph("model.onnx")
    assert "pip install 'sm-tblog[onnx]'" in str(caught.value)


OPENVINO = """<?xml version="1.0"?>
<net name="small" version="11">
  <layers>
    <layer id="3" name="out" type="Result"><input><port id="0"/></input></layer>
    <layer id="0" name="data" type="Parameter" version="opset1">
      <data shape="?,3" element_type="f32"/>
      <output><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim></port></output>
    </layer>
    <layer id="1" name="fc/weights" type="Const">
      <output><port id="0" precision="BF16"><dim>3</dim><dim>4</dim></port></output>
    </layer>
    <layer id="2" name="fc/MatMul" type="MatMul">
      <data transpose_a="false"/>
      <input><port id="0"/><port id="1"/></input>
      <output><port id="2" precision="I64"><dim>4</dim></port>
              <port id="3" precision="BOOL"/></output>
    </layer>
    <layer id="4" name="loop" type="Loop">
      <input><port id="0"/></input>
      <output><port id="1" precision="U8"/></output>
      <body>
        <layers>
          <layer id="0" name="in" type="Parameter"/><layer id="1" name="neg" type="Negative"/>
        </layers>
        <edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges>
      </body>
    </layer>
  </layers>
  <edges>
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
    <edge from-layer="2" from-port="3" to-layer="3" to-port="0"/>
    <edge from-layer="2" from-port="2" to-layer="4" to-port="0"/>
  </edges>
</net>
"""


@pytest.fixture
def xml(tmp_path):
    def write(text):
        path = tmp_path / "model.xml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_openvino_layers_are_linked_by_their_ports(xml):
    nodes = by_name(openvino.read(xml(OPENVINO)))
    assert {name: (node.op, inputs_of(nodes, name)) for name, node in nodes.items()} == {
        "data": ("Input", []),
        "small/fc/weights": ("Const", []),
        "small/fc/MatMul": ("MatMul", ["data", "small/fc/weights"]),
        "out": ("Output", ["small/fc/MatMul"]),
        "small/loop/body/in": ("Input", []),
        "small/loop/body/neg": ("Negative", ["small/loop/body/in"]),
        "small/loop/Loop": ("Loop", ["small/fc/MatMul"]),
    }
    assert [ref.output for ref in nodes["out"].inputs] == [1]
    assert nodes["data"].outputs == (((-1, 3), "float32"),)
    assert nodes["small/fc/weights"].outputs == (((3, 4), "bfloat16"),)
    assert nodes["small/fc/MatMul"].outputs == (((4,), "int64"), ((), "bool"))
    assert nodes["small/fc/MatMul"].attributes == {"transpose_a": "false"}


def test_openvino_is_logged(xml, tmp_path, event_files, read_events):
    with Writer(tmp_path / "logs", on_error="raise") as writer:
        writer.add_openvino_graph(xml(OPENVINO))
        writer.add_openvino_graph(str(xml(OPENVINO)), tag="again")
    (file,) = event_files(tmp_path / "logs")
    events = read_events(file)
    assert sum(b"small/fc/MatMul" in event.graph_def for event in events) == 1
    assert [value.tag for event in events for value in event.summary.value] == ["again"]


BOMB = '<!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><net name="&b;"><layers/></net>'
CYCLE = OPENVINO.replace('to-layer="3"', 'to-layer="0"')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "it has a document type"),
        (CYCLE, "cannot be read as an OpenVINO graph"),
        (OPENVINO.replace('from-layer="1"', 'from-layer="9"'), "9"),
        ("<net><layers/></net>", "it has no layers"),
        ("<html>", "cannot be read as an OpenVINO graph"),
    ],
)
def test_what_is_no_openvino_is_refused(xml, text, says):
    with Writer("memory://refused") as writer, pytest.raises(InvalidValueError, match=says):
        writer.add_openvino_graph(xml(text))


@pytest.mark.parametrize(
    ("path", "error"), [(3, InvalidTypeError), ("nowhere.xml", InvalidValueError)]
)
def test_what_is_no_path_or_file_is_refused(path, error):
    with Writer("memory://refused") as writer, pytest.raises(error):
        writer.add_openvino_graph(path)
