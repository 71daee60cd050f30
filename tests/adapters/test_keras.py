"""The Keras callback on each backend, compared with Keras' own callback on TensorFlow.

Importing Keras fixes its backend, so each backend is tested in its own process.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import profiles
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

SCRIPT = Path(__file__).parents[1] / "support" / "keras_runs.py"
BACKENDS = [name for name in ("torch", "jax", "tensorflow") if importlib.util.find_spec(name)]
HAS_TENSORFLOW = "tensorflow" in BACKENDS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs keras")
on_each_backend = pytest.mark.parametrize("backend", BACKENDS)
beside_keras = pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="Keras' own callback needs TensorFlow: pip install tensorflow"
)


def start(backend, *command):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """``trained(backend, whose)`` trains and returns the directory of all runs."""
    made = {}

    def train(backend, whose="ours"):
        if (backend, whose) not in made:
            folder = tmp_path_factory.mktemp(f"{whose}-{backend}")
            start(backend, SCRIPT, folder, whose)
            made[backend, whose] = folder
        return made[backend, whose]

    return train


def shown(folder):
    """Return the data that TensorBoard shows: ``{run: {tag: (plugin, content, steps)}}``."""
    runs = {}
    for path in sorted({path.parent for path in folder.rglob("*tfevents*")}):
        run = EventAccumulator(str(path), {"tensors": 0, "images": 0}).Reload()
        runs[path.relative_to(folder).as_posix()] = {
            tag: (
                *run.SummaryMetadata(tag).plugin_data.plugin_name.split(),
                run.SummaryMetadata(tag).plugin_data.content.strip(b"\x08\x00\x10\x01"),
                [event.step for event in run.Tensors(tag)],
            )
            for tag in run.Tags()["tensors"]
            if tag != "__run_graph__"
        }
    return runs


RUNS = (
    *("epochs", "batches", "every_third", "schedule_and_evaluation", "scaled_loss", "subclassed"),
    *("twice", "stopped_early", "unpickled", "several_steps_at_once"),
)


@beside_keras
@pytest.mark.parametrize("name", RUNS)
@on_each_backend
def test_runs_tags_and_steps_are_those_of_keras_own(backend, name, trained):
    if (backend, name) == ("torch", "several_steps_at_once"):
        pytest.skip("Keras does one step at a time with PyTorch")
    # With update_freq=N, Keras' own callback leaves out evaluations that end at a batch not
    # divisible by N, counted over all evaluations. There are none here.
    own, ours = trained("tensorflow", "own") / name, trained(backend) / name
    assert shown(ours) == shown(own)


@beside_keras
@pytest.mark.parametrize("name", RUNS)
def test_numbers_are_those_of_keras_own(name, trained, read_scalars):
    own, ours = (read_scalars(trained("tensorflow", whose) / name) for whose in ("own", "ours"))
    for run, tags in own.items():
        for tag, points in tags.items():
            if "per_second" not in tag:
                (steps, values), (own_steps, own_values) = (
                    zip(*found, strict=True) for found in (ours[run][tag], points)
                )
                assert steps == own_steps
                assert values == pytest.approx(own_values, rel=1e-5), (run, tag)


@beside_keras
def test_images_are_those_of_keras_own(trained):
    runs = [
        EventAccumulator(str(trained("tensorflow", whose) / "every_third" / "train")).Reload()
        for whose in ("own", "ours")
    ]
    tags = [tag for tag in runs[0].Tags()["tensors"] if tag.endswith("/image")]
    assert len(tags) == 7
    for tag in tags:
        own, ours = ([make_ndarray(e.tensor_proto).tolist() for e in r.Tensors(tag)] for r in runs)
        assert [size[:2] for size in own] == [size[:2] for size in ours], tag
        for before, after in zip(own, ours, strict=True):
            for one, other in zip(before[2:], after[2:], strict=True):
                assert np.abs(pixels(one) - pixels(other)).max() <= 1, tag  # they round otherwise


def pixels(png):
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


@on_each_backend
def test_epochs_are_logged_as_keras_documents_it(backend, trained, read_scalars):
    folder = trained(backend) / "epochs"
    runs = read_scalars(folder)
    assert {run: set(tags) for run, tags in runs.items()} == {
        "train": {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"},
        "validation": {
            *("epoch_loss", "epoch_accuracy"),
            *("evaluation_loss_vs_iterations", "evaluation_accuracy_vs_iterations"),
        },
    }
    history = json.loads((folder / "history.json").read_text())
    for name, values in history.items():
        run, _, metric = ("train/" + name).replace("train/val_", "validation/").partition("/")
        points = runs[run][f"epoch_{metric}"]
        assert points == [(i, pytest.approx(value, rel=1e-6)) for i, value in enumerate(values)]
    steps = [step for step, _ in runs["validation"]["evaluation_loss_vs_iterations"]]
    assert steps == [6, 12, 18]


@on_each_backend
def test_batches_are_counted_from_one(backend, trained, read_scalars):
    train = read_scalars(trained(backend) / "batches")["train"]
    for tag in ("batch_loss", "batch_accuracy", "batch_steps_per_second"):
        assert [step for step, _ in train[tag]] == list(range(1, 19))
    assert all(value > 0 for _, value in train["epoch_steps_per_second"])
    third = read_scalars(trained(backend) / "every_third")["train"]
    assert [step for step, _ in third["batch_loss"]] == [3, 6, 9, 12, 15, 18]


@on_each_backend
def test_the_model_is_shown_as_layers_and_as_a_graph(backend, trained):
    run = EventAccumulator(str(trained(backend) / "epochs" / "train")).Reload()
    assert any("dense" in node.name for node in run.Graph().node)
    (event,) = run.Tensors("keras")
    model = json.loads(make_ndarray(event.tensor_proto).item())
    assert [layer["class_name"] for layer in model["config"]["layers"]][1:] == ["Dense", "Dense"]


@on_each_backend
def test_histograms_are_of_the_weights_at_that_epoch(backend, trained):
    folder = trained(backend) / "subclassed"
    run = EventAccumulator(str(folder / "train"), {"tensors": 0}).Reload()
    (tag,) = (tag for tag in run.Tags()["tensors"] if tag.endswith("kernel/histogram"))
    kernel = np.sort(np.load(folder / "kernel.npy").reshape(-1))
    histogram = make_ndarray(run.Tensors(tag)[-1].tensor_proto)
    counted = [(left <= kernel) & (kernel <= right) for left, right, n in histogram if n]
    assert histogram[:, 2].sum() == len(kernel)
    assert np.all(np.any(counted, axis=0))


@on_each_backend
def test_embeddings_are_shown_with_their_labels(backend, trained):
    folder = trained(backend) / "embeddings"
    config = (folder / "projector_config.pbtxt").read_text()
    assert 'tensor_name: "words:00000"' in config
    assert 'tensor_name: "words:00002"' in config
    assert (folder / "embeddings/words/00002/metadata.tsv").read_text() == "a\nb\nc\nd\ne\n"


@on_each_backend
def test_what_was_logged_before_an_exception_is_kept(backend, trained, read_scalars):
    train = read_scalars(trained(backend) / "failed")["train"]
    assert [step for step, _ in train["batch_loss"]] == [1, 2, 3, 4, 5, 6]


WITHOUT_TENSORFLOW = """
import os, sys
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None
"""


@on_each_backend
@pytest.mark.parametrize(("name", "steps"), [("profiled", [2, 3]), ("profiled_to_the_end", [7, 8])])
def test_batches_are_profiled_on_each_backend(backend, name, steps, trained, read_scalars):
    train = trained(backend) / name / "train"
    events = list(profiles.events_of(profiles.only_session(train)))
    assert [event.stats["step_num"] for event in events if event.name == "step"] == steps
    assert len(events) > 20  # what the framework does in them
    assert [step for step, _ in read_scalars(train)[""]["profile/step_time_ms"]] == steps


@on_each_backend
def test_layers_are_watched_as_far_as_the_backend_allows(backend, trained, read_scalars):
    train = read_scalars(trained(backend) / "watched")["train"]
    kinds = {tag.partition("/")[0] for tag in train if tag.count("/") > 2}
    assert kinds == {"parameters", "updates"} | ({"gradients"} if backend == "torch" else set())
    for tag in ("parameters/sequential/dense/kernel/norm", "updates/sequential/dense/kernel/ratio"):
        assert [step for step, _ in train[tag]] == [1, 5]
        assert all(value > 0 for _, value in train[tag])


ARGUMENTS = """
import contextlib, copy, pickle
import keras, numpy as np, pytest
from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.adapters.keras import TensorBoard
folder = sys.argv[1]

