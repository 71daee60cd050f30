"""Readers: files of all writers, complete or damaged, on any file system."""

from __future__ import annotations

import errno
import io
import itertools
import math
import os
import struct
import sys
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from hypothesis import given, settings
from hypothesis import strategies as st

import sm_tblog
from sm_tblog import (
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    StoreError,
    Writer,
    readers,
)
from sm_tblog.format import schema
from sm_tblog.format.records import frame
from sm_tblog.readers import Damage, DamagedFileWarning, read, read_all
from sm_tblog.readers.columns import Columns
from sm_tblog.readers.event_stream import EventStream
from sm_tblog.readers.events import CHUNK_SIZE, read_file

NAME = "events.out.tfevents.1700000000.host"
VALUES = [0.5, -1e-3, 0.1, float("nan"), float("inf"), -float("inf"), 3e38, 0.0]

# Events built with the library's schema, which the tests of the format compare with TensorBoard's.


def version():
    return schema.Event(wall_time=1.0, file_version="brain.Event:2")


def start(step):
    event = schema.Event(wall_time=1.0, step=step)
    event.session_log.status = schema.SessionLog.START
    return event


def event(*values, step=0, wall_time=1.5):
    return schema.Event(wall_time=wall_time, step=step, summary={"value": values})


def scalar(tag, number):
    return {"tag": tag, "simple_value": number}


def tensor(tag, plugin="", **fields):
    metadata = {"metadata": {"plugin_data": {"plugin_name": plugin}}} if plugin else {}
    return {"tag": tag, "tensor": fields, **metadata}


def stream_of(events):
    return b"".join(frame(event.SerializeToString()) for event in events)


def write(folder, events, name=NAME):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(stream_of(events))
    return path


def read_quietly(path):
    """Return the run and its warnings, which the caller checks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = read(path)
    return run, caught


def points(run):
    """Return ``{tag: [(step, wall_time, value), …]}``."""
    return {
        tag: list(zip(*(column.tolist() for column in scalars), strict=True))
        for tag, scalars in run.scalars.items()
    }


def tensorboards_points(folder):
    """Return the points that ``EventAccumulator`` reads, in the form of ``points``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    run = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    found = {
        tag: [(e.step, e.wall_time, e.value) for e in run.Scalars(tag)]
        for tag in run.Tags()["scalars"]
    }
    for tag in run.Tags()["tensors"]:
        if run.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            found[tag] = [
                (e.step, e.wall_time, make_ndarray(e.tensor_proto).item()) for e in run.Tensors(tag)
            ]
    return found


# Files of all writers.


def write_ours(folder):
    with Writer(folder) as writer:
        for step, value in enumerate(VALUES):
            writer.add_scalar("plain", value, step, walltime=1e9 + step / 3)
            writer.add_scalar("tensor", value, step, new_style=True)
            writer.add_scalar("double", value * math.pi, step, double_precision=True)
            writer.add_scalar("described", value, step, summary_description="*what* it is")


def write_torch(folder):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(folder)
    for step, value in enumerate(VALUES):
        writer.add_scalar("plain", value, step, walltime=1e9 + step / 3)
        writer.add_scalar("tensor", value, step, new_style=True)
        writer.add_scalar("double", value * math.pi, step, new_style=True, double_precision=True)
    writer.close()


def write_tensorboardx(folder):
    writer = pytest.importorskip("tensorboardX").SummaryWriter(str(folder))
    for step, value in enumerate(VALUES):
        writer.add_scalar("plain", value, step, walltime=1e9 + step / 3)
        writer.add_scalar("named", value, step, display_name="a name")
    writer.close()


def write_tensorboard(folder):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step, value in enumerate(VALUES):
        old = Summary(value=[Summary.Value(tag="old", simple_value=value)])
        for made in (old, scalar_pb("new", value)):
            writer.add_event(Event(wall_time=1e9 + step / 3, step=step, summary=made))
    writer.close()


@pytest.mark.parametrize(
    "write_with", [write_ours, write_torch, write_tensorboardx, write_tensorboard]
)
def test_scalars_are_those_that_tensorboard_reads(tmp_path, write_with):
    write_with(tmp_path)
    run = read(tmp_path)
    expected = tensorboards_points(tmp_path)
    assert len(expected) >= 2
    assert set(run.scalars) == set(expected)
    for tag, found in points(run).items():
        np.testing.assert_array_equal(found, expected[tag])
        assert run.tags[tag] == "scalars"
        assert len(found) == len(VALUES)
    assert run.damages == ()


