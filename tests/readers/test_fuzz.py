"""Damaged and hostile files: no foreign exception, bounded work and memory, nothing whole is lost.

Work is counted in bytes that are checksummed, searched or scanned, so the tests do not depend on
the speed of the machine.
"""

import functools
import io
import random
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.scalar.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

import sm_tblog
from sm_tblog.format import range_checksums, schema
from sm_tblog.format.records import FOOTER, HEADER, Unframer, frame, frame_header
from sm_tblog.readers import columns as columns_module
from sm_tblog.readers import event_stream, read_all
from sm_tblog.readers.columns import Columns
from sm_tblog.readers.event_stream import EventStream
from sm_tblog.readers.events import read_file
from sm_tblog.readers.run import DamagedFileWarning

# Real files.


def log_with(writer):
    generator = np.random.default_rng(0)
    for step in range(40):
        for tag in ("loss", "accuracy", "learning_rate"):
            writer.add_scalar(tag, step / 7, step)
        if step % 10 == 0:
            writer.add_histogram("weights", generator.normal(size=100), step)
            writer.add_text("note", f"step **{step}**", step)
            writer.add_scalar("evaluation", 0.5, step)
    writer.close()


def write_tensorflow(path):
    metadata = create_summary_metadata("", "")
    with path.open("wb") as file:
        records = RecordWriter(file)
        version = event_pb2.Event(wall_time=1.5, file_version="brain.Event:2")
        records.write(version.SerializeToString())
        for number in range(150):
            event = event_pb2.Event(wall_time=number / 3, step=number // 3)
            added = event.summary.value.add(tag=f"tag_{number % 3}", metadata=metadata)
            added.tensor.dtype = 1
            added.tensor.tensor_shape.SetInParent()
            added.tensor.tensor_content = struct.pack("<f", number)
            records.write(event.SerializeToString())


def write_with(writer, folder):
    if writer == "TensorFlow 2":
        write_tensorflow(folder / "events.tfevents")
    elif writer == "sm_tblog":
        log_with(sm_tblog.Writer(folder))
    elif writer == "torch":
        log_with(pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(folder)))
    else:
        log_with(pytest.importorskip("tensorboardX").SummaryWriter(str(folder)))


WRITERS = ("sm_tblog", "torch", "tensorboardX", "TensorFlow 2")


@pytest.fixture(scope="module")
def real_file(tmp_path_factory):
    @functools.cache
    def read(writer):
        folder = tmp_path_factory.mktemp("real")
        write_with(writer, folder)
        (path,) = folder.glob("*tfevents*")
        return path.read_bytes()

    return read


def records_in(data):
    """Return the start and the end of each record, and its scalars: tag, step and wall time."""
    unframer = Unframer()
    unframer.feed(data)
    found = []
    for offset, content in unframer:
        event = schema.Event.FromString(content)
        tags = [value.tag for value in event.summary.value if is_scalar(value)]
        points = [(tag, event.step, event.wall_time) for tag in tags]
        found.append((offset, offset + HEADER + len(content) + FOOTER, points))
    return found


def is_scalar(value):
    plugin = value.metadata.plugin_data.plugin_name
    return value.HasField("simple_value") or plugin == "scalars"


# Mutations. Each byte carries its offset in the original, so records that stayed whole are known.

junk = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.integers(0, 2000).map(bytes),
    # Headers with a valid checksum that claim anything.
    st.sampled_from([0, 1, 40, 5000, 70_000, 2**20, 2**31 - 1, 2**31, 2**40, 2**63, 2**64 - 1]).map(
        frame_header
    ),
    # Whole records that are not events, or hard to decode.
    st.integers(1, 3000).map(lambda depth: frame(b"\x0b" * depth)),
    st.integers(1, 300).map(lambda depth: frame(b"\x0b" * depth + b"\x0c" * depth)),
    st.integers(1, 30).map(lambda count: frame(b"\x10" + b"\xff" * count)),
    st.just(frame(b"\x09" + bytes(8) + b"\x2a\xff\xff\xff\xff\x0f")),
    st.binary(max_size=80).map(frame),
)
mutations = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "nest", "repeat", "cut"]),
        st.floats(0, 1),
        st.integers(1, 400),
        junk,
    ),
    min_size=1,
    max_size=6,
)


