"""Drop-in replacement: same calls and same results as torch's and tensorboardX's writers.

First the signatures: every parameter of theirs exists here, in the same position and with the same
default. Then tours, functions that log a bit of everything with a writer: each runs with one of
their writers and with ours, and the data that TensorBoard's own code reads from the two directories
is compared. Tables list the differences and their reasons.
"""

import contextlib
import inspect
import io
import json
import subprocess
import tempfile
import wave
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from google.protobuf import json_format
from PIL import Image
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto import graph_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.mesh import metadata as mesh_metadata
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from tensorboard.util.tensor_util import make_ndarray
from werkzeug.test import Client

from sm_tblog import SummaryWriter

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.tensorboard")
tensorboardx = pytest.importorskip("tensorboardX")
onnx = pytest.importorskip("onnx")
plt = pytest.importorskip("matplotlib.pyplot")

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # by torch

PEERS = {
    "torch": torch.utils.tensorboard.SummaryWriter,
    "tensorboardX": tensorboardx.SummaryWriter,
}

# Signatures.

ELSEWHERE = {
    ("torch", "__init__", "log_dir"): "the first is logdir, another name of it",
    ("tensorboardX", "add_scalar", "display_name"): "a str in the place of new_style is one",
    ("tensorboardX", "add_scalar", "summary_description"): "behind a str, it is taken for one",
    ("tensorboardX", "add_hparams", "name"): "a str in the place of the domains is one",
    ("tensorboardX", "add_hparams", "global_step"): "a number in the place of the name is one",
    ("tensorboardX", "add_image_with_boxes", "dataformats"): "a str in the place of rescale is one",
    ("tensorboardX", "add_image_with_boxes", "labels"): "behind a str, they are taken for some",
    ("tensorboardX", "add_onnx_graph", "onnx_model_file"): "the first is prototxt, the same",
}
"""Parameters in another place, for the two peers have them in different ones. What is given by
position is told apart by its type."""

ANOTHER_DEFAULT = {
    ("__init__", "max_queue"): "how many rows wake the thread, and no limit",
    ("__init__", "flush_secs"): "what suits the place",
    ("__init__", "comet_config"): "the same: nothing is asked for",
    ("add_onnx_graph", "onnx_model_file"): "either name may be given",
    ("add_onnx_graph", "prototxt"): "either name may be given",
    ("add_pr_curve_raw", "num_thresholds"): "as many as there are",
}

ABSENT = {
    ("tensorboardX", "__init__", "kwargs"): "passed to the peer's FileWriter, which takes none",
    ("tensorboardX", "add_image_with_boxes", "kwargs"): "rescale, which has a name here",
}


METHODS = [
    (peer, method)
    for peer, writer in PEERS.items()
    for method, _ in inspect.getmembers(writer, inspect.isfunction)
    if method == "__init__" or not method.startswith("_")
]


@pytest.mark.parametrize(("peer", "method"), METHODS)
def test_every_parameter_of_a_peer_is_one_here(peer, method):
    ours = inspect.signature(getattr(SummaryWriter, method)).parameters
    theirs = inspect.signature(getattr(PEERS[peer], method)).parameters
    absent = set(theirs) - set(ours)
    assert absent == {name for who, what, name in ABSENT if (who, what) == (peer, method)}
    given = {name: theirs[name] for name in theirs if name in ours}
    elsewhere = {
        name
        for position, name in enumerate(theirs)
        if name in given and list(ours)[position : position + 1] != [name]
    }
    assert elsewhere == {name for who, what, name in ELSEWHERE if (who, what) == (peer, method)}
    other = {name for name in given if given[name].default != ours[name].default}
    assert other <= {name for what, name in ANOTHER_DEFAULT if what == method}
    kinds = {given[name].kind for name in given} | {ours[name].kind for name in given}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


ATTRIBUTES = {
    "kwargs": "nothing is passed on",
    "scalar_dict": "what was logged is not kept in memory",
}
"""Public attributes of their writers that have no counterpart here, and why."""


def test_every_attribute_of_a_peer_is_one_here(tmp_path):
    missing = set()
    with SummaryWriter(tmp_path) as ours:
        for kind in PEERS.values():
            with kind(str(tmp_path)) as writer:
                public = [name for name in vars(writer) if not name.startswith("_")]
            missing |= {name for name in public if not hasattr(ours, name)}
    assert missing == set(ATTRIBUTES)


