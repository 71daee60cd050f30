"""Damaged and hostile traces: what can be read is kept, and nothing else happens."""

import copy
import gzip
import io
import json
import random
from decimal import Decimal

import kineto_traces
import profiles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sm_tblog import InvalidValueError, TBLogError, import_trace
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile.engines.folder import add_session
from sm_tblog.profile.formats import trace_text
from sm_tblog.profile.formats.chrome_trace import TraceReader
from sm_tblog.profile.formats.kineto import convert_trace
from sm_tblog.profile.formats.mending import Mender
from sm_tblog.profile.formats.xspace import Space


def read(data, name="some.pt.trace.json"):
    reader = TraceReader(io.BytesIO(data), name)
    return list(reader.events()), reader.header, reader.warnings()


def converted(data):
    space = Space(0)
    extent = convert_trace(io.BytesIO(data), "some.pt.trace.json", space)
    space.begin_ns = extent.begin_ns
    return XSpace.FromString(space.encode())


def event_text(name="aten::mm", pid="7", ts="1", more="3"):
    """Return an event as kineto writes it, without escaping anything."""
    return (
        f'  {{\n    "ph": "X",\n    "cat": "cpu_op",\n    "name": "{name}",\n    "pid": {pid},\n'
        f'    "tid": 7,\n    "ts": {ts},\n    "dur": 2.500\n    ,\n    "args": {{\n'
        f'      "External id": {more},"Concrete Inputs": ["", "[1, 2]"], "Ev Idx": 4\n    }}\n  }}'
    )


def as_trace(*events, header="", tail=""):
    return (
        f'{{\n  "schemaVersion": 1,\n{header}  "baseTimeNanoseconds": 1000,\n  "traceEvents": [\n'
        + ",\n".join(events)
        + f'\n  ],"traceName": "x"{tail} }}'
    ).encode("utf-8", "surrogateescape")


# Text that is not JSON.

NAMES = [
    'say "hi"', '"', '""', '"a', 'a"', 'a","b', 'a": 1', '": ', '", ', '{"a": "b"}', '["x", "y"]',
    '[{"a": "b"}, {"c": "d"}]', '{"k": [1, "2"]}, {"z"', 'a", "b": c', 'x"}', '"}', "}",
    '"}]', '"}]}',
    r"C:\data\new", r"C:\U", "end\\", "\\", r'\d "q"', r'C:\x\"y"', 'é "ü"', 'two\nlines "q"',
    'nul\0 "', '\udcff"',
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [60, 1 << 20])
def test_names_that_are_not_escaped_are_read(name, chunk, monkeypatch):
    monkeypatch.setattr(trace_text, "_CHUNK", chunk)
    try:
        expected = json.loads(f'"{name}"', strict=False)  # a name that happens to be JSON
    except ValueError:
        expected = name
    data = as_trace(event_text(), event_text(name), event_text("after", pid="8"))
    events, header, _ = read(data)
    assert [event["name"] for event in events] == ["aten::mm", expected, "after"]
    assert [event["pid"] for event in events] == [7, 7, 8]
    assert events[1]["args"] == events[0]["args"]
    assert header["traceName"] == "x"


@given(st.lists(st.text('ab"\\{}[]:, \n', min_size=1, max_size=8), min_size=1, max_size=4))
def test_any_name_leaves_its_neighbours(names):
    # A name may imitate JSON: then it is another event, but the neighbours stay.
    texts = [text for name in names for text in (event_text(name), event_text("between"))]
    events, _, _ = read(as_trace(*texts))
    found = [event.get("name") for event in events]
    assert found.count("between") == len(names)


