"""Checksums of overlapping ranges are those of the bytes, and each byte is read about once."""

import random

import crc32c
from hypothesis import given
from hypothesis import strategies as st

from sm_tblog.format import range_checksums
from sm_tblog.format.range_checksums import RangeChecksums

DATA = random.Random(0).randbytes(1 << 20)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 28, 65_536, 100_000]), st.integers(0, 1 << 20))),
    st.integers(0, 1 << 40),
)
def test_ranges_whose_starts_ascend(ranges, offset):
    checksums = RangeChecksums()
    start = 0
    for advance, length in ranges:
        start += advance
        part = DATA[start : start + length]
        assert checksums.of(part, offset + start) == crc32c.crc32c(part)


def test_overlapping_ranges_are_not_read_again(monkeypatch):
    read = 0

    class Counting:
        @staticmethod
        def crc32c(data, value=0):
            nonlocal read
            read += len(data)
            return crc32c.crc32c(data, value)

    monkeypatch.setattr(range_checksums, "_crc32c", Counting)
    checksums = RangeChecksums()
    for start in range(0, len(DATA), 8192):
        part = memoryview(DATA)[start:]
        assert checksums.of(part, start) == crc32c.crc32c(part)
    assert read < 10 * len(DATA)
