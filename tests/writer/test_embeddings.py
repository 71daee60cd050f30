"""Embeddings: what TensorBoard's projector plugin serves, and how its page interprets it."""

import inspect
import io
import json
import tempfile
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import projector_plugin
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from werkzeug.test import Client

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.format import schema
from sm_tblog.summary import embedding
from sm_tblog.summary.embedding import (
    CONFIG,
    encode_embedding,
    encode_labels,
    encode_matrix,
    encode_sheet,
    updated_config,
)

MATRIX = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 5, 5, 3), np.uint8)


class Projector:
    """The plugin's answers to the requests of its page."""

    def __init__(self, logdir):
        multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
        provider = MultiplexerDataProvider(multiplexer, str(logdir))
        context = base_plugin.TBContext(data_provider=provider, logdir=str(logdir))
        self._apps = projector_plugin.ProjectorPlugin(context).get_plugin_apps()

    def _get(self, route, **query):
        # The page quotes nothing; the browser quotes what cannot be in a URL.
        text = "&".join(f"{key}={value}" for key, value in query.items())
        text = urllib.parse.quote(text.partition("#")[0], safe="&=+%/:;,?@!$'()*[]~")
        response = Client(self._apps[route]).get(f"/?{text}")
        assert response.status_code == 200, response.text
        return response.data

    def runs(self):
        return json.loads(self._get("/runs"))

    def info(self, run="."):
        """The embeddings by name."""
        embeddings = json.loads(self._get("/info", run=run))["embeddings"]
        assert len({one["tensorName"] for one in embeddings}) == len(embeddings)
        return {one["tensorName"]: one for one in embeddings}

    def matrix(self, name="default:00000", run="."):
        data = self._get("/tensor", run=run, name=name, num_rows=100_000)
        return np.frombuffer(data, "<f4").reshape(self.info(run)[name]["tensorShape"])

    def labels(self, name="default:00000", run="."):
        return as_the_page_reads(self._get("/metadata", run=run, name=name, num_rows=100_000))

    def pictures(self, count, name="default:00000", run="."):
        """As many pictures, cut from the sheet as the page's shader does; it wants a square."""
        sheet = Image.open(io.BytesIO(self._get("/sprite_image", run=run, name=name)))
        width, height = self.info(run)[name]["sprite"]["singleImageDim"]
        assert sheet.width <= 8192
        assert sheet.width / width == sheet.height / height
        pixels = np.asarray(sheet)
        across = sheet.width // width
        return [
            pixels[i // across * height :, i % across * width :][:height, :width]
            for i in range(count)
        ]


def as_the_page_reads(data):
    """Labels as rows of text by the names of their columns, as the page splits them."""
    lines = [line for line in data.decode().split("\n") if line.strip()]
    names = lines.pop(0).split("\t") if "\t" in lines[0] else ["label"]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        yield writer


@pytest.fixture
def projector(tmp_path, writer):
    """``projector()``: what the plugin shows of what ``writer`` has logged."""

    def open_projector():
        assert writer.flush()
        return Projector(tmp_path)

    return open_projector


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "sm_tblog"]


@pytest.mark.parametrize("peer", ["torch.utils.tensorboard", "tensorboardX"])
def test_the_signature_is_the_peers(peer):
    theirs = inspect.signature(pytest.importorskip(peer).SummaryWriter.add_embedding).parameters
    ours = inspect.signature(Writer.add_embedding).parameters
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


