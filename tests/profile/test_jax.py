"""Sessions of JAX's and TensorFlow's profilers, merged into those of this library."""

import gc
import subprocess
import sys

import profiles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sm_tblog import InvalidTypeError, InvalidValueError, Schedule, Writer
from sm_tblog.format.xspace import XSpace
from sm_tblog.profile.engines.folder import add_session
from sm_tblog.profile.engines.jax import jax_engine
from sm_tblog.profile.formats.xspace import Space


def check_session(message, inner):
    """Check that the framework's events are nested in spans and steps, all on one line."""
    host = list(profiles.events_of(message, "/host:CPU"))
    steps = {e.stats["step_num"]: e for e in host if e.name == "step"}
    assert sorted(steps) == [0, 1, 2]
    spans = [e for e in host if e.name == "forward"]
    calls = [e for e in host if e.name.startswith(inner)]
    assert len(spans) == 3
    for step, span in zip(steps.values(), spans, strict=True):
        assert step.begin <= span.begin <= span.end <= step.end
        assert any(span.begin <= call.begin and call.end <= span.end for call in calls)
    assert len({e.line_id for e in (*steps.values(), *spans, *calls)}) == 1
    assert [plane.name for plane in message.planes].count("/host:CPU") == 1
    assert not any(e.name == "sm_tblog" for e in host)
    assert not message.warnings
    return host


class TestJax:
    @pytest.fixture
    def forward(self):
        jax = pytest.importorskip("jax", reason="JAX is not installed")
        function = jax.jit(lambda x: jax.numpy.tanh(x @ x).sum())
        x = jax.numpy.ones((64, 64))
        function(x).block_until_ready()
        return lambda: function(x).block_until_ready()

    def test_what_it_did_stands_inside_our_spans(self, tmp_path, forward):
        import jax

        with Writer(tmp_path) as writer, writer.profile("mine", jax=True, memory=True, torch=False):
            for number in range(3):
                with writer.step_span(number), writer.span("forward"):
                    forward()
        host = check_session(profiles.only_session(tmp_path), "PjitFunction")
        operations = [e for e in host if "hlo_module" in e.stats]
        if jax.__version_info__ >= (0, 7):  # 0.6, the last for Python 3.10, does not name them
            assert operations, "what XLA has compiled, on its own threads"
        assert not any(e.name.startswith("$") for e in host)

    def test_functions_have_lines_of_their_own(self, tmp_path, forward):
        options = {"with_stack": True}
        with Writer(tmp_path) as writer, writer.profile("mine", jax=options, torch=False):
            for number in range(3):
                with writer.step_span(number), writer.span("forward"):
                    forward()
        host = check_session(profiles.only_session(tmp_path), "PjitFunction")
        functions = {e.line for e in host if e.name.startswith("$")}
        assert functions
        assert all(name.endswith(" Python") for name in functions)

    def test_the_warm_up_is_left_out(self, tmp_path, forward):
        with (
            Writer(tmp_path) as writer,
            writer.profiler(Schedule(warmup=2, active=2), jax=True, torch=False) as profiler,
        ):
            for number in range(5):
                with writer.step_span(number):
                    forward()
                profiler.step()
        host = list(profiles.events_of(profiles.only_session(tmp_path), "/host:CPU"))
        assert [e.stats["step_num"] for e in host if e.name == "step"] == [2, 3]
        calls = [e for e in host if e.name.startswith("PjitFunction")]
        assert calls
        assert min(e.begin for e in calls) > min(e.begin for e in host if e.name == "step")

    def test_a_profiler_that_runs_already_is_said(self, tmp_path, forward):
        import jax

        jax.profiler.start_trace(str(tmp_path / "theirs"))
        try:
            with (
                Writer(tmp_path / "ours") as writer,
                pytest.raises(InvalidValueError, match=r"JAX's profiler cannot start.*already"),
                writer.profile(jax=True),
            ):
                pass
        finally:
            jax.profiler.stop_trace()
        assert profiles.sessions(tmp_path / "theirs")

    def test_jax_is_not_started_by_a_session(self, tmp_path):
        pytest.importorskip("jax", reason="JAX is not installed")
        script = f"""
import jax
from jax._src import xla_bridge
from sm_tblog import InvalidValueError, Writer
with Writer({str(tmp_path)!r}) as writer:
    with writer.profile("auto") as session, writer.step_span(0):
        pass
    try:
        writer.profile(jax=True).__enter__()
    except InvalidValueError as error:
        print(error)
print(xla_bridge.backends_are_initialized())
"""
        run = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=100
        )
        said, started = run.stdout.splitlines()
        assert "after a first step" in said
        assert started == "False"
        message = profiles.only_session(tmp_path)
        assert not message.warnings
        assert [e.name for e in profiles.events_of(message, "/host:CPU")] == ["step"]

    def test_no_folder_is_left_behind(self, tmp_path, forward, monkeypatch):
        import tempfile

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with Writer(tmp_path / "runs") as writer:
            with writer.profile("mine", jax=True, torch=False), writer.step_span(0):
                forward()
            engine = jax_engine()
            engine.start()
            assert list(tmp_path.glob("sm_tblog-*"))
            with pytest.raises(InvalidValueError, match="already"):
                writer.profile(jax=True, torch=False).__enter__()
            engine.stop()
        del engine
        gc.collect()
        assert not list(tmp_path.glob("sm_tblog-*"))

    def test_options_that_it_does_not_have_raise(self, tmp_path, forward):
        with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match="with_stack"):
            writer.profile(jax={"record_shapes": True})


