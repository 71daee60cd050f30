"""Hyperparameters, read by the HParams plugin's own code through both of TensorBoard's loaders."""

import contextlib
import copy
import itertools
import math
import os
import pickle
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog._types import Series
from sm_tblog.pipeline.best import BestTracker
from sm_tblog.sinks.base import Batch
from sm_tblog.storage.base import StoreError
from sm_tblog.storage.local import LocalStore
from sm_tblog.summary.hparams import FIRST_FILE

# What the HParams tab shows.


class Tab(NamedTuple):
    """The tab: its columns, and by session the cells, the status and when it began and ended."""

    hparams: dict
    metrics: set
    cells: dict
    status: dict


def tab_of(provider):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import (
        api_pb2,
        backend_context,
        get_experiment,
        list_session_groups,
    )

    assert isinstance(provider, MultiplexerDataProvider) or "Grpc" in type(provider).__name__
    context = backend_context.Context(TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=1000, allowed_statuses=[0, 1, 2, 3], aggregation_type=1
    )
    asked = RequestContext(), context, "", request
    experiment = get_experiment.Handler(*asked).run()
    groups = list_session_groups.Handler(*asked).run().session_groups
    return Tab(
        {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos},
        {(info.name.group, info.name.tag) for info in experiment.metric_infos},
        {
            group.name: {
                **{name: cell(value) for name, value in group.hparams.items()},
                **{metric.name.tag: metric.value for metric in group.metric_values},
            }
            for group in groups
        },
        {group.name: api_pb2.Status.Name(group.sessions[0].status) for group in groups},
    )


def cell(value):
    return getattr(value, value.WhichOneof("kind"))


@pytest.fixture
def tensorboard(request, tmp_path_factory):
    """``tensorboard(logdir)``: a freshly started TensorBoard; calling it returns its ``Tab``.

    Each call loads what is new. By the loader that ``request.param`` names.
    """
    pytest.importorskip("tensorboard")
    with contextlib.ExitStack() as stack:
        if request.param == "the loader in Python":
            yield by_python
        else:
            yield lambda logdir: by_data_server(logdir, tmp_path_factory.mktemp("server"), stack)


both_loaders = pytest.mark.parametrize(
    "tensorboard", ["the loader in Python", "the data server"], indirect=True
)


def by_python(logdir):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    multiplexer = EventMultiplexer()

    def tab():
        multiplexer.AddRunsFromDirectory(str(logdir))
        multiplexer.Reload()
        return tab_of(MultiplexerDataProvider(multiplexer, str(logdir)))

    return tab


def by_data_server(logdir, folder, stack):
    server = pytest.importorskip("tensorboard_data_server")
    grpc = pytest.importorskip("grpc")
    from tensorboard.data.grpc_provider import GrpcDataProvider
    from tensorboard.data.proto import data_provider_pb2_grpc

    if (binary := server.server_binary()) is None:
        pytest.skip("the data server has no binary for this platform")
    port_file = folder / "port"
    command = [
        *(binary, f"--logdir={logdir}", "--reload=1", "--port=0", "--die-after-stdin"),
        *(f"--port-file={port_file}", "--verbose"),
    ]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = stack.enter_context(subprocess.Popen(command, **pipes))
    stack.callback(process.stdin.close)
    cycles = (line for line in process.stderr if "Finished load cycle" in line)
    next(cycles)
    channel = grpc.insecure_channel(f"127.0.0.1:{port_file.read_text().strip()}")
    stack.enter_context(channel)
    provider = GrpcDataProvider("", data_provider_pb2_grpc.TensorBoardDataProviderStub(channel))
    calls = itertools.count()

    def tab():
        for _ in range(2 if next(calls) else 0):  # the second cycle from now began after now
            next(cycles)
        return tab_of(provider)

    return tab