@pytest.mark.parametrize("peer", ["torch.utils.tensorboard", "tensorboardX"])
def test_the_peers_show_the_same(peer, tmp_path):
    torch = pytest.importorskip("torch")
    points = torch.from_numpy(MATRIX)
    pictures = torch.from_numpy(np.random.default_rng(0).random((6, 3, 8, 8), np.float32))
    rows = [[f"class {i}", i, 0.5 * i] for i in range(6)]
    shown, tiles = [], []
    for name, make in (("ours", Writer), ("theirs", pytest.importorskip(peer).SummaryWriter)):
        with make(tmp_path / name) as writer:
            writer.add_embedding(points, rows, pictures, 7, "a tag", ["class", "index", "half"])
            writer.add_embedding(points, metadata=["x", 1, 2.5, None, True, "ü"])
        one = Projector(tmp_path / name)
        names = sorted(one.info())
        matrices = [one.matrix(name).tolist() for name in names]
        shown.append((names, matrices, [one.labels(name) for name in names]))
        tiles.append(np.int64(one.pictures(6, "a tag:00007")))
    assert shown[0] == shown[1]
    assert abs(tiles[0] - tiles[1]).max() <= 1  # they multiply in double precision


# The matrix.


@pytest.mark.parametrize(
    "values",
    [
        MATRIX,
        MATRIX.astype(np.float64),
        MATRIX.astype(np.float16),
        MATRIX.astype(">f4"),
        np.asfortranarray(MATRIX),
        MATRIX[::2, ::-1],
        (MATRIX * 10).astype(np.int64),
        MATRIX > 0,
        MATRIX.tolist(),
    ],
)
def test_any_matrix_is_shown_as_float32(writer, projector, values):
    writer.add_embedding(values)
    assert projector().matrix().tolist() == np.asarray(values, np.float32).tolist()


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int32"])
def test_tensors_are_shown(writer, projector, dtype):
    torch = pytest.importorskip("torch")
    tensor = (torch.from_numpy(MATRIX) * 8).to(getattr(torch, dtype))
    writer.add_embedding(tensor.requires_grad_(tensor.is_floating_point()))
    assert projector().matrix().tolist() == tensor.detach().float().tolist()


def test_the_caller_may_change_everything_at_once(writer, projector):
    points, labels, pictures = MATRIX.copy(), np.arange(6), PIXELS.copy()
    writer.add_embedding(points, labels, pictures)
    points[:], labels[:], pictures[:] = 0, 0, 0
    shown = projector()
    assert shown.matrix().tolist() == MATRIX.tolist()
    assert [row["label"] for row in shown.labels()] == list("012345")
    assert np.array_equal(shown.pictures(6), PIXELS)


class DeviceArray:
    """What a JAX array offers; reading it in the caller's thread would be waiting for it."""

    def __init__(self, values):
        self._values = np.asarray(values)
        self.shape, self.dtype = self._values.shape, self._values.dtype
        self.nbytes = self._values.nbytes
        self._thread = threading.current_thread()

    def copy_to_host_async(self):
        pass

    def __array__(self, dtype=None, copy=None):
        assert threading.current_thread() is not self._thread
        return self._values


def test_what_is_on_a_device_is_read_by_the_worker(writer, projector):
    writer.add_embedding(DeviceArray(MATRIX), DeviceArray(range(6)), DeviceArray(PIXELS))
    shown = projector()
    assert shown.matrix().tolist() == MATRIX.tolist()
    assert [row["label"] for row in shown.labels()] == list("012345")
    assert np.array_equal(shown.pictures(6), PIXELS)


def read_as_tensorboard(data, shape):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tensors")
        path.write_bytes(data)
        try:
            return projector_plugin._read_tensor_tsv_file(str(path))
        except UnicodeDecodeError:
            return projector_plugin._read_tensor_binary_file(str(path), shape)


BYTES_LIKE_TEXT = np.frombuffer(b"1.0\n\n2\t3a\xc3\xa4\n\x00\x00 A\n\xc3\xa4B", "<f4").tolist()
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    npst.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=FLOATS | st.sampled_from([0.0, 2.0, -0.0, *BYTES_LIKE_TEXT]),
    )
)
def test_every_bit_of_a_matrix_is_read_back(points):
    data, _ = encode_matrix(points)
    found = read_as_tensorboard(data, points.shape)
    assert found.tobytes() == points.tobytes()


