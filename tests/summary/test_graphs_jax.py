"""Graphs of JAX: every equation of the jaxpr, in the scopes of what calls it."""

from collections import Counter

import pytest

from sm_tblog.summary.graph.reading import read_graph

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402 - only where it is there
from jax import lax  # noqa: E402

try:
    from jax.extend.core import jaxprs_in_params
except ImportError:  # where it was before
    from jax.core import jaxprs_in_params


@jax.jit
def dense(params, x):
    return jnp.tanh(x @ params["w"] + params["b"])


def net(params, x):
    with jax.named_scope("encoder"):
        x = dense(params["encoder"], x)
    with jax.named_scope("head"):
        return {"logits": dense(params["head"], x), "first": x[0]}


LAYER = {"w": jnp.ones((4, 4)), "b": jnp.ones(4)}
PARAMS = {"encoder": LAYER, "head": LAYER}
X = jnp.ones((2, 4))


def nodes_of(model, inputs=None):
    graph = read_graph(model, inputs)
    assert graph.warning == ""
    return {node.name: node for node in graph.nodes}


def inputs_of(nodes, name):
    names = list(nodes)
    return [names[ref.node] for ref in nodes[name].inputs]


def equations(jaxpr):
    """Count the equations that call nothing, in a jaxpr and in those that it calls."""
    count = Counter()
    for equation in jaxpr.eqns:
        inner = list(jaxprs_in_params(equation.params))
        own = Counter([equation.primitive.name])
        count += sum(map(equations, inner), Counter()) if inner else own
    return count


def ops(nodes, without=()):
    ends = {"Input", "Output", "Parameter", "Constant", *without}
    return Counter(node.op for node in nodes.values() if node.op not in ends)


@pytest.mark.parametrize("function", [net, jax.jit(net)], ids=["plain", "jitted"])
def test_equations_are_in_scopes_and_parameters_beside_them(function):
    nodes = nodes_of(function, (PARAMS, X))
    assert ops(nodes) == equations(jax.make_jaxpr(function)(PARAMS, X).jaxpr)
    assert {name: node.outputs[0] for name, node in nodes.items() if node.op == "Parameter"} == {
        f"net/{layer}/{name}": (array.shape, "float32")
        for layer in PARAMS
        for name, array in LAYER.items()
    }
    assert inputs_of(nodes, "net/encoder/dense/dot_general") == ["x", "net/encoder/w"]
    assert inputs_of(nodes, "net/head/dense/dot_general") == [
        *("net/encoder/dense/tanh", "net/head/w")
    ]
    assert inputs_of(nodes, "output/logits") == ["net/head/dense/tanh"]
    assert nodes["output/first"].outputs == (((4,), "float32"),)


def test_inputs_have_the_functions_names_in_its_order():
    nodes = nodes_of(lambda z, a, *rest: z + a + rest[0]["k"], (X, X[0], {"k": X[1]}))
    inputs = {name: node.outputs[0].shape for name, node in nodes.items() if node.op == "Input"}
    assert inputs == {"z": (2, 4), "a": (4,), "rest/0/k": (4,)}
    assert list(inputs) == ["z", "a", "rest/0/k"]
    assert inputs_of(nodes, "<lambda>/add")[:1] == ["z"]


def test_loops_and_branches_are_scopes_that_end_in_a_node():
    def function(x):
        total, rows = lax.scan(lambda carry, row: (carry + row.sum(), row * 2), 0.0, x)
        low = lax.cond(total > 0, lambda t: t * 2, lambda t: t - 1, total)
        last = lax.while_loop(lambda t: t < 10, lambda t: t * 3, low)
        return rows, last

    nodes = nodes_of(function, X)
    found = ops(nodes, without=("scan", "cond", "while"))
    assert found == equations(jax.make_jaxpr(function)(X).jaxpr)
    assert nodes["function/scan/scan"].outputs == (((), "float32"), ((2, 4), "float32"))
    assert inputs_of(nodes, "function/cond/cond")[1:] == [
        *("function/cond/branch_0", "function/cond/branch_1")
    ]
    assert inputs_of(nodes, "function/while/while") == [
        *("function/while/condition", "function/while/body")
    ]
    assert inputs_of(nodes, "function/while/body") == ["function/cond/cond"]
    assert inputs_of(nodes, "output/0") == ["function/scan/scan"]
    assert nodes["output/0"].inputs[0].output == 1


def test_functions_with_rules_of_their_own_are_seen_through():
    nodes = nodes_of(lambda x: jax.nn.relu(jax.checkpoint(jnp.sin)(x)) + jax.nn.silu(x), X)
    assert {"max", "sin", "logistic"} <= set(ops(nodes))


def test_a_closed_jaxpr_is_read_as_it_is():
    nodes = nodes_of(jax.make_jaxpr(net)(PARAMS, X))
    assert [name for name, node in nodes.items() if node.op == "Input"] == [
        *(f"input/{i}" for i in range(5))
    ]
    assert inputs_of(nodes, "net/encoder/dense/dot_general") == ["input/4", "input/1"]


def test_literals_and_settings_are_attributes():
    nodes = nodes_of(lambda x: jnp.sum(x * 3.0, axis=1), X)
    assert nodes["<lambda>/mul"].attributes["literals"] == "3.0"
    assert nodes["<lambda>/reduce_sum"].attributes["axes"] == "(1,)"


def test_nothing_is_computed():
    nodes = nodes_of(lambda x: x @ x, jax.ShapeDtypeStruct((10**6, 10**6), jnp.float32))
    assert nodes["output"].outputs == (((10**6, 10**6), "float32"),)


class Module:
    """What Flax's linen modules offer."""

    def init(self, key, x):
        return {"params": {"Dense_0": {"kernel": jax.random.normal(key, (x.shape[-1], 3))}}}

    def apply(self, variables, *args):
        with jax.named_scope("Module"), jax.named_scope("Dense_0"):
            return args[0] @ variables["params"]["Dense_0"]["kernel"]


@pytest.mark.parametrize("with_variables", [False, True])
def test_a_module_of_flax_is_traced_with_variables(with_variables):
    variables = {"params": {"Dense_0": {"kernel": jnp.ones((4, 3))}}}
    nodes = nodes_of(Module(), (variables, X) if with_variables else X)
    assert nodes["Module/Dense_0/kernel"].outputs == (((4, 3), "float32"),)
    assert inputs_of(nodes, "Module/Dense_0/dot_general") == ["args/0", "Module/Dense_0/kernel"]


@jax.tree_util.register_pytree_with_keys_class
class Tree:
    """A callable that is a tree of its parameters, as modules of Equinox and of Flax's nnx are."""

    def __init__(self, weight):
        self.weight = weight

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey("weight"), self.weight)], None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)

    def __call__(self, x):
        return x @ self.weight + jnp.arange(3)


def test_arrays_that_a_callable_holds_are_its_parameters():
    nodes = nodes_of(Tree(jnp.ones((4, 3))), X)
    assert inputs_of(nodes, "Tree/dot_general") == ["x", "Tree/weight"]
    assert nodes["Tree/weight"].op == "Parameter"


def test_a_failure_is_one_node_and_a_warning():
    graph = read_graph(net, (PARAMS, jnp.ones((2, 3))))
    assert [node.name for node in graph.nodes] == ["function"]
    assert "reading the model failed: dot_general" in graph.warning
