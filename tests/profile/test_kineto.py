"""Conversion of kineto's traces to sessions: complete, exact, and with bounded memory."""

import gzip
import io
import json
import tracemalloc
from collections import Counter
from decimal import Decimal

import kineto_traces
import profiles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sm_tblog import InvalidTypeError, InvalidValueError, Writer, import_trace
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile.formats import trace_text
from sm_tblog.profile.formats.chrome_trace import TraceReader
from sm_tblog.profile.formats.kineto import convert_trace
from sm_tblog.profile.formats.xspace import Space


def read(data, name="some.pt.trace.json"):
    reader = TraceReader(io.BytesIO(data), name)
    return list(reader.events()), reader.header


def converted(trace, since_ns=None, **options):
    data = trace if isinstance(trace, bytes) else kineto_traces.dumps(trace).encode()
    space = Space(0, **options)
    extent = convert_trace(io.BytesIO(data), "some.pt.trace.json", space, since_ns)
    space.begin_ns = extent.begin_ns
    return XSpace.FromString(space.encode())


def found_in(message, prefix):
    return profiles.sums((e.name, e.duration) for e in profiles.events_of(message, prefix))


def raw_in(trace, *categories):
    return profiles.sums(
        (profiles.as_shown(e["name"]), e["duration"])
        for e in profiles.raw_events(trace, *categories)
    )


# Reading.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)


def encode(value):
    return json.dumps(value, ensure_ascii=False, indent=1, default=float).encode()


@given(
    events=st.lists(objects, max_size=6),
    header=st.dictionaries(st.text(min_size=1, max_size=5), json_values, max_size=3),
    chunk=st.integers(1, 40),
    packed=st.booleans(),
    bare=st.booleans(),
)
def test_a_trace_is_read_as_the_standard_library_decodes_it(events, header, chunk, packed, bare):
    header.pop("traceEvents", None)
    data = encode(events if bare else {**header, "traceEvents": events, "behind": 1})
    decoded = json.loads(data, parse_float=Decimal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace_text, "_CHUNK", chunk)
        found, rest = read(gzip.compress(data) if packed else data)
    assert found == (decoded if bare else decoded.pop("traceEvents"))
    assert rest == ({} if bare else decoded)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"   ", "empty"),
        (b"PNG", "must begin with"),
        (b'{"a": 1}', "traceEvents"),
        (b'{"traceEvents": 3}', "traceEvents"),
        (b"{traceEvents: []}", "quotes"),
        (b'{"traceEvents": [3, {', "an object, not 3"),
        (b'{"traceEvents": [3, {]}', "an object, not 3"),
        (b"[] {}", "after the end"),
        (b"[" * 100_000, "recursion"),
        (b"[" + b"9" * 5000 + b"]", "limit"),
        (b"\x1f\x8bnothing of the kind", "compressed file is damaged"),
    ],
)
def test_what_is_no_trace_is_an_error_that_says_why(data, said):
    with pytest.raises(InvalidValueError, match=said):
        read(data)


def test_names_that_are_no_text_are_kept_apart_from_that():
    [event], _ = read(b'[{"name": "\xff\xe4 \\ud800"}]')
    assert event["name"].encode("utf-8", "replace") == b"?? ?"


# Conversion.


def test_kernels_copies_and_operators_sum_to_what_they_do_in_the_trace():
    trace = kineto_traces.gpu_trace()
    decoded = json.loads(kineto_traces.dumps(trace), parse_float=Decimal)
    message = converted(trace)
    assert found_in(message, "/device:GPU:0") == raw_in(decoded, *profiles.KERNELS)
    kernels = [
        e.duration
        for e in profiles.events_of(message, "/device:GPU:0")
        if "kernel_details" in e.stats
    ]
    assert sum(kernels) == kineto_traces.kernels_ns()
    renamed = {f"ProfilerStep#{5 + n}": "step" for n in range(kineto_traces.STEPS)}
    host = profiles.sums(
        (renamed.get(e["name"], e["name"]), e["duration"])
        for e in profiles.raw_events(decoded, "cpu_op", "cuda_runtime", "user_annotation")
    )
    assert found_in(message, "/host:CPU") == host
    assert not message.warnings