def plugin_data(events):
    """Return the plugin's messages, by tag, as the hparams plugin reads them from events."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = {}
    for event in events:
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                content = value.metadata.plugin_data.content
                message = HParamsPluginData.FromString(content)
                found.setdefault(value.tag, []).append(message)
    return found


# hparams: one run, its values, its metrics.


@both_loaders
def test_runs_whose_values_differ_and_grow_are_shown_whole(tmp_path, tensorboard):
    expected = {}
    for i in range(20):
        values = {"lr": 0.1 / (i + 1), "amp": i % 2 == 0, "optimizer": {"name": f"o{i % 3}"}}
        if i >= 10:
            values["warmup"] = i
        with Writer(tmp_path / f"run{i:02}", on_error="raise") as writer:
            writer.hparams(values, metrics={"val/loss": "min", "accuracy": "max"})
            for step in range(5):
                writer.add_scalar("val/loss", (step - 3.0) ** 2 + i, step)
                writer.log({"accuracy": 0.5 - abs(step - 1) / 4}, step)
            writer.hparams({"parameters": 1000 * i})
        expected[f"run{i:02}"] = {
            "lr": 0.1 / (i + 1),
            "amp": i % 2 == 0,
            "optimizer/name": f"o{i % 3}",
            **({"warmup": i} if i >= 10 else {}),
            "parameters": 1000 * i,
            "val/loss": 1.0 + i,
            "best/val/loss": i,
            "accuracy": -0.25,
            "best/accuracy": 0.5,
        }
    tab = tensorboard(tmp_path)()
    assert tab.hparams == {
        "lr": "DATA_TYPE_FLOAT64",
        "amp": "DATA_TYPE_BOOL",
        "optimizer/name": "DATA_TYPE_STRING",
        "warmup": "DATA_TYPE_FLOAT64",
        "parameters": "DATA_TYPE_FLOAT64",
    }
    tags = ("val/loss", "best/val/loss", "accuracy", "best/accuracy")
    assert tab.metrics == {("", tag) for tag in tags}
    assert tab.cells == expected
    assert set(tab.status.values()) == {"STATUS_SUCCESS"}


@both_loaders
def test_metrics_improve_under_a_tensorboard_that_runs_and_values_wait_for_the_next(
    tmp_path, tensorboard
):
    with Writer(tmp_path / "run") as writer:
        writer.hparams({"lr": 0.1, "batch": 32}, metrics={"loss": "min"})
        writer.add_scalar("loss", 2.0, 0)
        writer.flush()
        running = tensorboard(tmp_path)
        assert running().cells["run"]["best/loss"] == 2
        writer.hparams({"batch": None, "parameters": 7})
        writer.add_scalar("loss", 1.0, 1)
        writer.add_scalar("loss", 3.0, 2)
        writer.flush()
        known = {"lr": 0.1, "batch": 32}
        tab = running()
        assert tab.cells == {"run": {**known, "loss": 3, "best/loss": 1}}
        assert tab.status == {"run": "STATUS_UNKNOWN"}
    assert running().status == {"run": "STATUS_SUCCESS"}
    cells = {"lr": 0.1, "parameters": 7, "loss": 3, "best/loss": 1}
    assert tensorboard(tmp_path)().cells == {"run": cells}


@both_loaders
def test_hparams_of_a_run_that_tensorboard_knows_already(tmp_path, tensorboard):
    with Writer(tmp_path / "run") as writer:
        writer.add_scalar("loss", 2.0, 0)
        writer.flush()
        running = tensorboard(tmp_path)
        assert running().cells == {}
        writer.hparams({"lr": 0.1})
        writer.flush()
        assert running().cells == {"run": {"lr": 0.1, "loss": 2}}


@both_loaders
def test_a_process_that_resumes_goes_on_from_what_was_known(tmp_path, tensorboard):
    logdir = tmp_path / "run"
    with Writer(logdir) as first:
        first.hparams({"lr": 0.1, "batch": 32, "gone": 1}, metrics={"loss": "min"})
        first.log({"loss": 0.25}, step=1)
    with Writer(logdir, resume=2) as second:
        second.hparams(
            {"lr": 0.2, "seed": 3, "gone": None}, metrics={"loss": "min"}, best={"loss": 0.25}
        )
        second.log({"loss": 0.5}, step=2)
        second.flush()
        tab = tensorboard(tmp_path)()
        values = {"lr": 0.2, "batch": 32, "seed": 3}
        assert tab.cells == {"run": {**values, "loss": 0.5, "best/loss": 0.25}}
        assert tab.status == {"run": "STATUS_RUNNING"}
    assert tensorboard(tmp_path)().status == {"run": "STATUS_SUCCESS"}


def test_the_session_began_with_the_first_call_and_ended_with_close(tmp_path, read_events):
    def infos():
        data = plugin_data(read_events(tmp_path / FIRST_FILE))
        return {tag.split("/")[1]: message for tag, (message,) in data.items()}

    with Writer(tmp_path) as writer:
        with writer.use_metadata(walltime=100.0):
            writer.hparams({"lr": 0.1})
        with writer.use_metadata(walltime=200.0):
            writer.hparams({"lr": 0.2})
        writer.flush()
        assert infos()["session_start_info"].session_start_info.start_time_secs == 100.0
        assert "session_end_info" not in infos()
        with writer.use_metadata(walltime=300.0):
            writer.close()
    assert infos()["session_start_info"].session_start_info.start_time_secs == 100.0
    assert infos()["session_end_info"].session_end_info.end_time_secs == 300.0


def test_calls_before_the_worker_gets_there_are_one_for_tensorboard(
    tmp_path, worker_at_barriers_alone, read_events, event_files
):
    with Writer(tmp_path) as writer:
        writer.hparams({"lr": 0.1})
        writer.hparams({"batch": 32})
    _, file = event_files(tmp_path)
    first, *_ = plugin_data(read_events(file))["_hparams_/session_start_info"]
    assert set(first.session_start_info.hparams) == {"lr", "batch"}


def test_the_first_file_is_an_event_file_that_comes_first(tmp_path, read_events, event_files):
    with Writer(tmp_path) as writer:
        writer.hparams({"lr": 0.1})
        writer.add_scalar("loss", 1.0, 0)
    first, second = event_files(tmp_path)
    assert first.name == FIRST_FILE
    assert first.name < "events.out.tfevents.0000000001" < second.name
    assert [event.file_version for event in read_events(first)] == ["brain.Event:2", ""]
    assert len(read_events(second)) == 4


def test_hparams_writes_no_experiment_which_would_hide_other_runs_columns(
    tmp_path, read_events, event_files
):
    with Writer(tmp_path) as writer:
        writer.hparams({"lr": 0.1}, metrics={"loss": "min"})
    tags = {tag for file in event_files(tmp_path) for tag in plugin_data(read_events(file))}
    assert tags == {"_hparams_/session_start_info", "_hparams_/session_end_info"}


def test_a_first_file_that_is_damaged_is_written_anew(tmp_path, read_events):
    (tmp_path / FIRST_FILE).write_bytes(b"no event file, whatever its name says")
    with Writer(tmp_path, on_error="raise") as writer:
        writer.hparams({"lr": 0.1})
    data = plugin_data(read_events(tmp_path / FIRST_FILE))
    (start,) = data["_hparams_/session_start_info"]
    assert set(start.session_start_info.hparams) == {"lr"}


def test_values_outlive_a_store_that_refuses_them_for_a_while(tmp_path, store_at, read_events):
    failures = iter([True, True, False, False, False])

    def put(store, name, data):
        if next(failures):
            raise StoreError("not now")
        LocalStore.put(store, name, data)

    with Writer(store_at(tmp_path, put=put)) as writer:
        writer.hparams({"lr": 0.1})
        writer.flush()
        writer.hparams({"batch": 32})
        writer.flush()
    data = plugin_data(read_events(tmp_path / FIRST_FILE))
    assert set(data["_hparams_/session_start_info"][0].session_start_info.hparams) == {
        "lr",
        "batch",
    }
    assert "_hparams_/session_end_info" in data


# The status.


@pytest.fixture
def status():
    """``status(logdir)``: the run's status as a freshly started TensorBoard shows it."""
    pytest.importorskip("tensorboard")
    return lambda logdir: next(iter(by_python(logdir)().status.values()))


