"""What runs contain besides scalars, of every writer, beside what TensorBoard reads."""

import io
import math
import zlib

import numpy as np
import pytest

import sm_tblog
from sm_tblog import InvalidValueError, MissingDependencyError, StoreError, Writer
from sm_tblog.format import schema
from sm_tblog.format.records import frame
from sm_tblog.readers import read
from sm_tblog.readers.contents import media
from sm_tblog.readers.contents.tensors import array_of, text_of
from sm_tblog.summary.hparams import FIRST_FILE
from tests.support import contents
from tests.support.contents import COLORS, FACES, PIXELS, VERTICES, wav

WRITERS = {
    "ours": contents.write_ours,
    "torch": contents.write_torch,
    "tensorboardX": contents.write_tensorboardx,
    "tensorboard": contents.write_tensorboard,
}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](path)
    return path


@pytest.fixture(scope="module")
def expected(folder):
    return contents.tensorboards_tensors(folder)


def write_events(folder, *events):
    folder.mkdir(exist_ok=True)
    data = b"".join(frame(event.SerializeToString()) for event in events)
    (folder / "events.out.tfevents.1.host").write_bytes(data)
    return read(folder)


def value_run(folder, **fields):
    """Return a run with one value of the tag "a"."""
    return write_events(folder, schema.Event(step=7, summary={"value": [{"tag": "a", **fields}]}))


def about(plugin, content=b""):
    return {"metadata": {"plugin_data": {"plugin_name": plugin, "content": content}}}


def strings(*items, shape=None):
    dims = [len(items)] if shape is None else shape
    shape = {"dim": [{"size": length} for length in dims]}
    return {"dtype": schema.DT_STRING, "tensor_shape": shape, "string_val": items}


def check_places(found, rows):
    assert found.step.dtype == np.int64
    assert found.wall_time.dtype == np.float64
    assert found.step.tolist() == [step for step, _, _ in rows]
    assert found.wall_time.tolist() == [wall_time for _, wall_time, _ in rows]
    assert len(found.value) == len(rows) > 0


def test_tensors_are_those_that_tensorboard_reads(folder, expected):
    tensors = read(folder).tensors
    assert len(tensors) > 3
    for tag, found in tensors.items():
        check_places(found, expected[tag])
        for array, (_, _, right) in zip(found.value, expected[tag], strict=True):
            assert array.dtype == right.dtype
            has_labels = tag == "sound" and array.ndim == 2  # TensorBoard leaves them out
            np.testing.assert_array_equal(array[:, 0] if has_labels else array, right)


def test_histograms_are_those_that_tensorboard_shows(folder, expected):
    histograms = read(folder).histograms
    assert "weights" in histograms
    for tag, found in histograms.items():
        check_places(found, expected[tag])
        for histogram, (_, _, right) in zip(found.value, expected[tag], strict=True):
            edges, counts = histogram.edges, histogram.counts
            np.testing.assert_array_equal(edges[:-1].astype(right.dtype), right[:, 0])
            np.testing.assert_array_equal(edges[1:].astype(right.dtype), right[:, 1])
            np.testing.assert_array_equal(counts, right[:, 2])
            assert len(edges) == (len(counts) + 1 if len(counts) else 0)
            assert edges.dtype == counts.dtype == np.float64
            assert histogram.num == counts.sum()
    first = histograms["weights"].value[0]
    assert (first.min, first.max, first.num) == (-1.0, 7.25, 5.0)


def test_images_are_encoded_and_decoded(folder, expected):
    run = read(folder)
    for tag, found in run.images.items():
        check_places(found, expected[tag])
        for step, (images, (_, _, right)) in enumerate(
            zip(found.value, expected[tag], strict=True)
        ):
            width, height, *encoded = right
            assert [image.encoded for image in images] == encoded
            assert {(image.width, image.height) for image in images} == {(int(width), int(height))}
            assert images[0].to_numpy().dtype == np.uint8
            if tag == "picture":
                np.testing.assert_array_equal(images[0].to_numpy(), PIXELS + step)
    assert "picture" in run.images


