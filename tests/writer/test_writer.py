"""The public methods: what TensorBoard reads after each call, and errors of invalid calls."""

import json
import logging
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, SinkError, SummaryWriter, Writer
from sm_tblog.testing import make_batch
from sm_tblog.writer.scalars import _warn_about_double_precision


@pytest.fixture
def logdir(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def writer(logdir):
    with Writer(logdir, on_error="raise") as writer:
        yield writer


@pytest.fixture
def read_tensors():
    def read(logdir):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray

        run = EventAccumulator(str(logdir), {"tensors": 0})
        run.Reload()
        found = {}
        for tag in run.Tags()["tensors"]:
            plugin = run.SummaryMetadata(tag).plugin_data.plugin_name
            events = [(e.step, make_ndarray(e.tensor_proto).tolist()) for e in run.Tensors(tag)]
            found[tag] = (plugin, events)
        return found

    return read


# Scalars.


def test_scalars_are_read_as_written(writer, logdir, read_scalars):
    for step in range(1000):
        writer.add_scalar("loss", step / 8, step)
        writer.add_scalar("müll/größe 1", -step, np.int32(step))
    assert writer.flush()
    assert read_scalars(logdir)[""] == {
        "loss": [(i, i / 8) for i in range(1000)],
        "müll/größe 1": [(i, -float(i)) for i in range(1000)],
    }


def test_every_style_of_a_scalar(writer, logdir, read_events, event_files):
    writer.add_scalar("plain", 0.1, 1)
    writer.add_scalar("new", 0.1, 1, new_style=True)
    writer.add_scalar("double", 0.1, 1, double_precision=True)
    writer.add_scalar("named", 0.1, 1, display_name="Name", summary_description="**why**")
    writer.add_scalar("tbx", 0.1, 1, None, "Name", "why")
    writer.flush()
    (path,) = event_files(logdir)
    found = {v.tag: v for event in read_events(path) for v in event.summary.value}
    assert found["plain"].simple_value == np.float32(0.1)
    assert not found["plain"].HasField("metadata")
    assert list(found["new"].tensor.float_val) == [np.float32(0.1)]
    assert list(found["double"].tensor.double_val) == [0.1]
    assert found["double"].metadata.plugin_data.plugin_name == "scalars"
    assert found["named"].metadata.display_name == "Name"
    assert found["named"].metadata.summary_description == "**why**"
    assert found["tbx"].metadata.display_name == "Name"
    assert found["tbx"].metadata.summary_description == "why"


def test_float64_scalars_come_with_a_warning(writer, caplog):
    _warn_about_double_precision.cache_clear()
    for step in range(3):
        writer.add_scalar("double", 0.1, step, double_precision=True)
    assert caplog.text.count("--load_fast=false") == 1


def test_walltime_is_as_given_or_now(writer, logdir, read_events, event_files):
    writer.add_scalar("given", 1.0, 1, 123.5)
    writer.add_scalar("int", 1.0, 1, walltime=7)
    writer.add_text("text", "x", 1, 5.25)
    writer.log({"log": 1.0}, 1, walltime=9.5)
    writer.add_scalar("now", 1.0, 1)
    writer.flush()
    times = {e.summary.value[0].tag: e.wall_time for e in read_events(event_files(logdir)[0])[1:]}
    assert times.pop("now") == pytest.approx(logdir.stat().st_mtime, abs=60)
    assert times == {"given": 123.5, "int": 7.0, "text": 5.25, "log": 9.5}


def test_log_takes_nested_mappings(writer, logdir, read_scalars):
    writer.log({"loss": 1.0, "acc": {"train": 0.5, "val": {"top5": np.float16(0.25)}}}, 3)
    writer.log({"loss": 2.0, "acc/train": 1.5}, 4)
    writer.flush()
    assert read_scalars(logdir)[""] == {
        "loss": [(3, 1.0), (4, 2.0)],
        "acc/train": [(3, 0.5), (4, 1.5)],
        "acc/val/top5": [(3, 0.25)],
    }


def test_add_scalars_makes_runs_as_the_peers_do(writer, logdir, read_scalars):
    writer.add_scalars("loss/all", {"a": 1.0, "b/c": np.float32(2)}, 3)
    writer.flush()
    assert read_scalars(logdir) == {
        "loss_all_a": {"loss/all": [(3, 1.0)]},
        "loss_all_b_c": {"loss/all": [(3, 2.0)]},
    }


def test_add_scalars_makes_one_chart(writer, logdir, read_scalars, read_tensors):
    layout_pb2 = pytest.importorskip("tensorboard.plugins.custom_scalar.layout_pb2")
    writer.add_scalars("loss", {"train": 1.0, "val": 2.0}, 3, layout=True)
    writer.add_scalars("loss", {"train": 0.5}, 4, layout=True)
    writer.add_scalars("loss", {"test": 0.25}, 4, layout=True)
    writer.add_scalars("acc", {"train": 1.0}, 4, layout=True)
    writer.flush()
    assert read_scalars(logdir) == {
        "": {
            "loss/train": [(3, 1.0), (4, 0.5)],
            "loss/val": [(3, 2.0)],
            "loss/test": [(4, 0.25)],
            "acc/train": [(4, 1.0)],
        }
    }
    plugin, events = read_tensors(logdir)["custom_scalars__config__"]
    assert plugin == "custom_scalars"
    assert len(events) == 3  # rewritten only when a chart gets a new curve
    layout = layout_pb2.Layout.FromString(events[-1][1])
    charts = [list(chart.multiline.tag) for c in layout.category for chart in c.chart]
    assert charts == [["^loss/train$", "^loss/val$", "^loss/test$"], ["^acc/train$"]]


def test_the_writers_own_step(writer, logdir, read_scalars):
    assert writer.step == 0
    writer.add_scalar("x", 1.0)
    writer.step = np.int64(5)
    writer.add_scalar("x", 2.0)
    writer.log({"x": 3.0})
    writer.add_scalar("x", 4.0, 9)
    assert writer.step == 5
    with pytest.raises(InvalidTypeError, match=r"writer\.step"):
        writer.step = "six"
    writer.flush()
    assert read_scalars(logdir)[""]["x"] == [(0, 1.0), (5, 2.0), (5, 3.0), (9, 4.0)]


def test_a_bad_call_raises_at_the_call_and_logs_nothing_of_it(writer, logdir, read_scalars):
    with pytest.raises(InvalidTypeError, match="'loss'"):
        writer.add_scalar("loss", "0.5", 1)
    with pytest.raises(InvalidTypeError, match="a tag must be a str, got 3"):
        writer.add_scalar(3, 0.5, 1)
    with pytest.raises(InvalidTypeError, match="a tag must be a str, got None"):
        writer.add_scalar(None, 0.5, 1, display_name="x")
    with pytest.raises(InvalidValueError, match=r"'loss'.*\(2,\)"):
        writer.add_scalar("loss", np.zeros(2), 1)
    with pytest.raises(InvalidTypeError, match=r"'loss': a step must be an integer, got 'one'"):
        writer.add_scalar("loss", 0.5, "one")
    with pytest.raises(InvalidTypeError, match="walltime"):
        writer.add_scalar("loss", 0.5, 1, "now")
    with pytest.raises(InvalidTypeError, match="'b'"):
        writer.log({"a": 1.0, "b": None}, 1)
    with pytest.raises(InvalidTypeError, match="a tag must be a str"):
        writer.log({"a": 1.0, 5: 1.0}, 1)
    with pytest.raises(InvalidTypeError, match="m/a"):
        writer.add_scalars("m", {"a": "x"}, 1)
    with pytest.raises(InvalidTypeError, match="a tag must be a str"):
        writer.add_text(3, "x", 1)
    writer.add_scalar("good", 1.0, 1)
    assert writer.flush()
    assert read_scalars(logdir) == {"": {"good": [(1, 1.0)]}}
    assert writer.stats().errors == 0


def test_a_step_beyond_int64_is_dropped_and_said(logdir, caplog, read_scalars):
    with Writer(logdir) as writer:
        writer.add_scalar("loss", 1.0, 2**63)  # the fast path only checks the step's type
        writer.add_scalar("loss", 1.0, 1)
        writer.flush()
        assert writer.stats().rows_dropped == 1
    assert read_scalars(logdir)[""]["loss"] == [(1, 1.0)]
    assert "'loss'" in caplog.text


# Values other than numbers.


def test_texts_are_read_as_written(writer, logdir, read_tensors):
    writer.add_text("note", "**bold**", 1)
    writer.add_text("note", b"bytes", 2)
    writer.add_text("table", [["a", 1], ["b", 2.5]], 3)
    writer.flush()
    assert read_tensors(logdir) == {
        "note": ("text", [(1, b"**bold**"), (2, b"bytes")]),
        "table": ("text", [(3, [[b"a", b"1"], [b"b", b"2.5"]])]),
    }


def test_histograms_are_read_as_written(writer, logdir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    writer.add_histogram("weights", values, 4)
    writer.add_histogram("weights", values * 0, 5)
    writer.add_histogram("numpy", values, 4, bins=10)
    writer.add_histogram("empty", [], 4)
    writer.add_histogram_raw("raw", 0.0, 2.0, 3, 3.0, 5.0, [1.0, 2.0], [1, 2], 4)
    values[:] = 99  # the writer has its own copy
    writer.flush()
    run = EventAccumulator(str(logdir), {"histograms": 0})
    run.Reload()
    first, zeros = run.Histograms("weights")
    assert (first.step, zeros.step) == (4, 5)
    histo = first.histogram_value
    assert histo.num == sum(histo.bucket) == 1000
    assert -5 < histo.min < -2 < 2 < histo.max < 5
    assert zeros.histogram_value.num == 1000
    assert run.Histograms("numpy")[0].histogram_value.num == 1000
    assert run.Histograms("empty")[0].histogram_value.num == 0
    assert list(run.Histograms("raw")[0].histogram_value.bucket) == [1, 2]


def test_a_histogram_says_once_what_it_leaves_out(logdir, caplog):
    with Writer(logdir) as writer:
        for step in range(5):
            writer.add_histogram("weights", [1.0, float("nan")], step)
    assert caplog.text.count("'weights': the histogram leaves out 1 NaN") == 1


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("h", "text"), InvalidTypeError, "'h'"),
        (("h", [1j]), InvalidTypeError, "'h'.*complex"),
        ((7, [1.0]), InvalidTypeError, "a tag must be a str"),
        (("h", [1.0], "x"), InvalidTypeError, "'h': a step"),
        (("h", [1.0], 1, "no-such-bins"), InvalidValueError, "'h'.*no-such-bins"),
        (("h", [1.0], 1, None), InvalidTypeError, "'h'.*bins"),
    ],
)
def test_a_bad_histogram_raises_at_the_call(writer, arguments, error, says):
    with pytest.raises(error, match=says):
        writer.add_histogram(*arguments)


