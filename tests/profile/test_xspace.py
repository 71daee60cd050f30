"""``Space``: protobuf reads back what it encodes, complete and properly nested."""

import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sm_tblog import InvalidTypeError
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile.formats.xspace import Space

BEGIN = 1_700_000_000 * 10**9


def read(space):
    return XSpace.FromString(space.encode())


def plane_of(message, name):
    return next(plane for plane in message.planes if plane.name == name)


def start_of(message):
    """The time that offsets are relative to, in nanoseconds since the epoch."""
    plane = plane_of(message, "Task Environment")
    return named_stats(plane, plane.stats)["profile_start_time"]


def named_stats(plane, stats):
    return {
        plane.stat_metadata[one.metadata_id].name: getattr(one, one.WhichOneof("value"))
        for one in stats
    }


def events_of(message, plane, line=None):
    """Name, begin and duration in nanoseconds, and stats of each event, line by line."""
    start = start_of(message)
    for one in plane.lines:
        if line in (None, one.name):
            for event in one.events:
                assert event.offset_ps % 1000 == event.duration_ps % 1000 == 0
                yield (
                    plane.event_metadata[event.metadata_id].name,
                    start + one.timestamp_ns + event.offset_ps // 1000,
                    event.duration_ps // 1000,
                    tuple(sorted(named_stats(plane, event.stats).items())),
                )


stats = st.dictionaries(
    st.text(max_size=4),
    st.text(max_size=5)
    | st.binary(max_size=5)
    | st.floats(allow_nan=False)
    | st.integers(-(2**63), 2**64 - 1),
    max_size=3,
)
events = st.tuples(
    st.sampled_from(["/host:CPU", "/device:GPU:0"]),
    st.sampled_from(["main", "loader"]),
    st.text(max_size=4),
    st.integers(-30, 30),
    st.integers(0, 20),
    stats,
)


def filled(rows, **options):
    space = Space(BEGIN, **options)
    for plane, line, name, begin, duration, more in rows:
        space.plane(plane).line(line).event(name, BEGIN + begin, duration, more)
    return space


@given(st.lists(events, max_size=40))
def test_every_event_is_read_back(rows):
    message = read(filled(rows))
    expected = Counter(
        (plane, line, name, BEGIN + begin, duration, tuple(sorted(more.items())))
        for plane, line, name, begin, duration, more in rows
    )
    found = Counter(
        (plane.name, line, *event)
        for plane in message.planes
        for line in ("main", "loader")
        for event in events_of(message, plane, line)
    )
    assert found == expected
    assert not message.warnings


@given(st.lists(events, max_size=60))
def test_every_line_is_sorted_and_nested(rows):
    message = read(filled(rows))
    for plane in message.planes:
        assert len({line.id for line in plane.lines}) == len(plane.lines)
        for line in plane.lines:
            spans = [(event.offset_ps, event.duration_ps) for event in line.events]
            assert spans == sorted(spans, key=lambda span: (span[0], -span[1]))
            open_ends = []
            for begin, duration in spans:
                assert begin >= 0
                while open_ends and open_ends[-1] <= begin:
                    open_ends.pop()
                assert not open_ends or begin + duration <= open_ends[-1]
                open_ends.append(begin + duration)


@given(st.lists(events, max_size=60), st.integers(1, 20))
def test_beyond_the_limit_the_latest_are_left_out_and_counted(rows, limit):
    message = read(filled(rows, max_events=limit))
    found = sorted(e[1] for plane in message.planes for e in events_of(message, plane))
    assert found == sorted(BEGIN + row[3] for row in rows)[:limit]
    lost = len(rows) - len(found)
    said = [int(text.split()[0]) for text in message.warnings]
    assert said == ([lost] if lost else [])


def test_the_limit_bounds_what_is_kept_meanwhile():
    space = Space(BEGIN, max_events=10)
    line = space.plane("/host:CPU").line("main")
    for i in range(1000):
        line.event("e", BEGIN + 1000 - i, 1)
        assert len(line) <= 20
    message = read(space)
    assert len(list(events_of(message, message.planes[0]))) == 10
    assert message.warnings[0].startswith(
        "990 events were left out, those that began at or after 0.0"
    )
    assert len(read(space).warnings) == 1, "it is said once, however often it is encoded"


def test_planes_and_lines_are_found_again_by_name_and_number():
    space = Space(BEGIN)
    host = space.plane("/host:CPU")
    gpu = space.plane("/device:GPU:0", 0)
    other = space.plane("/device:GPU:1", 1)
    assert space.plane("/host:CPU") is host
    assert host.line("main") is host.line("main")
    assert host.line("worker", 7) is host.line("renamed", 7)
    assert host.line("worker", 7) is not host.line("worker", 8)
    host.line("thread", 140_000_000_000_000).event("e", BEGIN, 1)
    host.line("main").event("a", BEGIN, 10)
    host.line("main").event("b", BEGIN + 5, 10)
    gpu.stat("gpu_device_name", "H100")
    message = read(space)
    planes = {plane.name: plane for plane in message.planes}
    assert planes["/device:GPU:0"].id == 0
    assert planes["/device:GPU:1"].id == 1
    assert named_stats(planes["/device:GPU:0"], planes["/device:GPU:0"].stats) == {
        "gpu_device_name": "H100"
    }
    lines = [(line.name, line.id) for line in planes["/host:CPU"].lines]
    assert [name for name, _ in lines] == ["main", "main", "worker", "worker", "thread"]
    assert {7, 8} < {number for _, number in lines}
    assert all(number < 100 for _, number in lines)
    assert other.id == 1


def test_what_it_says_of_itself():
    space = Space(BEGIN)
    space.hostname = "node-1"
    space.warnings.append("half a pair: \ud800")
    space.plane("/host:CPU").line("main").event("\udfff", BEGIN - 5, -3)
    message = read(space)
    assert list(message.hostnames) == ["node-1"]
    assert list(message.warnings) == ["half a pair: ?"]
    assert list(events_of(message, message.planes[0])) == [("?", BEGIN - 5, 0, ())]
    assert start_of(message) == BEGIN - 5


def test_a_time_that_cannot_be_does_not_spoil_the_others():
    space = Space(BEGIN)
    line = space.plane("p").line("l")
    line.event("never set", 0, 5)
    line.event("right", BEGIN + 7, 5)
    line.event("for ever", BEGIN + 20, 2**62)
    message = read(space)
    found = {event[0]: event[1:3] for event in events_of(message, message.planes[0])}
    assert found["right"] == (BEGIN + 7, 5)
    assert found["never set"][0] == start_of(message)


def test_an_empty_session_is_one():
    message = read(Space(BEGIN))
    assert start_of(message) == BEGIN
    assert not message.warnings


def test_a_stat_of_another_type_is_an_error_that_names_it():
    line = Space(BEGIN).plane("p").line("l")
    with pytest.raises(InvalidTypeError, match=r"'shape'.*list"):
        line.event("e", BEGIN, 1, {"shape": [1, 2]})
    assert not line


def test_integers_beyond_64_bits_become_text():
    space = Space(BEGIN)
    space.plane("p").line("l").event("e", BEGIN, 1, {"n": 2**64, "m": sys.maxsize + 1})
    message = read(space)
    assert [e[3] for e in events_of(message, message.planes[0])] == [
        (("m", 2**63), ("n", str(2**64)))
    ]
