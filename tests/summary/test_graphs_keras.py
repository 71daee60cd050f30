"""Graphs of Keras models, on each backend that is installed.

Importing Keras fixes its backend, so each has a process of its own, which checks and prints.
"""

import importlib.util

import pytest

BACKENDS = [name for name in ("jax", "torch", "tensorflow") if importlib.util.find_spec(name)]

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs keras"),
    pytest.mark.parametrize("backend", BACKENDS),
]

HEAD = """
import os, sys, warnings
os.environ["KERAS_BACKEND"] = sys.argv[1]
warnings.simplefilter("ignore")
import keras
import numpy as np
from keras import layers
from sm_tblog.summary.graph.reading import read_graph
warnings.simplefilter("error")

def nodes_of(model, inputs=None):
    graph = read_graph(model, inputs)
    assert graph.warning == "", graph.warning
    return {node.name: node for node in graph.nodes}

def inputs_of(nodes, name):
    names = list(nodes)
    return [names[ref.node] for ref in nodes[name].inputs]
"""

FUNCTIONAL = """
image, extra = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="extra")
encoder = keras.Sequential(
    [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.Flatten(name="flat")],
    name="encoder",
)
shared = layers.Dense(144, name="shared")
hidden = encoder(image) + shared(extra)
again = shared(keras.ops.relu(extra))
model = keras.Model(
    {"image": image, "extra": extra}, {"sum": hidden, "both": [again, hidden]}, name="net"
)
model.get_layer("encoder").get_layer("conv").trainable = False
nodes = nodes_of(model)
assert inputs_of(nodes, "net/encoder/conv/Conv2D") == [
    "image", "net/encoder/conv/kernel", "net/encoder/conv/bias",
]
assert inputs_of(nodes, "net/encoder/flat") == ["net/encoder/conv/Conv2D"]
assert inputs_of(nodes, "net/add") == ["net/encoder/flat", "net/shared/Dense"]
again = inputs_of(nodes, "output/both/0")[0]
assert inputs_of(nodes, again)[1:] == ["net/shared/kernel", "net/shared/bias"]
assert inputs_of(nodes, inputs_of(nodes, again)[0]) == ["extra"]
assert inputs_of(nodes, "output/sum") == inputs_of(nodes, "output/both/1") == ["net/add"]
weights = {w.path: tuple(w.shape) for w in model.weights}
found = {n.name: n.outputs[0] for n in nodes.values() if n.op == "Parameter"}
assert sorted(spec.shape for spec in found.values()) == sorted(weights.values())
assert {spec.dtype for spec in found.values()} == {"float32"}
assert nodes["net/encoder/conv/Conv2D"].outputs == (((-1, 6, 6, 4), "float32"),)
assert nodes["net/encoder/conv/Conv2D"].attributes["kernel_size"] == "(3, 3)"
assert nodes["net/encoder/conv/kernel"].attributes == {"trainable": "False"}
"""

NESTED = """
inner_in = keras.Input((4,), name="inner_in")
inner = keras.Model(inner_in, [layers.Dense(2, name="a")(inner_in), inner_in * 2], name="inner")
outer_in = keras.Input((4,), name="outer_in")
attention = layers.MultiHeadAttention(2, 4, name="attention")
left, right = inner(outer_in)
rows = layers.Reshape((2, 2))(right)
model = keras.Model(outer_in, [left, attention(rows, rows)], name="outer")
nodes = nodes_of(model)
assert inputs_of(nodes, "outer/inner/a/Dense")[0] == "outer_in"
assert inputs_of(nodes, "output/0") == ["outer/inner/a/Dense"]
weights = inputs_of(nodes, "outer/attention/MultiHeadAttention")
assert "outer/attention/query/kernel" in weights and "outer/attention/value/bias" in weights
"""

SUBCLASSED = """
class Net(keras.Model):
    def __init__(self):
        super().__init__(name="net")
        self.first, self.second = layers.Dense(8, name="first"), layers.Dense(2, name="second")
        self.drop = layers.Dropout(0.5, name="drop")
        row = [layers.Dense(3, name="a"), layers.ReLU(name="b")]
        self.tail = keras.Sequential(row, name="tail")

    def call(self, x, training=False):
        x = self.drop(keras.ops.tanh(self.first(x)), training=training)
        return {"logits": self.second(x), "tail": self.tail(x)}

model, x = Net(), np.ones((5, 4), "float32")
tree = nodes_of(model)
assert [node.op for node in tree.values()] == ["Dense", "Dense", "Dropout", "Dense", "ReLU"]
assert inputs_of(tree, "net/tail/b") == ["net/tail/a"]
graph = read_graph(model, x)
assert "has not been built; call it once first" in graph.warning
assert not model.built
assert [node.name for node in graph.nodes] == list(tree)

model(x)
def state():
    each = [model, *model._flatten_layers()]
    nodes = [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in each]
    return nodes, [  # the weights and the states of random generators
        getattr(v.value, "tolist", lambda v=v: v.numpy().tolist())() for v in model.variables
    ]
before = state()
nodes = nodes_of(model, x)
assert state() == before
assert inputs_of(nodes, "net/first/Dense") == ["x", "net/first/kernel", "net/first/bias"]
assert inputs_of(nodes, "net/tanh") == ["net/first/Dense"]
assert inputs_of(nodes, "net/drop") == ["net/tanh"]
assert inputs_of(nodes, "output/logits") == ["net/second/Dense"]
assert inputs_of(nodes, "output/tail") == ["net/tail/b"]
assert nodes["x"].outputs == (((5, 4), "float32"),)
assert nodes["net/second/Dense"].outputs == (((5, 2), "float32"),)

graph = read_graph(model, np.ones((5, 7), "float32"))
assert graph.warning.startswith("the graph shows only the layers: "), graph.warning
assert {"net/first/kernel", "net/tail/a/kernel"} <= {node.name for node in graph.nodes}
assert state() == before
"""

UNBUILT = """
model = keras.Sequential([layers.Dense(3, name="a"), layers.ReLU(name="b")], name="row")
nodes = nodes_of(model)
assert {name: node.op for name, node in nodes.items()} == {"row/a": "Dense", "row/b": "ReLU"}
assert inputs_of(nodes, "row/b") == ["row/a"]
assert nodes["row/a"].attributes["units"] == "3"
assert [node.op for node in nodes_of(layers.Dense(3)).values()] == ["Dense"]

class Plain(layers.Layer):
    def __init__(self, size):
        super().__init__(name="plain")

    def get_config(self):
        raise NotImplementedError

assert [node.op for node in nodes_of(Plain(3)).values()] == ["Plain"]
"""


def test_models_are_read(run_script, backend):
    parts = [HEAD, FUNCTIONAL, NESTED, SUBCLASSED, UNBUILT]
    done = run_script("\n".join(parts), backend)
    assert done.returncode == 0, done.stderr
