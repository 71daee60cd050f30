"""Watching JAX trees, Keras models on every backend, and arrays of any library."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sm_tblog import InvalidTypeError, InvalidValueError, Writer, rules
from sm_tblog.watch.trees import named_leaves


def tree(seed=0):
    rng = np.random.default_rng(seed)
    return {"dense": {"kernel": rng.normal(size=(5, 4)), "bias": rng.normal(size=4)}}


def check_tree(tags, weights, gradients, updates, step, prefix="net/"):
    for name, path in (("kernel", "dense/kernel"), ("bias", "dense/bias")):
        weight, gradient, update = (one["dense"][name] for one in (weights, gradients, updates))
        expected = {
            f"parameters/{prefix}{path}/norm": np.linalg.norm(weight),
            f"gradients/{prefix}{path}/norm": np.linalg.norm(gradient),
            f"gradients/{prefix}{path}/abs_mean": np.abs(gradient).mean(),
            f"updates/{prefix}{path}/ratio": np.linalg.norm(update) / np.linalg.norm(weight),
        }
        for tag, value in expected.items():
            assert tags[tag] == [(step, pytest.approx(float(value), rel=1e-5))], tag


@pytest.mark.parametrize("library", ["numpy", "jax", "torch", "tensorflow"])
def test_arrays_of_every_library(tmp_path, library, read_scalars):
    module = pytest.importorskip(library)
    convert = {
        "numpy": lambda: module.asarray,
        "jax": lambda: module.numpy.asarray,
        "torch": lambda: module.as_tensor,
        "tensorflow": lambda: module.constant,
    }[library]()
    weights, gradients, updates = (tree(seed) for seed in range(3))
    layers = [
        (f"dense/{name}", *(convert(one["dense"][name]) for one in (weights, gradients, updates)))
        for name in ("kernel", "bias")
    ]
    with Writer(tmp_path) as writer:
        writer.watch_layers(layers, 7)
    check_tree(read_scalars(tmp_path)[""], weights, gradients, updates, 7, prefix="")
    run = EventAccumulator(str(tmp_path)).Reload()
    [event] = run.Histograms("gradients/dense/kernel")
    assert event.histogram_value.num == 20


def test_trees_need_no_jax(monkeypatch):
    class Pair(NamedTuple):
        left: object
        right: object

    monkeypatch.setitem(sys.modules, "jax", None)
    given = {"b": [1, (2, None)], "a": Pair(3, {"x": 4})}
    expected = [("a/left", 3), ("a/right/x", 4), ("b/0", 1), ("b/1/0", 2)]
    assert list(named_leaves(given)) == expected
    assert list(named_leaves(5)) == [("array", 5)]


def test_numbers_are_arrays_without_dimensions(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        writer.watch_layers([("a", 2.0, 3.0, 0.5)], 0)
    assert read_scalars(tmp_path)[""]["updates/a/ratio"] == [(0, pytest.approx(0.25))]


def test_a_layer_needs_a_name_and_arrays(tmp_path):
    with Writer(tmp_path) as writer:
        with pytest.raises(InvalidTypeError, match="a name, weight, gradient and update"):
            writer.watch_layers([("a", 1, 2, 3, 4)], 0)
        with pytest.raises(InvalidTypeError, match="'a'"):
            writer.watch_layers([("a", np.array(["x"]), None, None)], 0)
        with pytest.raises(InvalidTypeError, match="shape"):
            writer.watch_layers([("a", np.ones(3), None, np.ones(2))], 0)


class TestTree:
    @pytest.fixture(autouse=True)
    def _jax(self):
        self.jax = pytest.importorskip("jax")

    def arrays(self, seed):
        return self.jax.tree.map(self.jax.numpy.asarray, tree(seed))

    def test_all_in_one_call(self, tmp_path, read_scalars):
        weights, gradients, updates = (self.arrays(seed) for seed in range(3))
        with Writer(tmp_path) as writer:
            writer.step = 5
            writer.watch_tree("net", weights, gradients=gradients, updates=updates)
        check_tree(read_scalars(tmp_path)[""], weights, gradients, updates, 5)

    def test_one_after_the_other(self, tmp_path, read_scalars):
        weights, gradients, updates = (self.arrays(seed) for seed in range(3))
        with Writer(tmp_path) as writer:
            writer.watch_tree("parameters", weights, 3)
            writer.watch_tree("gradients", gradients, 3)
            writer.watch_tree("updates", updates, 3)
            writer.watch_tree("updates", updates, 4)
        tags = read_scalars(tmp_path)[""]
        check_tree(
            {tag: points[:1] for tag, points in tags.items()}, weights, gradients, updates, 3, ""
        )
        assert [step for step, _ in tags["updates/dense/bias/ratio"]] == [3]
        assert [step for step, _ in tags["updates/dense/bias/norm"]] == [4]

    def test_rules_go_on_from_call_to_call(self, tmp_path):
        weights = self.arrays(0)
        nothing = self.jax.tree.map(lambda x: x * 0, weights)
        with Writer(tmp_path) as writer:
            for step in range(3):
                watch = writer.watch_tree("net", weights, step, gradients=nothing, updates=nothing)
            writer.flush()
            fired = {alert.rule for alert in watch.alerts}
        assert {"VanishingGradient", "UnchangedTensor", "WeightUpdateRatio", "AllZero"} == fired

    def test_a_real_training_with_donated_buffers(self, tmp_path, read_scalars):
        jax, jnp = self.jax, self.jax.numpy
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(64, 5)), jnp.float32)
        y = x @ jnp.asarray(rng.normal(size=(5, 1)), jnp.float32)
        params = {"w1": jnp.asarray(rng.normal(size=(5, 8)) * 0.4, jnp.float32)}
        params["w2"] = jnp.asarray(rng.normal(size=(8, 1)) * 0.4, jnp.float32)

        def loss(params):
            return jnp.square(jnp.tanh(x @ params["w1"]) @ params["w2"] - y).mean()

        gradient_of = jax.jit(jax.value_and_grad(loss))
        add = jax.jit(lambda p, u: jax.tree.map(jnp.add, p, u), donate_argnums=0)
        norms = []
        with Writer(tmp_path) as writer:
            for step in range(5):
                _, gradients = gradient_of(params)
                updates = jax.tree.map(lambda g: -0.1 * g, gradients)
                watch = writer.watch_tree("net", params, step, gradients=gradients, updates=updates)
                norms.append((step, pytest.approx(np.linalg.norm(params["w1"]), rel=1e-5)))
                params = add(params, updates)
            writer.flush()
            assert watch.alerts == []
        assert read_scalars(tmp_path)[""]["parameters/net/w1/norm"] == norms

    def test_bad_trees(self, tmp_path):
        with Writer(tmp_path) as writer:
            with pytest.raises(InvalidTypeError, match="no arrays"):
                writer.watch_tree("net", {}, 0)
            with pytest.raises(
                InvalidValueError, match="must have the same leaves; only one has 'b'"
            ):
                writer.watch_tree("net", {"a": 1.0}, 0, gradients={"a": 1.0, "b": 1.0})
            with pytest.raises(InvalidTypeError, match="cannot be combined"):
                writer.watch_tree("gradients", {"a": np.ones(1)}, 0, updates={"a": np.ones(1)})
            with pytest.raises(InvalidTypeError, match="traced"):
                self.jax.jit(lambda x: writer.watch_tree("net", x, 0))(self.jax.numpy.ones(1))


KERAS = """
import os, sys
os.environ["KERAS_BACKEND"] = sys.argv[1]
import keras, numpy as np
from sm_tblog import Writer, InvalidValueError

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
y = (x @ np.ones((6, 1), "float32")) / 2
model = keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
)
model.compile(keras.optimizers.SGD(0.1), "mse")
norms = []

