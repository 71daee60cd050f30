"""Decoding in batches gives what decoding one record at a time gives, on streams of every kind."""

from __future__ import annotations

import struct
import warnings
from unittest.mock import patch

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from sm_tblog._errors import CorruptRecordError
from sm_tblog._types import Series
from sm_tblog.format import schema
from sm_tblog.format.record_scan import scan_records
from sm_tblog.format.records import FOOTER, HEADER, Unframer, frame, frame_header
from sm_tblog.format.scalars import encode_scalar
from sm_tblog.readers import DamagedFileWarning, read_all
from sm_tblog.readers.columns import Columns
from sm_tblog.readers.elements import maybe_number
from sm_tblog.readers.event_stream import EventStream
from sm_tblog.readers.record_period import find_period

# A reader without any batches, to compare with.


def read_one_by_one(data):  # noqa: C901 - one loop, as plain as possible
    """Return the tags, points and skipped bytes of a stream."""
    tags, points, starts, skipped, count = {}, {}, [], [], 0
    end, reasons = 0, []
    unframer = Unframer()
    unframer.feed(data)
    kinds = {"simple_value": "scalars", "histo": "histograms", "tensor": "tensors"}
    while True:
        try:
            for offset, content in unframer:
                try:
                    event = schema.Event.FromString(content)
                except DecodeError:
                    reasons.append("the record's data are not an event")
                    continue
                if offset > end:
                    skipped.append((end, offset - end, reasons[0]))
                reasons.clear()
                end = offset + HEADER + len(content) + FOOTER
                if event.session_log.status == schema.SessionLog.START:
                    starts.append((count, event.step))
                for value in event.summary.value:
                    plugin = value.metadata.plugin_data.plugin_name
                    kind = plugin or kinds.get(value.WhichOneof("value"), "")
                    first = tags.setdefault(value.tag, kind)
                    number = None
                    if value.HasField("simple_value"):
                        number = value.simple_value
                    elif value.HasField("tensor") and (plugin or first) == "scalars":
                        number = maybe_number(value.tensor)
                    if number is not None:
                        point = (count, event.step, event.wall_time, number)
                        points.setdefault(value.tag, []).append(point)
                        count += 1
        except CorruptRecordError as error:
            reasons.append(str(error))
            continue
        if unframer.pending < HEADER:
            break
        unframer.skip()
        reasons.append("the record is cut short")
    size = unframer.offset + unframer.pending - end
    if size:
        skipped.append((end, size, [*reasons, "the record is cut short"][0]))

    def is_superseded(number, step):
        return any(number < before and step >= start for before, start in starts)

    kept = {
        tag: [point[1:] for point in found if not is_superseded(*point[:2])]
        for tag, found in points.items()
    }
    return tags, kept, skipped


def read_in_batches(data, sizes=(1 << 22,), window=1 << 16):
    with patch("sm_tblog.readers.record_shapes._MIN_WINDOW", window):
        return _read_in_batches(data, sizes)


def _read_in_batches(data, sizes):
    columns = Columns()
    stream = EventStream("file", columns)
    position = 0
    for i in range(len(data)):
        if position >= len(data):
            break
        size = sizes[i % len(sizes)]
        stream.feed(data[position : position + size])
        position += size
        assert stream.offset == min(position, len(data))
    stream.finish()
    points = {
        tag: list(zip(*(column.tolist() for column in scalars), strict=True))
        for tag, scalars in columns.points.scalars().items()
    }
    return columns.tags, points, [tuple(damage)[1:] for damage in stream.damages]


def assert_equal(found, expected):
    assert list(found[0].items()) == list(expected[0].items())
    assert list(found[1]) == list(expected[1])
    for tag, points in expected[1].items():
        np.testing.assert_array_equal(found[1][tag], points)
    assert found[2] == expected[2]


# Streams.


def event(*values, step=0, wall_time=1.5):
    return schema.Event(wall_time=wall_time, step=step, summary={"value": values})


