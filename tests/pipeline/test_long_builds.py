"""Values that take long to build: building is progress, which callers and barriers wait for."""

from __future__ import annotations

import threading
import time

import pytest

from sm_tblog import Writer
from sm_tblog.arrays.deferred import Deferred
from sm_tblog.format import schema
from sm_tblog.pipeline import barriers, buffer

MAX_ROWS = 100
MAX_BYTES = MAX_ROWS * buffer.ROW_BYTES

LONG = 0.3
"""Seconds for which a thread must wait here: several times the patience with a store."""


class Long:
    """Something that the worker thread does for one value, and that ends when it is released."""

    def __init__(self):
        self.begun, self.released = threading.Event(), threading.Event()

    def run(self):
        self.begun.set()
        assert self.released.wait(30)

    def build(self, tag):
        self.run()
        return schema.Value(tag=tag, simple_value=1.0)

    def read(self):
        self.run()
        return 1.0

    def process(self, batch):
        self.run()
        return batch


@pytest.fixture
def long(monkeypatch):
    monkeypatch.setattr(barriers, "BARRIER_TIMEOUT", 0.05)
    monkeypatch.setattr(buffer, "STALL_TIMEOUT", 0.05)
    long = Long()
    yield long
    long.released.set()


def _begin(kind, writer, long):
    """Let the worker thread begin something long."""
    if kind == "a value is built":
        writer._put("long", long.build, (), 0, None)
    elif kind == "a device is waited for":
        writer._pipeline.extend(("long", Deferred(long.read), 0, 1.0))
        writer.add_scalar("short", 1.0, 0)
    else:
        writer._pipeline.processors.append(long.process)
        writer.add_scalar("short", 1.0, 0)
    assert long.begun.wait(30)


