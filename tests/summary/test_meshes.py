"""Meshes: TensorBoard's plugin sends to the browser exactly what was logged."""

import functools
import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.mesh import mesh_plugin, metadata
from tensorboard.plugins.mesh.plugin_data_pb2 import MeshPluginData
from werkzeug.test import Client

from sm_tblog import InvalidTypeError, InvalidValueError, SinkError, Writer
from sm_tblog.summary.mesh import mesh_values

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3]])
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)

DTYPES = {"VERTEX": np.float32, "FACE": np.int32, "COLOR": np.uint8}


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path / "run", on_error="raise") as writer:
        yield writer


@pytest.fixture
def ask(writer, tmp_path):
    """``ask(route, **query)``: what TensorBoard's plugin answers; it has read the run once."""

    @functools.cache
    def routes():
        assert writer.flush()
        multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"mesh": 0})
        multiplexer.AddRunsFromDirectory(str(tmp_path))
        multiplexer.Reload()
        provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
        return mesh_plugin.MeshPlugin(
            base_plugin.TBContext(data_provider=provider)
        ).get_plugin_apps()

    def get(route, **query):
        return Client(routes()[route]).get("/", query_string={"run": "run", **query}).data

    return get


@pytest.fixture
def drawn(ask):
    """``drawn(tag, step, sample)``: vertices, faces and colors as the browser gets them."""

    def get(tag, step=0, sample=0):
        return {
            part: np.frombuffer(
                ask("/data", tag=tag, content_type=part, sample=sample, step=step), dtype
            ).reshape(-1, 3)
            for part, dtype in DTYPES.items()
        }

    return get


def test_a_mesh_is_drawn_as_logged(writer, ask, drawn):
    config = {"material": {"cls": "MeshBasicMaterial"}, "camera": {"fov": 40}}
    writer.add_mesh("a mesh", VERTICES[None], COLORS[None], FACES[None], config, 3, 123.5)
    assert json.loads(ask("/tags")) == {"run": {"a mesh": {"samples": 1}}}
    described = json.loads(ask("/meshes", tag="a mesh"))
    parts = {1: [1, 4, 3], 2: [1, 2, 3], 3: [1, 4, 3]}
    assert {one["content_type"]: one["data_shape"] for one in described} == parts
    components = metadata.get_components_bitmask(parts)
    for one in described:
        assert (one["step"], one["wall_time"], one["components"]) == (3, 123.5, components)
        assert json.loads(one["config"]) == config
    found = drawn("a mesh", 3)
    np.testing.assert_array_equal(found["VERTEX"], VERTICES)
    np.testing.assert_array_equal(found["FACE"], FACES)
    np.testing.assert_array_equal(found["COLOR"], COLORS)


def test_a_point_cloud_has_no_faces(writer, ask, drawn):
    writer.add_mesh("plain", VERTICES)
    writer.add_mesh("colored", VERTICES, COLORS)
    (one,) = json.loads(ask("/meshes", tag="plain"))
    assert one["components"] == metadata.get_components_bitmask([MeshPluginData.VERTEX])
    assert one["config"] == "{}"
    found = drawn("colored")
    np.testing.assert_array_equal(found["COLOR"], COLORS)
    assert len(found["FACE"]) == 0


def test_faces_and_colors_hold_for_a_whole_batch(writer, ask, drawn):
    writer.add_mesh("batch", np.stack([VERTICES, 2 * VERTICES]), COLORS, FACES[None])
    assert json.loads(ask("/tags")) == {"run": {"batch": {"samples": 2}}}
    for sample in (0, 1):
        found = drawn("batch", sample=sample)
        np.testing.assert_array_equal(found["VERTEX"], (1 + sample) * VERTICES)
        np.testing.assert_array_equal(found["FACE"], FACES)
        np.testing.assert_array_equal(found["COLOR"], COLORS)


