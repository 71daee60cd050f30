"""The clu adapter, compared with clu's own writers.

Importing clu's package imports TensorFlow. Where TensorFlow is not installed, an empty class
replaces the class that needs it, and the rest is tested.
"""

import importlib.util
import inspect
import pickle
import sys
import types

import numpy as np
import pytest

from sm_tblog import InvalidValueError, Writer
from sm_tblog.adapters.clu import MetricWriter

has_tensorflow = importlib.util.find_spec("tensorflow") is not None


@pytest.fixture
def metric_writers(monkeypatch):
    """clu's package."""
    name = "clu.metric_writers.summary_writer"
    if not has_tensorflow and name not in sys.modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setattr(sys.modules[name], "SummaryWriter", object, raising=False)
    return pytest.importorskip("clu.metric_writers", reason="clu is not installed")


@pytest.fixture
def write():
    """``write(writer)`` writes one value of each kind that clu's own writers accept."""

    def write(writer):
        rng = np.random.default_rng(0)
        writer.write_hparams({"lr": 0.1, "name": "first"})
        for step in range(3):
            writer.write_scalars(step, {"loss": 1.0 / (step + 1), "count": np.float32(step)})
        writer.write_images(2, {"image": rng.random((4, 5, 3), np.float32)})
        writer.write_histograms(2, {"weights": rng.normal(size=100)}, num_buckets={"weights": 8})
        writer.flush()

    return write


def test_it_has_the_methods_of_clus_interface(metric_writers):
    for name, theirs in inspect.getmembers(metric_writers.MetricWriter, inspect.isfunction):
        if name.startswith("write_") or name in ("flush", "close"):
            ours = inspect.signature(getattr(MetricWriter, name)).parameters.values()
            asked = inspect.signature(theirs).parameters.values()
            assert [(p.name, p.kind, p.default) for p in ours] == [
                (p.name, p.kind, p.default) for p in asked
            ]


def test_it_writes_what_clus_writer_for_pytorch_writes(
    metric_writers, write, tmp_path, read_scalars, load_run
):
    pytest.importorskip("torch.utils.tensorboard")
    module = pytest.importorskip("clu.metric_writers.torch_tensorboard_writer")
    for writer in (MetricWriter(tmp_path / "o"), module.TorchTensorboardWriter(tmp_path / "t")):
        write(writer)
        writer.close()
    theirs = read_scalars(tmp_path / "t")[""]
    assert read_scalars(tmp_path / "o")[""] == theirs
    ours, peers = load_run(tmp_path / "o"), load_run(tmp_path / "t")
    assert ours.Tags()["images"] == peers.Tags()["images"] == ["image"]
    assert ours.Tags()["histograms"] == peers.Tags()["histograms"]
    assert [image.step for image in ours.Images("image")] == [2]


@pytest.mark.skipif(not has_tensorflow, reason="clu's SummaryWriter needs TensorFlow")
def test_it_writes_what_clus_writer_for_tensorflow_writes(
    metric_writers, write, tmp_path, read_scalars, load_run, read_hparams
):
    from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

    for writer in (
        MetricWriter(tmp_path / "o"),
        metric_writers.SummaryWriter(str(tmp_path / "t")),
    ):
        write(writer)
        writer.write_images(3, {"batch": np.zeros((2, 4, 5, 3), np.float32)})
        writer.write_texts(3, {"note": "fine"})
        writer.write_audios(3, {"sound": np.zeros((1, 100, 1), np.float32)}, sample_rate=8000)
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="mine"))
        writer.write_summaries(
            4, {"tensor": np.arange(3.0)}, {"tensor": metadata.SerializeToString()}
        )
        writer.close()
    assert read_scalars(tmp_path / "o") == read_scalars(tmp_path / "t")
    assert read_hparams(tmp_path / "o")[0] == read_hparams(tmp_path / "t")[0]
    ours, theirs = (steps_of(load_run(tmp_path / name)) for name in "ot")
    assert ours.pop("_hparams_/session_end_info") == [0]  # clu's never ends
    assert ours == theirs
    assert {"image", "batch", "weights", "note", "sound", "tensor"} <= set(theirs)


def steps_of(run):
    """The steps of every tag, whether its values are tensors or in the older formats."""
    read = {
        "scalars": run.Scalars,
        "images": run.Images,
        "histograms": run.Histograms,
        "tensors": run.Tensors,
    }
    return {
        tag: sorted({event.step for event in events(tag)})
        for kind, events in read.items()
        for tag in run.Tags()[kind]
    }


