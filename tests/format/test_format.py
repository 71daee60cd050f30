"""The encoders against protobuf, TensorBoard's messages and each other."""

import math
import struct
import tracemalloc

import crc32c as reference_crc
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sm_tblog._types import Series
from sm_tblog.format import scalars as scalar_format
from sm_tblog.format import schema
from sm_tblog.format.crc32c import (
    MAX_ROW,
    contributions,
    crc32c,
    crc32c_rows,
    mask,
    masked_crc32c,
    table_starts,
)
from sm_tblog.format.records import Unframer
from sm_tblog.format.scalars import encode_scalar, encode_scalars, encode_varint

STEPS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.floats() | st.sampled_from([-0.0, 5e-324, 1e-45, 1e-40, 3.4028236e38, 1e39, -1e300])
TEXT = st.text(max_size=40)
SERIES = st.builds(
    Series,
    tag=TEXT | st.text(min_size=300, max_size=2000),
    tensor=st.booleans(),
    double=st.booleans(),
    display_name=TEXT,
    description=TEXT,
)


@st.composite
def scalars(draw):
    """Scalars of few series, so that record kinds mix; or more than one block."""
    series = draw(st.lists(SERIES, min_size=1, max_size=5, unique=True))
    count = draw(st.integers(1, 150) | st.just(2500))
    few = draw(st.lists(STEPS, min_size=1, max_size=6))
    values = draw(st.lists(VALUES, min_size=1, max_size=20))
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    wall_times = seed.choice([0.0, 1.5e9, 1.7e9 + 1e-6, -1.0, 2e300], count)
    return (
        series,
        seed.integers(0, len(series), count),
        np.array(few, np.int64)[seed.integers(0, len(few), count)],
        wall_times,
        np.array(values)[seed.integers(0, len(values), count)],
    )


def test_crc32c_of_the_check_value():
    # RFC 3720, B.4; the check value of the CRC catalogue.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    # Masked, as in the first header of every event file that TensorFlow writes for 24 bytes.
    assert masked_crc32c((24).to_bytes(8, "little")) == struct.unpack("<I", b"\xa3\x7f\x4b\x22")[0]


@given(npst.arrays(np.uint8, st.tuples(st.integers(0, 40), st.integers(1, 80))))
def test_crc32c_of_rows_is_that_of_each_row(rows):
    expected = [reference_crc.crc32c(row.tobytes()) for row in rows]
    assert crc32c_rows(rows).tolist() == expected
    masked = [masked_crc32c(row.tobytes()) for row in rows]
    assert mask(crc32c_rows(rows)).tolist() == masked


@given(
    st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=30),
    st.sets(st.integers(0, 49), min_size=1),
)
def test_what_bytes_contribute_to_the_crc32c_of_rows_of_any_length(rows, changing):
    changing = np.array(sorted(changing))
    lengths = np.array([len(row) for row in rows])
    matrix = np.frombuffer(b"".join(row.ljust(50, b"?") for row in rows), np.uint8).reshape(-1, 50)
    zeroed = matrix.copy()
    zeroed[:, changing] = 0
    base = [reference_crc.crc32c(row[:n].tobytes()) for row, n in zip(zeroed, lengths, strict=True)]
    after = np.maximum(lengths - 1 - changing[:, np.newaxis], -1)  # -1: behind the row's end
    changed = contributions(matrix.T[changing], table_starts(after))
    assert (np.array(base, np.uint32) ^ changed).tolist() == list(map(reference_crc.crc32c, rows))


def test_crc32c_of_the_longest_rows():
    rows = np.random.default_rng(0).integers(0, 256, (3, MAX_ROW), dtype=np.uint8)
    assert crc32c_rows(rows).tolist() == [reference_crc.crc32c(row.tobytes()) for row in rows]


@given(STEPS)
@example(0)
@example(-1)
@example(127)
@example(128)
def test_varints_are_protobufs(number):
    expected = schema.Event(step=number).SerializeToString()
    assert (b"\x10" + encode_varint(number) if number else b"") == expected


