"""Sessions with PyTorch's profiler on the CPU: complete and exact."""

import gzip
import logging

import profiles
import pytest

from sm_tblog import (
    InvalidTypeError,
    InvalidValueError,
    Schedule,
    SinkError,
    Writer,
    torch_trace_handler,
)
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile.engines.torch import torch_engine

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning"),
    pytest.mark.filterwarnings("ignore:Profiler won't be using warmup:UserWarning"),
]


@pytest.fixture
def train():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        with torch.profiler.record_function("forward"):
            loss = model(torch.ones(8, 16)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def kept_trace(logdir):
    [kept] = logdir.glob("plugins/profile/*/*.pt.trace.json.gz")
    return profiles.raw_trace(kept)


def operator_sums(message):
    host = profiles.events_of(message, "/host:CPU")
    return profiles.sums((e.name, e.duration) for e in host if "tf_op" in e.stats)


def raw_operator_sums(trace, since=0):
    raw = profiles.raw_events(trace, "cpu_op")
    return profiles.sums((e["name"], e["duration"]) for e in raw if e["begin"] >= since)


@pytest.mark.parametrize("with_stack", [False, True])
def test_operators_of_a_profiler_with_our_handler_sum_to_its_trace(tmp_path, train, with_stack):
    with (
        Writer(tmp_path) as writer,
        torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
            on_trace_ready=torch_trace_handler(writer, keep_trace=True),
            record_shapes=True,
            profile_memory=True,
            with_stack=with_stack,
        ) as profile,
    ):
        for _ in range(5):
            train()
            profile.step()
    message = profiles.only_session(tmp_path)
    trace = kept_trace(tmp_path)
    assert operator_sums(message) == raw_operator_sums(trace)
    host = list(profiles.events_of(message, "/host:CPU"))
    steps = {e.stats["step_num"]: e for e in host if e.name == "step"}
    assert sorted(steps) == [2, 3, 4]
    linear = [e for e in host if e.name == "aten::linear"]
    assert len(linear) == 6
    assert all(e.stats["Input Dims"].startswith("[[8, ") for e in linear)
    # Whatever else is recorded, operators and annotations nest in the steps, on their line.
    inside = [e for e in host if e.name in ("forward", "aten::linear", "step")]
    assert len({e.line_id for e in inside}) == 1
    allocated = sum(e.stats["allocation_bytes"] for e in host if e.name == "MemoryAllocation")
    raw = [e["args"]["Bytes"] for e in trace["traceEvents"] if e["name"] == "[memory]"]
    assert allocated == sum(size for size in raw if size > 0) > 0
    functions = [e for e in host if e.line.endswith(" Python")]
    assert profiles.sums((e.name, e.duration) for e in functions) == profiles.sums(
        (e["name"], e["duration"]) for e in profiles.raw_events(trace, "python_function")
    )
    assert bool(functions) == with_stack
    assert not message.warnings


def test_each_cycle_of_a_schedule_is_a_session(tmp_path, train):
    with (
        Writer(tmp_path) as writer,
        torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=1, warmup=0, active=1, repeat=3),
            on_trace_ready=torch_trace_handler(writer),
        ) as profile,
    ):
        for _ in range(6):
            train()
            profile.step()
    found = profiles.sessions(tmp_path)
    assert [name.rpartition("-")[2] for name in found] == ["step2", "step4", "step6"]
    for number, [file] in zip((1, 3, 5), found.values(), strict=True):
        message = profiles.XSpace.FromString(file.read_bytes())
        host = profiles.events_of(message, "/host:CPU")
        assert [e.stats["step_num"] for e in host if e.name == "step"] == [number]
    assert not list(tmp_path.glob("**/*.gz"))


def test_operators_stand_inside_the_writers_spans(tmp_path, train):
    options = {"keep_trace": True, "record_shapes": True}
    with Writer(tmp_path) as writer, writer.profile("mine", torch=options, memory=True):
        for step in range(3):
            with writer.step_span(step), writer.span("training"):
                train()
    message = profiles.only_session(tmp_path)
    host = list(profiles.events_of(message, "/host:CPU"))
    spans = [e for e in host if e.name == "training"]
    linear = [e for e in host if e.name == "aten::linear"]
    assert (len(spans), len(linear)) == (3, 6)
    for event in linear:
        assert any(s.begin <= event.begin and event.end <= s.end for s in spans)
    assert len({e.line_id for e in (*spans, *linear)}) == 1, "on one line"
    first = min(e.begin for e in host if e.name == "step")
    late = raw_operator_sums(kept_trace(tmp_path), first)
    assert operator_sums(message) == late
    assert late["aten::linear", "count"] == 6
    assert not message.warnings