class Norms(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        norms.append(float(np.linalg.norm(np.array(model.trainable_variables[0]))))

with Writer(sys.argv[2]) as writer:
    watch = writer.watch(model, every=2)
    model.fit(x, y, batch_size=32, epochs=3, verbose=0, callbacks=[watch, Norms()])
    watch.remove()
    model.fit(x, y, batch_size=32, epochs=1, verbose=0, callbacks=[watch])
    for kind in ("activations", "gradients"):
        try:
            writer.watch(model, (kind,)).remove()
        except InvalidValueError as error:
            print(error)
    writer.flush()
    print([alert.message for alert in watch.alerts], writer.stats().errors)
print(norms)
"""


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_a_keras_model_is_watched_by_a_callback(tmp_path, run_script, read_scalars, backend):
    for needed in ("keras", backend):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed}")
    done = run_script(KERAS, backend, tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    *errors, alerts, norms = done.stdout.splitlines()
    assert alerts == "[] 0"
    norms = [float(norm) for norm in norms.strip("[]").split(",")]
    assert "got 'activations'" in errors[0]
    assert len(errors) == (1 if backend == "torch" else 2)
    tags = read_scalars(tmp_path)[""]
    layer = next(tag for tag in tags if tag.startswith("parameters/") and "kernel" in tag)
    assert "/dense/kernel/" in layer
    points = tags[layer]
    assert points == [(i, pytest.approx(norms[i], rel=1e-5)) for i in (0, 2, 4, 6, 8)]
    ratios = tags[layer.replace("parameters", "updates").replace("norm", "ratio")]
    assert len(ratios) == 5
    assert all(1e-4 < ratio < 1 for _, ratio in ratios)
    gradients = tags.get(layer.replace("parameters", "gradients"), [])
    assert len(gradients) == (5 if backend == "torch" else 0)
    for (step, norm), (_, ratio) in zip(gradients, ratios, strict=False):
        assert ratio == pytest.approx(0.1 * norm / norms[step], rel=1e-3)


DISTRIBUTED = """
import sys
import torch
from torch import nn
import torch.distributed as dist
from sm_tblog import Writer

dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
if sys.argv[2] == "reduced":
    model = nn.parallel.DistributedDataParallel(model)
else:
    from torch.distributed.fsdp import fully_shard
    fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
with Writer(f"{sys.argv[1]}/{dist.get_rank()}") as writer:
    writer.watch(model, every=1)
    for step in range(2):
        optimizer.zero_grad()
        model(torch.full((40, 4), float(1 + dist.get_rank()))).sum().backward()
        if step == 0:
            gradient = next(model.parameters()).grad
            own = gradient.to_local() if hasattr(gradient, "to_local") else gradient
            print(float(own.norm()))
        optimizer.step()
    writer.flush()
    assert writer.stats().errors == 0
dist.destroy_process_group()
"""


@pytest.mark.parametrize("how", ["reduced", "sharded"])
def test_rank_0_watches_what_it_has_of_the_gradients(tmp_path, script, read_scalars, how):
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available():
        pytest.skip("PyTorch is built without distributed")
    if how == "sharded":
        pytest.importorskip("torch.distributed.fsdp._fully_shard", reason="needs PyTorch 2.6")
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = str(free_port())
    processes = [
        subprocess.Popen(
            script(DISTRIBUTED, tmp_path, how),
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    norms = [float(out.splitlines()[-1]) for out, _ in outputs]
    if how == "reduced":
        assert norms[0] == norms[1]
    found = read_scalars(tmp_path)
    assert found.keys() == {"0"}
    assert found["0"]["gradients/0.weight/norm"][0] == (0, pytest.approx(norms[0], rel=1e-5))
    assert found["0"]["updates/0.weight/ratio"][0][1] > 0
    assert [step for step, _ in found["0"]["activations/0/mean"]] == [0, 1]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_the_rules_module_is_found_lazily(run_script):
    done = run_script(
        textwrap.dedent("""
        import sys, sm_tblog
        assert "sm_tblog.watch" not in sys.modules
        assert sm_tblog.rules.DeadRelu().name == "DeadRelu"
        """)
    )
    assert done.returncode == 0, done.stderr
    assert rules.DeadRelu is not None