@pytest.mark.parametrize(
    ("colors", "drawn_as"),
    [
        (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (np.array([0, 7, 255], np.int64), [0, 7, 255]),
        (np.array([0, 1, 1]), [0, 1, 1]),
        (np.array([0, 0.5, 1]), [0, 128, 255]),
        (np.array([-0.01, 1.0001, 1.5], np.float16), [0, 255, 255]),
        (np.array([0, 0.5, 255]), [0, 0, 255]),
        (np.array([0.0, 7.0, 300.0], np.float32), [0, 7, 255]),
        (np.array([True, False, True]), [255, 0, 255]),
        (np.array([np.nan, np.inf, 0.5]), [0, 255, 128]),
    ],
    ids=str,
)
def test_colors_are_bytes_or_fractions(writer, drawn, colors, drawn_as):
    writer.add_mesh("x", VERTICES, np.tile(colors, (4, 1)))
    assert drawn("x")["COLOR"].tolist() == [drawn_as] * 4


def test_meshes_of_any_library_are_drawn(writer, drawn):
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    writer.add_mesh(
        "torch",
        torch.from_numpy(VERTICES).bfloat16().requires_grad_(),
        torch.from_numpy(COLORS / 255),
        torch.from_numpy(FACES).to(torch.uint8),
    )
    writer.add_mesh("jax", jnp.array(VERTICES), jnp.array(COLORS), jnp.array(FACES, jnp.float32))
    writer.add_mesh("list", VERTICES.tolist(), COLORS.tolist(), FACES.tolist())
    for tag in ("torch", "jax", "list"):
        found = drawn(tag)
        np.testing.assert_array_equal(found["VERTEX"], VERTICES)
        np.testing.assert_array_equal(found["FACE"], FACES)
        np.testing.assert_array_equal(found["COLOR"], COLORS)


def test_a_mesh_may_change_after_the_call(writer, ask, drawn):
    vertices, config = VERTICES.copy(), {"lights": []}
    for step in range(3):
        writer.add_mesh("x", vertices, config_dict=config, global_step=step)
        vertices += 1
        config["lights"].append(step)
    assert json.loads(json.loads(ask("/meshes", tag="x"))[0]["config"]) == {"lights": []}
    for step in range(3):
        np.testing.assert_array_equal(drawn("x", step)["VERTEX"], VERTICES + step)


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 5)).flatmap(
        lambda shape: st.tuples(
            npst.arrays(np.float64, (*shape, 3)),
            npst.arrays(np.int64, (shape[0], 2, 3), elements=st.integers(0, shape[1] - 1)),
        )
    )
)
def test_every_part_is_described_as_it_is(mesh):
    vertices, faces = mesh
    values, _ = mesh_values("x", vertices, faces, None, "{}")
    assert [value.tag for value in values] == [
        metadata.get_instance_name("x", kind)
        for kind in (MeshPluginData.VERTEX, MeshPluginData.FACE)
    ]
    for value in values:
        plugin_data = metadata.parse_plugin_metadata(value.metadata.plugin_data.content)
        assert plugin_data.name == "x"
        assert list(plugin_data.shape) == [dim.size for dim in value.tensor.tensor_shape.dim]
    found = np.frombuffer(values[0].tensor.tensor_content, "<f4").reshape(vertices.shape)
    with np.errstate(over="ignore"):
        single = vertices.astype(np.float32)
    np.testing.assert_array_equal(found, np.where(np.isinf(single), np.nan, single))
    assert values[1].tensor.tensor_content == faces.astype("<i4").tobytes()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"vertices": [0, 0, 0]}, r"vertices must have shape \(vertices, 3\) or .*, got \(3,\)"),
        ({"vertices": VERTICES[:, :2]}, r"got \(4, 2\)"),
        ({"vertices": VERTICES[None, None]}, r"got \(1, 1, 4, 3\)"),
        ({"colors": COLORS[:, :1]}, r"colors must have shape \(colors, 3\).*got \(4, 1\)"),
        (
            {"colors": COLORS[:3]},
            r"each vertex must have a color, got vertices of shape \(4, 3\) and",
        ),
        ({"faces": FACES.T}, r"faces must have shape \(faces, 3\).*got \(3, 2\)"),
        ({"faces": np.stack([FACES] * 2)}, "got faces of 2 meshes and vertices of 1"),
        ({"colors": np.stack([COLORS] * 3)}, "got colors of 3 meshes and vertices of 1"),
        (
            {"config_dict": {"camera": {"fov": float("nan")}}},
            "config_dict cannot be encoded as JSON",
        ),
    ],
)
def test_a_bad_value_is_refused_at_the_call(writer, given, says):
    with pytest.raises(InvalidValueError, match=f"'x': .*{says}"):
        writer.add_mesh("x", **{"vertices": VERTICES, **given})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"vertices": None}, "NoneType|object"),
        ({"vertices": "abc"}, "real numbers"),
        ({"vertices": VERTICES + 1j}, "real numbers"),
        ({"vertices": [[0, 0, 0], [0, 0]]}, "'x': "),
        ({"faces": np.array([["a", "b", "c"]])}, "real numbers"),
        ({"config_dict": '{"camera": 1}'}, "config_dict must be a dict, got"),
        (
            {"config_dict": {"camera": object()}},
            "config_dict cannot be encoded as JSON: Object of type",
        ),
        ({"tag": 7}, "a tag must be a str"),
        ({"global_step": "a"}, "a step must be an integer"),
    ],
)
def test_a_bad_type_is_refused_at_the_call(writer, given, says):
    with pytest.raises(InvalidTypeError, match=says):
        writer.add_mesh(**{"tag": "x", "vertices": VERTICES, **given})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"faces": [[0, 1, 4]]}, "three indices of vertices, 0 to 3; 4 is not one"),
        ({"faces": [[0, -1, 2]]}, "-1 is not one"),
        ({"faces": [[0, 0.5, 2]]}, "0.5 is not one"),
        ({"faces": [[0, float("nan"), 2]]}, "nan is not one"),
        ({"colors": COLORS.astype(int) + 1}, "colors must be from 0 to 255, got 1 to 256"),
        ({"colors": COLORS.astype(int) - 1}, "colors must be from 0 to 255, got -1 to 254"),
    ],
)
def test_a_bad_element_is_said_by_the_worker(tmp_path, given, says):
    writer = Writer(tmp_path, on_error="raise")
    writer.add_mesh("x", VERTICES, **given)
    with pytest.raises(SinkError, match=f"'x' at step 0 is not logged: .*{says}"):
        writer.close()
    assert writer.stats().rows_dropped == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_cannot_be_drawn_is_said(writer, drawn, caplog, bad):
    vertices = VERTICES.astype(np.float64)
    vertices[1:3, 0] = bad
    many = np.zeros((65537, 3))
    with caplog.at_level(logging.WARNING, "sm_tblog"):
        writer.add_mesh("some", vertices)
        writer.add_mesh("many", many, None, FACES)
        writer.add_mesh("a cloud of many", many)
        writer.add_mesh("fine", many[1:], None, FACES)
        writer.flush()
    assert "'some': 2 of 4 vertices are NaN or infinite and are not drawn" in caplog.text
    expected = VERTICES.copy()
    expected[1:3, 0] = np.nan
    np.testing.assert_array_equal(drawn("some")["VERTEX"], expected)
    assert "'many': TensorBoard incorrectly draws faces that use vertices beyond" in caplog.text
    assert len(caplog.records) == 2


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_nothing_is_a_mesh_too(writer, drawn, shape):
    writer.add_mesh("x", np.zeros(shape), np.zeros(shape), np.zeros((0, 3)))
    assert [len(part) for part in drawn("x").values()] == [0, 0, 0]


def test_tags_of_a_mesh_may_be_cleaned(tmp_path, read_events, event_files):
    with Writer(tmp_path, clean_tags=True) as writer:
        writer.add_mesh("a mesh", VERTICES)
    (value,) = read_events(event_files(tmp_path)[0])[-1].summary.value
    assert value.tag == "a_mesh_VERTEX"
    assert metadata.parse_plugin_metadata(value.metadata.plugin_data.content).name == "a_mesh"


def test_a_disabled_writer_takes_anything(tmp_path):
    Writer(tmp_path / "run", enabled=False).add_mesh("x", object())
    assert not (tmp_path / "run").exists()