KINDS = ["a value is built", "a device is waited for", "a processor runs"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_dropped_while_the_worker_works(tmp_path, long, read_scalars, caplog, kind):
    writer = Writer(tmp_path, max_bytes=MAX_BYTES)
    _begin(kind, writer, long)

    def log():
        for step in range(1000):
            writer.add_scalar("loss", 1.0, step)
            writer.add_text("text", "x" * 1000, step)

    thread = threading.Thread(target=log)
    thread.start()
    thread.join(LONG)
    assert thread.is_alive()
    long.released.set()
    thread.join(30)
    assert writer.close()
    assert writer.stats().rows_dropped == 0
    assert [step for step, _ in read_scalars(tmp_path)[""]["loss"]] == list(range(1000))
    assert not caplog.records


@pytest.mark.parametrize("barrier", [Writer.flush, Writer.close])
@pytest.mark.parametrize("kind", KINDS)
def test_barriers_wait_while_the_worker_works(tmp_path, long, read_scalars, kind, barrier):
    writer = Writer(tmp_path)
    _begin(kind, writer, long)
    writer.add_scalar("loss", 1.0, 0)
    stored = []
    thread = threading.Thread(target=lambda: stored.append(barrier(writer)))
    thread.start()
    thread.join(LONG)
    assert thread.is_alive()
    long.released.set()
    thread.join(30)
    assert stored == [True]
    assert read_scalars(tmp_path)[""]["loss"] == [(0, 1.0)]
    writer.close()


def test_a_barrier_waits_for_a_store_although_a_full_buffer_no_longer_does(
    tmp_path, store_at, monkeypatch
):
    monkeypatch.setattr(buffer, "STALL_TIMEOUT", 0.05)
    released = threading.Event()
    writer = Writer(store_at(tmp_path, append=lambda *_: released.wait()), max_bytes=MAX_BYTES)
    for step in range(1000):
        writer.add_scalar("loss", 1.0, step)
    assert writer.stats().rows_dropped
    stored = []
    thread = threading.Thread(target=lambda: stored.append(writer.flush()))
    thread.start()
    thread.join(LONG)
    assert thread.is_alive()
    released.set()
    thread.join(30)
    assert stored == [False]  # of what was dropped
    assert writer.close()


def test_each_value_that_is_built_is_progress(tmp_path):
    writer = Writer(tmp_path)
    seen = []

    def build(tag):
        seen.append(writer._pipeline._progress)
        while time.monotonic() <= seen[-1]:
            pass
        return schema.Value(tag=tag, simple_value=1.0)

    with writer._pipeline._condition:  # the worker takes them up together
        for step in range(3):
            writer._put("value", build, (), step, None)
    assert writer.close()
    assert seen == sorted(set(seen))


def test_uploads_are_waited_for_after_a_long_build(tmp_path, long):
    class Sink:
        timeouts = ()

        def write(self, batch):
            pass

        flush = close = lambda _: None

        def wait(self, timeout, force):
            self.timeouts += (timeout,)
            return True

    sink = Sink()
    writer = Writer(tmp_path, sinks=[sink])
    _begin("a value is built", writer, long)
    thread = threading.Thread(target=writer.flush)
    thread.start()
    thread.join(LONG)
    long.released.set()
    thread.join(30)
    assert len(sink.timeouts) == 1
    assert sink.timeouts[0] > 0
    writer.close()


def test_a_build_that_hangs_is_given_up_in_the_end(tmp_path, long, read_scalars, monkeypatch):
    monkeypatch.setattr(buffer, "BUILD_TIMEOUT", 0.1)
    writer = Writer(tmp_path, max_bytes=MAX_BYTES, on_error=lambda _: None)
    _begin("a value is built", writer, long)
    assert not writer.flush()
    for step in range(1000):
        writer.add_scalar("loss", 1.0, step)
    dropped = writer.stats().rows_dropped
    assert dropped >= 1000 - 2 * MAX_ROWS
    long.released.set()
    while writer.stats().queue_depth:
        writer.flush()
    writer.add_scalar("loss", 1.0, 1000)
    assert writer.close()
    assert len(read_scalars(tmp_path)[""]["loss"]) + dropped == 1001


# At exit.

EXITING = """
import sys, threading
from sm_tblog import Writer
from sm_tblog.format import schema
from sm_tblog.pipeline import barriers, buffer, lifecycle

lifecycle.EXIT_TIMEOUT = 0.1
barriers.NOTICE_SECS = 0.1
exiting = threading.Event()
close = barriers.Barriers.close_at_exit
barriers.Barriers.close_at_exit = lambda *args: exiting.set() or close(*args)

def build(tag):
    exiting.wait()
    released.wait(timeout)
    return schema.Value(tag=tag, simple_value=1.0)

released, timeout = threading.Event(), 0.5  # several times the patience at exit
writer = Writer(sys.argv[1])
writer._put("long", build, (), 0, None)
writer.add_scalar("loss", 1.0, 0)
"""


def test_exiting_waits_for_a_value_that_is_being_built(tmp_path, run_script, read_scalars):
    done = run_script(EXITING, tmp_path)
    assert done.returncode == 0
    assert "Ctrl-C" in done.stderr
    assert set(read_scalars(tmp_path)[""]) == {"long", "loss"}


def test_exiting_does_not_wait_forever_for_a_build_that_hangs(tmp_path, run_script):
    source = "timeout = None\nbarriers.BARRIER_TIMEOUT = buffer.BUILD_TIMEOUT = 0.2\n"
    done = run_script(EXITING + source, tmp_path)
    assert done.returncode == 0
    assert "not everything could be stored in time" in done.stderr


def test_exiting_does_not_wait_longer_for_a_store_that_hangs(tmp_path, run_script):
    source = """
from sm_tblog.storage.local import LocalStore
LocalStore.append = lambda store, data: released.wait()
timeout = 0
"""
    done = run_script(EXITING + source, tmp_path)
    assert done.returncode == 0
    assert "not everything could be stored in time" in done.stderr