VALUES = ["nan", "NaN", "-nan", "inf", "-inf", "Infinity", "-Infinity", "N/A", "None", "True", "",
          "1e99999999", "-1e99999999", "1e-99999999", "1e99999999999999999999", "9" * 5000, "01",
          "+1", ".5", "1.", "0x1F", "1_0", "sNaN", "not known", "1,", "[nan, inf]", '{"a": N/A}',
          "[1, 2,]", "[[N/A]]"]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_values_that_are_no_json_leave_the_rest(value):
    data = as_trace(event_text("a"), event_text("b", more=value), event_text("c"))
    events, _, _ = read(data)
    assert [event["name"] for event in events] == ["a", "b", "c"]
    assert events[1]["args"]["Ev Idx"] == 4
    message = converted(data)
    assert [e.name for e in profiles.events_of(message, "/host:CPU")] == ["a", "b", "c"]
    # In place of a time, the event has none.
    data = as_trace(event_text("a"), event_text("b", ts=value), event_text("c"))
    found = {e.name for e in profiles.events_of(converted(data), "/host:CPU")}
    assert {"a", "c"} <= found


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('  "note": "say "hi"",\n', {"note": 'say "hi"'}),
        ('  "cfg": {"a": N/A},\n', {"cfg": {"a": "N/A"}}),
        ('  "deviceProperties": [{"id": 0, "name": "a "b""}],\n', {}),
        ('  "x": 1,,\n', {"x": 1}),
        ("  broken: 1,\n", {}),
        ('  "deep": ' + "[" * 100_000 + ",\n", {}),
    ],
    ids=["quotes", "bare", "list", "commas", "key", "deep"],
)
def test_damage_before_the_events_leaves_them_and_their_times(header, expected):
    events, found, _ = read(as_trace(event_text("a"), event_text("b"), header=header))
    assert [event["name"] for event in events] == ["a", "b"]
    assert found["baseTimeNanoseconds"] == 1000
    assert expected.items() <= found.items()


