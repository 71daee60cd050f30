"""The recorders for plain Python: the sampler, the tracer and the memory recorder."""

import contextlib
import os
import sys
import threading
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from profiles import lines_of

from sm_tblog import InvalidValueError, Writer
from sm_tblog.profile.engines import choice
from sm_tblog.profile.formats.xspace import Space
from sm_tblog.profile.recording import memory, sampler, ticker, tracer


@pytest.fixture
def writer(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "sys", type("Sys", (), {"modules": {}}))  # no frameworks
    with Writer(tmp_path / "run") as writer:
        yield writer


def read_session(writer):
    assert writer.close()
    (path,) = Path(writer.log_dir).glob("plugins/profile/*/*.xplane.pb")
    return lines_of(path.read_bytes())


def short(name):
    """Return a function's name as every Python version has it: without class, module and file."""
    return name.partition(" (")[0].rpartition(".")[2]


# The sampler.


def inner(looks):
    looks()


def outer(looks):
    inner(looks)
    inner(looks)


class ByHand:
    """Replaces the ticker: samples only when the test asks for it."""

    def __init__(self, function, interval, name):
        self.start = function
        self.stop = lambda: None


@pytest.fixture
def by_hand(monkeypatch):
    """A sampler that the test drives by ``_sample``; its clock advances 1 ms per reading."""
    times = iter(range(10**18, 10**18 + 10**9, 10**6))
    monkeypatch.setattr(sampler, "Ticker", ByHand)
    monkeypatch.setattr(
        sampler, "time", type("Time", (), {"time_ns": staticmethod(lambda: next(times))})
    )
    return sampler.Sampler(1000)


def drawn(engine):
    space = Space(10**18)
    assert engine.export(space) is None
    return lines_of(space.encode()), space.warnings


def test_what_is_the_same_in_neighbouring_looks_is_one_call(by_hand):
    by_hand.start()

    def look_twice():
        by_hand._sample()
        by_hand._sample()

    outer(look_twice)
    by_hand._sample()
    by_hand.stop()
    lines, _ = drawn(by_hand)
    events = [e for e in lines["MainThread (sampled)"] if short(e[0]) in ("outer", "inner")]
    # The samples are at 0 (before), 1 to 4, and 5 (after); the end is at 6. A sample that contains
    # the same two functions again does not show that the inner one had returned in between.
    assert [
        (short(name), round(begin / 1e6), round(end / 1e6)) for name, begin, end, _ in events
    ] == [
        ("outer", 1, 5),
        ("inner", 1, 5),
    ]
    assert events[1][0] == "inner (test_recording.py)"
    assert events[1][3] == {"source": f"{__file__}:{inner.__code__.co_firstlineno + 1}"}
    (test,) = [
        e
        for e in lines["MainThread (sampled)"]
        if short(e[0]).endswith("neighbouring_looks_is_one_call")
    ]
    assert (round(test[1] / 1e6), round(test[2] / 1e6)) == (0, 6)


def test_a_thread_that_ends_is_drawn_as_long_as_it_was_seen(by_hand):
    seen, go = threading.Event(), threading.Event()

    def work():
        seen.set()
        go.wait()

    by_hand.start()
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    seen.wait()
    by_hand._sample()
    go.set()
    thread.join()
    by_hand._sample()
    by_hand._sample()
    by_hand.stop()
    lines, _ = drawn(by_hand)
    work_events = [e for e in lines["worker (sampled)"] if short(e[0]) == "work"]
    assert [(round(begin / 1e6), round(end / 1e6)) for _, begin, end, _ in work_events] == [(1, 2)]


def test_samples_beyond_the_limit_are_counted(by_hand):
    by_hand._samples_left = 2
    by_hand.start()
    for _ in range(5):
        by_hand._sample()
    by_hand.stop()
    assert sum(map(len, by_hand._samples.values())) == 2  # of all threads that there are
    lines, warnings = drawn(by_hand)
    assert max(end for line in lines.values() for *_, end, _ in line) <= 2e6
    assert len(warnings) == 1
    assert warnings[0].endswith("samples of stacks were left out")


def test_stacks_beyond_the_memory_for_them_are_counted(by_hand):
    by_hand._bytes_left = 10
    by_hand.start()
    by_hand.stop()
    lines, warnings = drawn(by_hand)
    assert lines == {}
    assert len(warnings) == 1
    assert warnings[0].endswith("samples of stacks were left out")


def test_a_look_that_the_pipe_has_no_room_for_is_cut_and_blocks_nobody(by_hand):
    def deep(depth):
        return deep(depth - 1) if depth else [by_hand._sample() for _ in range(50)]

    by_hand.start()
    _, write = by_hand._pipe
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    deep(90)  # the first dump is what fits into the pipe, later ones are complete
    by_hand.stop()
    lines, _ = drawn(by_hand)
    assert "deep" in {short(name) for name, *_ in lines["MainThread (sampled)"]}


