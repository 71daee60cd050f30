"""A full buffer: the caller waits or rows are dropped, and every row is accounted for."""

from __future__ import annotations

import logging
import threading

import pytest

from sm_tblog import StoreError, Writer
from sm_tblog.pipeline import buffer, worker
from sm_tblog.storage.local import LocalStore

MAX_ROWS = 100
MAX_BYTES = MAX_ROWS * buffer.ROW_BYTES


@pytest.fixture
def blocked(tmp_path, store_at):
    """The URL of a store that blocks until released, and the event that releases it."""
    released = threading.Event()

    def append(store, data):
        released.wait()
        LocalStore.append(store, data)

    yield store_at(tmp_path, append=append), released
    released.set()


@pytest.fixture
def slow(tmp_path, store_at):
    """The URL of a store that lets another thread run before each append."""
    wanted, granted = threading.Semaphore(0), threading.Semaphore(0)
    ended = threading.Event()

    def append(store, data):
        wanted.release()
        granted.acquire()
        LocalStore.append(store, data)

    def grant():
        while wanted.acquire() and not ended.is_set():
            granted.release()

    thread = threading.Thread(target=grant)
    thread.start()
    yield store_at(tmp_path, append=append)
    ended.set()
    wanted.release()
    thread.join()


def _log(writer, steps, tag="loss"):
    for step in steps:
        writer.add_scalar(tag, 1.0, step)


def _warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "sm_tblog" and record.levelno >= logging.WARNING
    ]


def _stored(read_scalars, folder):
    return sum(len(points) for points in read_scalars(folder).get("", {}).values())


def test_rows_that_are_dropped_are_counted_and_said_once(tmp_path, blocked, caplog, read_scalars):
    url, released = blocked
    writer = Writer(url, overflow="drop", max_bytes=MAX_BYTES)
    _log(writer, range(5000))
    stats = writer.stats()
    assert stats.rows_dropped >= 5000 - 3 * MAX_ROWS  # part of them may be in the sink
    assert stats.queue_depth <= MAX_ROWS + 1
    [message] = _warnings(caplog)
    assert str(tmp_path) in message
    assert "dropped" in message
    released.set()
    assert not writer.flush()  # some of the logged rows were dropped
    _log(writer, range(5000, 5010))  # there is room again
    assert writer.close()
    assert writer.stats().rows_dropped == stats.rows_dropped
    assert _stored(read_scalars, tmp_path) == 5010 - stats.rows_dropped
    steps = [step for step, _ in read_scalars(tmp_path)[""]["loss"]]
    assert steps == sorted(set(steps))
    assert steps[-10:] == list(range(5000, 5010))


def test_rows_dropped_by_many_threads_are_counted_and_said_once(
    tmp_path, blocked, caplog, read_scalars
):
    url, released = blocked
    writer = Writer(url, overflow="drop", max_bytes=MAX_BYTES)
    threads = [
        threading.Thread(target=_log, args=(writer, range(5000), f"tag{i}")) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_warnings(caplog)) == 1
    assert writer.stats().queue_depth <= MAX_ROWS + len(threads)
    released.set()
    assert not writer.close()
    assert _stored(read_scalars, tmp_path) + writer.stats().rows_dropped == 4 * 5000


def test_rows_that_keep_coming_too_fast_are_not_a_storm_of_warnings(tmp_path, caplog):
    with Writer(tmp_path, overflow="drop", max_bytes=MAX_BYTES) as writer:
        _log(writer, range(500_000))
    assert writer.stats().rows_dropped > 0
    assert len(_warnings(caplog)) <= 10  # not one each time there is room again


def test_values_that_are_dropped_are_counted_and_said_once(
    tmp_path, blocked, caplog, read_events, event_files
):
    url, released = blocked
    writer = Writer(url, overflow="drop", max_bytes=MAX_BYTES)
    for step in range(500):
        writer.add_text("text", "x" * 1000, step)
    stats = writer.stats()
    assert 0 < stats.rows_dropped < 500
    assert len(_warnings(caplog)) == 1
    released.set()
    assert not writer.close()
    [path] = event_files(tmp_path)
    assert len(read_events(path)) == 1 + 500 - stats.rows_dropped