@pytest.mark.parametrize(
    ("limits", "counts", "says"),
    [([1.0, 2.0], [1], r"\(2,\).*\(1,\)"), ([2.0, np.nan], [1, 1], "NaN")],
)
def test_a_bad_raw_histogram_raises_at_the_call(writer, limits, counts, says):
    with pytest.raises(InvalidValueError, match=f"'h'.*{says}"):
        writer.add_histogram_raw("h", 0, 1, 1, 1, 1, limits, counts, 1)


# Messages of other classes.


def test_messages_of_any_class_are_taken(writer, logdir, read_scalars, read_events, event_files):
    pytest.importorskip("tensorboardX")
    from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2
    from tensorboardX.proto import summary_pb2 as tbx_summary_pb2

    files = writer._get_file_writer()
    assert files.get_logdir() == writer.file_writer.get_logdir() == str(logdir)
    for i, module in enumerate((summary_pb2, tbx_summary_pb2)):
        value = module.Summary.Value(tag="foreign", simple_value=i)
        files.add_summary(module.Summary(value=[value]), np.int64(i), 5.0)
    files.add_summary(summary_pb2.Summary().SerializeToString())
    event = event_pb2.Event(step=9)
    event.summary.value.add(tag="event", simple_value=2.0)
    files.add_event(event)
    files.add_event(event, 10, 6.0)
    files.add_event(event_pb2.Event(log_message=event_pb2.LogMessage(message="hello")), 3)
    files.add_graph((graph_pb2.GraphDef(), event_pb2.TaggedRunMetadata()))
    files.add_onnx_graph(graph_pb2.GraphDef())
    files.reopen()
    files.flush()
    assert read_scalars(logdir)[""] == {
        "foreign": [(0, 0.0), (1, 1.0)],
        "event": [(9, 2.0), (10, 2.0)],
    }
    kinds = [event.WhichOneof("what") for event in read_events(event_files(logdir)[0])]
    assert kinds.count("graph_def") == 2
    assert kinds.count("tagged_run_metadata") == 1
    assert kinds.count("log_message") == 1
    with pytest.raises(InvalidTypeError, match="protocol buffer message"):
        files.add_summary("text")
    with pytest.raises(InvalidTypeError, match="protocol buffer message"):
        files.add_event(3)
    files.close()


