"""Graphs of PyTorch models: complete, named by module, and without a trace in the model."""

import dataclasses
import random
import threading
import warnings
from collections import OrderedDict, namedtuple
from functools import partial

import numpy as np
import pytest

from sm_tblog import Writer
from sm_tblog.summary.graph.reading import read_graph

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - only where it is there
from torch.nn import functional  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

zeros = torch.zeros


class Calls(nn.Module):
    """A module whose ``forward`` is a function of it."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, image):
        return self.act(self.norm(self.conv(image)) + image)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        features = self.blocks(functional.relu(self.stem(image)))
        return self.head(features.mean((2, 3)))


def nodes_of(model, inputs):
    """Return the nodes by name, and see that nothing had to be left out."""
    graph = read_graph(model, inputs)
    assert graph.warning == ""
    return {node.name: node for node in graph.nodes}


def ops_of(model, inputs):
    return [node.op for node in nodes_of(model, inputs).values()]


def inputs_of(nodes, name):
    names = list(nodes)
    return [names[ref.node] for ref in nodes[name].inputs]


def test_nodes_are_named_by_module_and_linked_by_tensor():
    nodes = nodes_of(Net(), zeros(2, 3, 8, 8))
    assert [name for name, node in nodes.items() if node.op not in ("Parameter", "Buffer")] == [
        "image",
        *("Net/stem/conv2d", "Net/relu"),
        *(f"Net/blocks/0/{part}" for part in ("conv/conv2d", "norm/batch_norm", "add", "act")),
        *(f"Net/blocks/1/{part}" for part in ("conv/conv2d", "norm/batch_norm", "add", "act")),
        *("Net/mean", "Net/head/linear", "output"),
    ]
    assert inputs_of(nodes, "Net/blocks/0/add") == ["Net/blocks/0/norm/batch_norm", "Net/relu"]
    assert inputs_of(nodes, "Net/blocks/1/conv/conv2d") == [
        *("Net/blocks/0/act", "Net/blocks/1/conv/weight", "Net/blocks/1/conv/bias")
    ]
    assert inputs_of(nodes, "output") == ["Net/head/linear"]


def test_every_parameter_and_buffer_that_is_used_is_a_node_with_its_shape():
    model = Net()
    nodes = nodes_of(model, zeros(2, 3, 8, 8))
    for op, owned in (("Parameter", model.named_parameters()), ("Buffer", model.named_buffers())):
        expected = {
            f"Net/{name.replace('.', '/')}": tuple(tensor.shape)
            for name, tensor in owned
            if "num_batches" not in name
        }
        found = {name: n.outputs[0].shape for name, n in nodes.items() if n.op == op}
        assert found == expected


def test_shapes_dtypes_devices_and_settings_are_the_runs():
    model, image = Net().double(), zeros(2, 3, 8, 8, dtype=torch.float64)
    nodes = nodes_of(model, image)
    stem = functional.conv2d(image, model.stem.weight)
    expected = {"stem/conv2d": tuple(stem.shape), "head/linear": (2, 2)}
    for name, shape in expected.items():
        assert nodes[f"Net/{name}"].outputs == ((shape, "float64"),)
    stem = nodes["Net/stem/conv2d"]
    assert stem.attributes["module"] == "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))"
    assert nodes["Net/mean"].attributes == {"arguments": "(2, 3)"}
    assert stem.device == "cpu"


def test_a_module_called_again_is_a_scope_of_its_own_with_the_same_parameters():
    model = Calls(
        lambda self, x: self.fc(self.act(self.fc(self.act(x)))), fc=nn.Linear(3, 3), act=nn.Tanh()
    )
    nodes = nodes_of(model, zeros(1, 3))
    assert [name for name, n in nodes.items() if n.op in ("linear", "tanh")] == [
        *("Calls/act", "Calls/fc/linear", "Calls/act_3", "Calls/fc_4")
    ]
    assert inputs_of(nodes, "Calls/fc_4")[1:] == ["Calls/fc/weight", "Calls/fc/bias"]


def test_the_modules_of_the_peers_graph_are_in_ours():
    peer = pytest.importorskip("torch.utils.tensorboard._pytorch_graph")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated
        theirs, _ = peer.graph(Net(), (zeros(2, 3, 8, 8),))
    nodes = nodes_of(Net(), zeros(2, 3, 8, 8))

    def computed(pairs):
        """Return the modules in which an operation on weights is, by their names."""
        weighted = ("conv", "batch_norm", "linear")
        scopes = (name.rsplit("/", 1)[0] for name, op in pairs if any(w in op for w in weighted))
        return sorted(scopes)

    plain = [
        (
            "/".join(["Net", *(part.split("[")[-1].strip("]") for part in n.name.split("/")[1:])]),
            n.op,
        )
        for n in theirs.node
    ]
    assert computed(plain) == computed((name, node.op) for name, node in nodes.items())


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@dataclasses.dataclass
class Result:
    value: torch.Tensor
    count: int


def encoder(self, x):
    return self.encoder(x)


def depends_on_data(self, x):
    return x + 1 if x.sum() > 0 else x - 1


def computes_gradients(self, x):
    with torch.enable_grad():
        x = x.requires_grad_()
        return torch.autograd.grad(self.fc(x).sum(), x)[0]


TRANSFORMER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

ORDINARY = {
    "a tuple of arguments": (nn.Bilinear(2, 2, 3), (zeros(1, 2), zeros(1, 2)), "bilinear"),
    "a list of arguments": (nn.Bilinear(2, 2, 3), [zeros(1, 2), zeros(1, 2)], "bilinear"),
    "a list as the argument": (Calls(lambda _, xs: torch.cat(xs)), [zeros(1), zeros(2)], "cat"),
    "keyword arguments": (nn.Linear(2, 3), {"input": zeros(1, 2)}, "linear"),
    "any keyword arguments": (Calls(lambda _, **kw: kw["a"] * 2), {"a": zeros(1)}, "mul"),
    "a dict as the argument": (Calls(lambda _, batch: batch["a"] * 2), {"a": zeros(1)}, "mul"),
    "a packed sequence": (
        *(nn.LSTM(4, 5), (pack_padded_sequence(zeros(3, 2, 4), torch.tensor([3, 2])),), "lstm"),
    ),
    "control flow by data": (Calls(depends_on_data), zeros(2), "sub"),
    "a custom autograd function": (Calls(lambda _, x: Square.apply(x)), zeros(2), "mul"),
    "recurrence": (nn.GRU(4, 5, 2, bidirectional=True), zeros(3, 2, 4), "gru"),
    "attention": (
        nn.MultiheadAttention(8, 2),
        (zeros(3, 2, 8),) * 3,
        "multi_head_attention_forward",
    ),
    "a transformer": (nn.TransformerEncoder(TRANSFORMER, 2), zeros(2, 3, 8), "layer_norm"),
    "a batch of one in training": (nn.BatchNorm1d(3), zeros(1, 3), "batch_norm"),
    "gradients inside": (Calls(computes_gradients, fc=nn.Linear(2, 2)), zeros(1, 2), "linear"),
    "a mapped function": (
        Calls(lambda s, x: torch.vmap(s.fc)(x), fc=nn.Linear(2, 2)),
        zeros(3, 2),
        "linear",
    ),
    "weights that are computed": (
        *(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), zeros(1, 2), "weight_norm"),
    ),
    "writing in place": (Calls(lambda _, x: x.mul_(2).add_(1)), zeros(2), "add_"),
    "out=": (Calls(lambda _, x: torch.neg(x, out=torch.empty(2))), zeros(2), "neg"),
    "a function": (lambda x: x.exp(), zeros(2), "exp"),
    "a function that is not Python's": (torch.relu, zeros(2), "relu"),
    "a partial function": (partial(torch.add, alpha=2), (zeros(2), zeros(2)), "add"),
    "a model on the device meta": (
        nn.Linear(2, 3, device="meta"),
        zeros(1, 2, device="meta"),
        "linear",
    ),
    "an operator": (Calls(lambda _, x: torch.ops.aten.relu.default(x)), zeros(2), "relu"),
    "a dense and a sparse tensor": (
        *(
            Calls(lambda _, x: torch.sparse.mm(x, zeros(2, 2))),
            torch.eye(2).to_sparse(),
            "sparse_mm",
        ),
    ),
}


@pytest.mark.parametrize(("model", "inputs", "op"), ORDINARY.values(), ids=ORDINARY)
def test_ordinary_models_are_recorded(model, inputs, op):
    ops = ops_of(model, inputs)
    assert op in ops
    assert {"Input", "Output"} <= set(ops)


def test_inputs_and_outputs_are_named_by_where_they_are():
    def forward(self, batch, *, scale=None):
        pair = batch["image"] * scale, Result(batch["mask"][0], 3)
        return OrderedDict(logits=pair[0], others=[*pair, None, "text"])

    model = Calls(lambda self, batch, scale: forward(self, batch, scale=scale))
    model.forward = partial(forward, model)
    nodes = nodes_of(model, {"batch": {"image": zeros(2), "mask": [zeros(3)]}, "scale": zeros(1)})
    assert [name for name, node in nodes.items() if node.op == "Input"] == [
        *("batch/image", "batch/mask/0", "scale")
    ]
    assert [name for name, node in nodes.items() if node.op == "Output"] == [
        *("output/logits", "output/others/0", "output/others/1/value")
    ]
    assert inputs_of(nodes, "output/others/1/value") == ["batch/mask/0"]


def test_what_is_computed_out_of_sight_is_one_node():
    def forward(self, x):
        return self.outer(torch.from_numpy(np.exp(x.numpy())))

    outer = Calls(lambda self, x: torch.from_numpy(x.numpy() * 2))
    nodes = nodes_of(Calls(forward, outer=outer), zeros(2))
    assert {name: node.op for name, node in nodes.items()} == {
        "args/0": "Input",
        "Calls/constant": "Constant",
        "Calls/outer": "Calls",
        "output": "Output",
    }
    assert inputs_of(nodes, "Calls/outer") == ["Calls/constant"]


def test_an_exception_that_the_model_handles_is_no_harm():
    def forward(self, x):
        try:
            self.wrong(x)
        except RuntimeError:
            return self.right(x) + 1

    model = Calls(forward, wrong=nn.Sequential(nn.Linear(3, 3)), right=nn.Linear(2, 2))
    nodes = nodes_of(model, zeros(1, 2))
    assert inputs_of(nodes, "Calls/add") == ["Calls/right/linear"]


def test_a_tensor_in_the_place_of_one_that_is_gone_is_another():
    def forward(self, x):
        for _ in range(20):
            torch.neg(x)  # its memory is free for the next
            x = torch.from_numpy(np.ones(2)) + x
        return x

    nodes = nodes_of(Calls(forward), zeros(2))
    added = [name for name, node in nodes.items() if node.op == "add"]
    assert len(added) == 20
    assert all(nodes[inputs_of(nodes, name)[0]].op == "Constant" for name in added)


def test_writing_to_a_part_is_seen_by_what_reads_the_whole():
    def forward(self, x):
        x = x * 1
        x[0] = 3
        return x + 1

    nodes = nodes_of(Calls(forward), zeros(2))
    assert inputs_of(nodes, "Calls/add") == ["Calls/setitem"]
    assert nodes["Calls/setitem"].attributes["arguments"] == "0, 3"


class Restless(nn.Module):
    """A model that changes all that it can reach."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.gain = nn.Parameter(torch.ones(2))
        self.norm = nn.BatchNorm1d(2)
        self.frozen = nn.BatchNorm1d(2).eval()
        self.dropout = nn.Dropout()
        self.register_buffer("seen", zeros(2))
        self.register_buffer("rebound", zeros(2))
        self.register_buffer("absent", None)
        self.count = 0

    def forward(self, x):
        self.count += 1
        self.cache = x
        self.seen += 1
        self.rebound = x[0]
        self.fc.weight.data.mul_(2)
        self.fc.bias.data = torch.ones(2)
        with torch.no_grad():
            self.gain[0] = 7
        random.random()
        np.random.rand()  # noqa: NPY002 - what must not be disturbed
        x = functional.dropout(x, training=True) + torch.rand(2)
        return self.dropout(self.frozen(self.norm(self.fc(x)))) * self.gain