def protobuf_event(series, step, wall_time, value):
    """Return the scalar's event, built by protobuf."""
    event = schema.Event(wall_time=wall_time, step=step)
    summary = event.summary.value.add(tag=series.tag)
    if series.double:
        summary.tensor.dtype = schema.DT_DOUBLE
        summary.tensor.tensor_shape.SetInParent()
        summary.tensor.double_val.append(value)
    elif series.tensor:
        summary.tensor.dtype = schema.DT_FLOAT
        summary.tensor.tensor_shape.SetInParent()
        summary.tensor.float_val.append(value)
    else:
        summary.simple_value = value
    if series.display_name:
        summary.metadata.display_name = series.display_name
    if series.description:
        summary.metadata.summary_description = series.description
    if series.tensor or series.double:
        summary.metadata.plugin_data.plugin_name = "scalars"
        summary.metadata.data_class = schema.DATA_CLASS_SCALAR
    return event


def unframed(data):
    unframer = Unframer()
    unframer.feed(data)
    payloads = [record.data for record in unframer]
    assert unframer.pending == 0
    return payloads


@given(SERIES, STEPS, st.floats(1, 1e300), VALUES)
def test_a_scalar_is_the_event_that_protobuf_writes(series, step, wall_time, value):
    (data,) = unframed(encode_scalar(series, step, wall_time, value))
    assert data == protobuf_event(series, step, wall_time, value).SerializeToString()


@given(scalars())
def test_a_batch_is_its_scalars_one_at_a_time(batch):
    series, codes, steps, wall_times, values = batch
    one_at_a_time = [
        encode_scalar(series[code], step, wall_time, value)
        for code, step, wall_time, value in zip(
            codes.tolist(), steps.tolist(), wall_times.tolist(), values.tolist(), strict=True
        )
    ]
    assert encode_scalars(*batch) == b"".join(one_at_a_time)


