"""Images, videos and sounds as served by TensorBoard's plugins, through both loaders."""

import contextlib
import io
import json
import subprocess
import urllib.parse
import wave

import numpy as np
import pytest

from sm_tblog import Writer

pytest.importorskip("tensorboard")
Image = pytest.importorskip("PIL.Image")
test = pytest.importorskip("werkzeug.test")


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


BATCH = noise(5, 9, 7, 3)
FILM = noise(3, 16, 16, 3)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("logs")
    with Writer(logdir, on_error="raise") as writer:
        for step in (3, 4):
            writer.add_image("one", BATCH[step], step, dataformats="HWC")
            writer.add_images("samples", BATCH[:step], step, dataformats="NHWC", grid=False)
            for codec in ("gif", "apng", "webp"):
                writer.add_video(codec, FILM, step, dataformats="THWC", codec=codec)
            writer.add_audio("sound", np.linspace(-1, 1, 1000), step)
        writer.add_images("grid first", BATCH, 3, dataformats="NHWC")
        writer.add_images("grid first", BATCH, 4, dataformats="NHWC", grid=False)
        writer.add_images("samples first", BATCH, 3, dataformats="NHWC", grid=False)
        writer.add_images("samples first", BATCH, 4, dataformats="NHWC")
    return logdir


def provider_in_python(logdir, _folder, _stack):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


def provider_of_the_data_server(logdir, folder, stack):
    server = pytest.importorskip("tensorboard_data_server")
    grpc = pytest.importorskip("grpc")
    from tensorboard.data.grpc_provider import GrpcDataProvider
    from tensorboard.data.proto import data_provider_pb2_grpc

    if (binary := server.server_binary()) is None:
        pytest.skip("the data server has no binary for this platform")
    port_file = folder / "port"
    command = [
        *(binary, f"--logdir={logdir}", "--reload=once", "--port=0", "--die-after-stdin"),
        *(f"--port-file={port_file}", "--verbose"),
    ]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = stack.enter_context(subprocess.Popen(command, **pipes))
    stack.callback(process.stdin.close)
    assert any("Finished load cycle" in line for line in process.stderr)
    channel = grpc.insecure_channel(f"127.0.0.1:{port_file.read_text().strip()}")
    stack.enter_context(channel)
    return GrpcDataProvider("", data_provider_pb2_grpc.TensorBoardDataProviderStub(channel))


@pytest.fixture(
    scope="module",
    params=[provider_in_python, provider_of_the_data_server],
    ids=["the loader in Python", "the data server"],
)
def ask(request, logged, tmp_path_factory):
    """``ask(plugin, page, **query)``: the answer of a plugin to the browser."""
    from tensorboard.plugins.audio.audio_plugin import AudioPlugin
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.image.images_plugin import ImagesPlugin

    with contextlib.ExitStack() as stack:
        provider = request.param(logged, tmp_path_factory.mktemp("server"), stack)
        context = TBContext(data_provider=provider, logdir=str(logged))
        pages = {
            "images": ImagesPlugin(context).get_plugin_apps(),
            "audio": AudioPlugin(context).get_plugin_apps(),
        }

        def ask(plugin, page, **query):
            builder = test.EnvironBuilder(query_string=query)
            app = pages[plugin][f"/{page}"]
            return test.Client(app).open(builder.get_environ())

        yield ask


def served(ask, plugin, tag, sample=0):
    """Return, by step, what the browser is given for one sample of a tag, and its type."""
    name = {"images": "individualImage", "audio": "individualAudio"}[plugin]
    entries = json.loads(ask(plugin, plugin, run=".", tag=tag, sample=sample).get_data())
    answers = {}
    for entry in entries:
        query = dict(urllib.parse.parse_qsl(entry["query"]))
        answer = ask(plugin, name, **query)
        answers[entry["step"]] = answer.get_data(), answer.mimetype
    return answers


def pixels(answer):
    data, mimetype = answer
    assert mimetype == "image/png"
    return np.asarray(Image.open(io.BytesIO(data)))


GRID = np.concatenate(list(BATCH), axis=1)


def test_the_browser_is_told_what_there_is(ask):
    tags = json.loads(ask("images", "tags").get_data())["."]
    videos = {"gif": 1, "apng": 1, "webp": 1}
    images = {"one": 1, "samples": 4, "grid first": 5, "samples first": 5}
    assert {tag: found["samples"] for tag, found in tags.items()} == {**images, **videos}
    assert list(json.loads(ask("audio", "tags").get_data())["."]) == ["sound"]


def test_one_image_is_served(ask):
    answers = served(ask, "images", "one")
    assert answers.keys() == {3, 4}
    for step, answer in answers.items():
        assert (pixels(answer) == BATCH[step]).all()


def test_each_sample_is_served_at_the_steps_that_have_it(ask):
    for sample, steps in enumerate([{3, 4}] * 3 + [{4}]):
        answers = served(ask, "images", "samples", sample)
        assert answers.keys() == steps
        for answer in answers.values():
            assert (pixels(answer) == BATCH[sample]).all()


@pytest.mark.parametrize(
    ("tag", "grid_at", "samples_at"), [("grid first", 3, 4), ("samples first", 4, 3)]
)
def test_grids_and_samples_may_share_a_tag(ask, tag, grid_at, samples_at):
    answers = served(ask, "images", tag)
    assert (pixels(answers[grid_at]) == GRID).all()
    assert (pixels(answers[samples_at]) == BATCH[0]).all()
    assert served(ask, "images", tag, 4).keys() == {samples_at}


@pytest.mark.parametrize(
    ("codec", "mimetype"),
    [("gif", "image/gif"), ("apng", "image/png"), ("webp", "application/octet-stream")],
)
def test_videos_are_served_as_images(ask, codec, mimetype):
    for data, found in served(ask, "images", codec).values():
        assert found == mimetype
        assert Image.open(io.BytesIO(data)).n_frames == len(FILM)


def test_sounds_are_served_as_wav(ask):
    answers = served(ask, "audio", "sound")
    assert answers.keys() == {3, 4}
    for data, mimetype in answers.values():
        assert mimetype == "audio/wav"
        with wave.open(io.BytesIO(data)) as reader:
            assert reader.getnframes() == 1000
