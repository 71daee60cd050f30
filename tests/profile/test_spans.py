"""Spans, steps and their scalars, with a clock that the test sets."""

import asyncio
import os
import pickle
import threading

import pytest

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.profile import profiler
from sm_tblog.profile.recording import spans, steps

MS = 1_000_000


class Clock:
    def __init__(self):
        self.now = 10**12

    def __call__(self):
        return self.now

    def pass_(self, ms):
        self.now += int(ms * MS)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (spans, steps, profiler):
        monkeypatch.setattr(module, "clock", clock)
    return clock


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path / "run") as writer:
        yield writer


@pytest.fixture
def scalars(writer):
    """``scalars()`` returns the logged scalars: ``{tag: {step: value}}``, tags without prefix."""

    def read():
        assert writer.flush()
        run = sm_tblog.read(writer.log_dir)
        return {
            tag.removeprefix("profile/"): dict(
                zip(run.scalars[tag].step.tolist(), run.scalars[tag].value.tolist(), strict=True)
            )
            for tag in run.tags
        }

    return read


class Loader:
    """Batches that take time to load, with a ``batch_size`` as PyTorch's loader has it."""

    batch_size = 4

    def __init__(self, clock, waits):
        self._clock = clock
        self._waits = waits

    def __len__(self):
        return len(self._waits)

    def __iter__(self):
        for number, wait in enumerate(self._waits):
            self._clock.pass_(wait)
            yield number


def test_a_step_logs_its_time_and_how_many_there_would_be_in_a_second(writer, clock, scalars):
    with writer.step_span(7):
        clock.pass_(20)
    assert scalars() == {"step_time_ms": {7: 20.0}, "steps_per_s": {7: 50.0}}


def test_a_step_logs_the_time_of_each_kind_that_it_had(writer, clock, scalars):
    for step in range(2):
        with writer.step_span(step, examples=32):
            with writer.span("next batch", kind="input"):
                clock.pass_(5)
            with writer.span("forward", "compute"):
                clock.pass_(10)
            with writer.span("backward", "compute"):
                clock.pass_(20)
            with writer.span("without a kind"):
                clock.pass_(5)
    assert scalars() == {
        "step_time_ms": {0: 40.0, 1: 40.0},
        "input_ms": {0: 5.0, 1: 5.0},
        "compute_ms": {0: 30.0, 1: 30.0},
        "examples_per_s": {0: 800.0, 1: 800.0},
    }


def test_a_kind_that_a_step_has_not_is_zero_from_its_first_time_on(writer, clock, scalars):
    for step in range(3):
        with writer.step_span(step):
            clock.pass_(1)
            if step == 1:
                with writer.span("save", "checkpoint"):
                    clock.pass_(3)
    assert scalars()["checkpoint_ms"] == {1: 3.0, 2: 0.0}


def test_kinds_within_each_other_add_up_to_no_more_than_the_step(writer, clock, scalars):
    with writer.step_span(0), writer.span("epoch's end", "evaluation"):
        clock.pass_(10)
        with writer.span("next batch", "input"):
            clock.pass_(2)
            with writer.span("decode", "input"):
                clock.pass_(3)
        with writer.span("score", "evaluation"), writer.span("score", "evaluation"):
            clock.pass_(5)
    logged = scalars()
    assert logged["evaluation_ms"] == {0: 15.0}
    assert logged["input_ms"] == {0: 5.0}


def test_spans_between_steps_and_of_other_threads_are_not_the_steps(writer, clock, scalars):
    def elsewhere():
        with writer.span("prefetch", "input"):
            clock.pass_(7)

    with writer.step_span(0), writer.span("wait", "input"):
        clock.pass_(1)
    with writer.span("wait", "input"):
        clock.pass_(100)
    with writer.step_span(1):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert scalars()["input_ms"] == {0: 1.0, 1: 0.0}


def test_scalars_are_means_over_as_many_steps_as_asked_for(writer, clock, scalars):
    for step in range(5):
        with writer.step_span(step, examples=10, log_every=2):
            with writer.span("wait", "input"):
                clock.pass_(step)
            clock.pass_(10)
    logged = scalars()
    assert logged["step_time_ms"] == {1: 10.5, 3: 12.5}
    assert logged["input_ms"] == {1: 0.5, 3: 2.5}
    assert logged["examples_per_s"] == {1: pytest.approx(20 / 0.021), 3: 800.0}


def test_track_makes_a_step_of_each_batch_with_the_wait_for_it(writer, clock, scalars):
    tracked = writer.track(Loader(clock, [3, 1, 2]))
    assert len(tracked) == 3
    for batch in tracked:
        clock.pass_(10 + batch)
    assert scalars() == {
        "step_time_ms": {0: 13.0, 1: 12.0, 2: 14.0},
        "input_ms": {0: 3.0, 1: 1.0, 2: 2.0},
        "examples_per_s": {0: pytest.approx(4 / 0.013), 1: pytest.approx(4 / 0.012)}
        | {2: pytest.approx(4 / 0.014)},
    }


def test_track_counts_on_from_epoch_to_epoch(writer, clock, scalars):
    tracked = writer.track(Loader(clock, [1, 1]), start=100)
    for _ in range(2):
        assert list(tracked) == [0, 1]
    with writer.step_span():
        clock.pass_(1)
    assert list(scalars()["step_time_ms"]) == [100, 101, 102, 103, 104]


def test_a_resumed_writer_counts_on_from_its_purge_step(tmp_path):
    with Writer(tmp_path, resume=30) as writer:
        list(writer.track("ab"))
    assert sm_tblog.read(tmp_path).scalars["profile/step_time_ms"].step.tolist() == [30, 31]