def test_the_sampler_finds_what_threads_do_and_not_our_own(writer):
    done = threading.Event()

    def busy():
        while not done.is_set():
            sum(range(100))

    thread = threading.Thread(target=busy, name="busy one")
    writer.add_scalar("x", 1.0, 0)  # starts the worker
    thread.start()
    with writer.profile(python="sample"):
        engine_looked = threading.Event()
        engine_looked.wait(0.05)
    done.set()
    thread.join()
    lines = read_session(writer)
    assert "busy" in {short(name) for name, *_ in lines["busy one (sampled)"]}
    assert not [name for name in lines if name.startswith("sm_tblog")]


def test_a_ticker_whose_function_fails_says_so_and_ends(caplog):
    failed = threading.Event()

    def fail():
        if threading.current_thread() is not threading.main_thread():
            failed.set()
            raise OSError("gone")

    one = ticker.Ticker(fail, 0.001, "test")
    one.start()
    assert failed.wait(60)
    one.stop()
    assert "sm_tblog test stopped" in caplog.text


# The tracer.


def leaf():
    return 1


def branch(depth):
    return leaf() + (branch(depth - 1) if depth else 0)


def numbers():
    yield leaf()
    yield leaf()


def raising():
    raise KeyError("x")


def test_the_tracer_records_every_call_within_its_caller(writer):
    with writer.profile(python="trace"):
        branch(2)
    events = read_session(writer)["MainThread (Python)"]
    named = [(short(name), begin, end) for name, begin, end, _ in events]
    assert [name for name, *_ in named if name in ("branch", "leaf")] == ["branch", "leaf"] * 3
    branches = [event for event in named if event[0] == "branch"]
    for (_, begin, end), (_, inner_begin, inner_end) in pairwise(branches):
        assert begin <= inner_begin <= inner_end <= end
    (stats, *_) = (e[3] for e in events if short(e[0]) == "leaf")
    assert stats == {"source": f"{__file__}:{leaf.__code__.co_firstlineno}"}


def test_generators_and_exceptions_leave_calls_nested(writer):
    with writer.profile(python="trace"):
        branch(sum(numbers()) - 2)
        with pytest.raises(KeyError):
            raising()
        leaf()
    events = read_session(writer)["MainThread (Python)"]
    found = [(short(name), begin, end) for name, begin, end, _ in events]
    assert [name for name, *_ in found if name in ("numbers", "leaf", "raising", "branch")] == [
        *("numbers", "leaf", "numbers", "leaf", "numbers"),
        *("branch", "leaf", "raising", "leaf"),
    ]
    last_leaf, (raised,) = found[-1], [event for event in found if event[0] == "raising"]
    assert raised[2] <= last_leaf[1] or last_leaf[0] != "leaf"


def test_the_tracer_sees_threads_that_begin_and_leaves_none_traced(writer):
    with writer.profile(python="trace"):
        thread = threading.Thread(target=branch, args=(1,), name="other")
        thread.start()
        thread.join()
    assert sys.getprofile() is None
    assert threading.getprofile() is None
    lines = read_session(writer)
    assert [short(name) for name, *_ in lines["other (Python)"]].count("leaf") == 2


def test_calls_of_this_library_are_not_recorded(writer):
    with writer.profile(python="trace"):
        with writer.span("span"):
            leaf()
        writer.add_scalar("x", 1.0, 0)
    events = read_session(writer)["MainThread (Python)"]
    root = str(Path(tracer.__file__).parents[2])
    assert "leaf" in {short(name) for name, *_ in events}
    assert not [stats for *_, stats in events if stats["source"].startswith(root)]


def test_calls_beyond_the_limit_are_counted_and_the_rest_is_nested(writer, caplog):
    with writer.profile(python="trace", max_events=20):
        for _ in range(10):
            branch(9)
    lines = read_session(writer)
    assert sum(map(len, lines.values())) == 20
    assert "calls of Python functions were left out" in caplog.text


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there sys.monitoring has several")
def test_another_profiler_is_not_displaced(writer):
    sys.setprofile(lambda *_: None)
    try:
        with pytest.raises(InvalidValueError, match="another profiler is running"):
            writer.profile(python="trace").__enter__()
    finally:
        sys.setprofile(None)
    with writer.profile(python="trace"):
        pass


# The memory.


def test_the_memory_of_the_process_is_a_curve(writer):
    with writer.profile(memory=True):
        pass
    curve = [(name, stats["value"]) for name, *_, stats in read_session(writer)["_counters_"]]
    assert len(curve) >= 2
    assert {name for name, _ in curve} == {memory.RESIDENT}
    assert all(1 < value < 1e6 for _, value in curve)


def test_the_memory_of_python_objects_is_a_second_curve(writer):
    with writer.profile(memory="python"):
        kept = [bytearray(10**6) for _ in range(8)]
    assert len(kept) == 8
    assert not tracemalloc.is_tracing()
    values = [
        stats["value"]
        for name, *_, stats in read_session(writer)["_counters_"]
        if name == memory.PYTHON
    ]
    assert values[-1] - values[0] == pytest.approx(8, abs=0.5)


def test_tracemalloc_goes_on_where_the_script_has_started_it(writer):
    tracemalloc.start()
    try:
        with writer.profile(memory="python"):
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