FILE_WRITERS = {
    "torch": torch.utils.tensorboard.FileWriter,
    "tensorboardX": tensorboardx.FileWriter,
}

FILE_METHODS = {
    "add_openvino_graph": "the same as add_onnx_graph: it takes a message",
    "use_metadata": "the writer has it, and its file writer heeds it",
}


@pytest.mark.parametrize("peer", PEERS)
def test_every_method_of_a_peers_file_writer_is_one_here(tmp_path, peer):
    with SummaryWriter(tmp_path) as writer:
        ours = type(writer.file_writer)
    for method, function in inspect.getmembers(FILE_WRITERS[peer], inspect.isfunction):
        if method in FILE_METHODS:
            assert not hasattr(ours, method)
        elif not method.startswith("_"):
            theirs = inspect.signature(function).parameters
            assert list(inspect.signature(getattr(ours, method)).parameters) == list(theirs)


# Tours.

NOW = 1_700_000_000.0

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(40, 25)).astype(np.float32)
PIXELS = RNG.random((3, 12, 16), np.float32)
BYTES = RNG.integers(0, 256, (12, 16, 3)).astype(np.uint8)
BOXES = np.array([[2, 2, 9, 9], [1, 3, 14, 8]])
SOUND = np.sin(np.linspace(0, 60, 800)).astype(np.float32)
LABELS = RNG.integers(0, 2, 100)
PREDICTIONS = RNG.random(100)
VERTICES = RNG.normal(size=(2, 5, 3)).astype(np.float32)
COLORS = RNG.integers(0, 256, (2, 5, 3))
FACES = RNG.integers(0, 5, (2, 4, 3))
POINTS = RNG.normal(size=(6, 4)).astype(np.float32)


def tour_of_scalars(writer):
    for step in range(3):
        writer.add_scalar("train/loss", 1 / (step + 1), step, NOW + step)
        writer.add_scalar("int", step, np.int64(step), NOW)
        writer.add_scalar("tensor", torch.tensor([0.1]), step, NOW)
        writer.add_scalars("curves/all", {"a": 0.1 * step, "b": np.float32(2)}, step, NOW)
    writer.add_scalar(tag="keywords", scalar_value=np.array([[2.5]]), global_step=7, walltime=NOW)
    for value in (float("nan"), float("inf"), -1e300):
        writer.add_scalar("special", value, walltime=NOW)


def tour_of_distributions(writer):
    writer.add_histogram("default", WEIGHTS, 1, walltime=NOW)
    writer.add_histogram("torch", torch.from_numpy(WEIGHTS), 1, "tensorflow", NOW)
    writer.add_histogram("ten", WEIGHTS, 2, 10, NOW)
    writer.add_histogram("auto", WEIGHTS, 2, "auto", NOW)
    writer.add_histogram("merged", WEIGHTS, 2, "fd", NOW, 5)
    limits, counts = [1.0, 2.0, 3.0], [3, 2, 1]
    writer.add_histogram_raw("raw", 0.1, 2.9, 6, 7.2, 13.4, limits, counts, 3, NOW)


def tour_of_pictures(writer):
    writer.add_image("chw", PIXELS, 1, NOW)
    writer.add_image("hwc", torch.from_numpy(BYTES), 1, NOW, "HWC")
    writer.add_image("hw", BYTES[..., 0], 1, NOW, dataformats="HW")
    writer.add_image("grey", PIXELS[:1], 1, NOW)
    writer.add_image("alpha", np.concatenate([PIXELS, PIXELS[:1]]), 1, NOW)
    writer.add_images("batch", np.stack([PIXELS] * 9), 1, NOW)
    writer.add_images("nhwc", np.stack([BYTES] * 3), 1, NOW, "NHWC")
    writer.add_image_with_boxes("boxes", PIXELS, BOXES, 1, NOW)
    writer.add_image_with_boxes("labels", PIXELS, BOXES, 1, NOW, labels=["a", "b"])
    writer.add_image_with_boxes("rescaled", BYTES, BOXES, 1, NOW, dataformats="HWC", rescale=2)