def test_damage_behind_the_events_leaves_them():
    data = as_trace(event_text("a"), tail=', "path": "/tmp/a "b".json", "z": 1')
    events, header, warnings = read(data)
    assert len(events) == 1
    assert header["path"] == '/tmp/a "b".json'
    assert header["z"] == 1
    assert warnings == []
    events, _, (warning,) = read(as_trace(event_text("a"), tail=', "path": "'))
    assert len(events) == 1
    assert "truncated" in warning


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b'[{"name": "a"}, {"name": "b"},]', "ab"),
        (b'[{"name": "a",}, {"name": "b"}]', "ab"),
        (b'[{"name": "a"} {"name": "b"}]', "ab"),
        (b'[{"name": "a"}, {"name": "b"}', "ab"),
        (b'[{"name": "a"}, {"name": "b"},', "ab"),
        (b'\xef\xbb\xbf[{"name": "a"}]', "a"),
        (b'\xef\xbb\xbf{"traceEvents": [{"name": "a"}], }', "a"),
        (b'{"traceEvents": [{"name": "a"}', "a"),
        (b'{"traceEvents": [{"name": "a"}]', "a"),
        (b'{"traceEvents": [{"name": "a"}, 3, "x", [1], {"name": "b"}]}', "ab"),
        (b'[{"name": "a"}] [{"name": "b"}]', "a"),
        (b'[{"name": "a\x00\x01\x1f"}]', ["a\x00\x01\x1f"]),
        (b'[{"name": "\xff"}]', ["\udcff"]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_trace_that_is_not_quite_one_is_read(data, names, packed):
    events, _, _ = read(gzip.compress(data) if packed else data)
    assert [event["name"] for event in events] == list(names)


def test_what_is_repaired_and_left_out_is_said():
    texts = [event_text("a"), event_text('"q"'), '{"ph" "X"}', event_text("c"), "4"]
    _, _, warnings = read(as_trace(*texts))
    assert len(warnings) == 3
    assert "after 2 events: Expecting ':' delimiter" in warnings[0]
    assert warnings[1] == "2 damaged events were left out"
    assert warnings[2].startswith("1 events were not valid JSON")


# A trace that ends too early.


@pytest.mark.parametrize("packed", [False, True])
def test_a_trace_cut_off_anywhere_is_read_up_to_there(packed):
    data = kineto_traces.dumps(kineto_traces.gpu_trace(1)).encode()
    whole = read(data)[0]
    file = gzip.compress(data, 1) if packed else data
    before = 0
    for end in [*range(2, 600, 7), *range(600, len(file) - 1, 97), len(file) - 1]:
        try:
            events, _, (warning, *_) = read(file[:end])
        except InvalidValueError as error:
            events, warning = [], str(error)
        assert "truncated" in warning
        assert warning.startswith("trace some.pt.trace.json: line ")
        assert events == whole[: len(events)]
        assert len(events) >= before
        before = len(events)
    assert before > 0.9 * len(whole)


def test_a_compressed_trace_that_is_damaged_is_read_up_to_there():
    packed = bytearray(gzip.compress(kineto_traces.dumps(kineto_traces.gpu_trace(50)).encode(), 1))
    packed[len(packed) // 2] ^= 0xFF
    events, _, (warning, *_) = read(bytes(packed))
    assert len(events) > 200
    assert "compressed file is damaged" in warning


@pytest.mark.parametrize("chunk", [50, 1 << 20])
def test_damage_is_a_warning_that_says_where(chunk, monkeypatch):
    monkeypatch.setattr(trace_text, "_CHUNK", chunk)
    data = kineto_traces.dumps(kineto_traces.gpu_trace(50)).encode()
    at = data.index(b'"dur"', len(data) // 2)
    before = data[:at]
    events, _, (warning, more) = read(before + b"%" + data[at:])
    assert len(events) == len(read(data)[0]) - 1
    assert f"line {1 + before.count(10)}, byte {len(before):,}, after" in warning
    assert more == "1 damaged events were left out"


def test_a_trace_that_fails_is_not_imported_and_a_damaged_one_is_with_a_warning(tmp_path, caplog):
    path = tmp_path / "some.pt.trace.json"
    path.write_bytes(as_trace(event_text('say "hi"'), event_text("b"))[:-100])
    import_trace(tmp_path / "runs", path, "first", keep_trace=True)
    folder = tmp_path / "runs/plugins/profile/first"
    assert gzip.decompress((folder / "some.pt.trace.json.gz").read_bytes()) == path.read_bytes()
    message = profiles.only_session(tmp_path / "runs")
    assert {e.name for e in profiles.events_of(message, "/host:CPU")} == {'say "hi"'}
    assert len(message.warnings) == 3
    assert "profile first" in caplog.text
    assert "truncated" in caplog.text
    path.write_bytes(b"")
    with pytest.raises(InvalidValueError, match="empty"):
        import_trace(tmp_path / "runs", path)


# Values of a wrong type or size.

HOSTILE = [
    [1], [], {}, {"a": [1]}, None, True, "", "x", "9" * 30, -1, 0, 2**31, 2**63 - 1, 2**63, 2**64,
    2**70, -(2**70), 10**400, 1.5, float("nan"), float("inf"), float("-inf"), "\ud800", [[[[1]]]],
    {"deep": [{"a": [2**70, None]}]}, "n" * 100_000,
]  # fmt: skip
FIELDS = ["ph", "cat", "name", "pid", "tid", "ts", "dur", "args", "id", "s"]
ARGUMENTS = [
    "External id", "external id", "correlation", "device", "stream", "bytes", "grid", "block",
    "registers per thread", "shared memory", "est. achieved occupancy %", "Bytes", "Device Type",
    "Device Id", "Total Allocated", "Total Reserved", "Addr", "name", "Input Dims", "",
]  # fmt: skip
MEMORY = {"ph": "i", "name": "[memory]", "ts": 5, "pid": 9, "tid": 9, "args": {"Bytes": 4}}
NAMED = {"ph": "M", "name": "thread_name", "pid": 9, "tid": 9, "args": {"name": "n"}}


def kinds_of_events():
    events = kineto_traces.gpu_trace(1)["traceEvents"]
    by_category = {event.get("cat"): event for event in events}
    return [*by_category.values(), MEMORY, NAMED]


def dumps(trace):
    return json.dumps(trace, default=float).encode()


def wrong_in(field, value):
    """Yield an event of each kind with a wrong value in a field or an argument."""
    for event in map(copy.deepcopy, kinds_of_events()):
        (event.setdefault("args", {}) if field in ARGUMENTS else event)[field] = value
        yield event


@pytest.mark.parametrize("field", [*FIELDS, *ARGUMENTS])
def test_a_wrong_value_leaves_the_other_events(field):
    good = {"ph": "X", "cat": "cpu_op", "name": "good", "pid": 7, "tid": 7, "ts": 4_869_972_046_414,
            "dur": 1}  # fmt: skip
    events = [event for value in HOSTILE for event in wrong_in(field, value)]
    message = converted(dumps({"traceEvents": [good, *events, good]}))
    names = [event.name for event in profiles.events_of(message, "/host:CPU")]
    assert names.count("good") == 2


@pytest.mark.parametrize("key", ["deviceProperties", "baseTimeNanoseconds", "schemaVersion"])
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: f"{value!r:.20}")
def test_a_wrong_header_leaves_the_events(key, value):
    trace = {key: value, "traceEvents": [{"ph": "X", "name": "good", "ts": 1, "dur": 1}]}
    if key == "baseTimeNanoseconds" and value == 2**63 - 1:
        with pytest.raises(InvalidValueError, match="not a valid time"):
            converted(dumps(trace))
        return
    found = profiles.events_of(converted(dumps(trace)), "/host:CPU")
    assert [event.name for event in found] == ["good"]
    devices = [{**kineto_traces.DEVICE, one: value} for one in kineto_traces.DEVICE]
    data = dumps({"deviceProperties": devices, "traceEvents": trace["traceEvents"]})
    assert list(profiles.events_of(converted(data), "/host:CPU"))


@pytest.mark.parametrize("number", ["1e99999999", "-1e99999999", "1e-99999999", "9" * 4000])
@pytest.mark.parametrize("field", ["Bytes", "Total Allocated", "Addr", "Device Id"])
def test_a_huge_number_is_no_number(field, number):
    event = f'{{"ph": "i", "name": "[memory]", "ts": 1, "args": {{"{field}": {number}}}}}'
    message = converted(f"[{event}]".encode())
    assert len(list(profiles.events_of(message, "/host:CPU"))) == 1


@pytest.mark.parametrize("ts", [None, "12", [], 10**18, float("nan"), {"a": 1}, -(10**18), 2**70])
def test_an_event_without_a_time_is_left_out_and_counted(ts):
    good, bad = ({"ph": "X", "name": name, "ts": 1, "dur": 1} for name in ("good", "bad"))
    data = json.dumps({"traceEvents": [good, {**bad, "ts": ts}, good]}).encode()
    message = converted(data)
    assert [e.name for e in profiles.events_of(message)] == ["good", "good"]
    (warning,) = message.warnings
    assert warning.startswith("1 events with wrong values were left out: trace some.pt.trace.json")
    with pytest.raises(InvalidValueError, match=r"some\.pt.* byte .* after 0 events.*needs a time"):
        converted(b'{"traceEvents": [{"ph": "X"}]}')


def test_kinds_threads_and_devices_may_be_many():
    events = [
        {"ph": "X", "cat": cat, "name": "e", "ts": n, "dur": 1, "pid": f"p{n}", "tid": f"t{n}"}
        for n in range(3_000)
        for cat in ("cpu_op", "kernel")
    ]
    events += [{"ph": f"kind {n}", "ts": 1} for n in range(500)]
    message = converted(dumps(events))
    assert len(list(profiles.events_of(message))) == 6_000
    assert len(message.warnings) == 11
    assert message.warnings[-1] == "490 events of the kind others were left out"


def test_thousands_of_events_may_overlap():
    number = 20_000
    space = Space(0)
    line = space.plane("/host:CPU").line("main")
    for n in range(number):
        line.event("e", n, number)  # each ends after the next has begun
    message = XSpace.FromString(space.encode())
    found = sorted(event.begin for event in profiles.events_of(message, "/host:CPU"))
    assert found == list(range(number))


def test_a_time_far_away_does_not_move_the_others():
    begin = 1_790_857_026_000_000_000
    space = Space(begin)
    line = space.plane("/host:CPU").line("main")
    for n in range(5):
        line.event(f"e{n}", begin + n, 1)
    line.event("late", 2**62 - 1, 2**62)
    line.event("early", -(2**62), 1)
    message = XSpace.FromString(space.encode())
    found = {event.name: event for event in profiles.events_of(message, "/host:CPU")}
    assert [found[f"e{n}"].begin for n in range(5)] == [begin + n for n in range(5)]
    assert message.warnings == ["2 events are more than 100 days away and were moved"]


# Mutations of whole traces.

TRACE = kineto_traces.dumps(kineto_traces.gpu_trace(1)).encode()
json_values = st.recursive(
    st.sampled_from(HOSTILE[:-1]) | st.text(max_size=5) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**31), st.integers(0, 20), st.binary(max_size=8)), max_size=8
    ),
    st.booleans(),
)
def test_mutated_bytes_are_converted_or_refused(changes, packed):
    data = bytearray(gzip.compress(TRACE, 1) if packed else TRACE)
    for at, length, more in changes:
        start = at % len(data)
        data[start : start + length] = more
    try:
        converted(bytes(data))
    except TBLogError as error:
        assert "some.pt.trace.json" in str(error)  # noqa: PT017 - most are converted


