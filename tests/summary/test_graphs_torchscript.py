"""Graphs of TorchScript models: scripted, traced, loaded, frozen, and functions."""

import io
import warnings

import pytest

from sm_tblog import Writer

torch = pytest.importorskip("torch")
nn = torch.nn

from sm_tblog.summary.graph import torchscript  # noqa: E402
from sm_tblog.summary.graph.base import describe  # noqa: E402
from sm_tblog.summary.graph.encoding import encode_graph  # noqa: E402
from sm_tblog.summary.graph.reading import read_graph  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

IMAGE = torch.zeros(1, 3, 8, 8)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.drop(nn.functional.relu(self.bn(self.conv(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(Block())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.features(x).mean([2, 3])
        return self.head(x).softmax(-1), x


def loaded(model):
    file = io.BytesIO()
    torch.jit.save(model, file)
    file.seek(0)
    return torch.jit.load(file)


WAYS = {
    "scripted": torch.jit.script,
    "scripted in eval": lambda net: torch.jit.script(net.eval()),
    "traced": lambda net: torch.jit.trace(net.eval(), (IMAGE,)),
    "loaded": lambda net: loaded(torch.jit.script(net)),
    "traced and loaded": lambda net: loaded(torch.jit.trace(net.eval(), (IMAGE,))),
}


def made(how, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return how(net)


def nodes_of(model, inputs=None):
    graph = read_graph(model, inputs)
    assert graph.warning == ""
    encode_graph(graph.nodes)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    return {node.name: node for node in graph.nodes}


def inputs_of(nodes, name):
    return [list(nodes)[ref.node] for ref in nodes[name].inputs]


@pytest.mark.parametrize("inputs", [IMAGE, (IMAGE,), [IMAGE], {"x": IMAGE}, None])
@pytest.mark.parametrize("way", WAYS)
def test_the_operations_are_in_the_scopes_of_their_modules(way, inputs):
    nodes = nodes_of(made(WAYS[way], Net()), inputs)
    (conv,) = (node for node in nodes.values() if "conv" in node.op)
    assert conv.name.startswith("Net/features/0/conv/")
    assert conv.attributes["module"] == "Conv2d"
    assert "padding=[1, 1]" in conv.attributes["arguments"]
    assert nodes["Net/features/0/bn/batch_norm"].op == "batch_norm"
    assert nodes["Net/features/0/relu"].op == "relu"
    assert nodes["Net/features/0/drop"].op == "dropout"
    assert nodes["Net/head/linear"].op == "linear"
    assert set(inputs_of(nodes, conv.name)) == {
        "x",
        "Net/features/0/conv/weight",
        "Net/features/0/conv/bias",
    }
    assert inputs_of(nodes, "Net/features/0/relu") == ["Net/features/0/bn/batch_norm"]
    assert inputs_of(nodes, "output/0") == ["Net/softmax"]
    assert inputs_of(nodes, "output/1") == ["Net/mean"]
    assert nodes["Net/features/0/bn/running_mean"].op == "Buffer"
    assert nodes["Net/head/weight"].op == "Parameter"
    assert nodes["Net/head/weight"].outputs[0].shape == (2, 4)
    if inputs is not None:
        assert nodes["x"].outputs[0].shape == (1, 3, 8, 8)
        assert nodes["Net/features/0/relu"].outputs[0].shape == (1, 4, 8, 8)
        assert nodes["Net/softmax"].outputs[0].shape == (1, 2)


@pytest.mark.parametrize("way", WAYS)
def test_the_operations_are_those_of_torchs_writer(way):
    graph = pytest.importorskip("torch.utils.tensorboard._pytorch_graph").graph
    model = made(WAYS[way], Net().eval())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = graph(model, (IMAGE,))[0].node
    ops = sorted(node.op[6:].strip("_") for node in theirs if node.op.startswith("aten::"))
    other = {"Input", "Output", "Parameter", "Buffer"}
    ours = sorted(n.op.strip("_") for n in nodes_of(model, IMAGE).values() if n.op not in other)
    assert [op.replace("convolution", "conv2d") for op in ours] == [
        op.replace("convolution", "conv2d") for op in ops
    ]


def test_the_model_is_left_as_it_was():
    model = made(torch.jit.script, Net())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = str(model.graph)
    read_graph(model, IMAGE)
    assert str(model.graph) == before
    assert model.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_an_input_that_does_not_fit_costs_only_shapes():
    model = made(torch.jit.script, Net())
    for inputs in (torch.zeros(1), "text", (), (IMAGE, IMAGE), {"other": IMAGE}, [3]):
        assert "Net/head/linear" in nodes_of(model, inputs)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, repeat: int):
        if bool(x.sum() > 0):  # noqa: SIM108 - read as TorchScript
            y = torch.relu(self.fc(x))
        else:
            y = torch.sigmoid(x)
        for _ in range(repeat):
            y = y + x
        return y


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Branches()

    def forward(self, x):
        return self.inner(x, 3)


def test_branches_and_loops_are_scopes():
    nodes = nodes_of(made(torch.jit.script, Outer()), torch.ones(2, 4))
    scope = "Outer/inner/If"
    assert nodes[f"{scope}/then/fc"].op == "linear"
    assert nodes[f"{scope}/else"].op == "sigmoid"
    assert inputs_of(nodes, f"{scope}/If") == [
        "Outer/inner/gt",
        f"{scope}/then/relu",
        f"{scope}/else",
    ]
    assert nodes[f"{scope}/If"].outputs[0].shape == (2, 4)
    (loop,) = (node for node in nodes.values() if node.op == "Loop")
    (body,) = inputs_of(nodes, loop.name)
    assert (nodes[body].op, inputs_of(nodes, body)) == ("add", [f"{scope}/If", "x"])
    assert inputs_of(nodes, "output") == [loop.name]


class Containers(nn.Module):
    def forward(self, x, more: dict[str, torch.Tensor], n: int = 2) -> dict[str, torch.Tensor]:
        parts = [x]
        while n > 0:
            n -= 1
            parts.append(x * n)
        low, high = torch.stack(parts).chunk(2)
        low[0] = 1.0
        low += more["offset"]
        return {"low": low, "high": high.view(high.size(0), -1)}


def test_containers_and_changes_in_place_are_followed():
    example = torch.zeros(2, 3)
    nodes = nodes_of(made(torch.jit.script, Containers()), (example, {"offset": example}))
    ops = {node.op: name for name, node in nodes.items()}
    assert set(inputs_of(nodes, ops["stack"])) == {"x", ops["mul"]}
    assert "more" in inputs_of(nodes, ops["add_"])
    assert set(inputs_of(nodes, "output")) >= {ops["add_"], ops["view"]}
    assert not any("Construct" in op or "append" in op for op in ops)


def test_functions_are_read_too():
    def double(first, second):
        return torch.relu(first @ second) + 1

    example = torch.ones(2, 2)
    for function, inputs in (
        (made(torch.jit.script, double), (example, example)),
        (made(torch.jit.script, double), None),
        (made(lambda f: torch.jit.trace(f, (example, example)), double), (example, example)),
    ):
        nodes = nodes_of(function, inputs)
        assert [node.op for node in nodes.values()] == [
            "Input", "Input", "matmul", "relu", "add", "Output",
        ]  # fmt: skip
        assert "double/relu" in nodes


def test_frozen_models_have_constants():
    nodes = nodes_of(made(lambda net: torch.jit.freeze(torch.jit.script(net.eval())), Net()), IMAGE)
    shapes = {node.outputs[0].shape for node in nodes.values() if node.op == "Constant"}
    assert {(2, 4), (4, 3, 3, 3)} <= shapes


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, 2, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[1][0]


@pytest.mark.parametrize(
    "model",
    [
        Recurrent(),
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.MultiheadAttention(8, 2),
        nn.Embedding(5, 4),
        nn.Sequential(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_modules_of_torch_are_read(model):
    nodes = nodes_of(made(torch.jit.script, model))
    assert "Output" in {node.op for node in nodes.values()}


def test_a_module_without_forward_is_a_tree(caplog, tmp_path):
    class Empty(nn.Module):
        @torch.jit.export
        def encode(self, x):
            return x + 1

    model = made(torch.jit.script, Empty())
    assert "TorchScript could not be read" in read_graph(model, IMAGE).warning
    with Writer(tmp_path) as writer:
        writer.add_graph(model, IMAGE)
    assert "the graph shows only the modules" in caplog.text


def test_passes_that_fail_cost_only_detail(monkeypatch):
    model = made(torch.jit.script, Net())
    monkeypatch.delattr(torch._C, "_jit_pass_propagate_shapes_on_graph")
    assert "Net/head/linear" in nodes_of(model, IMAGE)


def test_only_torchscript_is_read_as_such():
    assert not torchscript.is_torchscript(Net())
    assert torchscript.is_torchscript(made(torch.jit.script, Net()))


def test_it_is_logged_and_printed(tmp_path, load_run, capsys):
    model = made(torch.jit.script, Net())
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_graph(model, IMAGE, verbose=True)
    assert "Net/features/0/relu = relu(Net/features/0/bn/batch_norm)" in capsys.readouterr().out
    names = {node.name for node in load_run(tmp_path).Graph().node}
    assert names == {
        line.partition(" = ")[0] for line in describe(read_graph(model, IMAGE)).splitlines()
    }