def test_a_loop_that_is_left_ends_its_step(writer, clock, scalars):
    for batch in writer.track(Loader(clock, [1, 1, 1])):
        clock.pass_(5)
        if batch == 1:
            break

    def train():
        for _ in writer.track(Loader(clock, [1])):
            clock.pass_(2)
            raise RuntimeError("training")

    with pytest.raises(RuntimeError, match="training"):
        train()
    assert scalars()["step_time_ms"] == {0: 6.0, 1: 6.0, 2: 3.0}
    assert writer._span_recorder.idle is not None


def test_what_a_loader_raises_passes_and_makes_no_step(writer, clock, scalars):
    def loader():
        yield 0
        raise OSError("a file is gone")

    with pytest.raises(OSError, match="gone"):
        list(writer.track(loader()))
    assert list(scalars()["step_time_ms"]) == [0]
    assert writer._span_recorder.idle is not None


def test_a_loop_within_a_step_is_a_part_of_it(writer, clock, scalars):
    for _ in writer.track(Loader(clock, [1])):
        for _ in writer.track(Loader(clock, [2, 2])):
            clock.pass_(10)
    assert scalars() == {
        "step_time_ms": {0: 25.0},
        "input_ms": {0: 5.0},
        "examples_per_s": {0: pytest.approx(160.0)},
    }


def test_a_decorated_function_is_in_its_span_whenever_it_runs(writer, clock, scalars):
    @writer.span("forward", kind="compute")
    def forward(x, *, twice=False):
        """Docs."""
        clock.pass_(4)
        return forward(x, twice=False) if twice else x + 1

    @writer.span("fetch", kind="input")
    async def fetch():
        clock.pass_(3)

    assert forward.__doc__ == "Docs."
    assert forward(1) == 2
    with writer.step_span(0):
        assert forward(1, twice=True) == 2
        asyncio.run(fetch())

        @writer.span("inner", "inner")
        def made_within_a_step():
            clock.pass_(1)

    with writer.step_span(1):
        made_within_a_step()
        threads = [threading.Thread(target=forward, args=(1,)) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
    logged = scalars()
    assert logged["compute_ms"] == {0: 8.0, 1: 0.0}
    assert logged["input_ms"] == {0: 3.0, 1: 0.0}
    assert logged["inner_ms"] == {0: 0.0, 1: 1.0}


def test_a_span_may_be_within_itself(writer, clock, scalars):
    with writer.step_span(0):
        again = writer.span("wait", "input")
        with again, again:
            clock.pass_(2)
        with again:
            clock.pass_(3)
    assert scalars()["input_ms"] == {0: 5.0}


def test_a_span_that_spans_the_end_of_a_step_or_its_beginning_harms_nothing(writer, clock, scalars):
    outer = writer.span("long", "input")
    with outer:
        step = writer.step_span(0).__enter__()
        inner = writer.span("long", "input").__enter__()
        clock.pass_(5)
        step.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    with writer.step_span(1):
        clock.pass_(1)
    assert scalars()["step_time_ms"] == {0: 5.0, 1: 1.0}


def test_names_without_end_do_not_fill_the_memory(writer, monkeypatch):
    monkeypatch.setattr(spans, "MAX_NAMES", 10)
    for number in range(100):
        with writer.span(f"batch {number}"):
            pass
    with writer.step_span(0):
        for number in range(100):
            with writer.span(f"batch {number}", "input"):
                pass
    assert len(writer._span_recorder.spans) <= 10
    assert len(writer._span_recorder.thread()) <= 10


def test_a_disabled_writer_times_nothing_and_hands_back_the_loader(tmp_path):
    writer = Writer(tmp_path / "run", enabled=False)
    loader = [1, 2]
    assert writer.track(loader) is loader
    with writer.step_span(0):
        assert writer._span_recorder.idle is not None
        with writer.span("x", "input"):
            writer.counter("queue", 1)
    assert not (tmp_path / "run").exists()


def test_a_pickled_writer_counts_its_own_steps(writer, clock):
    with writer.step_span(5):
        copy = pickle.loads(pickle.dumps(writer))
    assert copy._span_recorder is not writer._span_recorder
    assert copy._span_recorder.idle is not None
    copy.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_within_a_step_logs_nothing_of_it(writer, clock, scalars, event_files):
    with writer.step_span(0):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
    if not child:
        with writer.span("x", "input"):
            pass
        writer.close()
        os._exit(writer._span_recorder.idle is None)
    assert list(scalars()["step_time_ms"]) == [0]
    assert len(event_files(writer.log_dir)) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: w.span(3), InvalidTypeError, "name must be a str, got 3"),
        (lambda w: w.span("x", kind=3), InvalidTypeError, "span 'x': kind must be a str, got 3"),
        (lambda w: w.span("x")(3), InvalidTypeError, "span 'x' decorates a function, not 3"),
        (lambda w: w.span("x")(Loader.__iter__), InvalidTypeError, "write a with block"),
        (lambda w: w.step_span("one"), InvalidTypeError, "step_span"),
        (
            lambda w: w.step_span(0, log_every=0),
            InvalidValueError,
            "log_every must be at least 1",
        ),
        (lambda w: w.step_span(0, examples=1.5), InvalidTypeError, "examples must be an integer"),
        (lambda w: w.track(3), InvalidTypeError, "must be iterable, got 3"),
        (lambda w: w.track([], start="one"), InvalidTypeError, "track"),
        (
            lambda w: w.track([], examples=-1),
            InvalidValueError,
            "examples must be at least 0",
        ),
        (lambda w: len(w.track(iter("a"))), TypeError, "has no len"),
    ],
)
def test_a_bad_call_says_what_is_wrong(writer, call, error, message):
    with pytest.raises(error, match=message):
        call(writer)
    with writer.step_span(0), pytest.raises(error, match=message):
        call(writer)
