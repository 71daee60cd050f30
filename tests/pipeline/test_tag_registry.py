"""What is logged first under a tag keeps its name, whichever part of the data is ready first."""

import copy
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from sm_tblog import Writer
from sm_tblog.format import schema
from sm_tblog.pipeline import buffer, worker
from sm_tblog.readers import read_all
from sm_tblog.sinks import kinds
from sm_tblog.sinks.kinds import find_kinds


def tags(logdir, run="."):
    return read_all(logdir)[run].tags


def log_histogram(writer, tag="grad"):
    writer.add_histogram(tag, np.arange(4.0))


def log_scalar(writer, tag="grad"):
    writer.add_scalar(tag, 1.0, 0)


SCALAR_FIRST = {"grad": "scalars", "grad/histograms": "histograms"}
HISTOGRAM_FIRST = {"grad": "histograms", "grad/scalars": "scalars"}


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("run", [".", "run"])
@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([log_scalar, log_histogram], SCALAR_FIRST),
        ([log_histogram, log_scalar], HISTOGRAM_FIRST),
        ([log_histogram, log_scalar, log_histogram, log_scalar], HISTOGRAM_FIRST),
        ([log_scalar, log_histogram, log_scalar], SCALAR_FIRST),
    ],
)
def test_the_first_call_keeps_the_tag(tmp_path, caplog, calls, expected, run, flush):
    with Writer(tmp_path) as writer:
        logger = writer if run == "." else writer.child(run)
        for call in calls:
            call(logger)
            if flush:
                writer.flush()
    assert tags(tmp_path, run) == expected
    assert caplog.text.count("only one kind of data per tag") == 1