def fail(logdir):
    with contextlib.suppress(KeyboardInterrupt), Writer(logdir) as writer:
        writer.hparams({"lr": 0.1})
        raise KeyboardInterrupt


def test_a_block_that_an_exception_leaves_has_failed(tmp_path, status):
    fail(tmp_path)
    assert status(tmp_path) == "STATUS_FAILURE"


def test_a_run_that_goes_on_after_a_failure_has_not_failed(tmp_path, status):
    fail(tmp_path)
    again = Writer(tmp_path)
    again.hparams({})
    again.flush()
    assert status(tmp_path) == "STATUS_RUNNING"
    again.close()
    assert status(tmp_path) == "STATUS_SUCCESS"


def test_closing_once_more_writes_nothing(tmp_path, event_files):
    writer = Writer(tmp_path)
    writer.hparams({"lr": 0.1})
    writer.close()
    before = {file: file.stat().st_mtime_ns for file in event_files(tmp_path)}
    writer.close()
    assert {file: file.stat().st_mtime_ns for file in event_files(tmp_path)} == before


def test_a_writer_without_hparams_writes_no_session(tmp_path, event_files, read_events):
    with Writer(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 0)
    (file,) = event_files(tmp_path)
    assert plugin_data(read_events(file)) == {}


def test_a_copy_that_is_closed_does_not_end_the_run(tmp_path, status):
    with Writer(tmp_path) as writer:
        writer.hparams({"lr": 0.1})
        for other in (copy.deepcopy(writer), pickle.loads(pickle.dumps(writer))):
            with other:
                other.add_scalar("loss", 1.0, 0)
        writer.flush()
        assert status(tmp_path) == "STATUS_UNKNOWN"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_closes_does_not_end_the_run_and_knows_its_best(
    tmp_path, run_script, status, read_scalars
):
    source = """
import os, sys
from sm_tblog import Writer
writer = Writer(sys.argv[1])
writer.hparams({"lr": 0.1}, metrics={"loss": "min"})
writer.log({"loss": 0.5}, step=1)
writer.flush()
child = os.fork()
if not child:
    writer.log({"loss": 0.75}, step=2)
    writer.log({"loss": 0.25}, step=3)
    writer.close()
    os._exit(0)
os.waitpid(child, 0)
"""
    done = run_script(source, tmp_path)
    assert done.returncode == 0, done.stderr
    assert status(tmp_path) == "STATUS_UNKNOWN"  # neither process has closed it: it just ended
    assert read_scalars(tmp_path)[""]["best/loss"] == [(1, 0.5), (3, 0.25)]