def test_a_session_mark_divides_what_was_before_from_what_comes_after(writer, logdir, read_scalars):
    from tensorboard.compat.proto import event_pb2

    for step in range(5):
        writer.add_scalar("x", 1.0, step)
    start = event_pb2.Event(step=2)
    start.session_log.status = event_pb2.SessionLog.START
    writer.file_writer.add_event(start)
    writer.add_scalar("x", 2.0, 2)
    writer.flush()
    assert read_scalars(logdir)[""]["x"] == [(0, 1.0), (1, 1.0), (2, 2.0)]


def test_a_purge_step_supersedes_earlier_files(logdir, read_scalars):
    with Writer(logdir) as writer:
        for step in range(10):
            writer.add_scalar("x", 1.0, step)
            writer.add_scalars("y", {"a": 1.0}, step)
    with Writer(logdir, purge_step=6) as writer:
        assert writer.purge_step == 6
        writer.add_scalar("x", 2.0, 6)
        writer.add_scalars("y", {"a": 2.0}, 6)
    expected = [(i, 1.0) for i in range(6)] + [(6, 2.0)]
    assert read_scalars(logdir) == {"": {"x": expected}, "y_a": {"y": expected}}


# Settings.


def test_the_default_folder_is_the_peers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = Writer(comment="_try")
    pattern = rf"runs/\w{{3}}\d\d_\d\d-\d\d-\d\d_{re.escape(socket.gethostname())}_try"
    assert re.fullmatch(pattern, writer.log_dir.replace(os.sep, "/"))
    assert Path(writer.log_dir).is_dir()
    assert list(Path(writer.log_dir).iterdir()) == []


