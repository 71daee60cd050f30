"""Tensors: TensorBoard's own code reads back exactly what was logged."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import tensor_pb2, types_pb2
from tensorboard.util.tensor_util import make_ndarray

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.summary.tensor import tensor_proto


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        yield writer


@pytest.fixture
def read_back(writer, tmp_path):
    """``read_back()``: ``{tag: [(step, array), …]}``."""

    def read():
        assert writer.flush()
        run = EventAccumulator(str(tmp_path), {"tensors": 0})
        run.Reload()
        return {
            tag: [(event.step, make_ndarray(event.tensor_proto)) for event in run.Tensors(tag)]
            for tag in run.Tags()["tensors"]
        }

    return read


def as_tensorboards(array):
    return make_ndarray(tensor_pb2.TensorProto.FromString(tensor_proto(array).SerializeToString()))


DTYPES = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: npst.arrays(
            np.dtype(dtype),
            npst.array_shapes(min_dims=0, max_dims=3, max_side=4),
        )
    ),
    st.booleans(),
)
def test_numbers_of_every_dtype_and_order_are_read_back(array, swapped):
    written = array.astype(array.dtype.newbyteorder()) if swapped else array
    found = as_tensorboards(np.asarray(written.T))
    assert found.dtype == array.dtype
    assert found.shape == array.T.shape
    np.testing.assert_array_equal(found, array.T)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in {"u4", "u8"}])
def test_arrays_without_elements_are_read_back(dtype):
    found = as_tensorboards(np.zeros((2, 0, 3), dtype))
    assert (found.dtype, found.shape) == (np.dtype(dtype), (2, 0, 3))


@pytest.mark.parametrize(
    ("dtype", "written"),
    [
        (ml_dtypes.bfloat16, "f4"),
        (ml_dtypes.float8_e5m2, "f4"),
        (ml_dtypes.float8_e4m3fn, "f4"),
        (ml_dtypes.int4, "f4"),
        (np.longdouble, "f8"),
        (np.clongdouble, "c16"),
    ],
)
def test_what_the_format_has_not_is_written_as_the_nearest(dtype, written):
    array = np.array([[-0.5, 2.0, 6.0]]).astype(dtype)
    found = as_tensorboards(array)
    assert found.dtype == np.dtype(written)
    np.testing.assert_array_equal(found, array.astype(written))


@given(
    npst.arrays(
        np.dtype("U8"),
        npst.array_shapes(min_dims=0, max_dims=2, max_side=3),
        elements=st.text(max_size=8).map(lambda text: text.rstrip("\0")),
    )
)
def test_strings_are_read_back(array):
    found = as_tensorboards(array)
    assert found.shape == array.shape
    decoded = [text.decode() for text in found.reshape(-1).tolist()]
    assert decoded == [
        text.encode(errors="replace").decode() for text in array.reshape(-1).tolist()
    ]


def test_tensors_of_any_library_are_read_back(writer, read_back):
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    logged = {
        "torch": torch.arange(6).reshape(2, 3),
        "torch bool": torch.tensor([True, False]),
        "torch complex": torch.tensor([1 + 2j]),
        "torch half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "torch bfloat16": torch.tensor([0.5, 1e5], dtype=torch.bfloat16),
        "torch float8": torch.tensor([0.5, 2.0]).to(torch.float8_e5m2),
        "torch grad": torch.ones(2, requires_grad=True),
        "torch sparse": torch.eye(2).to_sparse(),
        "jax": jnp.arange(3),
        "jax bfloat16": jnp.array([0.5, 1e5], jnp.bfloat16),
        "list": [[1, 2], [3, 4]],
        "list of tensors": [torch.ones(2), torch.zeros(2)],
        "int": 7,
        "str": "größe",
        "strs": ["a", "b"],
        "bytes": b"\xff",
    }
    for tag, tensor in logged.items():
        writer.add_tensor(tag, tensor, 3)
    found = {tag: array for tag, [(_, array)] in read_back().items()}
    assert found.keys() == logged.keys()
    for tag in ("torch", "torch bool", "torch complex", "torch half"):
        assert found[tag].dtype == logged[tag].numpy().dtype
        np.testing.assert_array_equal(found[tag], logged[tag].numpy())
    assert found["torch bfloat16"].tolist() == [0.5, float(torch.tensor(1e5).bfloat16())]
    assert found["torch float8"].tolist() == [0.5, 2.0]
    assert found["torch grad"].tolist() == [1, 1]
    assert found["torch sparse"].tolist() == [[1, 0], [0, 1]]
    assert found["jax"].tolist() == [0, 1, 2]
    assert found["jax bfloat16"].tolist() == found["torch bfloat16"].tolist()
    assert found["list"].tolist() == [[1, 2], [3, 4]]
    assert found["list of tensors"].tolist() == [[1, 1], [0, 0]]
    assert (found["int"].shape, found["int"].item()) == ((), 7)
    assert found["str"].item().decode() == "größe"
    assert found["strs"].tolist() == [b"a", b"b"]
    assert found["bytes"].item() == b"\xff"


def test_a_tensor_is_copied_and_has_a_step(writer, read_back):
    tensor = np.zeros(3, np.int16)
    for step in (5, 7):
        writer.add_tensor("x", tensor, step)
        tensor += 1
    assert [(step, array.tolist()) for step, array in read_back()["x"]] == [
        (5, [0, 0, 0]),
        (7, [1, 1, 1]),
    ]


def test_a_tensor_names_torchs_plugin(writer, read_events, event_files, tmp_path):
    writer.add_tensor("x", 1.0, 2, 123.5)
    writer.flush()
    event = read_events(event_files(tmp_path)[0])[-1]
    (value,) = event.summary.value
    assert (event.step, event.wall_time, value.tag) == (2, 123.5, "x")
    assert value.metadata.plugin_data.plugin_name == "tensor"
    assert value.tensor.dtype == types_pb2.DT_DOUBLE


@pytest.mark.parametrize(
    "tensor",
    [None, object(), [[1], [2, 3]], {"a": 1}, np.array(["2020-01-01"], "M8[D]")],
    ids=["None", "object", "ragged", "dict", "dates"],
)
def test_what_is_not_an_array_is_refused_at_the_call(writer, tensor):
    with pytest.raises(InvalidTypeError, match="'x': "):
        writer.add_tensor("x", tensor, 0)


def test_a_bad_tag_or_step_is_refused_at_the_call(writer):
    with pytest.raises(InvalidTypeError, match="a tag must be a str"):
        writer.add_tensor(3, 1.0)
    with pytest.raises(InvalidTypeError, match="a step must be an integer"):
        writer.add_tensor("x", 1.0, "one")


def test_what_no_event_can_hold_is_refused_at_the_call(writer, monkeypatch):
    monkeypatch.setattr("sm_tblog.writer.tensors._SIZE_LIMIT", 32)
    writer.add_tensor("x", np.zeros(3))
    with pytest.raises(InvalidValueError, match="below 2 GiB, got 32 bytes"):
        writer.add_tensor("x", np.zeros(4))


def test_a_disabled_writer_takes_anything(tmp_path):
    Writer(tmp_path / "run", enabled=False).add_tensor("x", object())
    assert not (tmp_path / "run").exists()