def state_of(model):
    return {
        "modes": [module.training for module in model.modules()],
        "attributes": [list(vars(module)) for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "identities": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "memory": [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())],
        "values": [tensor.tolist() for tensor in (*model.parameters(), *model.buffers())],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "count": model.count,
        "generators": (
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
        ),
    }


def test_the_model_and_the_random_generators_are_afterwards_as_they_were():
    model, x = Restless(), torch.ones(3, 2, requires_grad=True)
    before = state_of(model)
    assert "add_" in ops_of(model, x)
    assert state_of(model) == before
    assert x.tolist() == [[1, 1]] * 3
    assert x.grad is None


def test_inputs_are_left_as_they_are():
    Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - what containers look like
    x = zeros(2)
    inputs = (x, {"k": [x]}, Pair(x, 3))
    model = Calls(lambda self, a, b, c: a.add_(1) + b["k"][0].add_(1) + c.a.add_(1))
    assert ops_of(model, inputs).count("add_") == 3
    assert x.tolist() == [0, 0]


def test_parameters_that_share_memory_are_restored_together():
    flat = torch.arange(4.0)
    model = Calls(lambda self, x: x * self.a.mul_(2) * self.b)
    model.a, model.b = nn.Parameter(flat[:2]), nn.Parameter(flat[2:])
    assert "mul_" in ops_of(model, zeros(2))
    assert flat.tolist() == [0, 1, 2, 3]


