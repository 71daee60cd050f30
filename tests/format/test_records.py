"""Records with any bytes, in any chunks, complete or damaged."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sm_tblog import CorruptRecordError
from sm_tblog.format.records import (
    FOOTER,
    HEADER,
    Record,
    Unframer,
    find_header,
    frame,
    frame_header,
    read_header,
)

payloads = st.lists(st.binary(max_size=200), max_size=8)
"""Data of records. Hypothesis tries all zeros and no data at all first."""


def stream_of(payloads):
    """Return the payloads as one stream, and the records that a reader must find in it."""
    records, stream = [], b""
    for data in payloads:
        records.append(Record(len(stream), data))
        stream += frame(data)
    return stream, records


def end_of(record):
    return record.offset + HEADER + len(record.data) + FOOTER


def drain(unframer):
    """Return the records in the bytes fed so far, and the errors."""
    records, errors = [], []
    while True:
        try:
            for record in unframer:
                records.append(record)  # noqa: PERF402 - those before an error count
        except CorruptRecordError as error:  # noqa: PERF203 - an error is not the end
            errors.append(error)
        else:
            return records, errors


def unframe(stream, pieces=()):
    """Read a stream cut at the offsets ``pieces``."""
    unframer = Unframer()
    records, errors = [], []
    cuts = [0, *sorted(min(cut, len(stream)) for cut in pieces), len(stream)]
    for start, end in itertools.pairwise(cuts):
        unframer.feed(stream[start:end])
        found, met = drain(unframer)
        records += found
        errors += met
    return records, errors, unframer


def test_a_record_is_its_length_its_data_and_the_masked_checksum_of_each():
    # CRC-32C of "123456789" is e3069283 (RFC 3720, the check value of every catalogue of CRCs).
    masked = ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    record = frame(b"123456789")
    assert record[:8] == struct.pack("<Q", 9)
    assert record[:12] == frame_header(9)
    assert record[12:21] == b"123456789"
    assert record[21:] == struct.pack("<I", masked)


@given(payloads)
def test_tensorboards_reader_finds_the_same_records(tmp_path_factory, payloads):
    from tensorboard.compat import tf
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    stream, records = stream_of(payloads)
    path = tmp_path_factory.mktemp("records") / "file"
    path.write_bytes(stream)
    theirs = PyRecordReader_New(str(path))
    for record in records:
        theirs.GetNext()
        assert theirs.record() == record.data
    with pytest.raises(tf.errors.OutOfRangeError):
        theirs.GetNext()
    theirs.file_handle.close()
    assert unframe(stream)[0] == records


@given(payloads, st.lists(st.integers(0, 2000), max_size=10))
def test_records_do_not_depend_on_how_the_stream_is_cut(payloads, pieces):
    stream, records = stream_of(payloads)
    found, errors, unframer = unframe(stream, pieces)
    assert found == records
    assert errors == []
    assert (unframer.offset, unframer.pending) == (len(stream), 0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_can_be_fed_and_are_not_kept(kind):
    stream, records = stream_of([b"first", b"second"])
    data = bytearray(stream)
    unframer = Unframer()
    unframer.feed(kind(data))
    data[:] = bytes(len(data))
    assert drain(unframer) == (records, [])


def test_the_stream_may_begin_anywhere_in_the_file():
    unframer = Unframer(offset=1000)
    unframer.feed(frame(b"first") + frame(b"second"))
    assert [record.offset for record in unframer] == [1000, 1021]
    assert unframer.offset == 1043


def test_the_stream_may_be_fed_while_it_is_iterated():
    stream, records = stream_of([b"first", b"second", b"third"])
    unframer = Unframer()
    unframer.feed(stream[:21])
    found = []
    for record in unframer:
        found.append(record)
        if len(found) == 1:
            unframer.feed(stream[21:])
    assert found == records


def test_a_stream_cut_short_gives_the_whole_records_and_waits_for_the_rest():
    stream, records = stream_of([b"first", b"", bytes(30), b"last"])
    for end in range(len(stream) + 1):
        found, errors, unframer = unframe(stream[:end])
        whole = [record for record in records if end_of(record) <= end]
        assert found == whole
        assert errors == []
        assert unframer.offset == (end_of(whole[-1]) if whole else 0)
        assert unframer.pending == end - unframer.offset

        unframer.feed(stream[end:])
        assert drain(unframer) == (records[len(whole) :], [])


@given(
    # Eight bytes of data and their checksum are a valid header. No event is that short.
    payloads.filter(lambda payloads: payloads and all(len(data) != 8 for data in payloads)),
    st.data(),
    st.integers(1, 255),
    st.lists(st.integers(0, 2000), max_size=3),
)
def test_a_byte_changed_costs_the_record_it_is_in(payloads, data, change, pieces):
    stream, records = stream_of(payloads)
    at = data.draw(st.integers(0, len(stream) - 1))
    damaged = bytearray(stream)
    damaged[at] ^= change
    found, errors, unframer = unframe(bytes(damaged), pieces)
    (hit,) = (record for record in records if record.offset <= at < end_of(record))
    assert found == [record for record in records if record != hit]
    assert [error.offset for error in errors] == [hit.offset]
    assert str(hit.offset) in str(errors[0])
    assert unframer.offset + unframer.pending == len(stream)


@given(payloads, st.binary(min_size=1, max_size=3000), st.data())
def test_strange_bytes_between_records_cost_no_record(payloads, strange, data):
    stream, records = stream_of(payloads)
    before = data.draw(st.integers(0, len(records)))
    at = records[before].offset if before < len(records) else len(stream)
    found, errors, _ = unframe(stream[:at] + strange + stream[at:])
    moved = [Record(offset + len(strange), data) for offset, data in records[before:]]
    assert found == records[:before] + moved
    # At the end of the stream a few strange bytes may yet become a header.
    assert [error.offset for error in errors] == ([at] if moved or len(strange) >= HEADER else [])


def test_damage_longer_than_the_search_takes_at_a_time_is_passed_over():
    random = np.random.default_rng(0)
    for length in (65_536 - HEADER, 65_535, 65_536, 200_000):
        strange = random.bytes(length)
        found, errors, _ = unframe(strange + frame(b"behind"), [70_000, 140_001])
        assert found == [Record(length, b"behind")]
        assert [error.offset for error in errors] == [0]


def test_a_record_behind_damage_is_found_wherever_the_stream_is_cut():
    stream = b"strange bytes, more than a header" + frame(b"behind")
    for cut in range(len(stream) + 1):
        found, errors, _ = unframe(stream, [cut])
        assert found == [Record(33, b"behind")]
        assert [error.offset for error in errors] == [0]


def test_what_cannot_be_a_record_is_not_kept():
    unframer = Unframer()
    for _ in range(10):
        unframer.feed(bytes(100_000))
        drain(unframer)
        assert unframer.pending < HEADER
    assert unframer.offset + unframer.pending == 1_000_000


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 2**31 - 1))
def test_find_header_finds_the_first_header(before, behind, length):
    data = before + frame_header(length) + behind
    assert find_header(data) == len(before)
    assert find_header(memoryview(data)[len(before) + 1 :]) is None


@given(st.integers(2**31, 2**64 - 1))
def test_a_header_of_a_record_longer_than_protobuf_allows_is_not_valid(length):
    header = frame_header(length)
    assert find_header(header) is None
    assert read_header(header, 0) is None
    unframer = Unframer()
    unframer.feed(header)
    with pytest.raises(CorruptRecordError, match="not a valid record header"):
        list(unframer)


@pytest.mark.parametrize("size", [0, 1, HEADER - 1])
def test_find_header_finds_none_where_none_fits(size):
    assert find_header(frame_header(5)[:size]) is None