def test_what_was_known_survives_a_kill(tmp_path, run_script, status, read_scalars):
    source = """
import os, signal, sys
from sm_tblog import Writer
writer = Writer(sys.argv[1])
writer.hparams({"lr": 0.1}, metrics={"loss": "min"})
writer.log({"loss": 0.5}, step=1)
writer.flush()
os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
"""
    assert run_script(source, tmp_path).returncode != 0
    assert status(tmp_path) == "STATUS_UNKNOWN"
    assert read_scalars(tmp_path)[""]["best/loss"] == [(1, 0.5)]


# The best values.


def batch_of(rows):
    """Return a batch of ``(series, value)``, each row's step and time its position."""
    series = list(dict.fromkeys(one for one, _ in rows))
    count = len(rows)
    return Batch(
        [Series(one) if isinstance(one, str) else one for one in series],
        np.array([series.index(one) for one, _ in rows], np.intp),
        np.arange(count, dtype=np.int64),
        np.arange(count, dtype=np.float64),
        np.array([value for _, value in rows], np.float64),
    )


VALUES = st.floats() | st.integers(-3, 3).map(float)


@settings(deadline=None)  # it is not about time
@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), VALUES), max_size=12), max_size=5))
def test_the_best_values_are_those_that_a_plain_loop_finds(batches):
    tracker = BestTracker()
    tracker.watch("a", "min")
    tracker.watch("b", "max", best=1.0)
    best = {"a": math.inf, "b": 1.0}
    seen = set()
    for rows in batches:
        batch = batch_of(rows)
        expected = []
        for i, (tag, value) in enumerate(rows):
            better = (value < best["a"] or "a" not in seen) if tag == "a" else value > best["b"]
            if tag != "c" and better and not math.isnan(value):
                seen.add(tag)
                best[tag] = value
                expected.append((f"best/{tag}", i, float(i), value))
        found = tracker(batch)
        added = [(s.tag, *row) for s, *row in found.rows()][len(rows) :]
        assert sorted(added, key=lambda row: row[1]) == expected
        assert repr([*found.rows()][: len(rows)]) == repr([*batch.rows()])  # NaN is not itself
        assert (found is batch) == (not expected)


def test_curves_of_folders_below_are_not_the_runs():
    tracker = BestTracker()
    tracker.watch("a", "min")
    batch = batch_of([(Series("a", "below"), 1.0)])
    assert tracker(batch) is batch


def test_a_metric_in_two_styles_is_one():
    tracker = BestTracker()
    tracker.watch("a", "min")
    rows = [("a", 3.0), (Series("a", double=True), 2.0), ("a", 2.5), ("a", 1.0)]
    found = [(s.tag, value) for s, _, _, value in tracker(batch_of(rows)).rows()]
    assert found[4:] == [("best/a", 3.0), ("best/a", 2.0), ("best/a", 1.0)]