@given(st.integers(0, 2**31), st.lists(st.tuples(st.integers(0, 2**31), json_values), max_size=5))
def test_mutated_values_leave_the_other_events(seed, changes):
    trace = json.loads(TRACE, parse_float=float)
    choose = random.Random(seed)
    changed = set()
    for at, value in changes:
        place = at % len(trace["traceEvents"])
        changed.add(place)
        event = trace["traceEvents"][place]
        target = event["args"] if event.get("args") and choose.random() < 0.5 else event
        target[choose.choice([*target, "ts", "External id"])] = value
        if "args" in event and not isinstance(event["args"], dict):
            event["args"] = {}
    kept = [e for n, e in enumerate(trace["traceEvents"]) if n not in changed]
    spans = [e for e in kept if e["ph"] == "X" and e["cat"] != "Trace"]
    message = converted(json.dumps(trace).encode())
    planes = [p.name for p in message.planes]
    assert planes
    assert len(list(profiles.events_of(message))) >= len(spans)


def session_bytes():
    space = Space(1_000_000)
    host = space.plane("/host:CPU")
    for n in range(5):
        stats = {"a": n, "b": "text", "c": 1.5, "d": b"raw"}
        host.line("main", 7).event(f"e{n}", 1_000_000 + n, 3, stats)
        space.plane("/device:GPU:0", 0).line("stream", 1).event("k", 1_000_000 + n, 1, stats)
    return space.encode()