def simple(tag, step, number):
    return event({"tag": tag, "simple_value": number}, step=step, wall_time=step / 3)


def tensorflow_1(tag, step, number):
    values = [{"tag": f"{tag}/{i}", "simple_value": number + i} for i in range(3)]
    return event(*values, step=step, wall_time=step / 3)


def tensorflow_2(tag, step, number):
    content = struct.pack("<f", number)
    metadata = {"plugin_data": {"plugin_name": "scalars"}, "data_class": 1}
    tensor = {"dtype": "DT_FLOAT", "tensor_shape": {}, "tensor_content": content}
    return event({"tag": tag, "tensor": tensor, "metadata": metadata}, step=step)


def integer(tag, step, number):
    content = struct.pack("<q", int(number) * 3)
    tensor = {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": 1}]}}
    metadata = {"plugin_data": {"plugin_name": "scalars"}}
    value = {"tag": tag, "tensor": {**tensor, "tensor_content": content}, "metadata": metadata}
    return event(value, step=step)


def float_val(tag, step, number):
    tensor = {"dtype": "DT_FLOAT", "float_val": [number]}
    return event({"tag": tag, "tensor": tensor}, step=step)


def described(tag, step, number):
    metadata = {"summary_description": tag * 3, "display_name": tag}
    return event({"tag": tag, "simple_value": number, "metadata": metadata}, step=step)


def other_plugin(tag, step, number):
    tensor = {"dtype": "DT_FLOAT", "float_val": [number]}
    metadata = {"plugin_data": {"plugin_name": "pr_curves"}}
    return event({"tag": tag, "tensor": tensor, "metadata": metadata}, step=step)


def mixed(tag, step, number):
    histogram = {"tag": f"{tag}/h", "histo": {"bucket": [number]}}
    return event({"tag": tag, "simple_value": number}, histogram, step=step)


def twice(tag, step, number):
    return event(*[{"tag": tag, "simple_value": number + i} for i in range(2)], step=step)


def restart(tag, step, number):
    return schema.Event(step=step, wall_time=1.0, session_log={"status": "START"})


def nested(tag, step, number):
    inside = frame(simple(tag, step, number).SerializeToString()) * 2
    tensor = {"dtype": "DT_STRING", "string_val": [inside]}
    return event({"tag": f"{tag}/text", "tensor": tensor}, step=step)


def ours(**options):
    def encode(tag, step, number):
        return encode_scalar(Series(tag, **options), step, 1.7e9 + step / 7, number)

    return encode


def not_an_event(tag, step, number):
    return frame(b"\x09" + struct.pack("<d", number) + b"\x10" + b"\xff" * (5 + len(tag)))


def long(tag, step, number):
    return event({"tag": tag * 2000, "simple_value": number}, step=step)


KINDS = [
    simple, tensorflow_1, tensorflow_2, integer, float_val, described, other_plugin, mixed, twice,
    restart, nested, not_an_event, long,
    ours(), ours(tensor=True), ours(double=True), ours(description="*what* it is"),
]  # fmt: skip

numbers = st.floats(width=32, min_value=-1e6, max_value=1e6)
tags = st.sampled_from(["a", "b", "c", "loss", "lass", "é", "", "a/b/c", "t" * 100, "\0" * 9])
steps = st.sampled_from([0, 1, 100, 120, 127, 16_380, 2**21 - 5, 2**35, -5, 2**63 - 200, -(2**63)])
blocks = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(KINDS), tags), min_size=1, max_size=5),
        steps,
        numbers,
        st.integers(1, 25),
    ),
    max_size=5,
)


def records_of(parts):
    """Return records: each part repeats its series for some steps."""
    records = []
    for series, first_step, number, count in parts:
        for i in range(count):
            for kind, tag in series:
                record = kind(tag, first_step + i, number + i)
                is_event = not isinstance(record, bytes)
                records.append(frame(record.SerializeToString()) if is_event else record)
    return records