def test_columns_are_arrays_of_int64_and_float64(tmp_path):
    write(tmp_path, [event(scalar("a", 0.5), step=-(2**63)), event(scalar("a", 1), step=2**63 - 1)])
    step, wall_time, value = read(tmp_path).scalars["a"]
    assert (step.dtype, wall_time.dtype, value.dtype) == (np.int64, np.float64, np.float64)
    assert step.tolist() == [-(2**63), 2**63 - 1]
    assert wall_time.tolist() == [1.5, 1.5]
    assert value.tolist() == [0.5, 1.0]
    value[0] = 7  # they are the caller's own


def test_a_double_is_not_rounded(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_scalar("pi", math.pi, 0, double_precision=True)
    assert read(tmp_path).scalars["pi"].value.tolist() == [math.pi]


# Kinds of values.

NUMBERS = {
    "DT_FLOAT": ("<f", "float_val", 0.25),
    "DT_DOUBLE": ("<d", "double_val", 0.1),
    "DT_HALF": ("<e", "half_val", -0.125),
    "DT_INT8": ("<b", "int_val", -3),
    "DT_INT16": ("<h", "int_val", -300),
    "DT_INT32": ("<i", "int_val", -70_000),
    "DT_INT64": ("<q", "int64_val", -(2**40)),
    "DT_UINT8": ("<B", "int_val", 200),
    "DT_UINT16": ("<H", "int_val", 65_000),
    "DT_UINT32": ("<I", "uint32_val", 2**31),
    "DT_UINT64": ("<Q", "uint64_val", 2**63),
    "DT_BOOL": ("<?", "bool_val", True),
}


@pytest.mark.parametrize("shape", [[], [1], [1, 1]])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_number_is_read_from_a_tensor_of_any_type(tmp_path, dtype, shape):
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.util.tensor_util import make_ndarray

    layout, field, number = NUMBERS[dtype]
    content = struct.pack(layout, number)
    element = int.from_bytes(content, "little") if field == "half_val" else number
    dims = {"dim": [{"size": size} for size in shape]}
    in_content = {"dtype": dtype, "tensor_shape": dims, "tensor_content": content}
    in_field = {"dtype": dtype, "tensor_shape": dims, field: [element]}
    # Their reader does not know the fields of the larger unsigned integers.
    known = (in_content,) if field in {"uint32_val", "uint64_val"} else (in_content, in_field)
    for fields in known:
        their_tensor = TensorProto.FromString(schema.TensorProto(**fields).SerializeToString())
        assert make_ndarray(their_tensor).item() == number
    values = tensor("a", "scalars", **in_content), tensor("b", "scalars", **in_field)
    write(tmp_path, [event(*values)])
    assert points(read(tmp_path)) == {"a": [(0, 1.5, number)], "b": [(0, 1.5, number)]}


def test_a_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    bits = struct.pack("<f", -1.5)[2:]
    values = (
        tensor("a", "scalars", dtype="DT_BFLOAT16", tensor_content=bits),
        tensor("b", "scalars", dtype="DT_BFLOAT16", half_val=[int.from_bytes(bits, "little")]),
    )
    write(tmp_path, [event(*values)])
    assert points(read(tmp_path)) == {"a": [(0, 1.5, -1.5)], "b": [(0, 1.5, -1.5)]}


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "DT_FLOAT"},
        {"dtype": "DT_FLOAT", "float_val": [1, 2]},
        {"dtype": "DT_FLOAT", "tensor_content": b"abc"},
        {"dtype": "DT_FLOAT", "tensor_content": bytes(8)},
        {"dtype": "DT_FLOAT", "float_val": [1], "tensor_shape": {"dim": [{"size": 3}]}},
        {"dtype": "DT_STRING", "string_val": [b"1"]},
        {"dtype": 999, "float_val": [1]},
        {},
    ],
)
def test_a_tensor_that_is_not_one_number_is_no_scalar(tmp_path, fields):
    write(tmp_path, [event(tensor("a", "scalars", **fields), scalar("b", 1))])
    run = read(tmp_path)
    assert list(run.tags) == ["a", "b"]
    assert list(run.scalars) == ["b"]


def test_only_a_tags_first_value_need_name_the_plugin(tmp_path):
    number = {"dtype": "DT_FLOAT", "float_val": [1]}
    write(
        tmp_path,
        [event(tensor("a", "scalars", **number)), event(tensor("a", **number))],
        "1.tfevents",
    )
    write(tmp_path, [event(tensor("a", **number)), event(tensor("b", **number))], "2.tfevents")
    run = read(tmp_path)
    assert run.tags == {"a": "scalars", "b": "tensors"}
    assert points(run) == {"a": [(0, 1.5, 1.0)] * 3}