SESSION = session_bytes()


@given(
    st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 4), st.binary(max_size=4)), max_size=4)
)
def test_mutated_sessions_of_other_profilers_are_added_or_refused(changes):
    data = bytearray(SESSION)
    for at, length, more in changes:
        start = at % len(data)
        data[start : start + length] = more
    space = Space(1_000_000)
    space.plane("/host:CPU").line("own").event("own", 1_000_005, 1)
    try:
        add_session(bytes(data), space)
    except InvalidValueError as error:
        assert "not a profile" in str(error)  # noqa: PT017 - most are added
    message = XSpace.FromString(space.encode())
    assert "own" in [event.name for event in profiles.events_of(message, "/host:CPU")]


def test_impossible_times_of_another_profiler_are_left_out():
    found = XSpace.FromString(SESSION)
    for plane in found.planes:
        for line in list(plane.lines):
            late = line.__class__.FromString(line.SerializeToString())
            late.id, late.timestamp_ns = 99, 2**62
            plane.lines.append(late)
    space = Space(1_000_000)
    add_session(found.SerializeToString(), space)
    message = XSpace.FromString(space.encode())
    assert len(list(profiles.events_of(message))) == 10
    assert len(message.warnings) == 1
    assert "times are wrong" in message.warnings[0]


def test_names_that_imitate_events_leave_the_neighbours():
    for name in ('"}], "a', '"},{"', '"},]}', '"},{"ph": "X'):
        events, _, _ = read(as_trace(event_text(), event_text(name), event_text("after")))
        found = [event.get("name") for event in events]
        assert (found[0], found[-1]) == ("aten::mm", "after")


def test_work_that_is_in_vain_is_limited():
    hopeless = '{"ph" : "X", "name": "a" "b" "c" "d" "e", "ts" 1, "args": {"a": "b", "c": "d"}}'
    mender = Mender()
    while not mender.is_exhausted:
        assert mender.mend(hopeless) is None
    assert mender.mend('{"a": "b"}') is None
    data = as_trace(*[hopeless] * 300, event_text("good"))
    events, _, (_, left_out) = read(data)
    assert [event["name"] for event in events] == ["good"]
    assert left_out == "300 damaged events were left out"
    # Each of these would take minutes if failures were repeated without a limit.
    for hostile in ('},{"' * 100_000, '"traceEvents" :, ' * 50_000, '"name": "' + "\\" * 300_000):
        events, _, _ = read(f'[{{"name": "a"}}, {{"ph":x {hostile}'.encode())
        assert events[0] == {"name": "a"}


def test_an_unknown_value_of_decimals_is_none_of_json():
    events, _, _ = read(b'[{"ts": 1.500, "a": N/A, "b": 2.25}]')
    assert events == [{"ts": Decimal("1.500"), "a": "N/A", "b": Decimal("2.25")}]