@pytest.mark.parametrize("name", ["logdir", "log_dir"])
@pytest.mark.parametrize("kind", [str, os.fspath, lambda p: p])
def test_the_folder_has_the_peers_names(logdir, name, kind):
    writer = SummaryWriter(**{name: kind(logdir)})
    assert writer.log_dir == writer.logdir == writer.get_logdir() == kind(logdir)
    assert repr(writer) == f"Writer('{logdir}')"


def test_every_argument_of_the_peers_is_taken(logdir):
    inspect = pytest.importorskip("inspect")
    tensorboardx = pytest.importorskip("tensorboardX")
    ours = inspect.signature(Writer.__init__).parameters
    peers = [tensorboardx.SummaryWriter]
    try:
        from torch.utils.tensorboard import SummaryWriter as TorchWriter
    except ImportError:
        pass
    else:
        peers.append(TorchWriter)
    for peer in peers:
        for method in ("__init__", "add_scalar", "add_scalars", "add_text", "add_histogram"):
            theirs = inspect.signature(getattr(peer, method)).parameters
            names = {n for n, p in theirs.items() if p.kind is not p.VAR_KEYWORD}
            ours = inspect.signature(getattr(Writer, method)).parameters
            assert names <= set(ours), (peer, method)
    Writer(logdir, "", 0, 10, 120, ".x", True, logdir, {"disabled": True}).close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"logdir": "a", "log_dir": "b"}, "logdir and log_dir are aliases"),
        ({"logdir": 3}, "a path or URL, got 3"),
        ({"logdir": "nowhere://x"}, "no store for 'nowhere://x'"),
        ({"sinks": ["nope"]}, "no sink is called 'nope'"),
        ({"sinks": [3]}, "a sink must be"),
        ({"sinks": "events"}, "sinks must be a sequence"),
        ({"on_error": "shout"}, "on_error must be"),
        ({"overflow": "burst"}, "overflow must be"),
        ({"purge_step": "x"}, "purge_step"),
        ({"purge_step": 3.5}, "purge_step must be an integer, .*, got 3.5"),
        ({"resume": True}, "resume must be an integer, .*, got True; .*resume=.append"),
        ({"resume": 2.0}, "resume must be an integer"),
        ({"resume": np.float32(2)}, "resume must be an integer"),
        ({"resume": np.bool_(1)}, "resume must be an integer"),
        ({"resume": "yes"}, "resume"),
        ({"enabled": "false"}, "enabled must be a bool, got 'false'"),
        ({"flush_secs": -1}, "flush_secs"),
        ({"max_queue": -1}, "max_queue"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"comet_config": {"api_key": "x"}}, "Comet"),
    ],
)
def test_a_bad_setting_is_named(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InvalidTypeError, InvalidValueError), match=says):
        Writer(**{"logdir": "run", **arguments})


@pytest.mark.parametrize("how", [{"enabled": False}, {"write_to_disk": False}])
def test_a_disabled_writer_does_nothing(logdir, how):
    class Untouchable:
        pass

    writer = Writer(logdir, **how)
    assert not writer.enabled
    writer.add_scalar("x", 1.0, 1)
    writer.add_scalar("x", Untouchable(), 1)
    writer.log({"x": 1.0}, 1)
    writer.log({"x": Untouchable()})
    writer.add_scalars("x", {"a": 1.0}, 1)
    writer.add_scalars("x", {"a": 1.0}, 1, layout=True)
    writer.add_text("x", "text")
    writer.add_histogram("x", Untouchable())
    writer.file_writer.flush()
    assert writer.flush()
    assert writer.close()
    assert writer.stats().rows_written == writer.stats().errors == 0
    assert not logdir.exists()