def test_what_the_viewer_knows_is_named_as_it_knows_it():
    message = converted(kineto_traces.gpu_trace(2))
    host = list(profiles.events_of(message, "/host:CPU"))
    gpu = list(profiles.events_of(message, "/device:GPU:0"))
    assert {(e.line, e.line_id) for e in gpu} == {
        ("Stream #7", 7),
        ("Stream #20", 20),
        ("Stream #21", 21),
    }
    assert {(e.line, e.line_id) for e in host} == {
        ("thread 100 (python)", 100),
        ("thread 101 (pt_autograd_0)", 101),
    }
    launched = {e.stats["correlation_id"] for e in host if "correlation_id" in e.stats}
    assert launched == {e.stats["correlation_id"] for e in gpu}
    kernel = next(e for e in gpu if e.name == "gemm_mm")
    assert kernel.stats["tf_op"] == "aten__mm:mm"
    assert kernel.stats["kernel_details"] == (
        "regs:64 static_shared:1024 dynamic_shared:0 grid:16,2,1 block:128,1,1 occ_pct:37.0"
    )
    copy = next(e for e in gpu if e.name == "MEMCPYHtoD (Pinned -> Device)")
    assert copy.stats["memcpy_details"] == "num_bytes:8192"
    fill = next(e for e in gpu if e.name == "Memset (Device)")
    assert fill.stats["memset_details"] == "num_bytes:64"
    operator = next(e for e in host if e.name == "aten::mm")
    assert operator.stats == {"Input Dims": "[[32, 64], [64, 8]]", "tf_op": "aten__mm:mm"}
    steps = [e for e in host if e.name == "step"]
    assert [e.stats for e in steps] == [{"_r": 1, "step_num": 5}, {"_r": 1, "step_num": 6}]
    beside = list(profiles.events_of(message, "/device:CUSTOM:"))
    assert [e.name for e in beside] == ["ProfilerStep#5", "ProfilerStep#6"]
    plane = profiles.plane_of(message, "/device:GPU:0")
    assert profiles.stats_of(plane, plane.stats) == {
        "gpu_device_name": "NVIDIA A100-SXM4-40GB",
        "device_vendor": "Nvidia",
        "core_count": 108,
        "memory_size": 42505273344,
        "compute_cap_major": 8,
        "compute_cap_minor": 0,
    }
    assert profiles.start_of(message) == kineto_traces.BASE + kineto_traces.START - 2_000


def test_what_the_profiler_itself_costs_has_a_line_that_says_so():
    work = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 7, "tid": 7, "ts": 1, "dur": 2}
    cost = {**work, "cat": "overhead", "name": "Activity Buffer Request", "pid": -1, "tid": 0}
    message = converted({"traceEvents": [work, cost]})
    lines = {event.name: event.line for event in profiles.events_of(message, "/host:CPU")}
    assert lines == {"aten::mm": "thread 7", "Activity Buffer Request": "profiler's overhead"}


def test_what_begins_before_the_session_is_left_out():
    trace = kineto_traces.gpu_trace(3)
    decoded = json.loads(kineto_traces.dumps(trace), parse_float=Decimal)
    steps = [e["begin"] for e in profiles.raw_events(decoded, "user_annotation")]
    message = converted(trace, since_ns=steps[1])
    late = profiles.sums(
        (profiles.as_shown(e["name"]), e["duration"])
        for e in profiles.raw_events(decoded, *profiles.KERNELS)
        if e["begin"] >= steps[1]
    )
    assert found_in(message, "/device:GPU:0") == late
    assert len([e for e in profiles.events_of(message) if e.name == "step"]) == 2


def memory(size, total, reserved=0, at=1, kind=0, number=-1):
    args = {
        "Bytes": size, "Total Allocated": total, "Total Reserved": reserved, "Addr": 4096,
        "Device Type": kind, "Device Id": number,
    }  # fmt: skip
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": at, "pid": 9, "tid": 9,
            "args": args}  # fmt: skip