def test_tags_are_named_in_the_order_of_their_first_appearance_with_their_plugin(tmp_path):
    values = [
        {"tag": "counts", "histo": {"num": 1}},
        {"tag": "picture", "image": {"width": 1}},
        {"tag": "sound", "audio": {"num_channels": 1}},
        scalar("loss", 1),
        tensor("words", "text", dtype="DT_STRING", string_val=[b"x"]),
        tensor("bare", dtype="DT_FLOAT", float_val=[1]),
        {"tag": "nothing"},
        tensor("curve", "pr_curves", dtype="DT_FLOAT", float_val=[1]),
        {"node_name": "node", "tensor": {}},
    ]
    write(tmp_path, [event(*values), event(scalar("counts", 2))])
    run = read(tmp_path)
    assert list(run.tags.items()) == [
        ("counts", "histograms"),
        ("picture", "images"),
        ("sound", "audio"),
        ("loss", "scalars"),
        ("words", "text"),
        ("bare", "tensors"),
        ("nothing", ""),
        ("curve", "pr_curves"),
        ("node", "tensors"),
    ]
    assert points(run) == {"loss": [(0, 1.5, 1.0)], "counts": [(0, 1.5, 2.0)]}


def test_everything_that_torch_logs_has_the_tags_that_tensorboard_lists(tmp_path):
    torch = pytest.importorskip("torch")
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    writer.add_scalar("scalar", 1, 0)
    writer.add_histogram("histogram", torch.arange(9.0), 0)
    writer.add_image("image", torch.zeros(3, 2, 2), 0)
    writer.add_text("text", "text", 0)
    writer.add_pr_curve("curve", torch.tensor([0, 1]), torch.tensor([0.1, 0.9]), 0)
    writer.add_hparams({"rate": 0.1}, {"metric": 1.0}, run_name=".")
    writer.close()
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    expected = {
        tag: metadata.plugin_data.plugin_name
        for tag, metadata in accumulator.AllSummaryMetadata().items()
    }
    assert read(tmp_path).tags == expected


# Restarted runs.

steps = st.integers(-3, 12)
histories = st.lists(
    st.one_of(
        st.tuples(st.just("a"), steps),
        st.tuples(st.just("b"), steps),
        st.tuples(st.just("start"), steps),
    ),
    max_size=30,
)


@given(histories, st.integers(0, 30))
def test_a_start_supersedes_as_in_tensorboard(tmp_path_factory, history, cut):
    folder = tmp_path_factory.mktemp("run")
    events = [
        start(step) if tag == "start" else event(scalar(tag, i), step=step, wall_time=i)
        for i, (tag, step) in enumerate(history)
    ]
    write(folder, [version(), *events[:cut]], "1.tfevents")
    write(folder, [version(), *events[cut:]], "2.tfevents")
    assert points(read(folder)) == tensorboards_points(folder)


@given(histories)
def test_a_start_supersedes_tensors_as_in_tensorboards_server(tmp_path_factory, history):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    folder = tmp_path_factory.mktemp("run")
    events = [
        start(step)
        if tag == "start"
        else event(tensor(tag, "scalars", dtype="DT_FLOAT", float_val=[i]), step=step)
        for i, (tag, step) in enumerate(history)
    ]
    # It takes a run's first START for its beginning, which supersedes nothing.
    write(folder, [version(), start(0), *events])
    theirs = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    expected = {
        tag: [(e.step, e.wall_time, e.tensor_proto.float_val[0]) for e in theirs.Tensors(tag)]
        for tag in theirs.Tags()["tensors"]
    }
    assert points(read(folder)) == expected


def test_a_resumed_run_has_the_points_of_the_second_attempt(tmp_path):
    with Writer(tmp_path) as writer:
        for step in range(10):
            writer.add_scalar("loss", 1, step)
    with Writer(tmp_path, purge_step=6) as writer:
        for step in range(6, 9):
            writer.add_scalar("loss", 2, step)
    step, _, value = read(tmp_path).scalars["loss"]
    assert step.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert value.tolist() == [1] * 6 + [2] * 3


def test_a_tag_whose_points_are_all_superseded_stays_and_is_empty(tmp_path):
    write(tmp_path, [event(scalar("a", 1), step=5), start(0), event(scalar("b", 1), step=5)])
    run = read(tmp_path)
    assert list(run.tags) == ["a", "b"]
    assert points(run) == {"a": [], "b": [(5, 1.5, 1.0)]}


def test_a_step_that_goes_back_supersedes_nothing_with_or_without_a_version(tmp_path):
    events = [event(scalar("a", i), step=step) for i, step in enumerate([5, 3, 5])]
    write(tmp_path / "with", [version(), *events])
    write(tmp_path / "without", events)
    for folder in ("with", "without"):
        assert read(tmp_path / folder).scalars["a"].step.tolist() == [5, 3, 5]


# Damage.