def mutate(data, changes):
    """Return the bytes, and the offset in ``data`` of each, -1 for a byte that is new."""
    octets = np.frombuffer(data, np.uint8).copy()
    origins = np.arange(len(octets))
    for kind, place, size, added in changes:
        at = int(place * len(octets))
        inserted = added
        if kind == "flip" and at < len(octets):
            octets[at] ^= 1 << size % 8
            origins[at] = -1
        elif kind == "delete":
            octets = np.delete(octets, slice(at, at + size))
            origins = np.delete(origins, slice(at, at + size))
        elif kind == "cut" and size < 20:
            octets, origins = octets[:at], origins[:at]
        else:
            if kind == "nest":  # an event file within a text
                tensor = {"dtype": "DT_STRING", "string_val": [data[: size * 10]]}
                value = {"tag": "nested", "tensor": tensor}
                event = schema.Event(wall_time=1.0, summary={"value": [value]})
                inserted = frame(event.SerializeToString())
            elif kind == "repeat":
                inserted = data[at : at + size]
            octets = np.insert(octets, at, np.frombuffer(inserted, np.uint8))
            origins = np.insert(origins, at, np.full(len(inserted), -1))
    return octets.tobytes(), origins


def whole_records(records, origins):
    """Return the scalars of the records of which no byte was touched."""
    places = {int(origin): place for place, origin in enumerate(origins) if origin >= 0}
    for start, end, points in records:
        place = places.get(start)
        if place is not None and np.array_equal(
            origins[place : place + end - start], np.arange(start, end)
        ):
            yield from points


def points_of(run):
    return {
        (tag, step, wall_time)
        for tag, scalars in run.scalars.items()
        for step, wall_time in zip(scalars.step.tolist(), scalars.wall_time.tolist(), strict=True)
    }