def test_allocations_become_the_viewers():
    events = [
        memory(100, 100),
        memory(50, 1050, 2100, at=2, kind=1, number=3),
        memory(-100, 0, at=3),
        memory(20, 20, at=4),
    ]
    message = converted({"traceEvents": events})
    found = list(profiles.events_of(message, "/host:CPU"))
    assert [e.name for e in found] == [
        "MemoryAllocation",
        "MemoryAllocation",
        "MemoryDeallocation",
        "MemoryAllocation",
    ]
    assert [e.stats["allocator_name"] for e in found] == ["cpu", "cuda:3", "cpu", "cpu"]
    assert [e.stats["allocation_bytes"] for e in found] == [100, 50, 100, 20]
    assert [e.stats["peak_bytes_in_use"] for e in found] == [100, 1050, 100, 100]
    assert found[1].stats["bytes_available"] == 1050
    assert found[1].stats["fragmentation"] == 0.5
    assert found[3].stats["bytes_allocated"] == 20


def test_traces_of_several_processes_and_devices_are_kept_apart():
    def span(pid, tid, **more):
        return {"ph": "X", "name": "e", "ts": 1, "dur": 2, "pid": pid, "tid": tid, **more}

    events = [
        span(10, 1),
        span(11, 1),
        span(0, 7, cat="kernel"),
        span(1, 7, cat="kernel", args={"device": 1, "stream": 7}),
        span("Spans", "PyTorch", cat="other"),
        {"ph": "B", "name": "b", "ts": 1},
        {"ph": "X", "name": "went back", "ts": 5, "dur": -1, "pid": 10, "tid": 1},
    ]
    message = converted({"traceEvents": events})
    assert {(e.plane, e.line) for e in profiles.events_of(message)} == {
        ("/host:CPU", "thread 1"),
        ("/host:CPU", "thread 1 of process 11"),
        ("/host:CPU", "thread PyTorch of process Spans"),
        ("/device:GPU:0", "Stream #7"),
        ("/device:GPU:1", "Stream #7"),
    }
    assert sorted(message.warnings) == [
        "1 events had a negative duration, which was set to 0",
        "1 events of the kind 'B' were left out",
    ]


spans = st.fixed_dictionaries({
    "cat": st.sampled_from(["cpu_op", "kernel", "gpu_memcpy", "cuda_runtime", "user_annotation"]),
    "name": st.sampled_from(["aten::mm", "Memcpy DtoD", "ProfilerStep#3", "", "a b"]),
    "pid": st.integers(0, 2),
    "tid": st.integers(0, 2),
    "ts": st.integers(0, 50_000).map(kineto_traces.microseconds),
    "dur": st.integers(0, 20_000).map(kineto_traces.microseconds),
    "args": objects,
})  # fmt: skip


@given(st.lists(spans, max_size=40), st.integers(1, 60))
def test_whatever_is_in_a_trace_is_in_its_session_or_counted(rows, limit):
    events = [{"ph": "X", **row, "args": {}} for row in rows]
    message = converted({"traceEvents": events}, max_events=limit)
    shown = Counter(e.duration for e in profiles.events_of(message))
    raw = sorted((int(row["ts"] * 1000), int(row["dur"] * 1000)) for row in rows)
    lost = max(len(raw) - limit, 0)
    assert shown.total() + lost == len(raw)
    assert [int(text.split()[0]) for text in message.warnings] == ([lost] if lost else [])
    if not lost:
        assert shown == Counter(duration for _, duration in raw)


@given(st.lists(spans, max_size=10))
def test_no_arguments_make_it_fail(rows):
    data = encode({"traceEvents": [{"ph": "X", **row} for row in rows]})
    assert len(list(profiles.events_of(converted(data)))) == len(rows)


class Endless(io.RawIOBase):
    """A trace with any number of events, generated while it is read."""

    def __init__(self, events):
        self.left = events
        self.rest = b'{"traceEvents": ['

    def readable(self):
        return True

    def readinto(self, buffer):
        while self.left and len(self.rest) < len(buffer):
            self.left -= 1
            event = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 9, "tid": 9,
                     "ts": self.left, "dur": 1, "args": {"External id": 1}}  # fmt: skip
            self.rest += json.dumps(event).encode() + (b"," if self.left else b"]}")
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


