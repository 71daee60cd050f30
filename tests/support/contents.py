"""Runs with every kind of data, by every writer, and what TensorBoard reads of them."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

EDGES = [0.5, -1.0, 2.0, 2.0, 7.25]
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
CLIP = np.sin(np.arange(800) / 5).astype(np.float32)
VERTICES = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
FACES = np.array([[[0, 1, 2], [1, 2, 3]]], np.int32)
COLORS = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
LABELS, SCORES = [0, 1, 1, 0], [0.1, 0.8, 0.4, 0.6]


def write_ours(folder, steps=2, **options):
    """Write every kind of data with our writer."""
    import sm_tblog

    with sm_tblog.Writer(folder, **options) as writer:
        writer.hparams({"lr": 0.1, "deep": True, "name": "a"}, metrics={"loss": "min"})
        writer.add_custom_scalars({"All": {"losses": ["Multiline", ["loss"]]}})
        for step in range(steps):
            writer.add_scalar("loss", 1 / (step + 1), step)
            writer.add_histogram("weights", np.array(EDGES) * (step + 1), step)
            writer.add_image("picture", PIXELS + np.uint8(step), step, dataformats="HWC")
            writer.add_images("samples", np.stack([PIXELS, PIXELS + 1]), step, dataformats="NHWC")
            writer.add_audio("sound", CLIP, step, sample_rate=8000)
            writer.add_text("notes", f"step {step}: *ü*", step)
            writer.add_tensor("numbers", np.arange(6.0).reshape(2, 3) + step, step)
            writer.add_pr_curve("curve", LABELS, SCORES, step, num_thresholds=5)
            writer.add_mesh("shape", VERTICES + step, COLORS, FACES, global_step=step)
        writer.add_embedding(
            np.arange(12.0).reshape(4, 3), metadata=list("abcd"), tag="words", global_step=1
        )


def write_like_torch(writer):
    """Write with the ``SummaryWriter`` of torch, or that of tensorboardX."""
    for step in range(2):
        writer.add_scalar("loss", 1 / (step + 1), step)
        writer.add_histogram("weights", np.array(EDGES) * (step + 1), step)
        writer.add_image("picture", PIXELS + np.uint8(step), step, dataformats="HWC")
        writer.add_text("notes", f"step {step}: *ü*", step)
        writer.add_pr_curve("curve", np.array(LABELS), np.array(SCORES), step, num_thresholds=5)
    writer.close()


def write_torch(folder):
    """Write with torch's writer."""
    torch = pytest.importorskip("torch")
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    writer = tensorboard.SummaryWriter(folder)
    writer.add_audio("sound", torch.from_numpy(CLIP), 0, sample_rate=8000)
    vertices, colors, faces = map(torch.from_numpy, (VERTICES, COLORS, FACES))
    for step in range(2):
        writer.add_mesh("shape", vertices + step, colors, faces, global_step=step)
        writer.add_tensor("numbers", torch.arange(6.0).reshape(2, 3) + step, step)
    writer.add_graph(torch.nn.Linear(3, 2), torch.zeros(1, 3))
    writer.add_custom_scalars({"All": {"losses": ["Multiline", ["loss"]]}})
    writer.add_embedding(
        torch.arange(12.0).reshape(4, 3), metadata=list("abcd"), tag="words", global_step=1
    )
    write_like_torch(writer)


def write_tensorboardx(folder):
    """Write with tensorboardX's writer."""
    writer = pytest.importorskip("tensorboardX").SummaryWriter(str(folder))
    writer.add_embedding(
        np.arange(12.0).reshape(4, 3), metadata=list("abcd"), tag="words", global_step=1
    )
    for step in range(2):
        writer.add_mesh("shape", VERTICES + step, COLORS, FACES, global_step=step)
    write_like_torch(writer)


def wav(samples, rate=8000, width=2, channels=1):
    """Return samples as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(samples)
    return file.getvalue()


def tensorboard_summaries(step, *, with_metadata=True):
    """Return ``Summary`` messages in the styles of TensorFlow 2, by TensorBoard's code."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.audio import metadata as audio
    from tensorboard.plugins.histogram import metadata as histograms
    from tensorboard.plugins.histogram.summary_v2 import histogram_pb
    from tensorboard.plugins.image import metadata as images
    from tensorboard.plugins.mesh import metadata as mesh
    from tensorboard.plugins.mesh.plugin_data_pb2 import MeshPluginData
    from tensorboard.plugins.pr_curve import metadata as pr_curves
    from tensorboard.plugins.text import metadata as texts
    from tensorboard.util.tensor_util import make_tensor_proto

    from sm_tblog.summary.png import encode_png

    kinds = MeshPluginData.ContentType
    png = encode_png(PIXELS + np.uint8(step))
    sound = wav((CLIP * 32767).astype("<i2").tobytes())
    made = {
        "picture": (np.array([b"6", b"4", png, png], object), images.create_summary_metadata),
        "sound": (
            np.array([[sound, b"label"], [sound, b""]], object),
            lambda *args: audio.create_summary_metadata(*args, audio.Encoding.Value("WAV")),
        ),
        "notes": (np.array(f"step {step}: *ü*".encode(), object), texts.create_summary_metadata),
        "table": (np.array([[b"a", b"b"], [b"c", b"d"]], object), texts.create_summary_metadata),
        "curve": (
            np.arange(30, dtype=np.float32).reshape(6, 5) + step,
            lambda *args: pr_curves.create_summary_metadata(*args, 5),
        ),
        "empty": (np.zeros((0, 3), np.float32), histograms.create_summary_metadata),
    }
    values = list(histogram_pb("weights", np.array(EDGES) * (step + 1)).value)
    for name, (array, metadata) in made.items():
        values.append(Summary.Value(tag=name, tensor=make_tensor_proto(array)))
        values[-1].metadata.CopyFrom(metadata(name, ""))
    for kind, array in {"VERTEX": VERTICES + step, "FACE": FACES, "COLOR": COLORS}.items():
        tag = mesh.get_instance_name("shape", kinds.Value(kind))
        values.append(Summary.Value(tag=tag, tensor=make_tensor_proto(array)))
        about = mesh.create_summary_metadata(
            "shape", "", kinds.Value(kind), 14, array.shape, json_config='{"a": 1}'
        )
        values[-1].metadata.CopyFrom(about)
    if not with_metadata:
        for value in values:
            value.ClearField("metadata")
    return [Summary(value=[value]) for value in values]


def write_tensorboard(folder):
    """Write with TensorBoard's own writer; metadata only with the first value of each tag."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step in range(2):
        for summary in tensorboard_summaries(step, with_metadata=not step):
            writer.add_event(Event(wall_time=100.0 + step, step=step, summary=summary))
    writer.close()


def tensorboards_tensors(folder):
    """Return each tag's ``[(step, wall_time, array), …]`` in TensorBoard's form, by its code."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    sizes = {"tensors": 0, "scalars": 0, "images": 0, "audio": 0, "histograms": 0}
    run = EventAccumulator(str(folder), tensor_size_guidance={}, size_guidance=sizes).Reload()
    return {
        tag: [(e.step, e.wall_time, make_ndarray(e.tensor_proto)) for e in run.Tensors(tag)]
        for tag in run.Tags()["tensors"]
    }