def test_a_matrix_is_binary_unless_that_looks_like_text():
    assert encode_matrix(MATRIX) == (MATRIX.tobytes(), "bytes")
    assert encode_matrix(np.ones((2, 3), np.float32))[1] == "bytes"
    assert encode_matrix(np.zeros((2, 2), np.float32)) == (b"0.0\t0.0\n0.0\t0.0\n", "tsv")
    assert encode_matrix(np.full((1, 2), 2, np.float32)) == (b"2.0\t2.0\n", "tsv")


@pytest.mark.parametrize("value", [0.0, 2.0, 1e30])
def test_matrices_of_one_value_are_shown(writer, projector, value):
    writer.add_embedding(np.full((5, 3), value))
    assert projector().matrix().tolist() == np.full((5, 3), value, np.float32).tolist()


@pytest.mark.parametrize("columns", [1, 2])
def test_fewer_than_three_dimensions_are_filled_up_with_zeros(writer, projector, columns):
    writer.add_embedding(MATRIX[:, :columns])
    found = projector().matrix()
    assert found[:, :columns].tolist() == MATRIX[:, :columns].tolist()
    assert found[:, columns:].tolist() == np.zeros((6, 3 - columns)).tolist()


def test_points_that_are_not_finite_go_with_their_labels_and_pictures(writer, projector, caplog):
    points = MATRIX.astype(np.float64)
    points[1, 2], points[4, 0], points[5, 1] = np.nan, -np.inf, 1e300
    writer.add_embedding(points, list("abcdef"), PIXELS)
    shown = projector()
    assert shown.matrix().tolist() == MATRIX[[0, 2, 3]].tolist()
    assert [row["label"] for row in shown.labels()] == ["a", "c", "d"]
    assert np.array_equal(shown.pictures(3), PIXELS[[0, 2, 3]])
    assert warnings(caplog) == [
        "sm_tblog: 'default': 3 of 6 rows contain NaN or infinities and are left out"
    ]


def test_an_embedding_without_a_finite_point_is_not_logged(tmp_path, caplog):
    with Writer(tmp_path) as writer:
        writer.add_embedding(MATRIX * np.nan, tag="bad")
        writer.add_embedding(MATRIX, tag="good")
        assert not writer.flush()
        assert writer.stats().rows_dropped == 1
    assert list(Projector(tmp_path).info()) == ["good:00000"]
    [message] = warnings(caplog)
    assert message == (
        "sm_tblog: 'bad' at step 0 is not logged: all 6 rows contain NaN or infinities"
    )


def test_what_tensorboard_does_not_show_is_said(monkeypatch):
    monkeypatch.setattr(embedding, "_MAX_POINTS", 5)
    files, warning = encode_embedding("t", 0, MATRIX, (), None, (PIXELS, "NHWC"))
    assert warning == "TensorBoard shows only the first 5 of 6 points"
    assert files["embeddings/t/00000/tensors.bytes"] == MATRIX.tobytes()
    _, warning = encode_embedding("t", 0, MATRIX[:1])
    assert warning == "TensorBoard does not list an embedding of one point"


# Labels.


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (["a", "b", "c"], ["a", "b", "c"]),
        ((1, 2.5, None), ["1", "2.5", "None"]),
        (iter("abc"), ["a", "b", "c"]),
        (np.array([1, 2, 3]), ["1", "2", "3"]),
        (np.array([0.1, 1, 2], np.float32), ["0.1", "1.0", "2.0"]),
        (np.array(["x", "yy", "z"]), ["x", "yy", "z"]),
        (np.array(["x", 1, None], object), ["x", "1", "None"]),
        (np.array(["2020-01-01", "NaT", "2020"], "M8[D]"), ["2020-01-01", "NaT", "2020-01-01"]),
        ([b"x", "\udcff", "ü"], ["x", "?", "ü"]),
        ([[1, 2], (3,), "x"], ["[1, 2]", "(3,)", "x"]),
        ({"alone": "abc"}, ["a", "b", "c"]),
    ],
)
def test_labels_are_anything_that_str_takes(writer, projector, metadata, expected):
    writer.add_embedding(MATRIX[:3], metadata)
    assert projector().labels() == [{"label": label} for label in expected]


