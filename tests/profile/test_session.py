"""Sessions: the contents of their files, their names, and their errors."""

import logging
import os
import threading
from itertools import pairwise
from pathlib import Path

import fsspec
import pytest
from profiles import lines_of

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, Schedule, Writer
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile import names, session
from sm_tblog.profile.engines import choice
from sm_tblog.profile.schedule import Phase

MS = 1_000_000


def files_of(logdir):
    return sorted(Path(logdir).glob("plugins/profile/*/*"))


def sessions_of(logdir):
    return sorted(path.name for path in Path(logdir).glob("plugins/profile/*"))


class Session:
    """The contents of a file: lines of ``(name, begin, end, stats)``; times in session ns."""

    def __init__(self, data):
        self.warnings = list(XSpace.FromString(data).warnings)
        self.lines = lines_of(data)

    def events(self, name):
        return [event for line in self.lines.values() for event in line if event[0] == name]

    def steps(self):
        return [stats["step_num"] for *_, stats in self.events("step") if stats.get("_r") == 1]


def read_session(logdir, name=None):
    (path,) = (path for path in files_of(logdir) if name in (None, path.parent.name))
    return Session(path.read_bytes())


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path / "run") as writer:
        yield writer


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Hide the variables of a job, and the frameworks that other tests have imported."""
    for variable in (*names._JOB, *names._RESTARTS, "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(choice, "sys", type("Sys", (), {"modules": {}}))


class Recorded:
    """An engine that records its calls."""

    def __init__(self, **faults):
        self.calls = []
        self._faults = faults

    def _call(self, what):
        self.calls.append(what)
        if what in self._faults:
            raise self._faults[what]

    def start(self):
        self._call("start")

    def stop(self):
        self._call("stop")

    def export(self, space):
        self._call("export")
        space.plane("/engine").line("its own").event("of the engine", space.begin_ns, 5)
        return {"more.txt": b"more"}


@pytest.fixture
def engine(monkeypatch):
    """``engine(optional=…, **faults)`` adds an engine to each session that is created later."""

    def put(optional=False, engine=None, **faults):
        engine = engine or Recorded(**faults)
        lists = ([], [engine]) if optional else ([engine], [])
        monkeypatch.setattr(choice, "choose_engines", lambda **_: lists)
        return engine

    return put


# Contents of a file.


def test_a_session_holds_spans_steps_and_counters_of_every_thread(writer):
    def load():
        with writer.span("decode"):
            writer.counter("queue", 3)

    with writer.profile("first") as profile:
        assert profile.name == "first"
        for batch in writer.track([10, 11], start=5):
            with writer.span("forward", "compute"):
                writer.counter("batch", batch)
            thread = threading.Thread(target=load, name="loader")
            thread.start()
            thread.join()
    writer.close()
    read = read_session(writer.log_dir, "first")
    assert read.steps() == [5, 6]
    assert [name for name, *_ in read.lines["loader"]] == ["decode", "decode"]
    waits = read.events("wait for input")
    for step, wait, forward in zip(
        read.events("step"), waits, read.events("forward"), strict=False
    ):
        assert step[1] <= wait[1] <= wait[2] <= forward[1] <= forward[2] <= step[2]
        assert forward[3] == {"kind": "compute"}
        assert wait[3]["_ipl_stage_name"] == "wait for input"
        assert wait[3]["_ipl_stage_id"] >= 1 << 40
    assert len(waits) == 3  # the last one reached the end
    values = [(name, stats["value"]) for name, *_, stats in read.lines["_counters_"]]
    assert sorted(values) == [("batch", 10), ("batch", 11), ("queue", 3), ("queue", 3)]
    assert read.warnings == []


def test_the_scalars_tell_what_the_session_holds(writer):
    with writer.profile():
        for _ in writer.track(range(5)):
            with writer.span("work", "compute"):
                sum(range(1000))
    writer.close()
    read = read_session(writer.log_dir)
    logged = sm_tblog.read(writer.log_dir).scalars["profile/step_time_ms"].value
    recorded = [(end - begin) / 1e6 for _, begin, end, _ in read.events("step")]
    assert logged.tolist() == pytest.approx(recorded, rel=1e-6)


def test_only_what_is_in_the_session_is_in_its_file(writer):
    with writer.span("around"), writer.step_span(0):
        kept = writer.span("kept", "input").__enter__()
        with writer.profile():
            with writer.span("inside"):
                pass
            open_still = writer.span("open still").__enter__()
        kept.__exit__(None, None, None)
        open_still.__exit__(None, None, None)
        with writer.span("after"):
            pass
    with writer.profile("second"), writer.span("of the second"):
        pass
    writer.close()
    first, second = files_of(writer.log_dir)
    first = Session(first.read_bytes())
    assert {event[0] for line in first.lines.values() for event in line} == {"inside", "step"}
    assert first.steps() == [0]  # it lasted longer than the session
    second = Session(second.read_bytes())
    assert {e[0] for line in second.lines.values() for e in line} == {"of the second"}


def test_rows_beyond_the_limit_are_counted_and_said(writer, caplog):
    with writer.profile("small", max_events=10, torch=False):
        for number in range(25):
            with writer.span("span"):
                writer.counter("count", number)
    with caplog.at_level(logging.WARNING, "sm_tblog"):
        writer.close()
    read = read_session(writer.log_dir)
    assert sum(map(len, read.lines.values())) == 10
    assert "40 spans, steps and counters were left out" in " ".join(read.warnings)
    assert "left out" in caplog.text


def test_a_session_goes_where_the_writers_files_go():
    writer = Writer("memory://profiles/run")
    with writer, writer.profile("there"), writer.span("span"):
        pass
    (path,) = fsspec.filesystem("memory").glob("/profiles/run/plugins/profile/there/*.xplane.pb")
    read = Session(fsspec.filesystem("memory").cat(path))
    assert len(read.events("span")) == 1


def test_a_session_goes_to_s3(moto_server):
    moto_server.make_bucket()
    writer = Writer("s3://bucket/profiled", storage_options=moto_server.options)
    with writer, writer.profile("there"), writer.span("span"):
        pass
    (file,) = moto_server.client().list_objects_v2(
        Bucket="bucket", Prefix="profiled/plugins/profile/there/"
    )["Contents"]
    data = moto_server.client().get_object(Bucket="bucket", Key=file["Key"])["Body"].read()
    assert len(Session(data).events("span")) == 1


# Opening and closing.


def test_an_exception_passes_and_the_session_is_written(writer):
    with (
        pytest.raises(RuntimeError, match="training"),
        writer.profile("broken"),
        writer.span("span"),
    ):
        raise RuntimeError("training")
    writer.close()
    assert len(read_session(writer.log_dir, "broken").events("span")) == 1


def test_a_second_session_is_refused_while_one_is_open(writer, tmp_path):
    with writer.profile("first"):
        with pytest.raises(InvalidValueError, match="is already open in this process: first"):
            writer.profile("second").__enter__()
        with Writer(tmp_path / "other") as other, pytest.raises(InvalidValueError, match="first"):
            other.profile().__enter__()
        with writer.span("goes on"):
            pass
    with writer.profile("third"):
        pass
    writer.close()
    assert sessions_of(writer.log_dir) == ["first", "third"]
    assert len(read_session(writer.log_dir, "first").events("goes on")) == 1


def test_closing_the_writer_ends_the_session(writer):
    profile = writer.profile("first").__enter__()
    with writer.span("span"):
        pass
    assert writer.close()
    assert len(read_session(writer.log_dir).events("span")) == 1
    profile.__exit__(None, None, None)  # does nothing
    writer.close()
    assert len(files_of(writer.log_dir)) == 1


def test_a_child_records_in_its_parents_session_and_does_not_end_it(writer):
    with writer.profile("first"):
        validation = writer.child("validation")
        with validation.span("of the child"):
            pass
        assert validation.close()
        with writer.span("goes on"):
            pass
    with validation.profile("its own"):
        pass
    validation.close()
    writer.close()
    read = read_session(writer.log_dir, "first")
    assert [event[0] for event in read.lines["MainThread"]] == ["of the child", "goes on"]
    assert sessions_of(f"{writer.log_dir}/validation") == ["its own"]


def test_closing_the_writer_ends_a_warm_up(writer, engine):
    recorded = engine()
    recorded.warms_up = True
    writer.profiler(Schedule(warmup=5)).step()
    assert recorded.calls == ["start"]
    writer.close()
    assert recorded.calls == ["start", "stop"]
    assert session._open is None


def test_a_session_is_opened_once(writer):
    profile = writer.profile("first")
    with profile:
        pass
    with pytest.raises(InvalidValueError, match="'first' has been opened before; create another"):
        profile.__enter__()


def test_a_session_open_at_the_end_of_the_process_is_written(tmp_path, run_script):
    source = """
    import sys
    from sm_tblog import Schedule, Writer

    writer = Writer(sys.argv[1])
    profiler = writer.profiler(Schedule(active=10))
    for step in range(3):
        with writer.step_span(step):
            pass
        profiler.step()
    sys.exit(3)
    """
    done = run_script("\n".join(line[4:] for line in source.splitlines()), tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert read_session(tmp_path).steps() == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_session_to_its_parent(writer):
    profile = writer.profile("first", python="trace", memory="python")
    with profile, writer.span("of the parent"):
        child = os.fork()
        if not child:
            with writer.span("of the child"):
                pass
            profile.__exit__(None, None, None)
            with writer.profile("of the child"):
                pass
            os._exit(not writer.close())
        assert os.waitpid(child, 0)[1] == 0
    writer.close()
    assert sessions_of(writer.log_dir) == ["first", "of the child"]
    read = read_session(writer.log_dir, "first")
    assert len(read.events("of the parent")) == 1
    assert not read.events("of the child")


def test_a_disabled_writer_opens_no_session(tmp_path):
    writer = Writer(tmp_path / "run", enabled=False)
    with writer.profile(python="trace") as profile, writer.profile():
        assert profile.name == ""
    with writer.profiler(Schedule()) as profiler:
        profiler.step()
    assert session._open is None
    assert not (tmp_path / "run").exists()


# Engines.


def test_an_engine_adds_events_and_files(writer, engine):
    recorded = engine()
    with writer.profile("first"):
        assert recorded.calls == ["start"]
    writer.close()
    assert recorded.calls == ["start", "stop", "export"]
    further, own = files_of(writer.log_dir)
    assert (further.name, further.read_bytes()) == ("more.txt", b"more")
    assert Session(own.read_bytes()).lines["its own"][0][0] == "of the engine"


@pytest.mark.parametrize("method", ["stop", "export"])
def test_an_engine_that_fails_loses_its_own_records_only(writer, engine, method, caplog):
    engine(**{method: OSError("a driver is gone")})
    with writer.profile("first"), writer.span("span"):
        pass
    writer.close()
    (path,) = [path for path in files_of(writer.log_dir) if path.name != "more.txt"]
    read = Session(path.read_bytes())
    assert len(read.events("span")) == 1
    assert "a driver is gone" in read.warnings[0]
    assert "a driver is gone" in caplog.text


def test_an_engine_that_cannot_start_ends_the_attempt_if_it_was_asked_for(writer, engine):
    engine(start=InvalidValueError("another profiler runs"))
    with pytest.raises(InvalidValueError, match="another profiler"):
        writer.profile().__enter__()
    engine()
    with writer.profile("next"):
        pass


def test_an_engine_that_cannot_start_is_left_out_if_it_was_not_asked_for(writer, engine):
    recorded = engine(optional=True, start=OSError("another profiler runs"))
    with writer.profile(), writer.span("span"):
        pass
    writer.close()
    assert recorded.calls == ["start"]
    read = read_session(writer.log_dir)
    assert read.warnings == ["Recorded did not start: another profiler runs"]
    assert len(read.events("span")) == 1


# Schedules.


def test_a_schedule_says_what_each_step_is():
    schedule = Schedule(skip_first=2, wait=1, warmup=1, active=2, repeat=2)
    kinds = []
    for step in range(12):
        phase = schedule.phase(step)
        kinds.append("w" if phase.is_warm_up else "A" if phase.is_active else ".")
    assert "".join(kinds) == "..." + "wAA" + "." + "wAA" + ".."
    assert [schedule.phase(step).cycle for step in (4, 8)] == [0, 1]
    assert Schedule(active=3, repeat=0).phase(3001) == Phase(1000, is_active=True)


def test_a_profiler_makes_a_session_of_each_cycle(writer):
    schedule = Schedule(skip_first=1, wait=1, warmup=1, active=2, repeat=2)
    with writer.profiler(schedule, "run") as profiler:
        opened = []
        for _ in writer.track(range(12), start=100):
            opened.append(profiler.session)
            profiler.step()
    writer.close()
    assert opened == ["", "", "", *["run-step103"] * 2, "", "", *["run-step107"] * 2, "", "", ""]
    assert sessions_of(writer.log_dir) == ["run-step103", "run-step107"]
    assert read_session(writer.log_dir, "run-step103").steps() == [103, 104]
    assert read_session(writer.log_dir, "run-step107").steps() == [107, 108]


@pytest.mark.parametrize("close", ["with", "close"])
@pytest.mark.parametrize(
    ("schedule", "steps", "said"),
    [
        (Schedule(wait=1), 0, "step() was never called"),
        (Schedule(), 0, "step() was never called"),
        (
            Schedule(skip_first=2, wait=2, warmup=1),
            4,
            "called 4 times, and the schedule",
        ),
        (Schedule(skip_first=2, wait=2, warmup=1), 6, None),
        (Schedule(), 1, None),
    ],
)
def test_a_schedule_that_is_not_reached_is_said_at_the_end(
    writer, caplog, close, schedule, steps, said
):
    profiler = writer.profiler(schedule, torch=False)
    if close == "with":
        with profiler:
            for _ in range(steps):
                profiler.step()
    else:
        for _ in range(steps):
            profiler.step()
    profiler.close()
    assert len(caplog.messages) == (said is not None)
    assert (said or "") in caplog.text


def test_a_loop_that_fails_or_is_not_profiled_says_nothing_of_steps(writer, tmp_path, caplog):
    with pytest.raises(ZeroDivisionError), writer.profiler(Schedule(wait=1), torch=False):
        1 / 0  # noqa: B018 - raises
    with (
        Writer(tmp_path / "none", enabled=False) as disabled,
        disabled.profiler(Schedule(wait=1), torch=False),
    ):
        pass
    assert caplog.messages == []


def test_cycles_without_a_pause_are_sessions_of_their_own(writer):
    profiler = writer.profiler(Schedule(active=2, repeat=0), "run")
    for step in range(5):
        profiler.step() if step else profiler.__enter__()
        with writer.step_span(step):
            pass
    profiler.close()
    writer.close()
    assert sessions_of(writer.log_dir) == ["run-step0", "run-step2", "run-step4"]
    assert read_session(writer.log_dir, "run-step2").steps() == [2, 3]
    assert read_session(writer.log_dir, "run-step4").steps() == [4]


def test_a_profiler_marks_steps_where_the_script_does_not(writer):
    with writer.profiler(Schedule(wait=1, active=2), "run") as profiler:
        for _ in range(5):
            thread = threading.Thread(target=writer.span("load")(int))  # it comes first
            thread.start()
            thread.join()
            with writer.span("train"):
                pass
            profiler.step()
    writer.close()
    read = read_session(writer.log_dir)
    assert read.steps() == [1, 2]
    steps, trained = read.events("step"), read.events("train")
    for step, span in zip(steps, trained, strict=True):
        assert step[1] <= span[1] <= span[2] <= step[2]
    (line,) = [name for name, events in read.lines.items() if steps[0] in events]
    assert line == "MainThread"


def test_engines_that_warm_up_run_before_the_session_begins(writer, engine):
    recorded = engine()
    recorded.warms_up = True
    late = Recorded()
    choice.choose_engines = lambda **_: ([recorded, late], [])  # the fixture restores it
    with writer.profiler(Schedule(warmup=1, active=1)) as profiler:
        assert (recorded.calls, late.calls, profiler.session) == (["start"], [], "")
        profiler.step()
        assert (recorded.calls, late.calls) == (["start"], ["start"])
        profiler.step()
        assert recorded.calls[:2] == late.calls[:2] == ["start", "stop"]


def test_a_loop_that_ends_while_warming_up_leaves_nothing(writer, engine):
    recorded = engine()
    recorded.warms_up = True
    with writer.profiler(Schedule(warmup=5, active=1)) as profiler:
        profiler.step()
    writer.close()
    assert recorded.calls == ["start", "stop"]
    assert sessions_of(writer.log_dir) == []
    assert session._open is None


def test_a_session_that_cannot_be_opened_does_not_stop_the_training(writer, caplog):
    with writer.profiler(Schedule(wait=1, active=1, repeat=2), "steps") as profiler:
        with writer.profile("by hand"):
            profiler.step()
            assert profiler.session == ""
        profiler.step()
        profiler.step()
        assert profiler.session == "steps-step3"
    writer.close()
    assert sessions_of(writer.log_dir) == ["by hand", "steps-step3"]
    assert "steps from 1 on are not profiled: profile: a session is already open" in caplog.text


# Names.


def test_a_process_by_itself_names_sessions_by_the_time(writer):
    with writer.profile() as first:
        pass
    with writer.profile() as second:
        pass
    assert first.name[:2] == "20"
    assert first.name != second.name
    assert names.session_name(None, 12, 1).endswith("-step12")


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"TORCHELASTIC_RUN_ID": "run/7", "MASTER_PORT": "1"}, "run_7"),
        ({"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}, "29500"),
        ({"SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": "2"}, "4711-restart2"),
        ({"TRAINING_JOB_NAME": "resnet", "TORCHELASTIC_RESTART_COUNT": "0"}, "resnet"),
        ({}, "job"),
    ],
)
def test_the_ranks_of_a_job_agree_without_asking(monkeypatch, tmp_path, environment, job):
    written = []
    for rank in range(11):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "11")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with Writer(tmp_path / str(rank)) as writer:
            with writer.profile(), writer.profiler(Schedule()):  # the second is left out
                pass
            with writer.profiler(Schedule(wait=1)) as profiler:
                profiler.step()
        written.append([path.parent.name for path in files_of(tmp_path / str(rank))])
        assert all(
            path.name.startswith(f"rank{rank:02d}-") for path in files_of(tmp_path / str(rank))
        )
    assert written[0] == [f"{job}-session1", f"{job}-step1"]
    assert all(one == written[0] for one in written)


def test_a_session_of_an_earlier_start_is_not_written_over(tmp_path, monkeypatch):
    for _ in range(3):
        for rank in "01":
            monkeypatch.setenv("RANK", rank)
            monkeypatch.setenv("WORLD_SIZE", "2")
            with Writer(tmp_path) as writer, writer.profile("first"):
                pass
    assert sessions_of(tmp_path) == ["first", "first-2", "first-3"]
    assert [
        len(list((tmp_path / "plugins/profile" / one).iterdir())) for one in sessions_of(tmp_path)
    ] == [2, 2, 2]


def test_a_name_that_was_used_a_moment_ago_gets_a_number(writer):
    for _ in range(2):
        with writer.profile("first") as profile:
            pass
    assert profile.name == "first-2"


# Invalid arguments.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": 3}, InvalidTypeError, "name must be a str, got 3"),
        ({"name": "a/b"}, InvalidValueError, "no dot or space at its ends; got 'a/b'"),
        ({"name": ".."}, InvalidValueError, "a valid folder name"),
        ({"name": ""}, InvalidValueError, "a valid folder name"),
        ({"python": "all"}, InvalidValueError, "python must be one of None, 'sample', 'trace'"),
        ({"memory": 3}, InvalidValueError, "memory must be one of False, True, 'python', got 3"),
        ({"torch": "yes"}, InvalidValueError, "torch must be one of False, True, 'auto', got"),
        ({"max_events": 0}, InvalidValueError, "max_events must be 1 or more, got 0"),
        ({"max_events": 1.5}, InvalidTypeError, "max_events must be an integer, got 1.5"),
    ],
)
def test_a_bad_option_is_refused_at_the_call(writer, options, error, message):
    with pytest.raises(error, match=message):
        writer.profile(**options)
    with pytest.raises(error, match=message):
        writer.profiler(Schedule(), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"wait": -1}, InvalidValueError, "wait must be 0 or more, got -1"),
        ({"active": 0}, InvalidValueError, "active must be 1 or more, got 0"),
        ({"warmup": 1.5}, InvalidTypeError, "warmup must be an integer, got 1.5"),
    ],
)
def test_a_bad_schedule_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        Schedule(**options)


def test_a_profiler_needs_a_schedule(writer):
    with pytest.raises(InvalidTypeError, match="expected a Schedule, got 3"):
        writer.profiler(3)


def test_what_a_session_holds_is_in_order_and_nested(writer):
    with writer.profile(python="trace"):
        for _ in writer.track(range(3)):
            with writer.span("outer"):
                sorted(range(10), key=lambda x: -x)
    writer.close()
    for line in read_session(writer.log_dir).lines.values():
        for (_, begin, end, _), (_, later, later_end, _) in pairwise(line):
            assert begin <= later
            assert later >= end or later_end <= end