@settings(max_examples=100, deadline=None)
@given(blocks)
def test_records_of_every_kind(parts):
    data = b"".join(records_of(parts))
    assert_equal(read_in_batches(data), read_one_by_one(data))


@settings(max_examples=60, deadline=None)
@given(blocks, st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_chunks_of_any_size(parts, sizes):
    data = b"".join(records_of(parts))
    assert_equal(read_in_batches(data, sizes, 400), read_one_by_one(data))


loops = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(KINDS[-4:] + KINDS[:5]), tags), min_size=1, max_size=3),
        steps,
        numbers,
        st.integers(20, 150),
    ),
    min_size=1,
    max_size=4,
)


def picture(tag, step, number):
    content = bytes(20_000 + step % 100)
    return event({"tag": f"{tag}/i", "image": {"encoded_image_string": content}}, step=step)


@settings(max_examples=60, deadline=None)
@given(blocks, st.lists(st.floats(0, 1), min_size=1, max_size=5), st.booleans())
def test_following_a_file_gives_what_reading_it_gives(tmp_path_factory, parts, cuts, has_picture):
    extra = [([(picture, "p")], 7, 0.0, 1)] if has_picture else []
    data = b"".join(records_of([*parts[:2], *extra, *parts[2:]]))
    folder = tmp_path_factory.mktemp("run")
    path = folder / "events.out.tfevents.1.host"
    ends = sorted(int(cut * len(data)) for cut in cuts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedFileWarning)
        path.write_bytes(data[: ends[0]])
        followed = read_all(folder)["."]
        for end in [*ends[1:], len(data)]:
            path.write_bytes(data[:end])
            followed.refresh()
        whole = read_all(folder)["."]
    assert followed.tags == whole.tags
    assert followed.damages == whole.damages
    assert list(followed.scalars) == list(whole.scalars)
    for tag, points in whole.scalars.items():
        np.testing.assert_array_equal(followed.scalars[tag], points)


@settings(max_examples=60, deadline=None)
@given(loops, st.lists(st.integers(500, 9000), min_size=1, max_size=3), st.integers(100, 3000))
def test_loops_that_repeat_a_sequence(parts, sizes, window):
    data = b"".join(records_of(parts))
    assert_equal(read_in_batches(data, sizes, window), read_one_by_one(data))


@settings(max_examples=60, deadline=None)
@given(
    loops,
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.lists(st.integers(500, 20_000), min_size=1, max_size=3),
)
def test_a_changed_byte_anywhere_in_a_loop(parts, changes, sizes):
    data = bytearray(b"".join(records_of(parts)))
    for place, octet in changes:
        data[min(int(place * len(data)), len(data) - 1)] = octet
    assert_equal(read_in_batches(bytes(data), sizes, 300), read_one_by_one(bytes(data)))


@settings(max_examples=100, deadline=None)
@given(
    blocks,
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=40)), max_size=4),
    st.lists(st.integers(1, 5000), min_size=1, max_size=3),
)
def test_damage_anywhere(parts, damages, sizes):
    data = bytearray(b"".join(records_of(parts)))
    for place, kind, octets in damages:
        at = int(place * len(data))
        if kind == 0:
            data[at : at + len(octets)] = octets  # replaced
        elif kind == 1:
            data[at:at] = octets  # inserted
        elif kind == 2:
            del data[at : at + len(octets)]
        else:
            del data[at:]
    data = bytes(data)
    assert_equal(read_in_batches(data, sizes), read_one_by_one(data))


def test_a_record_of_a_batch_whose_value_is_damaged_is_skipped():
    encode = ours()
    records = [encode("loss", step, 0.5) for step in range(100)]
    damaged = bytearray(records[40])
    damaged[-6] ^= 1
    data = b"".join([*records[:40], damaged, *records[41:]])
    _, points, skipped = read_in_batches(data)
    assert [step for step, _, _ in points["loss"]] == [*range(40), *range(41, 100)]
    assert skipped == [(sum(map(len, records[:40])), len(damaged), skipped[0][2])]