@given(st.data(), st.lists(st.integers(400, 1100), min_size=1, max_size=4))
def test_a_batch_with_long_texts_is_its_scalars_one_at_a_time(data, lengths):
    series = [
        Series("loss"),
        Series("accuracy", tensor=True),
        *map(Series, map("x".__mul__, lengths)),
    ]
    series += [Series("t" * n, description="é" * (n // 2)) for n in lengths]
    codes = np.array(
        data.draw(st.lists(st.integers(0, len(series) - 1), min_size=1, max_size=200)), np.intp
    )
    steps = np.arange(len(codes)) * 50
    times, values = np.full(len(codes), 1e9), steps / 8
    one_at_a_time = [
        encode_scalar(series[code], step, 1e9, step / 8)
        for code, step in zip(codes.tolist(), steps.tolist(), strict=True)
    ]
    assert encode_scalars(series, codes, steps, times, values) == b"".join(one_at_a_time)


def test_a_long_tag_costs_only_its_own_records():
    series = [Series("x" * 200_000), *(Series(f"loss{i}") for i in range(1000))]
    codes = np.arange(1001)
    columns = codes, np.full(1001, 1e9), codes / 8
    encode_scalars(series, codes, *columns)  # makes the tables
    tracemalloc.start()
    try:
        data = encode_scalars(series[::-1], codes, *columns)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(unframed(data)) == 1001
    assert peak < 8 << 20


@given(scalars())
def test_a_batch_is_read_by_tensorboards_messages(batch):
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    series, codes, steps, wall_times, values = batch
    for payload, code, step, wall_time, value in zip(
        unframed(encode_scalars(*batch)), codes, steps, wall_times, values, strict=True
    ):
        event = event_pb2.Event.FromString(payload)
        (read,) = event.summary.value
        assert (event.step, event.wall_time) == (step, wall_time)
        assert read.tag == series[code].tag
        if series[code].double:
            number, expected = read.tensor.double_val[0], value
        else:
            with np.errstate(over="ignore"):
                expected = float(np.float32(value))
            number = read.tensor.float_val[0] if series[code].tensor else read.simple_value
        assert number == expected or (math.isnan(number) and math.isnan(expected))
        assert math.copysign(1, number) == math.copysign(1, expected) or math.isnan(number)


def test_tags_that_are_no_unicode_are_still_written():
    (data,) = unframed(encode_scalar(Series("a\udcffb"), 1, 1.0, 1.0))
    assert schema.Event.FromString(data).summary.value[0].tag == "a?b"


THEIR_NAMES = {
    "HParamsPluginData": "hparams.HParamsPluginData",
    "Experiment": "hparams.Experiment",
    "HParamInfo": "hparams.HParamInfo",
    "MetricInfo": "hparams.MetricInfo",
    "MetricName": "hparams.MetricName",
    "SessionEndInfo": "hparams.SessionEndInfo",
    "SessionStartInfo": "hparams.SessionStartInfo",
    "MeshPluginData": "mesh.MeshPluginData",
    "EmbeddingInfo": "projector.EmbeddingInfo",
    "ProjectorConfig": "projector.ProjectorConfig",
}
"""Messages that TensorBoard declares in the package of a plugin."""

JSON = {"JsonValue": "google.protobuf.Value", "JsonList": "google.protobuf.ListValue"}


def test_every_message_has_the_fields_of_tensorboards():
    """Each of our fields is in TensorBoard's schema under the same name, number and type."""
    modules = [
        "tensorboard.compat.proto.event_pb2",
        "tensorboard.compat.proto.summary_pb2",
        "tensorboard.compat.proto.tensor_pb2",
        "tensorboard.compat.proto.graph_pb2",
        "tensorboard.plugins.custom_scalar.layout_pb2",
        "tensorboard.plugins.scalar.plugin_data_pb2",
        "tensorboard.plugins.histogram.plugin_data_pb2",
        "tensorboard.plugins.text.plugin_data_pb2",
        "tensorboard.plugins.audio.plugin_data_pb2",
        "tensorboard.plugins.image.plugin_data_pb2",
        "tensorboard.plugins.pr_curve.plugin_data_pb2",
        "tensorboard.plugins.mesh.plugin_data_pb2",
        "tensorboard.plugins.hparams.plugin_data_pb2",
        "tensorboard.plugins.projector.projector_config_pb2",
    ]
    for module in modules:
        pytest.importorskip(module)
    from google.protobuf import descriptor_pool

    theirs = descriptor_pool.Default()
    checked = 0
    for name in schema.__all__:
        descriptor = getattr(getattr(schema, name), "DESCRIPTOR", None)
        if descriptor is None:
            continue
        package, _, own = descriptor.full_name.partition(".")
        outer, dot, inner = own.partition(".")
        their_name = f"{package}.{THEIR_NAMES.get(outer, outer)}{dot}{inner}"
        their_message = theirs.FindMessageTypeByName(JSON.get(name, their_name))
        pairs = [(descriptor, their_message)]
        pairs += [(m, their_message.nested_types_by_name[m.name]) for m in descriptor.nested_types]
        for message, other in pairs:
            for field in message.fields:
                twin = other.fields_by_name[field.name]
                assert (twin.number, twin.type) == (field.number, field.type), field.full_name
                checked += 1
    assert checked > 150


def test_the_schema_loads_beside_tensorboards_own():
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    assert schema.Event is not event_pb2.Event
    theirs = event_pb2.Event(step=3, wall_time=1.5)
    assert schema.Event.FromString(theirs.SerializeToString()).step == 3


@pytest.mark.parametrize("name", ["tensorboard", "xspace"])
def test_the_descriptor_set_is_compiled_from_the_source(name, tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    from pathlib import Path

    folder = Path(schema.__file__).parent
    out = tmp_path / "compiled"
    command = ["protoc", f"-I{folder}", f"--descriptor_set_out={out}", f"{name}.proto"]
    assert protoc.main(command) == 0
    assert out.read_bytes() == (folder / f"{name}.binpb").read_bytes(), "run make proto"


def test_many_new_tags_leave_little_behind():
    scalar_format._cached_layout.cache_clear()
    scalar_format._template.cache_clear()
    count = 2 * scalar_format._MAX_CACHED_KINDS
    for batch in range(10):
        series = [Series(f"{batch}/{i}") for i in range(count)]
        column = np.arange(count)
        encode_scalars(series, column, column, column.astype(float), column.astype(float))
    assert scalar_format._cached_layout.cache_info().currsize == 0
    info = scalar_format._template.cache_info()
    assert info.currsize <= info.maxsize <= 16_384
    assert info.misses == 10 * count  # one template each, although the cache holds fewer