EVENTS = [
    version(),
    event(scalar("a", 1), step=1),
    event(tensor("t", "scalars", dtype="DT_DOUBLE", double_val=[2.5]), step=2),
    event(scalar("a", 3), scalar("b", 4), step=300),
    event({"tag": "h", "histo": {"bucket": [1.0] * 20}}, step=4),
    event(scalar("b", 5), step=5),
]
OFFSETS = [len(stream_of(EVENTS[:i])) for i in range(len(EVENTS) + 1)]


def points_of(events):
    """Return the points of events that always name a plugin and supersede nothing."""
    found = {}
    for e in events:
        for value in e.summary.value:
            number = value.tensor.double_val[0] if value.tag == "t" else value.simple_value
            if value.tag != "h":
                found.setdefault(value.tag, []).append((e.step, e.wall_time, number))
    return found


def test_a_file_cut_short_anywhere_gives_what_is_whole_and_a_warning(tmp_path):
    stream = stream_of(EVENTS)
    path = tmp_path / NAME
    for end in range(len(stream) + 1):
        path.write_bytes(stream[:end])
        run, caught = read_quietly(path)
        whole = [i for i in range(len(EVENTS)) if OFFSETS[i + 1] <= end]
        assert points(run) == points_of(EVENTS[i] for i in whole)
        at = OFFSETS[len(whole)]
        if at == end:
            assert caught == []
            continue
        (warning,) = caught
        assert warning.category is DamagedFileWarning
        assert warning.filename == __file__
        assert str(path) in str(warning.message)
        assert f"byte {at}:" in str(warning.message)
        assert run.damages == (Damage(str(path), at, end - at, "the record is cut short"),)


@given(st.integers(0, OFFSETS[-1] - 1), st.integers(1, 255))
def test_a_byte_changed_anywhere_costs_its_event_alone(tmp_path_factory, at, change):
    stream = bytearray(stream_of(EVENTS))
    stream[at] ^= change
    path = tmp_path_factory.mktemp("run") / NAME
    path.write_bytes(stream)
    run, (warning,) = read_quietly(path)
    hit = max(i for i in range(len(EVENTS)) if OFFSETS[i] <= at)
    assert points(run) == points_of(EVENTS[:hit] + EVENTS[hit + 1 :])
    (damage,) = run.damages
    assert (damage.offset, damage.size) == (OFFSETS[hit], OFFSETS[hit + 1] - OFFSETS[hit])
    assert f"byte {OFFSETS[hit]}:" in str(warning.message)


@settings(max_examples=200)
@given(st.data())
def test_whatever_is_overwritten_what_is_whole_is_returned(tmp_path_factory, data):
    stream = bytearray(stream_of(EVENTS))
    begin = data.draw(st.integers(0, len(stream) - 1))
    end = data.draw(st.integers(begin + 1, len(stream)))
    noise = data.draw(st.binary(min_size=end - begin, max_size=end - begin))
    stream[begin:end] = noise
    path = tmp_path_factory.mktemp("run") / NAME
    path.write_bytes(stream)
    run, caught = read_quietly(path)
    pieces = [bytes(stream[a:b]) for a, b in itertools.pairwise(OFFSETS)]
    whole = [frame(e.SerializeToString()) == p for e, p in zip(EVENTS, pieces, strict=True)]
    assert points(run) == points_of(e for e, intact in zip(EVENTS, whole, strict=True) if intact)
    lost = sum(len(p) for p, intact in zip(pieces, whole, strict=True) if not intact)
    assert sum(damage.size for damage in run.damages) == lost
    assert [str(warning.message) for warning in caught] == list(map(str, run.damages))


@settings(max_examples=200)
@given(st.data())
def test_bytes_cut_out_cost_the_events_they_are_taken_from(tmp_path_factory, data):
    stream = stream_of(EVENTS)
    begin = data.draw(st.integers(0, len(stream) - 1))
    end = data.draw(st.integers(begin + 1, len(stream)))
    path = tmp_path_factory.mktemp("run") / NAME
    path.write_bytes(stream[:begin] + stream[end:])
    run, _ = read_quietly(path)
    whole = [
        e
        for e, (a, b) in zip(EVENTS, itertools.pairwise(OFFSETS), strict=True)
        if b <= begin or a >= end
    ]
    assert points(run) == points_of(whole)