def test_every_bit_of_a_record_that_repeats_a_sequence_matters():
    encode = ours()
    records = [encode(f"loss_{step % 3}", 128 + step // 3, step) for step in range(90)]
    begin, end = sum(map(len, records[:60])), sum(map(len, records[:61]))
    for at in range(begin, end):
        data = bytearray(b"".join(records))
        data[at] ^= 1 << at % 8
        found = read_in_batches(bytes(data), window=300)
        assert_equal(found, read_one_by_one(bytes(data)))
        assert found[2], f"the change of byte {at - begin} was not noticed"


def test_most_records_of_a_loop_repeat_its_sequence(monkeypatch):
    counts = {"repeated": 0, "scanned": 0}
    add_repeated, add_records = Columns.add_repeated, Columns.add_records

    def count_repeated(self, data):
        end = add_repeated(self, data)
        counts["repeated"] += end
        return end

    def count_scanned(self, data, starts, lengths, *rest):
        counts["scanned"] += int(lengths.sum())
        return add_records(self, data, starts, lengths, *rest)

    monkeypatch.setattr(Columns, "add_repeated", count_repeated)
    monkeypatch.setattr(Columns, "add_records", count_scanned)
    encode = ours()
    records = []
    for step in range(30_000):
        records += [encode(f"train/{tag}", step, tag) for tag in range(3)]
        if step % 100 == 0:
            records.append(encode("evaluation/loss", step, 0.5))
    read_in_batches(b"".join(records), [1 << 20])
    assert counts["repeated"] > 5 * counts["scanned"]


@pytest.mark.parametrize(
    ("history", "period"),
    [
        ([], 0),
        ([0], 0),
        ([0, 0], 1),
        ([0, 1, 0], 0),
        ([2, 0, 1, 0, 1], 2),
        ([0, 1, 0, 1, 2], 0),
        ([0, 1, -1, 0, 1, -2], 0),
        ([0, 1, -1, 0, 1, 0, 1], 2),
        ([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0], 4),
        ([7, 0, 1, 2, 1, 0, 1, 2, 1], 4),
        ([0, 1, 2, 5, 0, 1, 2, 0, 1, 2], 3),
    ],
)
def test_the_period_of_a_sequence(history, period):
    assert find_period(np.array(history, np.intp)) == period


def test_many_tags_of_one_length():
    encode = ours()
    data = b"".join(
        encode(f"expert_{tag:05}", step, tag) for step in range(3) for tag in range(3000)
    )
    assert_equal(read_in_batches(data), read_one_by_one(data))


def test_a_claim_of_gigabytes_takes_no_memory():
    encode = ours()
    claim = frame(bytes(100))[:HEADER]
    records = [encode("loss", step, 1.0) for step in range(20)]
    for length in (2**31 - 1, 2**31, 2**40, 2**63, 2**64 - 1):
        data = b"".join([*records[:10], frame_header(length), *records[10:], claim])
        assert_equal(read_in_batches(data, [64]), read_one_by_one(data))


# Scanning.


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([bytes(5000), bytes(70_000)]))))
def test_scanning_finds_every_record(contents):
    data = b"".join(map(frame, contents))
    starts, lengths = scan_records(memoryview(data))
    assert lengths.tolist() == [len(content) for content in contents]
    sizes = [len(frame(content)) for content in contents]
    assert starts.tolist() == np.cumsum([0, *sizes[:-1]]).tolist() if sizes else not len(starts)


@pytest.mark.parametrize("end", range(0, 60, 7))
def test_scanning_ends_before_a_record_that_is_cut_short(end):
    data = frame(b"x" * 20) * 3
    cut = data[: 2 * 36 + end] if end < 36 else data
    starts, _ = scan_records(cut)
    assert starts.tolist() == [0, 36, 72][: len(cut) // 36]