def test_a_huge_trace_takes_no_more_memory_than_the_limit_allows():
    space = Space(0, max_events=1_000)
    tracemalloc.start()
    try:
        extent = convert_trace(Endless(20_000), "huge.json", space)
        data = space.encode()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert extent.events == 20_000
    assert peak < 12 << 20, "the buffer, and events up to twice the limit"
    message = XSpace.FromString(data)
    assert message.warnings[0].startswith("19,000 events were left out")
    assert len(list(profiles.events_of(message))) == 1_000


# Importing.


@pytest.fixture
def trace_file(tmp_path):
    path = tmp_path / "node-7_123.456.pt.trace.json"
    path.write_text(kineto_traces.dumps(kineto_traces.gpu_trace()))
    return path


def test_a_trace_is_imported_into_a_log_folder(tmp_path, trace_file):
    logdir = tmp_path / "runs"
    assert import_trace(logdir, trace_file) == "node-7_123.456"
    assert import_trace(logdir, trace_file) == "node-7_123.456-2", "sessions are never written over"
    assert import_trace(logdir, trace_file, "mine", keep_trace=True) == "mine"
    kept = logdir / "plugins/profile/mine/node-7_123.456.pt.trace.json.gz"
    assert gzip.decompress(kept.read_bytes()) == trace_file.read_bytes()
    for [file] in profiles.sessions(logdir).values():
        message = XSpace.FromString(file.read_bytes())
        assert found_in(message, "/device:GPU:0")
        assert list(message.hostnames) == ["node-7_123.456"]


def test_traces_of_several_ranks_make_one_session(tmp_path, trace_file):
    other = trace_file.with_name("node-8_1.2.pt.trace.json.gz")
    other.write_bytes(gzip.compress(trace_file.read_bytes()))
    with Writer(tmp_path / "runs") as writer:
        assert import_trace(writer, trace_file, "both") == "both"
        assert import_trace(writer, other, "both", keep_trace=True) == "both"
    [files] = profiles.sessions(tmp_path / "runs").values()
    assert [file.name for file in files] == ["node-7_123.456.xplane.pb", "node-8_1.2.xplane.pb"]
    kept = files[1].with_name("node-8_1.2.pt.trace.json.gz")
    assert kept.read_bytes() == other.read_bytes(), "what is compressed stays as it is"


def test_traces_go_to_any_store(trace_file):
    from sm_tblog.storage.memory import MemoryStore

    url = "memory://import-trace"
    assert import_trace(url, trace_file, "mine") == "mine"
    data = MemoryStore(url, "x").get("plugins/profile/mine/node-7_123.456.xplane.pb")
    assert XSpace.FromString(data).planes


def test_bad_calls_raise_and_store_nothing(tmp_path, trace_file):
    logdir = tmp_path / "runs"
    with pytest.raises(InvalidTypeError, match="Writer or log directory"):
        import_trace(3, trace_file)
    with pytest.raises(InvalidTypeError, match="path"):
        import_trace(logdir, 3)
    with pytest.raises(InvalidValueError, match="name"):
        import_trace(logdir, trace_file, "a/b")
    with pytest.raises(FileNotFoundError):
        import_trace(logdir, tmp_path / "none.json")
    empty = tmp_path / "empty.json"
    empty.write_text('{"traceEvents": []}')
    with pytest.raises(InvalidValueError, match="no events"):
        import_trace(logdir, empty)
    trace_file.write_bytes(trace_file.read_bytes()[:99])
    with Writer(logdir) as writer, pytest.raises(InvalidValueError, match="truncated"):
        import_trace(writer, trace_file)
    assert not profiles.sessions(tmp_path)


def test_a_writer_that_is_not_enabled_imports_nothing(tmp_path, trace_file):
    with Writer(tmp_path / "runs", enabled=False) as writer:
        import_trace(writer, trace_file)
    assert not (tmp_path / "runs").exists()