def test_a_caller_that_waits_for_a_slow_store_loses_nothing(tmp_path, slow, caplog, read_scalars):
    with Writer(slow, overflow="block", max_bytes=MAX_BYTES) as writer:
        for step in range(5000):
            writer.add_scalar("loss", 1.0, step)
            assert len(writer._pipeline.rows) <= writer._pipeline._max_length + worker.ENTRIES
    assert _warnings(caplog) == []
    assert writer.stats().rows_dropped == 0
    assert read_scalars(tmp_path) == {"": {"loss": [(step, 1.0) for step in range(5000)]}}


def test_threads_that_wait_for_a_slow_store_lose_nothing(tmp_path, slow, caplog, read_scalars):
    writer = Writer(slow, overflow="block", max_bytes=MAX_BYTES)
    threads = [
        threading.Thread(target=_log, args=(writer, range(3000), f"tag{i}")) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.close()
    assert _warnings(caplog) == []
    expected = [(step, 1.0) for step in range(3000)]
    assert read_scalars(tmp_path) == {"": {f"tag{i}": expected for i in range(4)}}


def test_values_wait_for_a_slow_store_too(tmp_path, slow, caplog, read_events, event_files):
    with Writer(slow, overflow="block", max_bytes=MAX_BYTES) as writer:
        for step in range(300):
            writer.add_text("text", "x" * 1000, step)
    assert _warnings(caplog) == []
    [path] = event_files(tmp_path)
    assert [event.step for event in read_events(path)[1:]] == list(range(300))


def test_no_caller_waits_for_a_store_that_hangs(
    tmp_path, blocked, caplog, read_scalars, monkeypatch
):
    monkeypatch.setattr(buffer, "STALL_TIMEOUT", 0.1)
    url, released = blocked
    writer = Writer(url, overflow="block", max_bytes=MAX_BYTES)
    _log(writer, range(5000))
    for step in range(100):
        writer.add_text("text", "x" * 1000, step)
    dropped = writer.stats().rows_dropped
    assert dropped > 0
    assert len(_warnings(caplog)) == 1
    released.set()
    while writer.stats().queue_depth:
        writer.flush()
    _log(writer, range(5000, 10_000))
    assert writer.close()
    assert writer.stats().rows_dropped == dropped
    values = writer.stats().values_written
    assert _stored(read_scalars, tmp_path) + values + dropped == 10_000 + 100


def test_what_a_refusing_store_leaves_no_room_for_is_counted_and_said_once(
    tmp_path, store_at, caplog, read_scalars
):
    refusing = threading.Event()
    refusing.set()

    def append(store, data):
        if refusing.is_set():
            message = f"{store}: refused"
            raise StoreError(message)
        LocalStore.append(store, data)

    writer = Writer(store_at(tmp_path, append=append), max_bytes=MAX_BYTES)
    for begin in range(0, 5000, 50):
        _log(writer, range(begin, begin + 50))
        writer.flush()
    stats = writer.stats()
    assert MAX_BYTES < stats.bytes_pending < 2 * MAX_BYTES
    assert stats.rows_dropped > 0
    refused, dropped = _warnings(caplog)
    assert "refused" in refused
    assert "dropped" in dropped
    refusing.clear()
    assert writer.flush()
    _log(writer, range(5000, 5010))
    assert writer.close()
    assert writer.stats().rows_dropped == stats.rows_dropped
    assert _stored(read_scalars, tmp_path) + stats.rows_dropped == 5010


def test_a_writer_that_was_closed_while_rows_were_dropped_begins_anew(
    tmp_path, blocked, read_scalars
):
    url, released = blocked
    writer = Writer(url, overflow="drop", max_bytes=MAX_BYTES)
    _log(writer, range(5000))
    released.set()
    writer.close()
    _log(writer, [5000])
    assert writer._pipeline._worker is not None
    assert writer.close()
    assert read_scalars(tmp_path)[""]["loss"][-1] == (5000, 1.0)