def test_it_goes_into_clus_own_writers(metric_writers, tmp_path, read_scalars):
    ours = MetricWriter(tmp_path)
    both = metric_writers.AsyncMultiWriter([metric_writers.LoggingWriter(), ours])
    with metric_writers.ensure_flushes(both):
        both.write_scalars(1, {"a": 2.0})
        metric_writers.write_values(both, 2, {"a": 3.0})
    both.close()
    assert read_scalars(tmp_path)[""] == {"a": [(1, 2.0), (2, 3.0)]}


# The tests below do not need clu.


def test_the_kinds_of_values(tmp_path, load_run, read_scalars, read_hparams):
    rng = np.random.default_rng(0)
    with MetricWriter(tmp_path) as writer:
        writer.write_hparams({"lr": 0.1, "model": {"depth": 3}})
        writer.write_scalars(1, {"a": 2.0, "b": np.int32(3)})
        writer.write_images(1, {"one": rng.random((4, 5, 3)), "two": rng.random((2, 4, 5, 1))})
        writer.write_videos(
            1, {"film": rng.random((3, 4, 5, 3)), "films": rng.random((2, 3, 4, 5, 3))}
        )
        writer.write_audios(
            1, {"mono": np.zeros((1, 9, 1)), "both": np.zeros((2, 9, 2))}, sample_rate=8
        )
        writer.write_texts(1, {"note": "fine"})
        writer.write_histograms(1, {"w": rng.normal(size=9), "v": rng.normal(size=9)}, {"v": 2})
        writer.write_summaries(1, {"tensor": np.arange(3.0)})
    run = load_run(tmp_path)
    assert read_scalars(tmp_path)[""] == {"a": [(1, 2.0)], "b": [(1, 3.0)]}
    assert read_hparams(tmp_path) == ({"lr": 0.1, "model/depth": 3}, "success")
    sounds = {
        tag
        for tag in run.Tags()["tensors"]
        if run.SummaryMetadata(tag).plugin_data.plugin_name == "audio"
    }
    assert sounds == {"both/0", "both/1", "mono"}
    assert {"one", "film", "films"} <= set(run.Tags()["images"])
    assert len(run.Histograms("v")[0].histogram_value.bucket) <= 4
    assert len(run.Tensors("two")[0].tensor_proto.string_val) == 2 + 2  # width, height, samples
    assert {"note", "tensor"} <= set(run.Tags()["tensors"])


def test_metadata_goes_with_its_tensor(tmp_path, load_run):
    summary_pb2 = pytest.importorskip("tensorboard.compat.proto.summary_pb2")
    metadata = summary_pb2.SummaryMetadata(display_name="mine")
    metadata.plugin_data.plugin_name = "of-mine"
    with MetricWriter(tmp_path) as writer:
        writer.write_summaries(
            3,
            {"a": np.arange(2.0), "b": np.arange(2.0), "c": np.arange(2.0)},
            {"a": metadata, "b": metadata.SerializeToString()},
        )
    run = load_run(tmp_path)
    for tag, plugin in (("a", "of-mine"), ("b", "of-mine"), ("c", "tensor")):
        assert run.SummaryMetadata(tag).plugin_data.plugin_name == plugin
        assert run.Tensors(tag)[0].step == 3


def test_sounds_of_another_shape_are_refused(tmp_path):
    error = pytest.raises(InvalidValueError, match=r"'s': audio must have shape \(N, T, C\)")
    with MetricWriter(tmp_path) as writer, error:
        writer.write_audios(1, {"s": np.zeros(9)}, sample_rate=8)


def test_a_writer_that_is_given_stays_open(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        with pickle.loads(pickle.dumps(MetricWriter(tmp_path))) as copy:
            copy.write_scalars(0, {"copy": 1.0})
        with MetricWriter(writer) as ours:
            ours.write_scalars(0, {"a": 1.0})
        writer.add_scalar("mine", 1.0, 0)
    assert set(read_scalars(tmp_path)[""]) == {"a", "copy", "mine"}


def test_the_first_process_writes(tmp_path, monkeypatch):
    with MetricWriter(tmp_path / "run", enabled=False) as writer:
        writer.write_scalars(0, {"a": 1.0})
    monkeypatch.setenv("RANK", "1")
    with MetricWriter(tmp_path / "run") as writer:
        writer.write_scalars(0, {"a": 1.0})
    assert not (tmp_path / "run").exists()