def tour_of_figures(writer):
    def figure():
        drawn, axes = plt.subplots(figsize=(2, 1.5), dpi=50)
        axes.plot([1, 3, 2])
        return drawn

    writer.add_figure("one", figure(), 1, True, NOW)
    writer.add_figure("two", [figure(), figure()], 1, walltime=NOW)
    writer.add_figure("kept", figure(), 1, close=False, walltime=NOW)
    plt.close("all")


def tour_of_texts(writer):
    writer.add_text("notes", "*größer* | better", 1, NOW)
    writer.add_text("notes", "", 2, NOW)


def tour_of_pr_curves(writer):
    truth, guess = torch.from_numpy(LABELS), torch.from_numpy(PREDICTIONS)
    writer.add_pr_curve("default", LABELS, PREDICTIONS, 1, walltime=NOW)
    writer.add_pr_curve("few", truth, guess, 1, 11, walltime=NOW)
    writer.add_pr_curve("weights", LABELS, PREDICTIONS, 1, 5, 2.0, NOW)
    counts = [np.array(row) for row in ([9, 5, 1], [8, 3, 0], [0, 5, 8], [0, 4, 8])]
    quality = [np.array([0.5, 0.6, 1.0]), np.array([1.0, 0.5, 0.1])]
    writer.add_pr_curve_raw("raw", *counts, *quality, 1, 3, None, NOW)


def tour_of_meshes(writer):
    config = {"camera": {"cls": "PerspectiveCamera", "fov": 40}}
    writer.add_mesh("cloud", VERTICES, global_step=1, walltime=NOW)
    mesh = [torch.from_numpy(part) for part in (VERTICES, COLORS, FACES)]
    writer.add_mesh("mesh", *mesh, config, 1, NOW)


def tour_of_layouts(writer):
    writer.add_custom_scalars(
        {
            "losses": {"both": ["Multiline", ["loss/train", "loss/.*"]]},
            "rest": {"range": ["Margin", ["acc", "acc/min", "acc/max"]]},
        }
    )


def tour_of_multiline_charts(writer):
    writer.add_custom_scalars_multilinechart(["a", "b"], "category", "title")


def tour_of_margin_charts(writer):
    writer.add_custom_scalars_marginchart(["a", "b", "c"])


def tour_of_embeddings(writer):
    pictures = torch.from_numpy(
        np.stack([np.rot90(PIXELS[:, :8, :8], i, (1, 2)) for i in range(6)])
    )
    writer.add_embedding(POINTS, [f"point {i}" for i in range(6)], pictures, 5, "all")
    writer.add_embedding(torch.from_numpy(POINTS), global_step=6)
    rows = [[str(i), f"p{i}"] for i in range(6)]
    writer.add_embedding(POINTS, rows, None, 7, "columns", ["number", "name"])


def tour_of_graphs(writer):
    layers = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    writer.add_graph(torch.nn.Sequential(*layers), torch.zeros(3, 4))