def test_other_kinds_keep_their_order_too(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_text("a", "text")
        writer.add_histogram("a", [1.0])
        writer.log({"b": 1.0, "c": 2.0}, 0)
        writer.add_text("b", "text")
        writer.add_text("c/d", "text")
        writer.log({"c": {"d": 1.0}}, 0)
    assert tags(tmp_path) == {
        "a": "text",
        "a/histograms": "histograms",
        "b": "scalars",
        "b/text": "text",
        "c": "scalars",
        "c/d": "text",
        "c/d/scalars": "scalars",
    }


def test_clean_tags_do_not_change_the_order(tmp_path):
    with Writer(tmp_path, clean_tags=True) as writer:
        log_scalar(writer, "a b")
        log_histogram(writer, "a:b")
        log_histogram(writer, "c d")
        log_scalar(writer, "c_d")
    assert tags(tmp_path) == {
        "a_b": "scalars",
        "a_b/histograms": "histograms",
        "c_d": "histograms",
        "c_d/scalars": "scalars",
    }


def test_a_row_waits_for_a_large_item_with_its_tag(tmp_path, monkeypatch, worker_at_barriers_alone):
    monkeypatch.setattr(buffer, "MAX_BATCH_BYTES", 1)  # each batch has one item
    with Writer(tmp_path) as writer:
        log_scalar(writer, "known")
        writer.flush()
        for tag in "abc":
            log_histogram(writer, tag)
            log_scalar(writer, "known")
        for tag in "abc":
            log_scalar(writer, tag)
        assert writer.flush()
    assert tags(tmp_path) == {
        "known": "scalars",
        **dict.fromkeys("abc", "histograms"),
        **{f"{tag}/scalars": "scalars" for tag in "abc"},
    }


def test_an_item_waits_for_the_rows_before_it(tmp_path, monkeypatch, worker_at_barriers_alone):
    monkeypatch.setattr(buffer, "MAX_BATCH_ROWS", 2)
    with Writer(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("other", 1.0, step)
        log_scalar(writer)
        log_histogram(writer)
        assert writer.flush()
    assert tags(tmp_path) == {"other": "scalars", **SCALAR_FIRST}


def test_a_row_that_comes_while_a_tick_begins_does_not_overtake_an_item(tmp_path, monkeypatch):
    taken = buffer.Buffer._take

    def take_late(pipeline, waiting, *args):
        if not logged:
            logged.append(True)
            log_histogram(writer)
            log_scalar(writer)
        return taken(pipeline, waiting, *args)

    logged = []
    monkeypatch.setattr(buffer.Buffer, "_take", take_late)
    with Writer(tmp_path) as writer:
        writer.add_scalar("other", 1.0, 0)
        assert writer.flush()
    assert tags(tmp_path) == {"other": "scalars", **HISTOGRAM_FIRST}


def test_each_thread_keeps_its_order(tmp_path):
    def log(first, second, tag):
        first(writer, tag)
        second(writer, tag)

    orders = [(log_scalar, log_histogram), (log_histogram, log_scalar)]
    with Writer(tmp_path) as writer:
        threads = [
            threading.Thread(target=log, args=(*orders[i % 2], f"{i:02d}")) for i in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = tags(tmp_path)
    assert [found[f"{i:02d}"] for i in range(40)] == ["scalars", "histograms"] * 20


def test_scalars_that_an_item_computes_count_at_its_call(tmp_path):
    from sm_tblog._types import Scalar

    def build(tag):
        return [Scalar("grad", 1.0), Scalar("late", 1.0)]

    with Writer(tmp_path, on_error="raise") as writer:
        log_histogram(writer, "late")
        writer._put("watch", build, (), 0, None)
        log_histogram(writer)
    late = {"late": "histograms", "late/scalars": "scalars"}
    assert tags(tmp_path) == {**SCALAR_FIRST, **late}


def test_messages_without_a_plugin_count_by_their_field(tmp_path):
    def add(tag, **field):
        message = schema.Summary(value=[schema.Value(tag=tag, **field)])
        writer.file_writer.add_summary(message, 0)

    with Writer(tmp_path) as writer:
        add("grad", simple_value=1.0)
        log_histogram(writer)
        log_scalar(writer, "image")
        add("image", image=schema.Summary.Image(height=1))
    image = {"image": "scalars", "image/images": "images"}
    assert tags(tmp_path) == {**SCALAR_FIRST, **image}


@pytest.mark.parametrize("run", [".", "a/b"])
def test_a_resumed_run_keeps_the_names_of_its_earlier_files(tmp_path, run):
    for call in (log_histogram, log_scalar):
        with Writer(tmp_path) as writer:
            call(writer if run == "." else writer.child(run))
    assert tags(tmp_path, run) == HISTOGRAM_FIRST


def test_a_pickled_or_copied_writer_keeps_the_names(tmp_path):
    with Writer(tmp_path) as writer:
        log_histogram(writer)
        writer.flush()
        with copy.deepcopy(writer) as other:
            log_scalar(other)
    assert tags(tmp_path) == HISTOGRAM_FIRST


def test_earlier_files_that_cannot_be_read_do_no_harm(tmp_path):
    (tmp_path / "events.out.tfevents.1.a").write_bytes(b"no event file")
    (tmp_path / "events.out.tfevents.2.a").mkdir()
    (tmp_path / "events.out.tfevents.3.a").symlink_to(tmp_path / "nowhere")
    assert find_kinds(str(tmp_path), "") == {}
    assert find_kinds(str(tmp_path), "nul\0") == {}
    assert find_kinds(str(tmp_path), "nowhere") == {}
    with Writer(tmp_path) as writer:
        log_scalar(writer)
        assert writer.flush()
        assert writer.stats().errors == 0


def test_only_the_beginning_of_earlier_files_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "HEAD_SIZE", 1000)
    with Writer(tmp_path) as writer:
        for _ in range(1000):
            log_scalar(writer, "early")
        log_scalar(writer, "late")
    assert find_kinds(str(tmp_path), "") == {"early": "scalars"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("flush", [True, False], ids=["flushed", "pending"])
@pytest.mark.parametrize(
    ("parent", "child", "expected"),
    [
        ([log_histogram], log_scalar, {"grad/scalars": "scalars"}),
        ([log_scalar], log_histogram, {"grad/histograms": "histograms"}),
        ([log_scalar, log_histogram], log_histogram, {"grad/histograms": "histograms"}),
        ([log_histogram, log_scalar], log_scalar, {"grad/scalars": "scalars"}),
        ([log_histogram], log_histogram, {"grad": "histograms"}),
        ([log_scalar], log_scalar, {"grad": "scalars"}),
    ],
)
def test_a_forked_child_keeps_its_parents_names(
    tmp_path, worker_at_barriers_alone, parent, child, expected, flush
):
    with Writer(tmp_path) as writer:
        for call in parent:
            call(writer)
        if flush:
            writer.flush()
        pid = os.fork()
        if pid == 0:
            child(writer)
            os._exit(not writer.flush())
        assert os.waitpid(pid, 0)[1] == 0
        [path] = Path(tmp_path).glob(f"*.{pid}.*")
        assert tags(path) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_during_a_build_keeps_its_parents_names(tmp_path):
    building, released = threading.Event(), threading.Event()

    def build(tag):
        building.set()
        assert released.wait(60)
        return schema.Value(tag=tag, histo=schema.HistogramProto(num=1))

    with Writer(tmp_path) as writer:
        log_scalar(writer, "first")
        writer._put("grad", build, (), 0, None)
        log_scalar(writer)
        assert building.wait(60)
        pid = os.fork()
        if pid == 0:
            log_scalar(writer)
            log_histogram(writer, "first")
            os._exit(not writer.flush())
        released.set()
        assert os.waitpid(pid, 0)[1] == 0
        [path] = Path(tmp_path).glob(f"*.{pid}.*")
        assert tags(path) == {"grad/scalars": "scalars", "first/histograms": "histograms"}


def test_the_feed_ends_if_the_rows_are_cleared_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "TICK", 600.0)
    with Writer(tmp_path) as writer:
        pipeline = writer._pipeline
        pipeline.extend(("a", 1.0, 0, 1.0))
        pipeline._feed(40, 0)
        assert writer.stats().rows_written == 1


def test_kinds_that_cannot_be_found_cost_no_data(tmp_path, monkeypatch):
    def fail(*args):
        message = "can't register atexit after shutdown"
        raise RuntimeError(message)

    monkeypatch.setattr(kinds, "find_kinds", fail)
    for value in ("first", "second"):
        with Writer(tmp_path) as writer:
            writer.add_text("notes", value, 0)
            writer.add_scalar("loss", 1.0, 0)
            assert writer.flush()
    assert tags(tmp_path) == {"notes": "text", "loss": "scalars"}


LOG_TEXT = """
import sys
from sm_tblog import Writer

with Writer(sys.argv[1]) as writer:
    writer.add_text("notes", "text", 0)
assert not [name for name in sys.modules if name.startswith("sm_tblog.readers")]
"""


def test_finding_the_kinds_of_earlier_files_imports_no_readers(tmp_path, run_script):
    for _ in range(2):
        done = run_script(LOG_TEXT, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