def test_columns_of_labels_have_their_names(writer, projector):
    writer.add_embedding(MATRIX[:2], {"name": ["a", "b"], "n": np.arange(2)})
    assert projector().labels() == [{"name": "a", "n": "0"}, {"name": "b", "n": "1"}]


def test_labels_may_be_tensors(writer, projector):
    torch = pytest.importorskip("torch")
    writer.add_embedding(MATRIX[:3], torch.arange(3), tag="tensor")
    writer.add_embedding(MATRIX[:3], list(torch.arange(3)), tag="list")
    rows = torch.arange(6).reshape(3, 2)
    writer.add_embedding(MATRIX[:3], rows, tag="rows", metadata_header=["a", "b"])
    shown = projector()
    for tag in ("tensor", "list"):
        assert [row["label"] for row in shown.labels(f"{tag}:00000")] == ["0", "1", "2"]
    assert [row["b"] for row in shown.labels("rows:00000")] == ["1", "3", "5"]


def test_labels_may_be_a_data_frame_or_a_column_of_one(writer, projector):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"name": ["a", "b", "c"], "x": [0.5, 1, 2]}, index=[7, 8, 9])
    writer.add_embedding(MATRIX[:3], frame, tag="frame")
    writer.add_embedding(MATRIX[:3], frame, tag="renamed", metadata_header=["u", "v"])
    writer.add_embedding(MATRIX[:3], frame["name"], tag="series")
    shown = projector()
    assert shown.labels("frame:00000")[1] == {"name": "b", "x": "1.0"}
    assert shown.labels("renamed:00000")[2] == {"u": "c", "v": "2.0"}
    assert shown.labels("series:00000") == [{"label": "a"}, {"label": "b"}, {"label": "c"}]


@pytest.mark.parametrize(
    "rows",
    [
        [["a", 1], ["b", 2], ["c", 3]],
        [("a", 1), ["b", 2], np.array(["c", "3"])],
        np.array([["a", "1"], ["b", "2"], ["c", "3"]]),
    ],
)
def test_labels_may_have_columns(writer, projector, rows):
    writer.add_embedding(MATRIX[:3], rows, metadata_header=["name", "number"])
    assert projector().labels() == [
        {"name": name, "number": number} for name, number in zip("abc", "123", strict=True)
    ]


@pytest.mark.parametrize("rows", ["abc", [["a"], ["b"], ["c"]]])
def test_one_column_has_no_header_which_the_page_would_take_for_a_label(rows):
    data, _ = encode_labels(rows, ["name"] if isinstance(rows, list) else [])
    assert data == b"a\nb\nc\n"


def test_one_column_may_be_an_array_or_bare_labels(writer, projector):
    writer.add_embedding(MATRIX[:2], np.array(["a", "b"]), tag="1", metadata_header=["name"])
    writer.add_embedding(MATRIX[:2], ["a", "b"], tag="2", metadata_header=["name"])
    writer.add_embedding(MATRIX[:2], np.array([["a"], ["b"]]), tag="3", metadata_header=["name"])
    shown = projector()
    for tag in "123":
        assert shown.labels(f"{tag}:00000") == [{"label": "a"}, {"label": "b"}]


def test_breaks_in_labels_become_spaces_and_that_is_said_once(writer, projector, caplog):
    for step in range(2):
        writer.add_embedding(MATRIX[:3], ["a\tb", "c\r\nd", "e"], global_step=step)
    assert [row["label"] for row in projector().labels()] == ["a b", "c  d", "e"]
    assert warnings(caplog) == [
        "sm_tblog: 'default': tabs and line breaks in 2 labels become spaces"
    ]