def test_the_model_is_restored_when_it_fails():
    model = Restless()
    before = state_of(model)
    graph = read_graph(model, zeros(3, 5))
    assert "the model did not run" in graph.warning
    assert state_of(model) == before


def test_a_later_change_of_the_model_does_not_reach_the_graph(tmp_path, read_events, event_files):
    model = Net()
    with Writer(tmp_path) as writer:
        writer.add_graph(model, zeros(2, 3, 8, 8))
        model.head = nn.Identity()
        del model
    (file,) = event_files(tmp_path)
    assert any(b"Net/head/linear" in event.graph_def for event in read_events(file))


def test_without_an_input_a_model_is_a_tree_in_which_what_is_in_a_row_is_linked():
    nodes = nodes_of(Net(), None)
    assert {name for name, node in nodes.items() if node.op == "Parameter"} == {
        f"Net/{name.replace('.', '/')}" for name, _ in Net().named_parameters()
    }
    assert nodes["Net/stem/Conv2d"].attributes["module"].startswith("Conv2d(3, 4")
    row = nodes_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), None)
    assert inputs_of(row, "Sequential/1") == ["Sequential/0/Linear"]
    assert inputs_of(row, "Sequential/2/Linear")[0] == "Sequential/1"


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (zeros(2, 5), "shapes cannot be multiplied"),
        ((zeros(2, 2), 1, 2), "too many positional arguments"),
        ("text", "must be Tensor"),
        (object(), "must be Tensor"),
    ],
)
def test_a_wrong_input_shows_the_modules_and_is_said_once(inputs, says, caplog):
    with Writer("memory://wrong", on_error="raise") as writer:
        writer.add_graph(nn.Linear(2, 2), inputs)
        writer.add_graph(nn.Linear(2, 2), inputs)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("sm_tblog: 'graph of Linear': the graph shows only the modules")
    assert says in message