def test_a_session_by_steps_leaves_the_warm_up_out(tmp_path, train):
    schedule = Schedule(wait=1, warmup=2, active=2)
    with Writer(tmp_path) as writer:
        with writer.profiler(schedule, torch=True) as profiler:
            for step in range(6):
                with writer.step_span(step):
                    train()
                profiler.step()
        # PyTorch's profiler can be used again.
        with torch.profiler.profile() as profile:
            train()
    message = profiles.only_session(tmp_path)
    host = list(profiles.events_of(message, "/host:CPU"))
    assert [e.stats["step_num"] for e in host if e.name == "step"] == [3, 4]
    assert sum(e.name == "aten::linear" for e in host) == 4
    assert profile.key_averages()


def test_pytorchs_profiler_is_left_alone_where_it_runs_already(tmp_path, train):
    with Writer(tmp_path) as writer:
        with torch.profiler.profile() as profile:
            with pytest.raises(InvalidValueError, match="already running"):
                writer.profile(torch=True).__enter__()
            with writer.profile("auto"), writer.step_span(0):  # without PyTorch
                train()
        assert {e.key for e in profile.key_averages()} >= {"aten::linear"}
    message = profiles.only_session(tmp_path)
    assert "already running" in " ".join(message.warnings)
    assert [e.name for e in profiles.events_of(message, "/host:CPU")] == ["step"]


def test_results_that_were_written_already_are_a_fault_that_says_so(tmp_path, train, caplog):
    with torch.profiler.profile() as profile:
        train()
    profile.export_chrome_trace(str(tmp_path / "own.json"))
    with Writer(tmp_path / "runs", on_error="raise") as writer:
        writer.add_trace(profile)
        with caplog.at_level(logging.CRITICAL), pytest.raises(SinkError, match="write its trace"):
            writer.flush()
    assert not profiles.sessions(tmp_path)


@pytest.mark.parametrize("way", ["session", "handler"])
def test_a_quotation_mark_in_a_name_costs_nothing(tmp_path, train, caplog, way):
    names = ('say "hi"', '{"layer": "a"}', '"', r"C:\new")
    with Writer(tmp_path) as writer:
        if way == "session":
            profile = writer.profile(torch={"keep_trace": True})
        else:
            ready = torch_trace_handler(writer, keep_trace=True)
            profile = torch.profiler.profile(on_trace_ready=ready)
        with profile:
            for name in names:
                with torch.profiler.record_function(name):
                    train()
    message = profiles.only_session(tmp_path)
    found = [event.name for event in profiles.events_of(message, "/host:CPU")]
    for name in names[:3]:
        assert found.count(name) == 1
    assert found.count("aten::linear") == 2 * len(names)
    [kept] = tmp_path.glob("plugins/profile/*/*.pt.trace.json.gz")
    assert b'"name": "say "hi""' in gzip.decompress(kept.read_bytes()), "it is kept as it is"
    assert "were repaired" in caplog.text


@pytest.mark.parametrize("error", [TypeError("no list"), InvalidValueError("no trace")])
def test_a_trace_that_cannot_be_converted_is_kept(tmp_path, train, caplog, monkeypatch, error):
    def fail(*_args):
        raise error

    monkeypatch.setattr("sm_tblog.profile.engines.torch.convert_trace", fail)
    with Writer(tmp_path) as writer:
        with writer.profile(torch={"keep_trace": True}), writer.span("own"):
            train()
        with torch.profiler.profile() as profile:
            train()
        writer.add_trace(profile, "second", keep_trace=True)
    traces = sorted(tmp_path.glob("plugins/profile/*/*.pt.trace.json.gz"))
    assert len(traces) == 2
    for trace in traces:
        assert b"aten::linear" in gzip.decompress(trace.read_bytes())
    first, _ = (files[0] for files in profiles.sessions(tmp_path).values())
    found = profiles.events_of(XSpace.FromString(first.read_bytes()), "/host:CPU")
    assert [event.name for event in found] == ["own"]
    assert caplog.text.count("is kept, but cannot be converted") == 2


def test_bad_calls_raise(tmp_path):
    with pytest.raises(InvalidTypeError, match="Writer"):
        torch_trace_handler(tmp_path)
    with Writer(tmp_path) as writer:
        with pytest.raises(InvalidTypeError, match=r"no option 'shapes'.*record_shapes, "):
            writer.profile(torch={"shapes": True})
        with pytest.raises(InvalidValueError, match="no recorded data"):
            writer.add_trace(torch.profiler.profile())
        with pytest.raises(InvalidValueError, match="name"):
            writer.add_trace("x.json", "../x")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidValueError, match="no GPU"):
            torch_engine(cuda=True)