def test_sounds_are_encoded_and_decoded(folder, expected):
    for tag, found in read(folder).audio.items():
        check_places(found, expected[tag])
        for sounds, (_, _, right) in zip(found.value, expected[tag], strict=True):
            rows = right.reshape(len(sounds), -1)
            assert [sound.encoded for sound in sounds] == rows[:, 0].tolist()
            assert {sound.sample_rate for sound in sounds} == {8000}
            samples = sounds[0].to_numpy()
            assert (samples.shape, samples.dtype) == ((800, 1), np.int16)
            np.testing.assert_allclose(samples[:, 0] / 32767, contents.CLIP, atol=1e-4)


def test_texts_are_str(folder):
    texts = read(folder).texts
    found = texts.get("notes") or texts["notes/text_summary"]
    assert list(found.value) == ["step 0: *ü*", "step 1: *ü*"]
    if "table" in texts:
        assert texts["table"].value[0].tolist() == [["a", "b"], ["c", "d"]]


def test_pr_curves_are_arrays(folder, expected):
    (found,) = read(folder).pr_curves.values()
    check_places(found, expected["curve"])
    np.testing.assert_array_equal(found.value[-1], expected["curve"][-1][2])
    assert found.value[0].shape == (6, 5)


def test_meshes_are_joined_by_their_names(folder):
    found = read(folder).meshes["shape"]
    assert found.step.tolist() == [0, 1]
    for step, mesh in enumerate(found.value):
        np.testing.assert_array_equal(mesh.vertices, VERTICES + step)
        np.testing.assert_array_equal(mesh.faces, FACES)
        np.testing.assert_array_equal(mesh.colors, COLORS)
        assert mesh.config in ("", "{}", "null", '{"a": 1}')
    assert [mesh.vertices[0, 0, 0] for mesh in found.value[::-1]] == [1, 0]


def test_embeddings_are_read_from_side_files(folder):
    embeddings = read(folder).embeddings
    if folder.name.startswith("tensorboard0"):
        assert embeddings == {}
        return
    embedding = embeddings["words:00001"]
    np.testing.assert_array_equal(embedding.vectors, np.arange(12.0).reshape(4, 3))
    assert embedding.vectors.dtype == np.float32
    assert embedding.metadata.tolist() == list("abcd")
    assert (embedding.header, embedding.sprite) == ((), None)
    assert embeddings["words:00001"] is embedding
    with pytest.raises(KeyError, match="did you mean 'words:00001'"):
        embeddings["words"]


def test_layouts_are_messages(tmp_path):
    contents.write_ours(tmp_path)
    (found,) = read(tmp_path).layouts.values()
    assert found.value[0].category[0].chart[0].multiline.tag == ["loss"]


# Histograms.


@pytest.mark.parametrize(
    ("fields", "edges", "counts"),
    [
        ({"bucket_limit": [1, 2, 3], "bucket": [0, 0, 0], "num": 0}, [], []),
        ({"bucket_limit": [], "bucket": []}, [], []),
        (
            {"bucket_limit": [0, 1, 2, 1.7e308], "bucket": [0, 1, 0, 2], "min": 0.5, "max": 9},
            [0.5, 1, 2, 9],
            [1, 0, 2],
        ),
    ],
)
def test_an_old_histogram_is_as_tensorboard_shows_it(tmp_path, fields, edges, counts):
    found = value_run(tmp_path, histo=fields).histograms["a"].value[0]
    assert (found.edges.tolist(), found.counts.tolist()) == (edges, counts)


def test_gaps_between_buckets_are_empty_buckets(tmp_path):
    buckets = np.array([[0, 1, 5], [2, 3, 6], [3, 4, 7]], "<f8")
    shape = {"dim": [{"size": 3}, {"size": 3}]}
    tensor = {"dtype": 2, "tensor_shape": shape, "tensor_content": buckets.tobytes()}
    found = value_run(tmp_path, tensor=tensor, **about("histograms")).histograms["a"].value[0]
    assert found.edges.tolist() == [0, 1, 2, 3, 4]
    assert found.counts.tolist() == [5, 0, 6, 7]
    assert math.isnan(found.sum)


# Tensors.

