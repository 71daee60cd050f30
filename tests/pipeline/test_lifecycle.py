"""The lifecycle of a writer within one process: threads, closing, deletion, copies, names."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
from collections import Counter

import pytest

from sm_tblog import Writer
from sm_tblog.pipeline import worker as module
from sm_tblog.storage.local import LocalStore

ROWS = 20_000
THREADS = 8


def _in_threads(count, target):
    """Run ``target(number)`` in several threads that start together, and wait for their end."""
    barrier = threading.Barrier(count)
    failures = []

    def run(number):
        barrier.wait()
        try:
            target(number)
        except BaseException as error:  # noqa: BLE001 - passed to the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.fixture
def workers():
    """``workers()``: the running worker threads of the writers that the test has started."""
    before = set(threading.enumerate())
    return lambda: [
        thread
        for thread in threading.enumerate()
        if thread.name == "sm_tblog" and thread not in before
    ]


# Threads.


def test_rows_of_many_threads_are_stored_once_each_and_in_each_threads_order(
    tmp_path, read_scalars
):
    writer = Writer(tmp_path)

    def log(number):
        for step in range(ROWS):
            writer.add_scalar("all", float(number), step)

    _in_threads(THREADS, log)
    assert writer.close()
    points = read_scalars(tmp_path)[""]["all"]
    assert len(points) == THREADS * ROWS
    for number in range(THREADS):
        assert [step for step, value in points if value == number] == list(range(ROWS))


def test_every_kind_of_call_may_be_made_from_many_threads(tmp_path, read_scalars, read_events):
    writer = Writer(tmp_path)

    def log(number):
        for step in range(100):
            writer.log({"logged": float(number), "int": number}, step)
            writer.add_scalars("chart", {"curve": number}, step)
            writer.add_text("text", str(number), step)
            writer.add_histogram("histogram", [number], step)

    _in_threads(4, log)
    assert writer.close()
    runs = read_scalars(tmp_path)
    expected = sorted((step, float(number)) for number in range(4) for step in range(100))
    assert sorted(runs[""]["logged"]) == sorted(runs[""]["int"]) == expected
    assert sorted(runs["chart_curve"]["chart"]) == expected
    [path] = tmp_path.glob("*tfevents*")
    tags = Counter(value.tag for event in read_events(path) for value in event.summary.value)
    assert tags["text/text_summary"] + tags["text"] == tags["histogram"] == 400


def test_flush_from_many_threads_is_a_barrier_for_each(tmp_path, read_events):
    writer = Writer(tmp_path)

    def log(number):
        for step in range(20):
            writer.add_scalar(f"tag{number}", 1.0, step)
            assert writer.flush()
            [path] = tmp_path.glob("*tfevents*")
            mine = [
                event.step
                for event in read_events(path)
                if event.summary.value and event.summary.value[0].tag == f"tag{number}"
            ]
            assert mine == list(range(step + 1))

    _in_threads(4, log)
    assert writer.close()


def test_counters_may_be_read_while_runs_are_begun(tmp_path, store_at):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the worker thread interleaves wherever it can
    try:
        with Writer(store_at(tmp_path, append=lambda *_: None)) as writer:
            for part in range(1, 4):
                writer.add_scalars("chart", {f"{part}/{i}": 1.0 for i in range(200)})
                while writer.stats().rows_written < part * 200:
                    pass
    finally:
        sys.setswitchinterval(interval)
    assert writer.stats().rows_written == 600


def test_closing_while_other_threads_log_loses_nothing(tmp_path, read_scalars):
    writer = Writer(tmp_path)
    logged = [0, 0]

    def log(number):
        for step in range(ROWS):
            writer.add_scalar(f"tag{number}", 1.0, step)
            logged[number] = step + 1

    def close(_):
        for part in range(1, 4):
            while min(logged) < part * ROWS // 4:
                pass
            assert writer.close()

    _in_threads(3, lambda number: close(number) if number == 2 else log(number))
    assert writer.close()
    points = read_scalars(tmp_path)[""]
    for number in range(2):
        assert [step for step, _ in points[f"tag{number}"]] == list(range(ROWS))


def test_rows_that_come_during_close_do_not_begin_a_file_each(
    tmp_path, read_scalars, event_files, store_at
):
    steps = list(range(20))

    def append(store, data):
        LocalStore.append(store, data)
        if steps:
            writer.add_scalar("loss", 1.0, steps.pop(0))

    writer = Writer(store_at(tmp_path, append=append))
    writer.add_scalar("loss", 1.0, steps.pop(0))
    assert writer.close()
    while steps:
        assert writer.flush()
    assert writer.close()
    assert read_scalars(tmp_path) == {"": {"loss": [(step, 1.0) for step in range(20)]}}
    assert len(event_files(tmp_path)) == 2


def test_an_interrupt_while_the_worker_starts_leaves_one_worker(
    tmp_path, read_scalars, monkeypatch, workers
):
    start = module._Worker.start

    def start_and_interrupt(worker):
        start(worker)
        raise KeyboardInterrupt

    writer = Writer(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module._Worker, "start", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.add_scalar("loss", 1.0, 0)
    writer.add_scalar("loss", 1.0, 1)
    assert len(workers()) == 1
    assert writer.close()
    assert workers() == []
    assert read_scalars(tmp_path) == {"": {"loss": [(0, 1.0), (1, 1.0)]}}


def test_a_worker_that_was_interrupted_before_it_said_that_it_runs_does_nothing(
    tmp_path, read_scalars, monkeypatch, workers
):
    start = module._Worker.start
    given_up = []

    def start_and_interrupt(worker):
        start(worker)
        monkeypatch.setattr(worker, "is_alive", lambda: False)
        given_up.append(worker)
        raise KeyboardInterrupt

    writer = Writer(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module._Worker, "start", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.add_scalar("loss", 1.0, 0)
    for step in range(1, 1000):
        writer.add_scalar("loss", 1.0, step)
    threading.Thread.join(given_up[0])
    assert writer.flush()
    assert len(workers()) == 1
    assert writer.close()
    assert read_scalars(tmp_path) == {"": {"loss": [(step, 1.0) for step in range(1000)]}}


def test_an_interrupt_before_the_worker_is_started_leaves_none(
    tmp_path, read_scalars, monkeypatch, workers
):
    def interrupt(_):
        raise KeyboardInterrupt

    writer = Writer(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module.lifecycle, "close_at_exit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.add_scalar("loss", 1.0, 0)
    assert workers() == []
    writer.add_scalar("loss", 1.0, 1)
    assert writer.close()
    assert read_scalars(tmp_path) == {"": {"loss": [(0, 1.0), (1, 1.0)]}}


def test_where_no_thread_can_be_started_rows_are_stored_in_one_file(
    tmp_path, read_scalars, event_files, monkeypatch
):
    def refuse(_):
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(module._Worker, "start", refuse)
    writer = Writer(tmp_path)
    for step in range(100):
        writer.add_scalar("loss", 1.0, step)
    writer.flush()
    assert read_scalars(tmp_path)[""]["loss"] == [(step, 1.0) for step in range(100)]
    assert len(event_files(tmp_path)) == 1


# Closing and deletion.


def test_logging_after_close_begins_a_new_file(tmp_path, read_scalars, event_files):
    writer = Writer(tmp_path)
    for step in range(100):
        writer.add_scalar("loss", 1.0, step)
        assert writer.close()
        assert len(event_files(tmp_path)) == step + 1
    assert read_scalars(tmp_path) == {"": {"loss": [(step, 1.0) for step in range(100)]}}


def test_the_files_of_one_writer_are_read_in_the_order_they_were_begun(tmp_path, read_events):
    writer = Writer(tmp_path)
    for step in range(12):
        writer.add_scalar("loss", 0.0, step)
        writer.close()
    last_steps = [read_events(path)[-1].step for path in sorted(tmp_path.iterdir())]
    assert last_steps == list(range(12))


def test_closing_twice_is_closing_once(tmp_path, event_files):
    writer = Writer(tmp_path)
    writer.add_scalar("loss", 1.0, 0)
    assert writer.close()
    [path] = event_files(tmp_path)
    content = path.read_bytes()
    assert writer.close()
    assert writer.flush()
    assert event_files(tmp_path) == [path]
    assert path.read_bytes() == content


@pytest.mark.parametrize("action", ["flush", "close"])
def test_a_writer_that_never_logged_makes_no_file(tmp_path, workers, action):
    with Writer(tmp_path) as writer:
        assert getattr(writer, action)()
        assert workers() == []
    assert list(tmp_path.iterdir()) == []


def test_close_ends_the_worker(tmp_path, workers):
    writer = Writer(tmp_path)
    writer.add_scalar("loss", 1.0, 0)
    assert len(workers()) == 1
    assert writer.close()
    assert workers() == []


def test_an_exception_in_a_with_block_passes_and_the_rows_are_stored(tmp_path, read_scalars):
    def train():
        with Writer(tmp_path) as writer:
            writer.add_scalar("loss", 1.0, 0)
            writer.add_scalar("loss", 1 / 0, 1)

    with pytest.raises(ZeroDivisionError):
        train()
    assert read_scalars(tmp_path) == {"": {"loss": [(0, 1.0)]}}


@pytest.mark.parametrize("cyclic", [False, True])
def test_a_dropped_writer_stores_its_rows_and_ends_its_thread(
    tmp_path, read_scalars, workers, cyclic
):
    writer = Writer(tmp_path)
    if cyclic:
        writer.cycle = writer
    for step in range(1000):
        writer.add_scalar("loss", 1.0, step)
    [worker] = workers()
    del writer
    gc.collect()
    worker.join(30)
    assert not worker.is_alive()
    assert read_scalars(tmp_path) == {"": {"loss": [(step, 1.0) for step in range(1000)]}}


def test_many_writers_created_and_dropped_leave_no_threads(tmp_path, event_files, workers):
    for number in range(100):
        Writer(tmp_path).add_scalar("loss", 1.0, number)
    for worker in workers():
        worker.join(30)
    assert workers() == []
    assert len(event_files(tmp_path)) == 100


def test_the_file_writer_outlives_the_writer_it_came_from(tmp_path, read_events, event_files):
    from tensorboard.compat.proto.event_pb2 import Event

    file_writer = Writer(tmp_path).file_writer
    gc.collect()
    file_writer.add_event(Event(file_version="own"), step=3)
    file_writer.close()
    [path] = event_files(tmp_path)
    assert [(e.step, e.file_version) for e in read_events(path)][1:] == [(3, "own")]


# Names.


def test_many_writers_in_one_folder_begin_as_many_files(tmp_path, read_scalars, event_files):
    writers = [Writer(tmp_path) for _ in range(60)]
    _in_threads(
        6, lambda n: [w.add_scalar(f"tag{i}", 1.0, 0) for i, w in enumerate(writers) if i % 6 == n]
    )
    assert all(writer.close() for writer in writers)
    assert len(event_files(tmp_path)) == len(writers)
    assert read_scalars(tmp_path) == {"": {f"tag{i}": [(0, 1.0)] for i in range(len(writers))}}


# Copies.


def _pickled(writer):
    return pickle.loads(pickle.dumps(writer))


both_ways = pytest.mark.parametrize("duplicate", [_pickled, copy.deepcopy])


@both_ways
def test_a_copy_makes_no_file_until_it_logs_and_then_one_of_its_own(
    tmp_path, read_scalars, event_files, duplicate
):
    writer = Writer(tmp_path)
    writer.add_scalar("loss", 0.0, 0)
    writer.flush()
    [path] = event_files(tmp_path)
    twin = duplicate(writer)
    assert twin.flush()
    assert event_files(tmp_path) == [path]
    twin.add_scalar("loss", 1.0, 1)
    assert twin.close()
    assert len(event_files(tmp_path)) == 2
    writer.add_scalar("loss", 2.0, 2)
    assert writer.close()
    assert len(event_files(tmp_path)) == 2
    assert sorted(read_scalars(tmp_path)[""]["loss"]) == [(0, 0.0), (1, 1.0), (2, 2.0)]


@both_ways
def test_a_copy_made_while_rows_wait_stores_none_of_them_again(tmp_path, read_scalars, duplicate):
    writer = Writer(tmp_path)
    for step in range(1000):
        writer.add_scalar("loss", 1.0, step)
    twin = duplicate(writer)
    twin.add_scalar("loss", 1.0, 1000)
    assert twin.close()
    assert writer.close()
    steps = sorted(step for step, _ in read_scalars(tmp_path)[""]["loss"])
    assert steps == list(range(1001))


@both_ways
def test_a_copy_keeps_the_settings(tmp_path, duplicate):
    writer = Writer(
        tmp_path, filename_suffix=".mine", sinks=["events", "jsonl"], max_queue=7, flush_secs=3
    )
    writer.step = 5
    twin = duplicate(writer)
    twin.add_scalar("loss", 1.0)
    twin.close()
    assert twin.log_dir == writer.log_dir
    assert twin.step == 5
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.endswith((".mine", ".mine.jsonl")) for name in names] == [True, True]
    assert duplicate(Writer(tmp_path, enabled=False)).enabled is False


def _purges(path, read_events):
    return {e.step for e in read_events(path) if e.WhichOneof("what") == "session_log"}


@both_ways
def test_a_copy_does_not_purge_again(tmp_path, read_scalars, read_events, event_files, duplicate):
    with Writer(tmp_path) as first:
        for step in range(10):
            first.add_scalar("loss", 0.0, step)
    writer = Writer(tmp_path, purge_step=5)
    writer.add_scalar("loss", 1.0, 5)
    writer.flush()
    twin = duplicate(writer)
    twin.add_scalar("loss", 2.0, 6)
    twin.close()
    writer.close()
    assert [_purges(path, read_events) for path in event_files(tmp_path)] == [set(), {5}, set()]
    assert read_scalars(tmp_path)[""]["loss"] == [
        *((step, 0.0) for step in range(5)),
        (5, 1.0),
        (6, 2.0),
    ]


def test_a_writer_that_is_used_again_after_close_does_not_purge_again(
    tmp_path, read_events, event_files
):
    writer = Writer(tmp_path, purge_step=5)
    for step in (5, 6):
        writer.add_scalar("loss", 1.0, step)
        writer.close()
    assert [_purges(path, read_events) for path in event_files(tmp_path)] == [{5}, set()]