def read_quietly(path):
    """Read a run; any other warning than that of a damaged file is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DamagedFileWarning)
        return sm_tblog.read(path, restarts="raw")


@pytest.mark.parametrize("writer", WRITERS)
@settings(max_examples=25, deadline=None)
@given(changes=mutations)
def test_all_records_that_stay_whole_are_read(writer, changes, real_file, tmp_path_factory):
    original = real_file(writer)
    data, origins = mutate(original, changes)
    path = tmp_path_factory.getbasetemp() / f"mutated.tfevents.{writer}"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        run = read_quietly(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(whole_records(records_in(original), origins)) <= points_of(run)
    assert peak < 16_000_000 + 60 * len(data)
    assert sum(damage.size for damage in run.damages) <= len(data)


# Hostile files.


@pytest.fixture
def work(monkeypatch):
    """Count the bytes that are checksummed, searched, scanned and decoded."""
    done = {"bytes": 0}

    def counted(function, size):
        @functools.wraps(function)
        def counting(*args):
            done["bytes"] += size(*args)
            return function(*args)

        return counting

    def searched(data):
        found = find_header(data)
        # A search ends soon after the header.
        return len(data) if found is None else 2 * found + 300

    find_header = event_stream.find_header
    monkeypatch.setattr(event_stream, "find_header", counted(find_header, searched))
    scan = event_stream.scan_records
    monkeypatch.setattr(
        event_stream, "scan_records", counted(scan, lambda data, limit: min(len(data), limit))
    )
    checksum = columns_module.masked_crc32c
    monkeypatch.setattr(columns_module, "masked_crc32c", counted(checksum, len))

    class Checksums:
        @staticmethod
        def crc32c(data, value=0):
            done["bytes"] += len(data)
            return crc32c(data, value)

    crc32c = range_checksums._crc32c.crc32c
    monkeypatch.setattr(range_checksums, "_crc32c", Checksums)
    add_repeated = Columns.add_repeated
    monkeypatch.setattr(Columns, "add_repeated", counted(add_repeated, lambda self, data: 16_384))
    return done


def scalar_record(step, tag="loss"):
    value = {"tag": tag, "simple_value": 0.5}
    event = schema.Event(wall_time=1.0, step=step, summary={"value": [value]})
    return frame(event.SerializeToString())


def claims_of_the_rest(size):
    """Return records, before each a header that claims all bytes up to the end of the file."""
    parts = []
    rest = size
    while rest > 100:
        record = scalar_record(len(parts))
        rest -= HEADER + len(record)
        parts.append(frame_header(max(rest + len(record) - FOOTER, 0)) + record)
    return b"".join(parts)


def claims_of_half(size):
    """Return headers that claim half of the file each, so that most are complete."""
    return frame_header(size // 2) * (size // HEADER)


def claims_of_60_kb(size):
    return frame_header(60_000) * (size // HEADER)


def claims_between_runs_of_records(size):
    claim = frame_header(size // 3)
    records = b"".join(scalar_record(step) for step in range(70))
    return (claim + records) * (size // (len(claim) + len(records)))


def damaged_records(size):
    record = bytearray(scalar_record(3))
    record[-1] ^= 1
    return bytes(record) * (size // len(record))


def every_other_record_is_damaged(size):
    record = scalar_record(3)
    damaged = bytes([*record[:-1], record[-1] ^ 1])
    return (record + damaged) * (size // len(record) // 2)


def zeros(size):
    return bytes(size)


def headers_in_headers(size):
    """Return records of records of records."""
    data = scalar_record(1)
    while len(data) < size:
        data = frame(data) + scalar_record(2)
    return data[:-1] + b"\xff"


def empty_records(size):
    return frame(b"") * (size // (HEADER + FOOTER))


def restarts(size):
    parts = []
    for step in range(size // 60):
        start = schema.Event(step=size - step, session_log={"status": "START"})
        parts += [scalar_record(step), frame(start.SerializeToString())]
    return b"".join(parts)


def many_layouts(size):
    """Return records of equal length whose fields lie at ever different places."""
    parts = []
    for number in range(size // 120):
        name = number % 50
        metadata = {"display_name": "d" * name, "summary_description": "s" * (50 - name)}
        value = {"tag": "t", "simple_value": 1.0, "metadata": metadata}
        parts.append(frame(schema.Event(wall_time=1.0, summary={"value": [value]})
                           .SerializeToString()))  # fmt: skip
    return b"".join(parts)


HOSTILE = [
    claims_of_the_rest, claims_of_half, claims_of_60_kb, claims_between_runs_of_records,
    damaged_records, every_other_record_is_damaged, zeros, headers_in_headers, empty_records,
    restarts, many_layouts,
]  # fmt: skip


def read_stream(data):
    columns = Columns()
    stream = EventStream("file", columns)
    read_file(io.BytesIO(data), stream)
    columns.points.scalars()
    return columns, stream


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_work_grows_with_the_size_of_the_file(hostile, work, monkeypatch):
    monkeypatch.setattr(range_checksums, "_BLOCK", 1 << 10)
    counts = []
    for size in (100_000, 400_000):
        work["bytes"] = 0
        data = hostile(size)
        read_stream(data)
        counts.append(work["bytes"] / len(data))
    # Four times as many bytes may cost each byte a little more, but not four times as much.
    assert counts[1] < 2.5 * counts[0] + 10


@pytest.mark.parametrize("hostile", HOSTILE)
def test_memory_is_limited_by_the_size_of_the_file(hostile):
    read_stream(hostile(1000))  # tables that are made once
    data = hostile(60_000)
    tracemalloc.start()
    try:
        read_stream(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000 + 60 * len(data)


def test_records_behind_claims_are_read():
    data = claims_of_the_rest(100_000)
    columns, _ = read_stream(data)
    steps = columns.points.scalars()["loss"].step.tolist()
    assert steps == list(range(data.count(b"loss")))


def test_a_claim_does_not_make_the_reader_ask_for_gigabytes():
    class Watched(io.BytesIO):
        largest = 0

        def read(self, size=-1):
            self.largest = max(self.largest, size)
            return super().read(size)

    file = Watched(frame_header(2**31 - 1) + bytes(3_000_000))
    read_file(file, EventStream("file", Columns()))
    assert file.largest < 5_000_000


def test_thousands_of_files_most_of_them_damaged(tmp_path):
    generator = random.Random(0)
    record = scalar_record(1)
    for number in range(2000):
        content = bytearray(record * 3)
        if number % 3:
            content[generator.randrange(len(content))] ^= 0x40
        Path(tmp_path, f"{number:05}.tfevents").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedFileWarning)
        (run,) = read_all(tmp_path).values()
    intact = len(run.scalars["loss"].step)
    assert 3 * 2000 - 1400 <= intact <= 3 * 2000
    assert len({damage.path for damage in run.damages}) <= 1400


def test_a_refreshed_file_with_a_claim_at_its_end_is_not_read_again(tmp_path, work):
    path = tmp_path / "events.tfevents"
    path.write_bytes(scalar_record(0) + frame_header(2**30))
    run = read_quietly(path)
    for step in range(1, 20):
        with path.open("ab") as file:
            file.write(scalar_record(step))
        run.refresh()
    assert set(run.scalars["loss"].step.tolist()) == set(range(20))
    assert len(run.scalars["loss"].step) == 20