@given(st.binary(max_size=300))
def test_what_is_no_event_file_gives_an_empty_run(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("run") / "file"
    path.write_bytes(content)
    run, _ = read_quietly(path)
    assert (run.tags, run.scalars) == ({}, {})
    assert sum(damage.size for damage in run.damages) == len(content)


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_a_record_that_holds_no_event_costs_nothing_else(tmp_path_factory, payloads):
    stream = stream_of(EVENTS) + b"".join(map(frame, payloads)) + frame(b"\x0a\xff")
    path = tmp_path_factory.mktemp("run") / NAME
    path.write_bytes(stream + stream_of(EVENTS))
    run, caught = read_quietly(path)
    assert len(run.scalars["a"].step) >= 4
    assert points(run)["t"] == points_of(EVENTS)["t"] * 2
    assert run.damages[-1].offset + run.damages[-1].size == len(stream)
    assert "not an event" in str(caught[-1].message)


def test_each_damage_has_its_own_reason(tmp_path):
    stream = bytearray(stream_of(EVENTS))
    stream[OFFSETS[1]] ^= 1
    stream[OFFSETS[4] - 1] ^= 1
    path = tmp_path / NAME
    path.write_bytes(stream[:-1])
    run, caught = read_quietly(path)
    assert [damage.offset for damage in run.damages] == [OFFSETS[1], OFFSETS[3], OFFSETS[5]]
    header, checksum, end = (damage.reason for damage in run.damages)
    assert "header" in header
    assert "checksum" in checksum
    assert "short" in end
    assert len(caught) == 3


def test_damage_in_one_file_does_not_touch_the_others(tmp_path):
    write(tmp_path, EVENTS, "1.tfevents")
    torn = write(tmp_path, EVENTS, "2.tfevents")
    torn.write_bytes(torn.read_bytes()[:-1])
    write(tmp_path, EVENTS, "3.tfevents")
    run, (warning,) = read_quietly(tmp_path)
    assert run.scalars["b"].value.tolist() == [4, 5, 4, 4, 5]
    assert str(torn) in str(warning.message)


def test_a_file_is_read_in_pieces_and_a_record_may_be_longer_than_one(tmp_path):
    class Watched(io.BytesIO):
        sizes: tuple[int, ...] = ()

        def read(self, size=-1):
            self.sizes += (size,)
            return super().read(size)

    picture = {"tag": "i", "image": {"encoded_image_string": os.urandom(30 * CHUNK_SIZE)}}
    events = [EVENTS[1], event(picture), EVENTS[-1]]
    columns = Columns()
    stream = EventStream("", columns)
    file = Watched(stream_of(events))
    read_file(file, stream)
    assert columns.tags == {"a": "scalars", "i": "images", "b": "scalars"}
    assert stream.damages == []
    # A long record is read in pieces that become larger, not a chunk at a time.
    assert file.sizes[0] == CHUNK_SIZE
    assert len(file.sizes) < 10
    assert max(file.sizes) < 20 * CHUNK_SIZE


# File systems.


def test_a_folder_is_its_event_files_in_the_order_of_their_names(tmp_path):
    for name, value in (("b.tfevents", 2), ("tfevents.c", 3), ("a.out.tfevents.1.v2", 1)):
        write(tmp_path, [event(scalar("a", value))], name)
    write(tmp_path, [event(scalar("other", 1))], "d.tfevents.profile-empty")
    write(tmp_path, [event(scalar("other", 1))], "notes.txt")
    write(tmp_path / "below", [event(scalar("other", 1))])
    write(tmp_path / "folder.tfevents", [event(scalar("other", 1))])
    assert points(read(tmp_path)) == {"a": [(0, 1.5, 1.0), (0, 1.5, 2.0), (0, 1.5, 3.0)]}


def test_a_file_is_a_run_whatever_its_name(tmp_path):
    path = write(tmp_path, [event(scalar("a", 1))], "anything")
    assert list(read(path).scalars) == ["a"]


def test_a_path_is_a_string_a_path_or_a_url(tmp_path, monkeypatch):
    write(tmp_path / "runs" / "first", [event(scalar("a", 1))])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = [
        tmp_path / "runs/first",
        f"{tmp_path}/runs/first/",
        "runs/first",
        Path("runs/first"),
        f"file://{tmp_path}/runs/first",
        *(() if os.name == "nt" else ("~/runs/first",)),
    ]
    for path in paths:
        run = read(path)
        assert list(run.scalars) == ["a"]
        assert run.path == str(path)


def test_a_run_in_any_file_system_of_fsspec_is_read():
    url = "memory://test_readers/remote"
    with Writer(url) as writer:
        writer.add_scalar("a", 1.5, 3)
        writer.flush()
        assert read(url).scalars["a"].step.tolist() == [3]
        writer.add_scalar("a", 2.5, 4)
        writer.flush()
        assert read(url).scalars["a"].value.tolist() == [1.5, 2.5]
        writer.add_scalars("chart", {"left": 1}, 0)
    (file,) = (
        path for path in fsspec.filesystem("memory").ls(url, detail=False) if NAME[:19] in path
    )
    assert list(read(f"memory:/{file}").scalars) == ["a"]
    assert list(read_all(url)) == [".", "chart_left"]


def test_a_listing_that_a_file_system_keeps_is_not_trusted(monkeypatch):
    listings = {}
    list_anew = MemoryFileSystem.ls

    def ls(self, path, **kwargs):
        key = path, *kwargs.items()
        if key not in listings:
            listings[key] = list_anew(self, path, **kwargs)
        return listings[key]

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda _: listings.clear())
    for i in range(2):
        stream = stream_of([event(scalar(f"in file {i}", 1))])
        fsspec.filesystem("memory").pipe_file(f"/test_readers/listed/{i}.tfevents", stream)
        assert len(read("memory://test_readers/listed").tags) == i + 1
        assert listings