def test_breaks_in_the_header_become_spaces():
    data, _ = encode_labels([("x", "y")], ["a\tb", "c\nd"])
    assert data == b"a b\tc d\nx\ty\n"


def test_blank_labels_are_not_passed_over(writer, projector):
    writer.add_embedding(MATRIX[:3], ["", " ", "x"], tag="plain")
    writer.add_embedding(MATRIX[:2], {"a": ["", "x"], "b": ["", ""]}, tag="columns")
    shown = projector()
    assert [row["label"] for row in shown.labels("plain:00000")] == ["-", "- ", "x"]
    assert shown.labels("columns:00000") == [{"a": "-", "b": ""}, {"a": "x", "b": ""}]


@given(st.lists(st.text(), min_size=1), st.integers(1, 3))
def test_there_is_a_line_for_each_point_whatever_its_labels(texts, width):
    rows = [(text,) * width for text in texts]
    data, _ = encode_labels(rows, [f"column {i}" for i in range(width)])
    assert data.endswith(b"\n")
    assert len(as_the_page_reads(data)) == len(texts)


# Pictures.


GREY = PIXELS[..., 0]
RGBA = np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        (PIXELS, PIXELS),
        (PIXELS.transpose(0, 3, 1, 2), PIXELS),
        (GREY, GREY),
        (GREY[:, None], GREY),
        (GREY[..., None], GREY),
        (RGBA, RGBA),
        (list(PIXELS), PIXELS),
        (list(PIXELS.transpose(0, 3, 1, 2)), PIXELS),
        (list(GREY), GREY),
        ([Image.fromarray(one) for one in PIXELS], PIXELS),
        (np.float64(PIXELS) / 255, PIXELS),
        (np.float32(PIXELS.transpose(0, 3, 1, 2)) / 255, PIXELS),
        (PIXELS.astype(np.int64), PIXELS),
        (GREY > 99, 255 * (GREY > 99)),
    ],
)
def test_pictures_have_any_layout_and_dtype(writer, projector, pictures, expected):
    writer.add_embedding(MATRIX, label_img=pictures)
    assert np.array_equal(projector().pictures(6), expected)