TENSORFLOW = """
import sys
import tensorflow as tf
from sm_tblog import Writer
function = tf.function(lambda x: tf.reduce_sum(tf.tanh(x @ x)))
x = tf.ones((64, 64))
function(x)
with Writer(sys.argv[1]) as writer:
    with writer.profile("mine", tensorflow=True, torch=False):
        for number in range(3):
            with writer.step_span(number), writer.span("forward"):
                function(x)
    tf.profiler.experimental.start(sys.argv[1] + "/theirs")
    try:
        writer.profile(tensorflow=True).__enter__()
    except Exception as error:
        print(type(error).__name__, error)
    tf.profiler.experimental.stop()
"""


def test_what_tensorflow_did_stands_inside_our_spans(tmp_path):
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    # In a separate process: TensorFlow has its own schema and needs half a gigabyte.
    run = subprocess.run(
        [sys.executable, "-c", TENSORFLOW, str(tmp_path)],
        check=True, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert run.stdout.startswith("InvalidValueError profile: TensorFlow's profiler cannot start")
    [file] = tmp_path.glob("plugins/profile/mine/*.xplane.pb")
    check_session(XSpace.FromString(file.read_bytes()), "<lambda>")


# What another profiler might write.

BEGIN = 1_700_000_000 * 10**9


@given(
    begun=st.integers(-50, 50),
    offset=st.integers(0, 30),
    events=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 9)), max_size=9),
)
def test_a_plane_of_a_device_is_taken_as_it_is_from_the_beginning_on(begun, offset, events):
    events.sort()
    theirs = XSpace(warnings=["something"])
    environment = theirs.planes.add(name="Task Environment")
    environment.stat_metadata[1].name = "profile_start_time"
    environment.stats.add(metadata_id=1, uint64_value=BEGIN + begun)
    plane = theirs.planes.add(name="/device:TPU:0", id=4)
    plane.event_metadata[7].name = "fusion"
    plane.stat_metadata[3].name = "bytes"
    line = plane.lines.add(id=2, name="XLA Ops", timestamp_ns=offset)
    for at, duration in events:
        event = line.events.add(
            metadata_id=7, offset_ps=at * 1000 + 1, duration_ps=duration * 1000 + 5
        )
        event.stats.add(metadata_id=3, uint64_value=9)
    space = Space(BEGIN)
    add_session(theirs.SerializeToString(), space)
    message = XSpace.FromString(space.encode())
    shown = profiles.plane_of(message, "/device:TPU:0")
    start = profiles.start_of(message)
    found = [
        (start - BEGIN + one.timestamp_ns) * 1000 + e.offset_ps
        for one in shown.lines
        for e in one.events
    ]
    expected = [(begun + offset + at) * 1000 + 1 for at, _ in events]
    assert found == [at for at in expected if at >= 0]
    assert all(one.timestamp_ns >= 0 for one in shown.lines)
    assert [e.duration_ps for e in shown.lines[0].events] == [
        duration * 1000 + 5 for at, duration in events if (begun + offset + at) * 1000 + 1 >= 0
    ]
    assert (shown.id, shown.lines[0].id, shown.event_metadata[7].name) == (4, 2, "fusion")
    assert list(message.warnings) == ["something"]