@pytest.mark.parametrize("variable", ["RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"])
def test_rank_zero_only(logdir, monkeypatch, variable):
    assert Writer(logdir, rank_zero_only=True).enabled
    monkeypatch.setenv(variable, "0")
    assert Writer(logdir, rank_zero_only=True).enabled
    monkeypatch.setenv(variable, "3")
    assert not Writer(logdir, rank_zero_only=True).enabled
    assert Writer(logdir).enabled


def test_sinks_by_name_object_and_function(logdir, read_scalars):
    batches = []
    with Writer(logdir, sinks=["events", "jsonl", batches.append]) as writer:
        writer.add_scalar("x", 1.5, 1)
    assert read_scalars(logdir)[""]["x"] == [(1, 1.5)]
    (path,) = logdir.glob("*.jsonl")
    assert json.loads(path.read_text())["value"] == 1.5
    assert [step for _, step, _, _ in batches[0].rows()] == [1]


def test_a_sink_that_fails_concerns_it_alone(logdir, caplog, read_scalars):
    def broken(batch):
        raise KeyError("what a pity")

    with Writer(logdir, sinks=[broken, "events"]) as writer:
        for step in range(3):
            writer.add_scalar("x", 1.0, step)
            writer.flush()
        assert writer.stats().errors == 3
        assert writer.stats().rows_dropped == 3
        assert "what a pity" in writer.stats().last_error
    assert len(read_scalars(logdir)[""]["x"]) == 3
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_failures_are_raised_by_the_barrier_if_asked_for(logdir):
    def broken(batch):
        raise KeyError("what a pity")

    writer = Writer(logdir, sinks=[broken], on_error="raise")
    writer.add_scalar("x", 1.0, 1)
    with pytest.raises(SinkError, match="what a pity") as caught:
        writer.flush()
    assert isinstance(caught.value.__cause__, KeyError)
    assert writer.flush()
    writer.add_scalar("x", 1.0, 2)
    with pytest.raises(SinkError):
        writer.close()


def test_failures_are_given_to_a_function_once(logdir, caplog):
    def broken(batch):
        raise KeyError("what a pity")

    told = []

    def tell(error):
        told.append(error)
        raise RuntimeError("the function fails too")

    with Writer(logdir, sinks=[broken], on_error=tell) as writer:
        for step in range(3):
            writer.add_scalar("x", 1.0, step)
            writer.flush()
    assert len(told) == 1
    assert "on_error itself failed" in caplog.text


def test_stats_count(logdir):
    with Writer(logdir) as writer:
        before = writer.stats()
        assert before.last_flush is None
        writer.log({"a": 1.0, "b": 2.0}, 1)
        writer.add_text("t", "x", 1)
        assert writer.stats().queue_depth == 3
        writer.flush()
        stats = writer.stats()
    assert (stats.rows_written, stats.values_written, stats.queue_depth) == (2, 1, 0)
    assert (stats.rows_dropped, stats.errors, stats.last_error) == (0, 0, "")
    assert stats.last_flush is not None
    assert stats.bytes_pending == 0
    (path,) = logdir.iterdir()
    assert stats.bytes_stored == path.stat().st_size == writer.stats().bytes_stored


def test_logging_to_memory(tmp_path):
    with Writer(f"memory:/{tmp_path}") as writer:
        writer.add_scalar("x", 1.0, 1)
    assert sm_tblog.read(f"memory:/{tmp_path}").scalars["x"].value.tolist() == [1.0]


def test_make_batch_matches_what_a_writer_gives(logdir):
    given = []
    with Writer(logdir, sinks=[given.append]) as writer:
        writer.log({"a": 1.0, "b": 2.0}, 3, walltime=4.0)
    series = given[0].series
    expected = make_batch([(series[0], 3, 4.0, 1.0), (series[1], 3, 4.0, 2.0)])
    assert list(given[0].rows()) == list(expected.rows())


def test_a_writer_can_be_copied_while_another_thread_first_uses_it(tmp_path):
    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            writer.__dict__.setdefault("set meanwhile", 1)
            return False

    with Writer(tmp_path) as writer:
        writer.__dict__[Name("name")] = 0
        assert "_log_dir" in writer.__getstate__()


def test_log_refuses_a_mapping_that_contains_itself(writer):
    values = {"a": 1.0}
    values["b"] = {"left": values, "right": values}
    with pytest.raises(InvalidValueError, match="does it contain itself"):
        writer.log(values, 0)