@given(
    count=st.integers(1, 70),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.integers(1, 4),
)
def test_every_picture_is_in_the_place_that_the_page_looks_at(count, size, channels):
    images = np.random.default_rng(0).integers(1, 256, (count, *size, channels), np.uint8)
    data, side, warning = encode_sheet(images)
    assert warning == ""
    sheet = np.asarray(Image.open(io.BytesIO(data)))
    sheet = sheet.reshape(*sheet.shape[:2], -1)
    across, rest = divmod(len(sheet), side)
    assert sheet.shape[0] == sheet.shape[1]
    assert (rest, across & (across - 1)) == (0, 0)  # a power of two: the shader divides exactly
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    for i, image in enumerate(images):
        place = sheet[i // across * side :, i % across * side :][:side, :side]
        inner = place[top : top + size[0], left : left + size[1]]
        assert np.array_equal(inner[..., :channels], image)
        if size[0] != size[1]:
            assert place[..., -1].astype(bool).sum() == size[0] * size[1]  # else transparent


@pytest.mark.parametrize(
    ("shape", "largest", "expected"),
    [
        ((16, 10, 10, 3), 40, (10, 10)),
        ((16, 10, 10, 3), 39, (9, 9)),
        ((17, 10, 10, 3), 40, (5, 5)),
        ((16, 10, 5, 3), 20, (5, 2)),
        ((16, 1, 10, 3), 20, (1, 5)),
    ],
)
def test_pictures_are_made_smaller_where_the_sheet_would_be_too_large(
    monkeypatch, shape, largest, expected
):
    monkeypatch.setattr(embedding, "_MAX_SHEET_SIDE", largest)
    images = np.broadcast_to(np.arange(1, shape[0] + 1, dtype=np.uint8)[:, None, None, None], shape)
    data, side, warning = encode_sheet(images)
    sheet = np.asarray(Image.open(io.BytesIO(data)))
    assert len(sheet) <= largest
    assert side == max(expected)
    assert all((sheet[..., 0] == i + 1).sum() == np.prod(expected) for i in range(shape[0]))
    if expected == shape[1:3]:
        assert warning == ""
    else:
        was, now = (f"{w} x {h}" for h, w in (shape[1:3], expected))
        assert warning == (f"pictures of {was} pixels become {now} to fit on one sheet")


def test_a_smaller_picture_is_made_of_means(monkeypatch):
    monkeypatch.setattr(embedding, "_MAX_SHEET_SIDE", 2)
    image = np.array([[0, 100, 9, 9], [100, 200, 9, 9], [1, 1, 5, 5], [1, 1, 7, 7]], np.uint8)
    data, *_ = encode_sheet(image[None, :, :, None])
    assert np.asarray(Image.open(io.BytesIO(data))).tolist() == [[100, 9], [1, 6]]


# The list.


def names_in(text):
    return [one.tensor_name for one in text_format.Parse(text, ProjectorConfig()).embeddings]


def entry(name, path="tensors.bytes"):
    return schema.EmbeddingInfo(tensor_name=name, tensor_path=path).SerializeToString()


@pytest.mark.parametrize("peer", ["torch.utils.tensorboard", "tensorboardX"])
def test_what_others_have_listed_stays(peer, tmp_path):
    pytest.importorskip("torch")
    with pytest.importorskip(peer).SummaryWriter(tmp_path) as theirs:
        theirs.add_embedding(MATRIX, tag="theirs")
    for tag in ("first", "second"):
        with Writer(tmp_path) as writer:
            writer.add_embedding(MATRIX, tag=tag)
    shown = Projector(tmp_path)
    assert list(shown.info()) == ["theirs:00000", "first:00000", "second:00000"]
    for name in shown.info():
        assert shown.matrix(name).tolist() == MATRIX.tolist()


@pytest.mark.parametrize("peer", ["torch.utils.tensorboard", "tensorboardX"])
def test_the_same_name_of_another_writer_is_replaced(peer, tmp_path):
    pytest.importorskip("torch")
    with pytest.importorskip(peer).SummaryWriter(tmp_path) as theirs:
        theirs.add_embedding(MATRIX, tag="other")
        theirs.add_embedding(MATRIX)
    with Writer(tmp_path) as writer:
        writer.add_embedding(MATRIX * 2)
    shown = Projector(tmp_path)
    assert list(shown.info()) == ["other:00000", "default:00000"]
    assert shown.matrix().tolist() == (MATRIX * 2).tolist()


def test_tags_and_steps_are_embeddings_of_their_own_and_equal_ones_replace(writer, projector):
    for tag, step, factor in (("a", 1, 1), ("a", 2, 2), ("b", 1, 3), ("a", 1, 4), ("a", -3, 5)):
        writer.add_embedding(MATRIX * factor, global_step=step, tag=tag)
    shown = projector()
    assert list(shown.info()) == ["a:00002", "b:00001", "a:00001", "a:-0003"]
    factors = [shown.matrix(name)[0, 0] / MATRIX[0, 0] for name in shown.info()]
    assert factors == [2, 3, 4, 5]


def test_replacing_an_embedding_forgets_its_labels_and_pictures(writer, projector):
    writer.add_embedding(MATRIX, list("abcdef"), PIXELS)
    writer.add_embedding(MATRIX[:3])
    assert projector().info() == {
        "default:00000": {
            "tensorName": "default:00000",
            "tensorPath": "embeddings/default/00000/tensors.bytes",
            "tensorShape": [3, 4],
        }
    }


def test_the_step_is_the_writers_where_none_is_given(writer, projector):
    writer.step = 12
    writer.add_embedding(MATRIX)
    assert list(projector().info()) == ["default:00012"]


def test_a_list_written_by_hand_stays_as_it_is():
    text = b"""# Mine.
model_checkpoint_path: 'model'  # not to be lost
embeddings < tensor_name: "mine" tensor_path: "a.tsv" >
something_new { of: 1 }
# The end."""
    first = updated_config(entry("ours"), text)
    assert first.startswith(text + b"\n")
    second = updated_config(entry("ours", "other.bytes"), updated_config(entry("more"), first))
    assert second.startswith(text + b"\n")
    config = text_format.Parse(second.decode(), ProjectorConfig(), allow_unknown_field=True)
    found = [(one.tensor_name, one.tensor_path) for one in config.embeddings]
    paths = ["a.tsv", "tensors.bytes", "other.bytes"]
    assert found == list(zip(["mine", "more", "ours"], paths, strict=True))


def test_an_embedding_written_by_hand_is_replaced():
    text = b"# A comment.\nembeddings < tensor_name: 'x' >\nembeddings{tensor_name:'y'}"
    assert names_in(updated_config(entry("x"), text).decode()) == ["y", "x"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3)), max_size=8))