def test_naming_a_metric_again_keeps_its_best_unless_the_mode_is_another():
    tracker = BestTracker()
    tracker.watch("a", "min")
    tracker(batch_of([("a", 1.0)]))
    tracker.watch("a", "min")
    assert len(tracker(batch_of([("a", 2.0)])).codes) == 1
    tracker.watch("a", "max")
    assert len(tracker(batch_of([("a", 0.5)])).codes) == 2


def test_the_best_of_numbers_that_come_by_every_way(tmp_path, read_scalars):
    with Writer(tmp_path, clean_tags=True) as writer:
        writer.hparams({}, metrics={"the loss": "min"})
        writer.add_scalar("the loss", 5.0, 10)
        writer.add_scalar("the loss", np.float32(4), 3)  # a step that goes back
        writer.add_scalar("the loss", float("nan"), 11)
        writer.add_scalar("the loss", 3.0, 12, new_style=True)
        writer.log({"the loss": 3.0}, step=13)
        writer.add_scalars("the loss", {"train": 0.0}, 14)
    assert read_scalars(tmp_path)[""]["best/the_loss"] == [(10, 5.0), (3, 4.0), (12, 3.0)]


@both_loaders
def test_the_best_value_is_shown_when_steps_go_back(tmp_path, tensorboard):
    with Writer(tmp_path / "run") as writer:
        writer.hparams({"lr": 0.1}, metrics={"loss": "min"})
        for step, value in [(100, 5.0), (50, 4.0), (60, 4.5)]:
            writer.add_scalar("loss", value, step)
    assert tensorboard(tmp_path)().cells["run"]["best/loss"] == 4.0


def test_a_copy_goes_on_from_its_originals_best(tmp_path, read_scalars):
    writer = Writer(tmp_path)
    writer.hparams({"lr": 0.1}, metrics={"loss": "min"})
    writer.log({"loss": 0.5}, step=1)
    writer.close()
    with pickle.loads(pickle.dumps(writer)) as other:
        other.log({"loss": 0.75}, step=2)
        other.log({"loss": 0.25}, step=3)
    assert read_scalars(tmp_path)[""]["best/loss"] == [(1, 0.5), (3, 0.25)]


# add_hparams, as in torch's and tensorboardX's writers.

PEER_CALLS = {
    "numbers": (({"lr": 0.1, "batch": 32}, {"hparam/loss": 0.5, "hparam/accuracy": 1}), {}),
    "strings and None": (({"name": "adam", "none": None}, {"loss": 0.5}), {}),
    "no metrics": (({"lr": 0.1}, {}), {}),
    "nothing": (({}, {}), {}),
    "infinite": (({"clip": math.inf, "lr": 1.0}, {"loss": math.nan}), {}),
    "a step": (({"lr": 0.1}, {"loss": 0.5}), {"global_step": 7}),
}