def tour_of_onnx_graphs(writer):
    def tensor(name, *shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    nodes = [
        onnx.helper.make_node("MatMul", ["x", "weights"], ["product"]),
        onnx.helper.make_node("Relu", ["product"], ["y"]),
    ]
    weights = onnx.numpy_helper.from_array(np.zeros((2, 3), np.float32), "weights")
    graph = onnx.helper.make_graph(
        nodes, "network", [tensor("x", 1, 2)], [tensor("y", 1, 3)], [weights]
    )
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(onnx.helper.make_model(graph), f"{folder}/model.onnx")
        writer.add_onnx_graph(f"{folder}/model.onnx")


def tour_of_torch(writer):
    writer.add_scalar("new style", 0.5, 1, NOW, True)
    writer.add_scalar("double", 0.1, 1, NOW, True, True)
    dtypes = ["int8", "int16", "int32", "int64", "float32", "float64", "bool", "complex64"]
    for dtype in dtypes:
        tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
        writer.add_tensor(dtype, tensor, 1, NOW)
    writer.add_audio("mono", SOUND, 1, 8000, NOW)
    writer.add_audio("loud", torch.from_numpy(3 * SOUND)[None], 1, walltime=NOW)
    writer.add_image_with_boxes("boxes", PIXELS, BOXES, 1, NOW, 2, "CHW", ["a", "b"])
    domains = {"lr": [0.1, 0.2], "name": ["a", "b"]}
    writer.add_hparams({"lr": 0.1, "name": "a"}, {"x": 1.0}, domains, "trial", 4)
    writer.add_scalar("/a tag (of any kind)", 1.0, 1, NOW)
    summary = Summary(value=[Summary.Value(tag="message", simple_value=0.5)])
    writer._get_file_writer().add_summary(summary, 3, NOW)
    writer.file_writer.add_event(Event(summary=summary), 4, NOW)


def tour_of_tensorboardx(writer):
    writer.add_scalar("named", 0.5, 1, NOW, "a name", "its *description*")
    with writer.use_metadata(global_step=11, walltime=NOW):
        writer.add_scalar("metadata", 0.5)
        writer.add_image("image", PIXELS)
    writer.add_images("list", [PIXELS, PIXELS], 1, NOW, "CHW")
    writer.add_image_with_boxes("boxes", PIXELS, BOXES, 1, NOW, "CHW", ["a", "b"])
    writer.add_hparams({"lr": 0.1}, {"x": 1.0}, "trial", 4)
    writer.add_hparams({"lr": 0.1}, {"x": 1.0}, name="trial 2", global_step=4)
    writer.add_scalar("/a tag (of any kind)", 1.0, 1, NOW)
    writer.add_histogram("/a tag (of any kind): 2", WEIGHTS, 1, 10, NOW)
    schema = tensorboardx.proto.summary_pb2
    summary = schema.Summary(value=[schema.Summary.Value(tag="message", simple_value=0.5)])
    writer._get_file_writer().add_summary(summary, 3, NOW)


TOURS = {
    name.removeprefix("tour_of_"): tour
    for name, tour in globals().items()
    if name.startswith("tour_of_")
}

ROUTES = [
    (peer, name)
    for name in TOURS
    for peer in PEERS
    if name not in {"torch", "tensorboardx"} or name == peer.lower()
]

NOT_TOURED = {
    "add_openvino_graph": "tensorboardX does not show what its layers do",
    "add_video": "the peers' needs MoviePy 1",
}
"""Methods whose results are not compared here, and why."""

DIFFERENT = {
    ("distributions", "default"): "the edges are rounded",
    ("distributions", "torch"): "the edges are rounded",
    ("distributions", "merged"): "the peers may make one bin more than they are asked for",
    ("pictures", "labels"): "the text stands a pixel higher",
    ("pictures", "rescaled"): "the peers name the size that it had before",
    ("torch", "boxes"): "labels, and the size",
    ("tensorboardx", "boxes"): "labels",
}
"""Series whose values differ, and why. Of histograms the total and the range are compared all the
same, of images the steps and times."""


def test_the_tours_call_every_method_of_the_peers():
    writer = mock.MagicMock()
    for tour in TOURS.values():
        tour(writer)
    called = {call[0] for call in writer.mock_calls}
    missing = {method for _, method in METHODS if method.startswith("add_")} - called
    assert missing == set(NOT_TOURED)


class Series(NamedTuple):
    """The data that TensorBoard reads for a tag.

    Attributes:
        plugin: where it is shown.
        name: as what.
        description: what is said of it.
        points: step, wall time if one was given, and what is the same in any case.
        values: the rest of each point.
    """

    plugin: str
    name: str
    description: str
    points: list
    values: list


def read_runs(logdir):
    """Read ``{run: {tag: Series}}``, by the code that TensorBoard itself reads with."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return {
        name: {tag: series_of(run, tag) for tag in run.Tags()["tensors"]}
        for name in multiplexer.Runs()
        for run in [multiplexer.GetAccumulator(name)]
    }


def series_of(run, tag):
    metadata = run.SummaryMetadata(tag)
    plugin, content = metadata.plugin_data.plugin_name, metadata.plugin_data.content
    points, values = [], []
    for event in run.Tensors(tag):
        step = None if plugin == "hparams" else event.step  # tensorboardX gives those none
        time = event.wall_time if abs(event.wall_time - NOW) < 100 else None
        essence, value = as_shown(plugin, content, make_ndarray(event.tensor_proto))
        points.append((step, time, essence))
        values.append(value)
    name = metadata.display_name or tag
    return Series(plugin, name, metadata.summary_description, points, values)


def as_shown(plugin, content, array):
    """Return the parts of a value that must be equal, and the other parts."""
    if plugin in LOOKS:
        return LOOKS[plugin](content, array)
    return (content, array.dtype), str(array.tolist())  # as text, NaN is equal to itself


def look_of_images(content, array):
    width, height, *encoded = array.tolist()
    pictures = [Image.open(io.BytesIO(data)).convert("RGBA") for data in encoded]
    pixels = [np.asarray(picture).tolist() for picture in pictures]
    return [picture.size for picture in pictures], (width, height, pixels)


def look_of_audio(content, array):
    with wave.open(io.BytesIO(array.reshape(-1)[0])) as sound:
        samples = np.frombuffer(sound.readframes(-1), "<i2")
        return (sound.getframerate(), sound.getnchannels()), samples.tolist()


def look_of_meshes(content, array):
    mesh = mesh_metadata.parse_plugin_metadata(content)
    config = "{}" if mesh.json_config == "null" else mesh.json_config
    return (mesh.name, mesh.content_type, list(mesh.shape), config), array.tolist()


def look_of_graphs(content, array):
    """Return only the operations between inputs and outputs, in order."""
    ends = {"IO Node", "prim::GetAttr", "Variable", "Input", "Parameter", "Output"}
    nodes = graph_pb2.GraphDef.FromString(array.item()).node
    return [node.op.removeprefix("aten::") for node in nodes if node.op not in ends], None


LOOKS = {
    "graphs": look_of_graphs,
    "images": look_of_images,
    "audio": look_of_audio,
    "mesh": look_of_meshes,
    "histograms": lambda _, array: (
        (array[:, 2].sum(), array[0, 0], array[-1, 1]),
        array.tolist(),
    ),
    "text": lambda _, array: (None, [text.decode() for text in array.reshape(-1).tolist()]),
    "hparams": lambda content, _: (None, message_of(HParamsPluginData, content)),
    "custom_scalars": lambda _, array: (None, message_of(layout_pb2.Layout, array.item())),
}


def message_of(kind, data):
    return json_format.MessageToDict(kind.FromString(data))


def as_named_here(runs):
    """Return the runs that contain data, by their names in our writer."""
    parts = {"_1": "_VERTEX", "_2": "_FACE", "_3": "_COLOR"}  # here as by TensorBoard's own writer

    def renamed(tag, series):
        new = tag
        if series.plugin == "text":
            new = tag.removesuffix("/text_summary")
        elif series.plugin == "mesh" and tag[-2:] in parts:
            new = tag[:-2] + parts[tag[-2:]]
        return new, series._replace(name=new if series.name == tag else series.name)

    timings = "graph_tagged_run_metadata"  # of a graph; the peers', which hold no times
    shown = {
        run.replace("/", "_"): dict(
            renamed(tag, series) for tag, series in tags.items() if series.plugin != timings
        )
        for run, tags in runs.items()
    }
    return {run: tags for run, tags in shown.items() if tags}


# tensorboardX casts memory that it has not initialized, below the pictures of its sprite image.
of_uninitialized_memory = pytest.mark.filterwarnings(
    "ignore:(invalid|overflow).*encountered:RuntimeWarning:tensorboardX"
)


@of_uninitialized_memory
@pytest.mark.parametrize(("peer", "name"), ROUTES)
def test_a_tour_shows_the_same_here_as_with_a_peer(tmp_path, peer, name):
    with PEERS[peer](str(tmp_path / "theirs")) as writer:
        TOURS[name](writer)
    clean = peer == "tensorboardX"
    with SummaryWriter(str(tmp_path / "ours"), clean_tags=clean, on_error="raise") as writer:
        TOURS[name](writer)
    theirs, ours = (as_named_here(read_runs(tmp_path / folder)) for folder in ("theirs", "ours"))

    def outlined(runs):
        return {
            run: {tag: series._replace(values=[]) for tag, series in tags.items()}
            for run, tags in runs.items()
        }

    assert outlined(ours) == outlined(theirs)
    other = {
        tag for run in ours for tag in ours[run] if ours[run][tag].values != theirs[run][tag].values
    }
    assert other == {tag for tour, tag in DIFFERENT if tour == name}


def read_embeddings(logdir):
    """Read what the Projector's page gets of each embedding."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logdir))
    context = base_plugin.TBContext(data_provider=provider, logdir=str(logdir))
    routes = ProjectorPlugin(context).get_plugin_apps()

    def ask(route, name):
        return Client(routes[route]).get("/", query_string={"run": ".", "name": name}).data

    found = {}
    for info in json.loads(ask("/info", ""))["embeddings"]:
        name = info["tensorName"]
        points = np.frombuffer(ask("/tensor", name), "<f4").reshape(len(POINTS), -1)
        labels = ask("/metadata", name).decode().split("\n") if "metadataPath" in info else []
        pictures = []
        if "sprite" in info:
            sheet = np.asarray(Image.open(io.BytesIO(ask("/sprite_image", name))).convert("RGB"))
            width, height = info["sprite"]["singleImageDim"]
            across = sheet.shape[1] // width
            for i in range(len(POINTS)):
                top, left = i // across * height, i % across * width
                pictures.append(sheet[top : top + height, left : left + width].tolist())
        found[name] = points.round(5).tolist(), list(filter(None, labels)), pictures
    return found


@of_uninitialized_memory
@pytest.mark.parametrize("peer", PEERS)
def test_embeddings_are_the_same_here_as_with_a_peer(tmp_path, peer):
    for folder, writer in (("theirs", PEERS[peer]), ("ours", SummaryWriter)):
        with writer(str(tmp_path / folder)) as logging:
            tour_of_embeddings(logging)
            logging.add_scalar("a run", 1.0)  # tensorboardX needs one
    theirs, ours = read_embeddings(tmp_path / "theirs"), read_embeddings(tmp_path / "ours")
    assert len(ours) == 3
    assert ours == theirs


@pytest.fixture
def serve(tmp_path):
    """``serve(logdir)``: TensorBoard's data provider over a log directory, from the data server."""
    server = pytest.importorskip("tensorboard_data_server")
    grpc = pytest.importorskip("grpc")
    from tensorboard.data.grpc_provider import GrpcDataProvider
    from tensorboard.data.proto.data_provider_pb2_grpc import TensorBoardDataProviderStub

    if (binary := server.server_binary()) is None:
        pytest.skip("the data server has no binary for this platform")
    with contextlib.ExitStack() as stack:

        def start(logdir):
            port_file = tmp_path / "port"
            command = [binary, f"--logdir={logdir}", "--reload=once", "--port=0", "--verbose"]
            command += ["--die-after-stdin", f"--port-file={port_file}"]
            pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = stack.enter_context(subprocess.Popen(command, **pipes))
            stack.callback(process.stdin.close)
            assert any("Finished load cycle" in line for line in process.stderr)
            channel = grpc.insecure_channel(f"127.0.0.1:{port_file.read_text().strip()}")
            stack.enter_context(channel)
            return GrpcDataProvider("", TensorBoardDataProviderStub(channel))

        yield start


def list_tags(provider):
    """List ``{(run, tag, plugin)}`` of everything that a loader offers to the plugins."""
    context = RequestContext()
    return {
        (run, tag, plugin)
        for plugin in provider.list_plugins(context, experiment_id="")
        for lister in (provider.list_scalars, provider.list_tensors, provider.list_blob_sequences)
        for run, tags in lister(context, experiment_id="", plugin_name=plugin).items()
        for tag in tags
    }


def test_both_loaders_offer_what_the_tours_log(tmp_path, serve):
    logdir = tmp_path / "logs"
    for name, tour in TOURS.items():
        with SummaryWriter(logdir / name, on_error="raise") as writer:
            tour(writer)
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    tags = list_tags(data_provider.MultiplexerDataProvider(multiplexer, str(logdir)))
    assert {plugin for _, _, plugin in tags} >= {"scalars", "images", "mesh", "tensor", "hparams"}
    no_float64 = {("torch", "double", "scalars")}  # by version 0.7.2, whoever wrote them
    assert tags - list_tags(serve(logdir)) <= no_float64


def test_the_data_server_too_takes_the_last_layout(tmp_path, serve):
    with SummaryWriter(tmp_path / "run") as writer:
        for i in range(30):
            writer.add_custom_scalars_multilinechart(["x"], title=str(i))
    data = serve(tmp_path).read_tensors(
        RequestContext(), experiment_id="", plugin_name="custom_scalars", downsample=1
    )
    (point,) = data["run"]["custom_scalars__config__"]
    (category,) = layout_pb2.Layout.FromString(point.numpy.item()).category
    assert [chart.title for chart in category.chart] == [str(i) for i in range(30)]