def test_a_list_holds_the_last_of_every_name(entries):
    held = None
    for name, path in entries:
        held = updated_config(entry(name, path), held)
    found = text_format.Parse((held or b"").decode(), ProjectorConfig()).embeddings
    assert {one.tensor_name: one.tensor_path for one in found} == dict(entries)
    assert len(found) == len(dict(entries))


@pytest.mark.parametrize("broken", [b"embeddings {", b"\xff\xfe", b"just a note"])
def test_a_list_that_cannot_be_read_is_kept_and_that_is_said(tmp_path, caplog, broken):
    (tmp_path / CONFIG).write_bytes(broken)
    with Writer(tmp_path) as writer:
        writer.add_embedding(MATRIX)
        assert not writer.flush()
    assert (tmp_path / CONFIG).read_bytes() == broken
    assert (tmp_path / "embeddings/default/00000/tensors.bytes").exists()
    [message] = warnings(caplog)
    assert message.startswith(
        f"sm_tblog: {CONFIG} cannot be read; it is left unchanged, without 'default:"
    )


# Names and places.

ODD_TAGS = [
    "a b/c",
    "x&y#z+p%41",
    '"q" \\',
    "ü;=?:",
    "..",
    ".",
    "",
    "A",
    "a",
    "日本",
    "a\nb",
    "\udcff",
]


def test_odd_tags_are_shown(writer, projector):
    for number, tag in enumerate(ODD_TAGS):
        writer.add_embedding(MATRIX + number, tag=tag)
    shown = projector()
    assert len(shown.info()) == len(ODD_TAGS)
    for number, name in enumerate(shown.info()):
        assert shown.matrix(name).tolist() == (MATRIX + number).tolist()


@given(st.lists(st.text(max_size=80) | st.sampled_from(ODD_TAGS), unique=True, max_size=9))
def test_folders_are_safe_and_each_tags_own(tags):
    paths = []
    for tag in tags:
        files, _ = encode_embedding(tag, 0, MATRIX)
        path = next(iter(files))
        root, folder, step, _ = path.split("/")
        assert (root, step) == ("embeddings", "00000")
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.")
        assert folder.strip(".")
        assert len(folder) <= 64
        paths.append(path)
    assert len({path.casefold() for path in paths}) == len(tags)


def test_a_run_of_embeddings_alone_is_seen(tmp_path):
    with Writer(tmp_path / "run") as writer:
        writer.add_embedding(MATRIX)
    shown = Projector(tmp_path)
    assert shown.runs() == ["run"]
    assert shown.matrix(run="run").tolist() == MATRIX.tolist()