def test_storage_options_reach_the_file_system(tmp_path):
    write(tmp_path, [event(scalar("a", 1))])
    options = {"target_protocol": "file", "cache_storage": str(tmp_path / "cache")}
    run = read(f"simplecache://{tmp_path}", storage_options=options)
    assert list(run.scalars) == ["a"]
    assert os.listdir(tmp_path / "cache")  # noqa: PTH208 - only whether there is anything


@pytest.mark.skipif(os.name == "nt", reason="links are a privilege there")
def test_runs_that_are_linked_together_are_found(tmp_path):
    write(tmp_path / "elsewhere", [event(scalar("a", 1))])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(read_all(tmp_path / "runs")) == ["linked"]
    assert list(read(tmp_path / "runs" / "linked").scalars) == ["a"]


def test_read_all_names_runs_as_tensorboard_does(tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    for name in ("", "b", "a/train", "a/val"):
        write(tmp_path / name, [event(scalar(f"in {name}", 1))])
    (tmp_path / "empty").mkdir()
    runs = read_all(tmp_path)
    theirs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    assert list(runs) == sorted(theirs.Runs()) == [".", "a/train", "a/val", "b"]
    assert list(runs["a/train"].scalars) == ["in a/train"]
    assert runs["."].path == str(tmp_path)
    assert Path(runs["a/train"].path) == tmp_path / "a" / "train"


def test_read_all_of_a_folder_without_runs_is_empty_and_of_a_file_is_that_run(tmp_path):
    assert read_all(tmp_path) == {}
    path = write(tmp_path, [event(scalar("a", 1))])
    assert list(read_all(path)) == ["."]


def test_read_all_warns_in_the_callers_name(tmp_path):
    (tmp_path / NAME).write_bytes(b"torn")
    with pytest.warns(DamagedFileWarning, match="byte 0:") as caught:
        read_all(tmp_path)
    assert caught[0].filename == __file__


def test_a_folder_with_runs_below_it_names_some_of_them(tmp_path):
    for name in ("run0", "run1", "run2", "one/run3"):
        write(tmp_path / name, [event(scalar("a", 1))])
    with pytest.raises(InvalidValueError, match=r"one/run3, run0, run1, …; .*read_many"):
        read(tmp_path)
    with pytest.raises(InvalidValueError, match=r"below it: run3;"):
        read(tmp_path / "one")


def test_a_place_without_event_files_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InvalidValueError, match=f"no event files in .*{tmp_path.name}"):
        read(tmp_path)
    with pytest.raises(InvalidValueError, match=r"no file or folder .*missing"):
        read(tmp_path / "missing")
    with pytest.raises(InvalidValueError, match=r"no file or folder .*missing"):
        read("memory://test_readers/missing")
    with pytest.raises(InvalidValueError, match=r"no file or folder .*missing"):
        read_all(tmp_path / "missing")


def test_a_path_of_the_wrong_kind_and_an_unknown_scheme_are_errors():
    with pytest.raises(InvalidTypeError, match="got 3"):
        read(3)
    with pytest.raises(InvalidValueError, match="strange://place"):
        read("strange://place")


def test_a_missing_file_system_package_is_named(monkeypatch):
    known = {"class": "absent_package.Files", "err": "pip install absent"}
    monkeypatch.setitem(known_implementations, "absent", known)
    with pytest.raises(MissingDependencyError, match="pip install absent"):
        read("absent://bucket/run")


@pytest.mark.skipif(os.name == "nt", reason="links are a privilege there")
def test_a_file_that_cannot_be_opened_is_a_store_error_with_its_path(tmp_path):
    (tmp_path / NAME).symlink_to(tmp_path / "missing")
    with pytest.raises(StoreError, match=f"cannot read .*{NAME}: No such file") as caught:
        read(tmp_path)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


# Links, and what cannot be read.

links = pytest.mark.skipif(os.name == "nt", reason="links are a privilege there")
permissions = pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="root may read anything"
)


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@links
@pytest.mark.parametrize("target", [".", "..", "../..", "absolute", "/"])
def test_a_link_that_leads_up_is_not_followed(tmp_path, target):
    write(tmp_path / "runs" / "a", [event(scalar("a", 1))])
    link(tmp_path / "runs" / "a" / "up", tmp_path / "runs" if target == "absolute" else target)
    assert list(read_all(tmp_path / "runs")) == ["a"]
    assert list(read_all(f"local://{tmp_path}/runs")) == ["a"]