def test_lazy_parameters_are_left_alone():
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    graph = read_graph(model, zeros(1, 2))
    assert "would initialize its lazy parameters" in graph.warning
    assert all(map(nn.parameter.is_lazy, model.parameters()))
    assert [node.op for node in graph.nodes] == ["Parameter", "Parameter", "LazyLinear", "ReLU"]


def test_warnings_of_a_model_are_kept_unless_it_is_verbose(capsys):
    def forward(self, x):
        warnings.warn("deprecated", UserWarning, stacklevel=1)
        return x + 1

    read_graph(Calls(forward), zeros(1))
    assert capsys.readouterr().out == ""
    with pytest.warns(UserWarning, match="deprecated"):
        read_graph(Calls(forward), zeros(1), verbose=True)
    assert "Calls = add(args/0) -> float32[1]" in capsys.readouterr().out


@pytest.fixture
def script_of():
    """``script_of(module)``: the module in TorchScript, which is deprecated."""

    def script(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.script(module)

    return script


def test_a_torchscript_module_in_a_model_is_one_node(script_of):
    scripted = script_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    outer = Calls(lambda self, x: self.inner(x) + 1, inner=scripted)
    assert ops_of(outer, zeros(1, 2)) == ["Input", "Sequential", "add", "Output"]
    assert scripted.training


@pytest.fixture
def distributed(tmp_path):
    """A process group of one."""
    group = torch.distributed
    group.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    group.destroy_process_group()


@pytest.mark.usefixtures("distributed")
@pytest.mark.parametrize("wrap", [nn.DataParallel, nn.parallel.DistributedDataParallel])
def test_wrappers_that_would_talk_to_others_are_seen_through(wrap):
    assert "Net/head/linear" in nodes_of(wrap(Net()), zeros(1, 3, 8, 8))


def test_compiled_modules_run_as_they_were_written():
    def compiler(module, example):
        pytest.fail("it has been compiled")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the compiler imports
        compiled = torch.compile(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), backend=compiler)
        inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        inner.compile(backend=compiler, fullgraph=True)
        ops = ["Input", "Parameter", "Parameter", "linear", "relu", "Output"]
        assert ops_of(compiled, zeros(1, 2)) == ops
        assert ops_of(Calls(lambda self, x: self.inner(x), inner=inner), zeros(1, 2)) == ops


def test_modules_of_others_have_no_scope_and_their_weights_are_constants():
    other = nn.Linear(2, 2)
    model = Calls(lambda self, x: self.fc(x) + other(x), fc=nn.Linear(2, 2))
    nodes = nodes_of(model, zeros(1, 2))
    linears = [name for name, node in nodes.items() if node.op == "linear"]
    assert linears == ["Calls/fc/linear", "Calls/linear"]
    constants = [name for name, node in nodes.items() if node.op == "Constant"]
    assert inputs_of(nodes, "Calls/linear") == ["args/0", *constants]


def test_what_other_threads_run_meanwhile_is_not_recorded():
    module = nn.Linear(2, 2)

    def forward(self, x):
        thread = threading.Thread(target=self.fc, args=(x,))
        thread.start()
        thread.join()
        return self.fc(x)

    ops = ops_of(Calls(forward, fc=module), zeros(1, 2))
    assert ops == ["Input", "Parameter", "Parameter", "linear", "Output"]


def test_a_large_model_is_read(tmp_path):
    def forward(self, x):
        for _ in range(5000):
            x = -x
        return x

    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_graph(Calls(forward), zeros(1))
    assert writer.stats().bytes_stored < 2_000_000