ARRAYS = [
    *(np.array([[0, 1, 2], [3, 4, 5]], code) for code in "bBhHiIlLefdFD"),
    np.array([True, False]),
    np.array(2.5),
    np.zeros((0, 3), np.float32),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
@pytest.mark.parametrize("packed", [True, False])
def test_an_array_is_restored(array, packed):
    from tensorboard.util.tensor_util import make_ndarray, make_tensor_proto

    made = make_tensor_proto(array)
    if packed:
        for field in made.DESCRIPTOR.fields:
            if field.name.endswith("_val"):
                made.ClearField(field.name)
        made.tensor_content = array.tobytes()
    found = array_of(schema.TensorProto.FromString(made.SerializeToString()))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(found, make_ndarray(made))


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_types_of_ml_dtypes_are_restored(name, packed, monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([0.5, -2, 1.5]).astype(getattr(ml_dtypes, name))
    tensor = schema.TensorProto(dtype=getattr(schema, f"DT_{name.upper()}"))
    tensor.tensor_shape.dim.add(size=3)
    if packed:
        tensor.tensor_content = array.tobytes()
    elif name == "bfloat16":
        tensor.half_val.extend(array.view(np.uint16).tolist())
    else:
        tensor.float8_val = array.tobytes()
    found = array_of(tensor)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found.astype(float), array.astype(float))
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(MissingDependencyError, match=f"{name} need ml_dtypes: pip install"):
        array_of(tensor)


@pytest.mark.parametrize(
    "name",
    ["half", "bfloat16", "float", "double", "int8", "uint8", "int32", "int64", "bool", "cdouble"],
)
def test_the_tensors_of_torch_are_restored(tmp_path, name):
    torch = pytest.importorskip("torch")
    array = torch.tensor([[0, 1, 2.5], [100, 3, 0.125]]).to(getattr(torch, name))
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(tmp_path)
    writer.add_tensor("a", array, 0)
    writer.add_tensor("zero", array[:1, :1], 0)
    writer.close()
    tensors = read(tmp_path).tensors
    assert tensors["zero"].value[0].tolist() == [[0]]
    found = tensors["a"].value[0]
    if name == "bfloat16":
        assert found.dtype == "bfloat16"
    else:
        assert found.dtype == array.numpy().dtype
    np.testing.assert_array_equal(found.astype("c16"), array.to(torch.cdouble).numpy())


def test_the_last_element_stands_for_those_that_follow():
    shape = {"dim": [{"size": 2}, {"size": 2}]}
    tensor = schema.TensorProto(dtype=schema.DT_FLOAT, tensor_shape=shape, float_val=[1, 2])
    assert array_of(tensor).tolist() == [[1, 2], [2, 2]]
    empty = schema.TensorProto(dtype=schema.DT_INT8, tensor_shape=shape)
    assert array_of(empty).tolist() == [[0, 0], [0, 0]]
    texts = schema.TensorProto(dtype=schema.DT_STRING, tensor_shape=shape, string_val=[b"a"])
    assert text_of(texts).tolist() == [["a", "a"], ["a", "a"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": 99},
        {"dtype": 1, "float_val": [1, 2]},
        {"dtype": 1, "double_val": [1]},
        {"dtype": 1, "float_val": [1], "string_val": [b"a"]},
        {"dtype": 1, "tensor_content": b"abc"},
        {"dtype": 1, "tensor_content": b"abcdefgh"},
        {"dtype": 1, "tensor_shape": {"unknown_rank": True}},
        {"dtype": 1, "tensor_shape": {"dim": [{"size": -1}]}},
        {"dtype": 1, "tensor_shape": {"dim": [{"size": 1 << 40}]}, "float_val": [1]},
        {"dtype": 7, "tensor_shape": {"dim": [{"size": 1 << 62}] * 9}, "string_val": [b"a"]},
        {"dtype": 7, "tensor_shape": {"dim": [{"size": 1 << 20}]}, "string_val": [b"a"]},
        {"dtype": 1, "tensor_shape": {"dim": [{"size": 1}] * 99}, "float_val": [1]},
    ],
)
def test_a_tensor_that_is_none_is_an_error_that_names_its_place(tmp_path, fields):
    value = value_run(tmp_path, tensor=fields).tensors["a"].value
    with pytest.raises(InvalidValueError, match="'a' at step 7"):
        value[0]


@pytest.mark.parametrize(
    ("plugin", "fields"),
    [
        ("images", {"tensor": strings(b"4", b"x", b"png")}),
        ("images", {"tensor": {"dtype": 1}}),
        ("images", {"audio": {}}),
        ("audio", {"image": {}}),
        ("audio", {"tensor": strings(b"")["tensor_shape"] and {"dtype": 3}}),
        ("histograms", {"tensor": {"dtype": 1, "float_val": [1]}}),
        ("histograms", {"histo": {"bucket": [1, 2], "bucket_limit": [1]}}),
        ("text", {"tensor": {"dtype": 1, "float_val": [1]}}),
        ("pr_curves", {"tensor": {"dtype": 1, "float_val": [1]}}),
        ("custom_scalars", {"tensor": strings(b"\xff")}),
        ("custom_scalars", {"tensor": strings(b"", b"")}),
        ("graph_run_metadata", {"tensor": strings(b"\xff")}),
        ("graph_run_metadata", {"tensor": strings(b"")}),
        ("text", {}),
    ],
)
def test_a_value_of_another_kind_is_an_error_that_names_its_place(tmp_path, plugin, fields):
    run = value_run(tmp_path, **fields, **about(plugin))
    names = {"text": "texts", "custom_scalars": "layouts", "graph_run_metadata": "graphs"}
    value = getattr(run, names.get(plugin, plugin))["a"].value
    with pytest.raises(InvalidValueError, match="'a' at step 7"):
        value[0]


def test_values_of_several_kinds_may_have_the_same_tag(tmp_path):
    values = [
        {"tag": "a", "simple_value": 1.0},
        {"tag": "a", "histo": {"bucket": [1], "bucket_limit": [2], "max": 2}},
        {"tag": "a", "image": {"width": 1}},
        {"tag": "a", "tensor": strings(b"x", b"y")},
    ]
    run = write_events(tmp_path, *(schema.Event(summary={"value": [value]}) for value in values))
    assert run.scalars["a"].value.tolist() == [1]
    assert run.histograms["a"].value[0].counts.tolist() == [1]
    assert run.images["a"].value[0][0].width == 1
    assert run.tensors["a"].value[0].tolist() == [b"x", b"y"]


# Images and sounds.


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_pixels_of_every_kind_are_uint8(mode):
    from PIL import Image as Pillow

    gray = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    if mode == "I;16":
        picture = Pillow.fromarray(gray)
    else:
        picture = Pillow.fromarray((gray >> 8).astype(np.uint8)).convert("RGB").convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
    found = media.Image(file.getvalue(), 4, 3).to_numpy()
    channels = {"1": 1, "L": 1, "LA": 2, "I;16": 1, "RGBA": 4}.get(mode, 3)
    assert (found.dtype, found.shape) == (np.uint8, (3, 4, channels))
    if mode in ("L", "I;16"):
        np.testing.assert_array_equal(found[..., 0], gray >> 8)


def test_an_animation_has_an_axis_of_frames(tmp_path):
    frames = np.zeros((1, 3, 1, 8, 8), np.uint8)
    frames[0, 1], frames[0, 2] = 100, 200
    with Writer(tmp_path) as writer:
        writer.add_video("video", frames, 0)
    (image,) = read(tmp_path).images["video"].value[0]
    found = image.to_numpy()
    assert found.shape == (3, 8, 8, 3)
    assert found[:, 0, 0, 0].tolist() == [0, 100, 200]


@pytest.mark.parametrize("data", [b"", b"nothing", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(9)])
def test_an_image_that_cannot_be_decoded_names_its_place(tmp_path, data):
    run = value_run(tmp_path, image={"encoded_image_string": data})
    (image,) = run.images["a"].value[0]
    assert image.encoded == data
    with pytest.raises(InvalidValueError, match="'a' at step 7"):
        image.to_numpy()


def test_an_image_that_claims_too_many_pixels_is_not_decoded(monkeypatch):
    from sm_tblog.summary.png import encode_png

    data = encode_png(PIXELS)
    image = media.Image(data, 6, 4)
    monkeypatch.setattr(media, "_MAX_PIXELS", 23)
    with pytest.raises(InvalidValueError, match="claim to be 24 pixels"):
        image.to_numpy()
    head, size, rest = data[:16], data[16:24], data[24:29]
    assert size == b"\0\0\0\x06\0\0\0\x04"
    claim = data[12:16] + b"\0\0\x30\0" * 2 + rest
    crc = zlib.crc32(claim).to_bytes(4, "big")
    monkeypatch.undo()
    large = media.Image(head + claim[4:] + crc + data[33:], 6, 4)
    with pytest.raises(InvalidValueError, match="bytes that claim to be 150,994,944 pixels"):
        large.to_numpy()


def test_an_animation_of_too_many_pixels_is_not_decoded(monkeypatch):
    from PIL import Image as Pillow

    file = io.BytesIO()
    first, second = (Pillow.new("L", (2, 2), color) for color in (0, 99))
    first.save(file, "GIF", save_all=True, append_images=[second])
    monkeypatch.setattr(media, "_MAX_PIXELS", 7)
    with pytest.raises(InvalidValueError, match="more than 7 pixels are not decoded"):
        media.Image(file.getvalue(), 2, 2).to_numpy()


def test_an_image_without_pillow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sm-tblog\[media\]'"):
        media.Image(b"", 1, 1).to_numpy()


@pytest.mark.parametrize(
    ("width", "data", "samples"),
    [
        (1, b"\x00\x80\xff\x01", [[0, 128], [255, 1]]),
        (2, b"\xff\x7f\x00\x80", [[32767, -32768]]),
        (3, b"\xff\xff\x7f\x00\x00\x80", [[8388607, -8388608]]),
        (4, b"\x01\0\0\0\xff\xff\xff\xff", [[1, -1]]),
    ],
)
def test_samples_of_every_width(width, data, samples):
    found = media.Audio(wav(data, width=width, channels=2), 8000).to_numpy()
    assert found.tolist() == samples
    assert found.itemsize == {1: 1, 2: 2}.get(width, 4)


@pytest.mark.parametrize("data", [b"", b"fLaC", b"RIFF", wav(b"ab")[:30], bytes(99)])
def test_a_sound_that_cannot_be_decoded_names_its_place(tmp_path, data):
    run = value_run(tmp_path, audio={"encoded_audio_string": data})
    (sound,) = run.audio["a"].value[0]
    assert (sound.encoded, sound.sample_rate) == (data, None)
    with pytest.raises(InvalidValueError, match="'a' at step 7"):
        sound.to_numpy()


# Meshes.


def mesh_value(part, array, name="m", tag=None):
    kinds = {"VERTEX": 1, "FACE": 2, "COLOR": 3}
    data = schema.MeshPluginData(name=name, content_type=kinds.get(part, 0))
    shape = {"dim": [{"size": length} for length in array.shape]}
    tensor = {"dtype": 1, "tensor_shape": shape, "tensor_content": array.astype("<f4").tobytes()}
    return {"tag": tag or f"{name}_{part}", "tensor": tensor} | about(
        "mesh", data.SerializeToString()
    )


def test_parts_of_a_mesh_are_matched_by_step(tmp_path):
    events = [
        (0, ["VERTEX"]),
        (1, ["VERTEX", "COLOR"]),
        (1, ["VERTEX", "COLOR"]),
        (2, ["FACE", "VERTEX"]),
    ]
    made = []
    for number, (step, parts) in enumerate(events):
        values = [mesh_value(part, VERTICES + number) for part in parts]
        made.append(schema.Event(step=step, summary={"value": values}))
    found = write_events(tmp_path, *made).meshes["m"]
    assert found.step.tolist() == [0, 1, 1, 2]
    parts = [[None if part is None else part[0, 0, 0] for part in m[:3]] for m in found.value]
    assert parts == [[0, None, None], [1, None, 1], [2, None, 2], [3, 3, None]]
    assert [mesh.vertices[0, 0, 0] for mesh in found.value[1:3]] == [1, 2]


def test_a_mesh_without_vertices_is_listed(tmp_path):
    event = schema.Event(step=4, summary={"value": [mesh_value("COLOR", COLORS)]})
    mesh = write_events(tmp_path, event).meshes["m"].value[0]
    assert (mesh.vertices, mesh.faces) == (None, None)
    np.testing.assert_array_equal(mesh.colors, COLORS)


def test_a_mesh_whose_metadata_are_none_is_an_error_that_names_its_tag(tmp_path):
    run = value_run(tmp_path, tensor={"dtype": 1}, **about("mesh", b"\xff"))
    with pytest.raises(InvalidValueError, match="'a' cannot be decoded"):
        _ = run.meshes


# Graphs.


def graph(*names):
    return schema.GraphDef(node=[{"name": name, "input": names[:1]} for name in names])


def test_graphs_are_messages(tmp_path):
    made = schema.GraphDef(node=[{"name": "n", "op": "Op"}])
    with Writer(tmp_path) as writer:
        writer.add_graph(made)
        writer.add_graph(made, tag="tagged")
    graphs = read(tmp_path, tags="tagged").graphs
    assert list(graphs) == ["__run_graph__", "tagged"]
    assert [found.value[0].node[0].op for found in graphs.values()] == ["Op", "Op"]


def test_the_graph_of_torch_is_the_one_that_tensorboard_reads(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    contents.write_torch(tmp_path)
    (found,) = read(tmp_path).graphs["__run_graph__"].value
    expected = EventAccumulator(str(tmp_path)).Reload().Graph()
    assert found.SerializeToString(deterministic=True) == schema.GraphDef.FromString(
        expected.SerializeToString()
    ).SerializeToString(deterministic=True)


def field(number, data):
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def test_a_graph_in_a_meta_graph_is_found(tmp_path):
    meta = field(1, b"") + field(2, graph("n").SerializeToString())
    run = write_events(tmp_path, schema.Event(meta_graph_def=meta))
    assert run.graphs["__run_graph__"].value[0] == graph("n")


def test_graphs_of_several_functions_are_merged_as_by_tensorboard(tmp_path):
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.plugins.graph.graph_util import merge_graph_defs

    graphs = [graph("n", "m").SerializeToString(), graph("n").SerializeToString()]
    metadata = b"".join(field(4, field(2, data)) for data in graphs)
    run = value_run(tmp_path, tensor=strings(metadata), **about("graph_run_metadata_graph"))
    expected = merge_graph_defs([GraphDef.FromString(data) for data in graphs])
    assert run.graphs["a"].value[0].SerializeToString() == expected.SerializeToString()


# Hyperparameters.


def test_hyperparameters_of_our_writer(tmp_path):
    with Writer(tmp_path) as writer:
        writer.hparams({"lr": 0.1, "deep": True, "name": "a", "gone": 1})
        writer.add_scalar("loss", 0.5, 0)
        writer.add_scalar("loss", 0.25, 1)
        writer.flush()
        writer.hparams({"lr": 0.2, "gone": None})
    for run in (read(tmp_path), read(tmp_path, tags="loss", steps=range(0))):
        assert run.hparams.values == {"lr": 0.2, "deep": True, "name": "a"}
    assert read(tmp_path).hparams.metrics == {"loss": 0.25}
    (tmp_path / FIRST_FILE).unlink()
    assert read(tmp_path).hparams.values["lr"] == 0.2


def test_hyperparameters_of_torch(tmp_path):
    torch_writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(tmp_path)
    torch_writer.add_hparams({"lr": 0.1, "layers": 3}, {"score": 0.5}, run_name="one")
    torch_writer.close()
    run = read(tmp_path / "one")
    assert run.hparams == ({"lr": 0.1, "layers": 3.0}, {"score": 0.5})


def test_hyperparameters_of_tensorboard(tmp_path):
    from tensorboard.plugins.hparams import summary_v2 as hp

    params = {hp.HParam("lr"): 0.1, hp.HParam("deep"): False, hp.HParam("name"): "b"}
    metrics = [hp.Metric("loss"), hp.Metric("absent"), hp.Metric("other", group="validation")]
    config = hp.hparams_config_pb(hparams=list(params), metrics=metrics)
    events = [
        schema.Event(summary=schema.Summary.FromString(made.SerializeToString()))
        for made in (config, hp.hparams_pb(params, start_time_secs=1.0))
    ]
    scalars = [{"tag": tag, "simple_value": 0.5} for tag in ("loss", "other", "another")]
    run = write_events(tmp_path, *events, schema.Event(summary={"value": scalars}))
    assert run.hparams == ({"lr": 0.1, "deep": False, "name": "b"}, {"loss": 0.5})


def test_a_list_and_null_are_hyperparameters(tmp_path):
    start = schema.SessionStartInfo()
    start.hparams["list"].list_value.values.add(number_value=1)
    start.hparams["list"].list_value.values.add(string_value="a")
    start.hparams["null"].null_value = 0
    data = schema.HParamsPluginData(session_start_info=start).SerializeToString()
    run = value_run(tmp_path, **about("hparams", data))
    assert run.hparams == ({"list": [1.0, "a"], "null": None}, {})


def test_hyperparameters_that_cannot_be_decoded_are_an_error(tmp_path):
    run = value_run(tmp_path, **about("hparams", b"\xff"))
    with pytest.raises(InvalidValueError, match="the hyperparameters cannot be decoded"):
        _ = run.hparams


# Embeddings.


def test_an_embedding_has_columns_and_pictures(tmp_path):
    with Writer(tmp_path / "run") as writer:
        writer.add_scalar("a", 1, 0)
        writer.add_embedding(
            np.random.default_rng(0).normal(size=(3, 5)),
            metadata={"word": ["a", "b", "c"], "count": [1, 2, 3]},
            label_img=np.zeros((3, 1, 4, 4)),
            tag="t",
            global_step=2,
        )
    (event_file,) = (tmp_path / "run").glob("events*")
    for run in (read(event_file), sm_tblog.readers.read_all(tmp_path)["run"]):
        embedding = run.embeddings["t:00002"]
        expected = np.random.default_rng(0).normal(size=(3, 5)).astype("f4")
        np.testing.assert_array_equal(embedding.vectors, expected)
        assert embedding.header == ("word", "count")
        assert embedding.metadata.tolist() == [["a", "1"], ["b", "2"], ["c", "3"]]
        assert embedding.sprite.to_numpy().shape[:2] == (8, 8)
        assert (embedding.sprite.width, embedding.sprite.height) == (4, 4)


def config_run(folder, config, **files):
    write_events(folder, schema.Event(file_version="brain.Event:2"))
    (folder / "projector_config.pbtxt").write_text(config)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return read(folder)


def test_an_embedding_of_text_and_ragged_labels(tmp_path):
    config = 'embeddings { tensor_path: "t" metadata_path: "m" }'
    run = config_run(tmp_path, config, t=b"1\t2.5\n\n3\t-4\n", m=b"n\tk\r\na\r\nb\t1\r\n")
    embedding = run.embeddings["t"]
    assert embedding.vectors.tolist() == [[1, 2.5], [3, -4]]
    assert embedding.header == ("n", "k")
    assert embedding.metadata.tolist() == [["a", ""], ["b", "1"]]


@pytest.mark.parametrize("path", ["/etc/hosts", "../x", "a/../../x", "s3://b/k", "C:\\\\x"])
def test_files_outside_of_the_folder_are_not_read(tmp_path, path):
    run = config_run(tmp_path, f'embeddings {{ tensor_name: "e" tensor_path: "{path}" }}')
    with pytest.raises(InvalidValueError, match=r"embedding 'e'.* is outside of the run's folder"):
        _ = run.embeddings["e"].vectors


@pytest.mark.parametrize("data", [b"a\tb\n", b"1\t2\n3\n", b"\xff\xff\xff", b"\xff" * 8])
def test_a_matrix_that_is_none_is_an_error_that_names_the_embedding(tmp_path, data):
    config = 'embeddings { tensor_name: "e" tensor_path: "t" tensor_shape: [3, 5] }'
    run = config_run(tmp_path, config, t=data)
    with pytest.raises(InvalidValueError, match="embedding 'e': t"):
        _ = run.embeddings["e"].vectors


def test_a_missing_file_and_a_checkpoint_are_errors(tmp_path):
    config = 'embeddings { tensor_name: "e" tensor_path: "t" } embeddings { tensor_name: "f" }'
    run = config_run(tmp_path, config)
    with pytest.raises(StoreError, match="/t"):
        _ = run.embeddings["e"].vectors
    with pytest.raises(InvalidValueError, match="checkpoint"):
        _ = run.embeddings["f"].vectors
    assert run.embeddings["f"].metadata is None


def test_a_list_of_embeddings_that_is_none_is_an_error(tmp_path):
    run = config_run(tmp_path, "not a config")
    with pytest.raises(InvalidValueError, match=r"projector_config\.pbtxt cannot be decoded"):
        _ = run.embeddings