@links
def test_links_that_lead_to_each_other_end(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        write(tmp_path / name, [event(scalar(name, 1))])
        link(tmp_path / name / "other", tmp_path / other)
        link(tmp_path / name / "another", tmp_path / other)
        link(tmp_path / name / "root", tmp_path)
    link(tmp_path / "circle", tmp_path / "square")
    link(tmp_path / "square", tmp_path / "circle")
    assert list(read_all(tmp_path)) == ["a", "b"]


@links
def test_a_run_has_its_real_name_and_is_read_once(tmp_path):
    write(tmp_path / "runs" / "run-2", [event(scalar("a", 1))])
    write(tmp_path / "elsewhere" / "x", [event(scalar("a", 1))])
    link(tmp_path / "runs" / "latest", "run-2")
    link(tmp_path / "runs" / "linked", tmp_path / "elsewhere")
    link(tmp_path / "runs" / "linked again", tmp_path / "elsewhere")
    link(tmp_path / "runs" / "part", tmp_path / "elsewhere" / "x")
    link(tmp_path / "elsewhere" / "x" / "back", tmp_path / "elsewhere")
    link(tmp_path / "root", tmp_path / "runs")
    for root in ("runs", "root"):
        assert list(read_all(tmp_path / root)) == ["linked/x", "run-2"]
    assert list(read(tmp_path / "runs" / "latest").scalars) == ["a"]


@links
def test_a_file_is_read_once_in_a_run(tmp_path):
    path = write(tmp_path / "run", [event(scalar("a", 1))], "2.tfevents")
    link(tmp_path / "run" / "1.tfevents", path)
    link(tmp_path / "best" / "1.tfevents", path)
    link(tmp_path / "best" / "2.tfevents", path)
    runs = read_all(tmp_path)
    assert {name: len(run.scalars["a"].step) for name, run in runs.items()} == {"best": 1, "run": 1}


@links
def test_a_dangling_link_costs_itself_alone(tmp_path):
    write(tmp_path / "a", [event(scalar("a", 1))], "1.tfevents")
    write(tmp_path / "b", [event(scalar("b", 1))], "1.tfevents")
    link(tmp_path / "a" / "2.tfevents", tmp_path / "missing")
    link(tmp_path / "c" / "1.tfevents", tmp_path / "missing")
    link(tmp_path / "a" / "last.ckpt", tmp_path / "missing")
    with pytest.warns(DamagedFileWarning, match=r"tfevents: cannot be read .*: No such file"):
        runs = read_all(tmp_path)
    assert {name: list(run.scalars) for name, run in runs.items()} == {
        "a": ["a"],
        "b": ["b"],
        "c": [],
    }
    assert [damage.path for damage in runs["a"].damages] == [str(tmp_path / "a" / "2.tfevents")]
    assert runs["c"].damages[0][1:] == (0, 0, "No such file or directory")
    with pytest.warns(DamagedFileWarning):
        assert list(read(tmp_path / "a").scalars) == ["a"]
    with pytest.raises(StoreError, match=r"cannot read .*: No such file"):
        read(tmp_path / "c")


@pytest.mark.parametrize("root", ["{}", "local://{}"])
def test_a_file_that_vanishes_after_it_is_listed_costs_itself_alone(tmp_path, monkeypatch, root):
    gone = write(tmp_path / "a", [event(scalar("a", 1))])
    write(tmp_path / "b", [event(scalar("b", 1))])
    find_runs = readers.reading.find_runs

    def find_then_remove(*args, **options):
        found = list(find_runs(*args, **options))
        gone.unlink()
        return found

    monkeypatch.setattr(readers.reading, "find_runs", find_then_remove)
    with pytest.warns(DamagedFileWarning, match="No such file"):
        runs = read_all(root.format(tmp_path))
    assert [list(run.scalars) for run in runs.values()] == [[], ["b"]]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.ESTALE, errno.EIO])
def test_a_folder_that_cannot_be_listed_costs_itself_alone(tmp_path, monkeypatch, number):
    for name in "abc":
        write(tmp_path / name, [event(scalar(name, 1))])
    scandir = os.scandir

    def fail(path):
        if str(path).endswith("b"):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.warns(DamagedFileWarning, match=os.strerror(number)):
        runs = read_all(tmp_path)
    assert [list(run.scalars) for run in runs.values()] == [["a"], [], ["c"]]
    assert [damage.path for damage in runs["b"].damages] == [str(tmp_path / "b")]
    with pytest.raises(StoreError, match=f"cannot read .*b: {os.strerror(number)}"):
        read_all(tmp_path / "b")