def test_files_go_through_the_store(tmp_path):
    folder = f"memory:/{tmp_path}"
    with Writer(folder) as writer:
        writer.add_embedding(MATRIX, list("abcdef"), PIXELS, 3, "tag")
    files = MemoryFileSystem()
    names = {path.rpartition("/")[2] for path in files.find(f"{folder}/embeddings/tag/00003")}
    assert names == {"tensors.bytes", "metadata.tsv", "sprite.png"}
    assert names_in(files.cat_file(f"{folder}/{CONFIG}").decode()) == ["tag:00003"]


def test_clean_tags_are_clean_here_too(tmp_path):
    with Writer(tmp_path, clean_tags=True) as writer:
        writer.add_embedding(MATRIX, tag="a b")
    assert list(Projector(tmp_path).info()) == ["a_b:00000"]


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    with Writer(tmp_path / "run", enabled=False) as writer:
        writer.add_embedding(object(), metadata=3)
    assert not (tmp_path / "run").exists()


# Bad calls.


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"mat": MATRIX[0]}, InvalidValueError, r"\(points, dimensions\).* got shape \(4,\)"),
        ({"mat": MATRIX[None]}, InvalidValueError, r"got shape \(1, 6, 4\)"),
        ({"mat": MATRIX[:0]}, InvalidValueError, r"at least one of each; got shape \(0, 4\)"),
        ({"mat": MATRIX[:, :0]}, InvalidValueError, r"got shape \(6, 0\)"),
        ({"mat": "text"}, InvalidTypeError, "real numbers"),
        ({"mat": [[1, 2], [3]]}, InvalidTypeError, "array"),
        ({"mat": MATRIX * 1j}, InvalidTypeError, "complex"),
        ({"metadata": list("abcde")}, InvalidValueError, "6 points and 5 labels"),
        ({"metadata": np.arange(7)}, InvalidValueError, "6 points and 7 labels"),
        ({"metadata": {"x": "abcdef", "y": "ab"}}, InvalidValueError, "2 labels in column 'y'"),
        ({"metadata": "abcdef"}, InvalidTypeError, "a sequence of labels, got 'abcdef'"),
        ({"metadata": 6}, InvalidTypeError, "a sequence of labels, got 6"),
        (
            {"metadata": [["a", 1]] * 4 + [["a"]] * 2, "metadata_header": ["x", "y"]},
            InvalidValueError,
            r"row 4 of the metadata must match the columns x, y, got shape \(1,\)",
        ),
        (
            {"metadata": np.zeros((6, 3)), "metadata_header": ["x", "y"]},
            InvalidValueError,
            r"the metadata's rows must match the columns x, y, got shape \(3,\)",
        ),
        (
            {"metadata": list("abcdef"), "metadata_header": ["x", "y"]},
            InvalidValueError,
            "row 0 of the metadata",
        ),
        ({"label_img": PIXELS[:5]}, InvalidValueError, "6 points and 5 pictures"),
        ({"label_img": PIXELS[0, 0]}, InvalidValueError, r"got shape \(3,\)"),
        ({"label_img": PIXELS[:, :0]}, InvalidValueError, "no pixels"),
        ({"label_img": 6}, InvalidValueError, r"got shape \(\)"),
        ({"label_img": []}, InvalidValueError, r"got shape \(0,\)"),
        ({"label_img": "text"}, InvalidValueError, r"got shape \(\)"),
        ({"label_img": np.zeros((6, 5, 7, 9))}, InvalidValueError, r"got shape \(5, 7, 9\)"),
        ({"global_step": "x"}, InvalidTypeError, "a step must be an integer"),
    ],
)
def test_a_bad_call_raises_at_once_and_names_the_tag(writer, arguments, error, says):
    with pytest.raises(error, match=f"'my tag'.*{says}"):
        writer.add_embedding(**{"mat": MATRIX, "tag": "my tag", **arguments})


def test_a_tag_is_a_str(writer):
    with pytest.raises(InvalidTypeError, match="a tag must be a str"):
        writer.add_embedding(MATRIX, tag=None)