for name, value in [
    ("histogram_freq", "1"), ("histogram_freq", -1), ("embeddings_freq", 0.5), ("update_freq", 0),
    ("update_freq", "often"), ("log_dir", 3), ("watch_freq", -1), ("profile_batch", "a,b"),
    ("profile_batch", None), ("profile_batch", -1), ("profile_batch", (3, 2)),
    ("profile_batch", (1, 2, 3)),
]:
    with pytest.raises((InvalidTypeError, InvalidValueError), match=f"{name}|log directory"):
        TensorBoard(**{"log_dir": folder, name: value})

def model():
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made

x, y = np.ones((8, 2)), np.ones((8, 1))

# A given writer keeps its sinks and stays open.
seen = []
with Writer(f"{folder}/given", sinks=["events", seen.append]) as writer:
    logged = TensorBoard(writer)
    assert logged.log_dir == writer.log_dir
    model().fit(x, y, callbacks=[logged], verbose=0)
    writer.add_scalar("mine", 1.0, 0)
assert {s.run for batch in seen for s in batch.series} == {"train", ""}

# The callback's writers log anything else.
class Own(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logged.train_writer.add_text("note", "text", epoch)

logged = TensorBoard(f"{folder}/more")
fitted = model()
fitted.fit(x, y, callbacks=[Own(), logged], verbose=0)

# A profile that fails does not stop training.
with Writer(f"{folder}/other") as other, other.profile():
    model().fit(x, y, callbacks=[TensorBoard(f"{folder}/none", profile_batch=1)], verbose=0)

# Sessions left open by an exception end with the next training.
class Fail(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        raise ZeroDivisionError

profiling = TensorBoard(f"{folder}/failed", profile_batch=1, watch_freq=1)
for others in ([Fail()], []):
    with pytest.raises(ZeroDivisionError) if others else contextlib.nullcontext():
        model().fit(x, y, callbacks=[profiling, *others], verbose=0)

# The given rules are used.
rules = lambda alert: None
model().fit(x, y, callbacks=[TensorBoard(f"{folder}/w", watch_freq=1, rules=rules)], verbose=0)

# Copies of a used callback start without its state.
for again in (copy.deepcopy(logged), pickle.loads(pickle.dumps(logged))):
    model().fit(x, y, callbacks=[again], verbose=0)
"""


def test_arguments_copies_and_a_writer_of_ones_own(tmp_path, read_scalars):
    backend = BACKENDS[0]
    start(backend, "-c", WITHOUT_TENSORFLOW + ARGUMENTS, tmp_path)
    assert set(read_scalars(tmp_path / "given")) == {"", "train"}
    assert len(read_scalars(tmp_path / "more")["train"]["epoch_loss"]) == 3
    assert len(profiles.sessions(tmp_path / "failed")) == 2
    assert len(profiles.sessions(tmp_path / "none")) == 0


RANKS = """
import keras, numpy as np
from sm_tblog.adapters.keras import TensorBoard
if sys.argv[2] == "jax":
    import jax
    jax.process_index = lambda: 1
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
logged = TensorBoard(sys.argv[1], histogram_freq=1, update_freq=1, embeddings_freq=1)
model.fit(np.ones((8, 2)), np.ones((8, 1)), callbacks=[logged], verbose=0)
"""


@pytest.mark.parametrize("how", ["torch", "jax"])
def test_of_several_processes_the_chief_logs(how, tmp_path, monkeypatch):
    pytest.importorskip(how)
    if how == "torch":
        monkeypatch.setenv("RANK", "1")
    start(how, "-c", WITHOUT_TENSORFLOW + RANKS, tmp_path, how)
    assert list(tmp_path.rglob("*tfevents*")) == []


CHIEF = """
import json, os, sys
import tensorflow as tf
from sm_tblog.adapters.keras import _is_chief

class Model:
    class distribute_strategy:
        class extended:
            should_save_summary = sys.argv[1] == "chief"

print(_is_chief(Model()), _is_chief(tf.keras.Sequential()), tf.keras.callbacks.Callback.__module__)
from sm_tblog.adapters.keras import TensorBoard
print(issubclass(TensorBoard, tf.keras.callbacks.Callback))
"""


@beside_keras
@pytest.mark.parametrize("who", ["chief", "worker"])
def test_a_strategy_of_tensorflow_says_who_is_the_chief(who):
    done = start("tensorflow", "-c", CHIEF, who)
    first, second = done.stdout.splitlines()[-2:]
    assert first.split()[:2] == [str(who == "chief"), "True"]
    assert second == "True"  # it serves tf.keras, too


def test_keras_without_a_backend_says_what_to_do(tmp_path):
    if HAS_TENSORFLOW:
        pytest.skip("TensorFlow, the default backend, is installed")
    source = "import sm_tblog.adapters.keras"
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment |= {
        "KERAS_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, env=environment
    )
    assert "MissingDependencyError" in done.stderr
    assert "KERAS_BACKEND" in done.stderr