def what_tensorboard_reads(logdir):
    """Return the run's messages and scalars as TensorBoard reads them, without their times."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util.tensor_util import make_ndarray

    run = EventAccumulator(str(logdir)).Reload()
    read = {}
    for tag in run.Tags()["tensors"]:
        metadata = run.SummaryMetadata(tag)
        points = [(e.step, make_ndarray(e.tensor_proto).tolist()) for e in run.Tensors(tag)]
        if metadata.plugin_data.plugin_name == "hparams":
            content = HParamsPluginData.FromString(metadata.plugin_data.content)
            points = str(content), metadata.data_class, [value for _, value in points]
        read[tag] = points
    return read


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for tag in expected:
        assert repr(found[tag]) == repr(expected[tag]), tag  # repr, for NaN is not itself


@pytest.mark.parametrize("call", PEER_CALLS)
@pytest.mark.parametrize("peer", ["torch.utils.tensorboard", "tensorboardX"])
def test_tensorboard_reads_what_the_peers_write(tmp_path, peer, call):
    args, options = PEER_CALLS[call]
    name = "name" if peer == "tensorboardX" else "run_name"
    theirs = pytest.importorskip(peer).SummaryWriter
    for kind, folder in ((theirs, "theirs"), (Writer, "ours")):
        with kind(str(tmp_path / folder)) as writer:
            writer.add_hparams(*args, **options, **{name: "trial"})
    found = what_tensorboard_reads(tmp_path / "ours" / "trial")
    assert_same(found, what_tensorboard_reads(tmp_path / "theirs" / "trial"))


def test_a_bool_is_one_as_in_tensorboardx(tmp_path):
    pytest.importorskip("tensorboard")
    theirs = pytest.importorskip("tensorboardX").SummaryWriter
    for kind, folder in ((theirs, "theirs"), (Writer, "ours")):
        with kind(str(tmp_path / folder)) as writer:
            writer.add_hparams({"amp": True, "f": math.sqrt}, {"loss": 0.5}, name="trial")
    found = what_tensorboard_reads(tmp_path / "ours" / "trial")
    assert_same(found, what_tensorboard_reads(tmp_path / "theirs" / "trial"))


def test_discrete_domains_are_pytorchs(tmp_path):
    torch_writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    values = {"batch": 32, "name": "adam", "lr": 0.1}
    domains = {"batch": [16, 32], "name": ["adam", "sgd"]}
    for kind, folder in ((torch_writer, "theirs"), (Writer, "ours")):
        with kind(str(tmp_path / folder)) as writer:
            writer.add_hparams(values, {"loss": 0.5}, domains, "trial", 3)
    found = what_tensorboard_reads(tmp_path / "ours" / "trial")
    assert_same(found, what_tensorboard_reads(tmp_path / "theirs" / "trial"))


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((None, "trial", 7), {}),  # PyTorch's order
        ((), {"run_name": "trial", "global_step": 7}),
        (("trial", 7), {}),  # tensorboardX's
        (("trial", np.int64(7)), {}),
        ((None, Path("trial"), 7), {}),
        (("trial",), {"global_step": 7}),
        ((), {"name": "trial", "global_step": 7}),
    ],
)
def test_names_and_steps_stand_where_either_peer_has_them(tmp_path, read_scalars, args, options):
    with Writer(tmp_path) as writer:
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5}, *args, **options)
    assert read_scalars(tmp_path) == {"trial": {"loss": [(7, 0.5)]}}


@pytest.mark.parametrize("number", [7, 0, np.int64(3)])
@pytest.mark.parametrize("argument", ["run_name", "name"])
def test_a_number_may_be_a_name(tmp_path, read_scalars, number, argument):
    with Writer(tmp_path) as writer:
        writer.step = 2
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5}, **{argument: number})
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5}, global_step=4, **{argument: number})
    assert read_scalars(tmp_path) == {str(number): {"loss": [(2, 0.5), (4, 0.5)]}}


def test_runs_without_a_name_are_named_by_the_time_each_another(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.7e9)  # a slow clock
    with Writer(tmp_path) as writer:
        for i in range(3):
            writer.add_hparams({"lr": i}, {"loss": i})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["1700000000.000000", "1700000000.000001", "1700000000.000002"]


def test_a_run_may_be_the_log_folder_itself(tmp_path, read_scalars):
    with Writer(tmp_path / "log") as writer:
        writer.add_hparams({"lr": 0.1}, {"a": 0.5}, run_name=".")
        writer.add_hparams({"lr": 0.1}, {"b": 0.5}, run_name=str(tmp_path / "log"))
        writer.add_hparams({"lr": 0.1}, {"c": 0.5}, run_name=str(tmp_path / "log" / "x" / "y"))
    found = {run: [*tags] for run, tags in read_scalars(tmp_path / "log").items()}
    assert found == {"": ["a", "b"], "x/y": ["c"]}


@pytest.mark.parametrize("name", ["..", "a/../../b", os.sep + "elsewhere"])
def test_a_run_that_is_not_below_the_log_folder_is_refused(tmp_path, name):
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match="not below"):
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5}, run_name=name)


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((1, {}), InvalidTypeError, "add_hparams: expected a mapping of values by name"),
        (({}, [("loss", 1.0)]), InvalidTypeError, "metric_dict"),
        (({}, {"loss": "low"}), InvalidTypeError, "'loss'.*'low'"),
        (({}, {"loss": [1.0, 2.0]}), InvalidTypeError, "'loss'"),
        (({}, {3: 1.0}), InvalidTypeError, "a tag must be a str, got 3"),
        (({"a": 1}, {}, 5), InvalidTypeError, "hparam_domain_discrete: expected a mapping"),
        (({"a": 1}, {}, {"b": [1]}), InvalidTypeError, r"\[1\] for 'b'"),
        (({"a": 1}, {}, {"a": 1}), InvalidTypeError, "got 1 for 'a'"),
        (({"a": 1}, {}, {"a": [1, "x"]}), InvalidTypeError, "'a' is 1.*another type"),
        (({"a": True}, {}, {"a": [0]}), InvalidTypeError, "'a' is True.*another type"),
        (({"a": 1}, {}, None, b"x"), InvalidTypeError, "a run's name must be a str.*got b'x'"),
        (({"a": 1}, {}, None, True), InvalidTypeError, "a run's name must be a str.*got True"),
        (({"a": 1}, {}, None, 5.0), InvalidTypeError, "a run's name must be a str.*got 5.0"),
        (({"a": 1}, {}, None, "x", "y"), InvalidTypeError, "a step must be an integer, got 'y'"),
    ],
)
def test_what_add_hparams_cannot_log_is_refused_whole(tmp_path, event_files, args, error, says):
    with Writer(tmp_path) as writer, pytest.raises(error, match=says):
        writer.add_hparams(*args)
    assert event_files(tmp_path) == []


# Rejected calls, and how unusual values are shown.


@pytest.mark.parametrize(
    ("metrics", "best", "error", "says"),
    [
        (["loss"], None, InvalidTypeError, "metrics: expected a mapping"),
        ({1: "min"}, None, InvalidTypeError, "a tag must be a str, got 1"),
        ({"loss": "last"}, None, InvalidValueError, "'loss'.*got 'last'.*without naming it"),
        ({"loss": min}, None, InvalidValueError, "'loss': the mode must be 'min' or 'max'"),
        ({"loss": "min"}, 0.5, InvalidTypeError, "best: expected a mapping"),
        ({"loss": "min"}, {"other": 0.5}, InvalidValueError, "'other' is not among the metrics"),
        ({"loss": "min"}, {"loss": math.nan}, InvalidValueError, "'loss': NaN"),
        ({"loss": "min"}, {"loss": "low"}, InvalidTypeError, "'loss'.*'low'"),
    ],
)
def test_metrics_that_cannot_be_are_refused(tmp_path, metrics, best, error, says):
    with Writer(tmp_path) as writer, pytest.raises(error, match=says):
        writer.hparams({"lr": 0.1}, metrics, best)
    assert list(tmp_path.iterdir()) == []


@both_loaders
def test_what_tensorboard_shows_of_values_that_are_not_finite_or_of_several_kinds(
    tmp_path, tensorboard
):
    runs = {
        "a": {"clip": math.inf, "mixed": 3, "text": "ü\udcff"},
        "b": {"clip": 1.0, "mixed": "three", "text": ""},
        "c": {"clip": None, "mixed": True, "text": math.nan},
    }
    for run, values in runs.items():
        with Writer(tmp_path / run) as writer:
            writer.hparams(values)
            writer.add_scalar("loss", 1.0, 0)
    tab = tensorboard(tmp_path)()
    assert tab.cells == {
        "a": {"mixed": 3, "text": "ü?", "loss": 1},
        "b": {"clip": 1.0, "mixed": "three", "text": "", "loss": 1},
        "c": {"mixed": True, "loss": 1},
    }
    assert tab.hparams["clip"] == "DATA_TYPE_FLOAT64"
    assert tab.hparams["mixed"] == tab.hparams["text"] == "DATA_TYPE_STRING"


def test_a_disabled_writer_takes_everything_and_does_nothing(tmp_path):
    logdir = tmp_path / "never"
    with Writer(logdir, enabled=False) as writer:
        writer.hparams({"a": object()}, metrics={"loss": "min"})
        writer.add_hparams({"a": 1}, {"loss": 0.5})
    assert not logdir.exists()


def test_a_log_in_memory_has_hparams_too():
    fsspec = pytest.importorskip("fsspec")
    with Writer("memory://test_hparams/run", on_error="raise") as writer:
        writer.hparams({"lr": 0.1})
        writer.add_hparams({"lr": 0.1}, {"loss": 0.5}, run_name="trial")
    files = fsspec.filesystem("memory")
    assert files.exists(f"/test_hparams/run/{FIRST_FILE}")
    assert len(files.ls("/test_hparams/run/trial")) == 1