@permissions
def test_a_file_and_a_folder_without_permission_cost_themselves_alone(tmp_path):
    for name in "abc":
        write(tmp_path / name, [event(scalar(name, 1))]).chmod(0o000 if name == "a" else 0o600)
    (tmp_path / "b").chmod(0o000)
    try:
        with pytest.warns(DamagedFileWarning, match="Permission denied"):
            runs = read_all(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
    assert [len(run.damages) for run in runs.values()] == [1, 1, 0]


class Failing(io.RawIOBase):
    """A file whose disk fails after the first bytes."""

    def __init__(self, data, error):
        super().__init__()
        self.data = data
        self.error = error

    def readable(self):
        return True

    def read(self, size=-1):
        data, self.data = self.data, b""
        if not data:
            raise self.error
        return data


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), RuntimeError("odd")])
def test_a_file_that_fails_while_it_is_read_keeps_what_came_before(monkeypatch, error):
    good = stream_of([event(scalar("a", 1))] * 3)
    files = fsspec.filesystem("memory")
    for name in "ab":
        files.pipe_file(f"/test_readers/failing/{name}/1.tfevents", good)
    open_file = MemoryFileSystem.open

    def fail(self, path, *args, **kwargs):
        if "/a/" in path:
            return Failing(good[:-5], error)
        return open_file(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "open", fail)
    with pytest.warns(DamagedFileWarning, match=str(error.args[-1])):
        runs = read_all("memory://test_readers/failing")
    assert [len(run.scalars["a"].step) for run in runs.values()] == [2, 3]
    (damage,) = runs["a"].damages
    assert (damage.offset, damage.size) == (len(good) * 2 // 3, 0)


def test_a_foreign_error_of_a_file_system_is_a_store_error(monkeypatch):
    files = fsspec.filesystem("memory")
    for name in "ab":
        files.pipe_file(f"/test_readers/foreign/{name}/1.tfevents", stream_of([]))
    ls = MemoryFileSystem.ls

    def fail(self, path, *args, **kwargs):
        if path.endswith(fail.at):
            raise RuntimeError("HTTP 500 of s3://me:hush@host")
        return ls(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    fail.at = "/b"
    with pytest.warns(DamagedFileWarning, match="HTTP 500"):
        assert list(read_all("memory://test_readers/foreign")) == ["a", "b"]
    fail.at = "/foreign"
    with pytest.raises(StoreError, match="RuntimeError: HTTP 500 of s3://me@host"):
        read_all("memory://test_readers/foreign")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes there")
def test_a_pipe_and_a_device_are_not_waited_for(tmp_path):
    write(tmp_path / "a", [event(scalar("a", 1))])
    os.mkfifo(tmp_path / "a" / "pipe.tfevents")
    link(tmp_path / "a" / "zero.tfevents", "/dev/zero")
    with pytest.warns(DamagedFileWarning, match="not a regular file"):
        run = read(tmp_path / "a")
    assert list(run.scalars) == ["a"]
    assert len(run.damages) == 2


# The methods of a run.


def test_a_table_has_a_row_for_each_point(tmp_path):
    pd = pytest.importorskip("pandas")
    write(
        tmp_path,
        [
            event(scalar("b", 1), scalar("a", 0.5), step=1),
            event(scalar("b", 2), step=2, wall_time=2.5),
            event({"tag": "h", "histo": {}}),
        ],
    )
    run = read(tmp_path)
    expected = pd.DataFrame(
        {
            "tag": ["b", "b", "a"],
            "step": np.array([1, 2, 1], np.int64),
            "wall_time": [1.5, 2.5, 1.5],
            "value": [1.0, 2.0, 0.5],
        }
    )
    pd.testing.assert_frame_equal(run.to_pandas(), expected)
    wide = run.to_pandas().pivot_table(index="step", columns="tag", values="value")
    assert wide["b"].tolist() == [1.0, 2.0]


def test_a_table_of_no_points_has_its_columns(tmp_path):
    pytest.importorskip("pandas")
    write(tmp_path, [version()])
    table = read(tmp_path).to_pandas()
    assert list(table.columns) == ["tag", "step", "wall_time", "value"]
    assert len(table) == 0
    assert table["step"].dtype == np.int64


def test_without_pandas_the_error_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path, [version()])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sm-tblog\[pandas\]'"):
        read(tmp_path).to_pandas()


def test_a_run_shows_what_it_is_and_not_all_it_has(tmp_path):
    write(tmp_path, EVENTS)
    assert repr(read(tmp_path)) == f"<Run {str(tmp_path)!r}: 4 tags, 5 scalars>"


def test_the_package_offers_the_reader():
    assert sm_tblog.read is readers.read
    assert sm_tblog.Run is readers.Run
    assert sorted(readers.__all__) == readers.__all__
    assert all(hasattr(readers, name) for name in readers.__all__)
