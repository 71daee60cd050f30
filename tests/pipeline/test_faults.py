"""Unwritable destinations: training continues, one warning, and nothing is lost or duplicated.

Where possible the fault is real: a full disk, a read-only one, a folder that is deleted. A fault
that must start and end at a given moment is simulated by a store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import threading
import time

import pytest

from sm_tblog import FlushTimeoutError, StoreError, Writer
from sm_tblog.pipeline import barriers, buffer
from sm_tblog.storage.local import LocalStore

pytestmark = pytest.mark.usefixtures("worker_at_barriers_alone")

ROWS = 5000


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB: its folder, and a function that remounts it with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    if not (shutil.which("mount") and mount("size=64k")):
        pytest.skip("needs the right to mount a disk")
    try:
        yield folder, lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _log(writer, steps):
    for step in steps:
        writer.add_scalar("loss", 1.0, step)


def _loss(count):
    return {"": {"loss": [(step, 1.0) for step in range(count)]}}


def _warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "sm_tblog" and record.levelno >= logging.WARNING
    ]


def _assert_said_once_and_counted(caplog, writer, path):
    [message] = _warnings(caplog)
    assert str(path) in message
    assert writer.stats().errors > 0
    assert str(path) in writer.stats().last_error
    assert writer.stats().rows_dropped == 0


# Real faults.


def test_a_full_disk(small_disk, caplog, read_scalars):
    folder, remount = small_disk
    with Writer(folder) as writer:
        for part in range(3):
            _log(writer, range(part * ROWS, part * ROWS + ROWS))
            assert not writer.flush()
        _assert_said_once_and_counted(caplog, writer, folder)
        assert writer.stats().bytes_pending > 0
        assert remount("size=4m")
        assert writer.flush()
        assert writer.stats().bytes_pending == 0
        _log(writer, range(3 * ROWS, 4 * ROWS))
    assert read_scalars(folder) == _loss(4 * ROWS)


def test_a_file_system_that_becomes_read_only(small_disk, caplog, read_scalars):
    folder, remount = small_disk
    with Writer(folder) as writer:
        assert remount("ro")
        _log(writer, range(10))
        assert not writer.flush()
        _log(writer, range(10, 20))
        assert not writer.flush()
        _assert_said_once_and_counted(caplog, writer, folder)
        assert remount("rw")
        assert writer.flush()
    assert read_scalars(folder) == _loss(20)


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write into any folder"
)
def test_a_folder_without_write_permission(tmp_path, caplog, read_scalars):
    tmp_path.chmod(0o500)
    with Writer(tmp_path / "logs") as writer:
        _log(writer, range(10))
        assert not writer.flush()
        _assert_said_once_and_counted(caplog, writer, tmp_path)
        tmp_path.chmod(0o700)
        assert writer.flush()
    assert read_scalars(tmp_path / "logs") == _loss(10)


def test_a_path_below_a_regular_file(tmp_path, caplog, read_scalars):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    with Writer(obstacle / "logs") as writer:
        _log(writer, range(10))
        assert not writer.flush()
        _log(writer, range(10, 20))
        assert not writer.flush()
        _assert_said_once_and_counted(caplog, writer, obstacle)
        obstacle.unlink()
        assert writer.flush()
    assert read_scalars(obstacle / "logs") == _loss(20)


def test_a_limit_on_the_size_of_files(tmp_path, run_script, read_scalars):
    source = """
import resource, signal, sys
from sm_tblog import Writer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
writer = Writer(sys.argv[1])
for step in range(1000):
    writer.add_scalar("loss", 1.0, step)
    if step % 100 == 0:
        print(writer.flush())
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(writer.flush())
"""
    done = run_script(source, tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("cannot write") == 1
    assert done.stdout.split() == ["True"] * 3 + ["False"] * 7 + ["True"]
    assert read_scalars(tmp_path) == _loss(1000)


def test_a_folder_that_is_deleted_while_it_is_written(tmp_path, caplog, read_scalars):
    folder = tmp_path / "logs"
    with Writer(folder) as writer:
        for begin in (0, 10):
            shutil.rmtree(folder)
            _log(writer, range(begin, begin + 5))
            if begin:
                assert not writer.flush()  # five rows are lost
            _log(writer, range(begin + 5, begin + 10))
            assert writer.flush()
        _assert_said_once_and_counted(caplog, writer, folder)
        assert "deleted" in writer.stats().last_error
    assert read_scalars(folder) == {"": {"loss": [(step, 1.0) for step in range(10, 20)]}}


def test_a_file_that_is_deleted_is_noticed_by_flush_although_nothing_was_logged_since(
    tmp_path, caplog, read_scalars, event_files
):
    with Writer(tmp_path) as writer:
        _log(writer, range(10))
        assert writer.flush()
        event_files(tmp_path)[0].unlink()
        assert not writer.flush()
        assert writer.flush()
        assert len(_warnings(caplog)) == 1
        _log(writer, range(10))
    assert read_scalars(tmp_path) == _loss(10)


def test_one_runs_fault_is_not_anothers(tmp_path, caplog, read_scalars):
    obstacle = tmp_path / "chart_a"
    obstacle.touch()
    with Writer(tmp_path) as writer:
        for step in range(10):
            writer.add_scalars("chart", {"a": 1.0, "b": 1.0}, step)
            writer.add_scalar("loss", 1.0, step)
            assert not writer.flush()
        expected = [(step, 1.0) for step in range(10)]
        assert read_scalars(tmp_path) == {"": {"loss": expected}, "chart_b": {"chart": expected}}
        _assert_said_once_and_counted(caplog, writer, obstacle)
        obstacle.unlink()
    assert read_scalars(tmp_path)["chart_a"] == {"chart": expected}


# A store that refuses.


class Gate:
    """A gate that lets a store's appends pass or refuses them."""

    def __init__(self):
        self.is_open = False

        def append(store, data):
            if not self.is_open:
                message = f"{store}: refused"
                raise StoreError(message)
            LocalStore.append(store, data)

        self.append = append


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def url(tmp_path, store_at, gate):
    return store_at(tmp_path, append=gate.append)


def test_flush_never_says_that_what_was_refused_is_stored(url, gate, read_scalars, tmp_path):
    writer = Writer(url, on_error=lambda _: None)
    results = set()
    for step in range(500):
        writer.add_scalar("loss", 1.0, step)
        results.add(writer.flush())
    assert results == {False}
    gate.is_open = True
    assert writer.close()
    assert read_scalars(tmp_path) == _loss(500)


def test_flush_from_another_thread_changes_nothing_about_that(url):
    writer = Writer(url, on_error=lambda _: None)
    writer.add_scalar("loss", 1.0, 0)
    results = []
    threads = [
        threading.Thread(target=lambda: results.extend(writer.flush() for _ in range(100)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [False] * 300


def test_a_refusal_that_the_flush_itself_makes_good_is_none(tmp_path, store_at, read_scalars):
    plan = iter([True])

    def append(store, data):
        if next(plan, False):
            raise StoreError
        LocalStore.append(store, data)

    writer = Writer(store_at(tmp_path, append=append))
    _log(writer, range(10))
    assert writer.flush()
    assert read_scalars(tmp_path) == _loss(10)


def test_values_and_rows_come_through_a_refusal_in_order_and_once(
    tmp_path, url, gate, read_events, event_files
):
    writer = Writer(url, on_error=lambda _: None)
    for step in range(0, 20, 2):
        writer.add_scalar("loss", 1.0, step)
        writer.flush()
        writer.add_text("text", "x", step + 1)
        gate.is_open = step % 3 == 0
        writer.flush()
    gate.is_open = True
    assert writer.close()
    [path] = event_files(tmp_path)
    assert [event.step for event in read_events(path)[1:]] == list(range(20))


def test_a_function_is_called_with_the_error_once_a_fault(url, gate):
    errors = []
    with Writer(url, on_error=errors.append) as writer:
        for faults in (1, 2):
            gate.is_open = False
            for step in range(5):
                writer.add_scalar("loss", 1.0, step)
                writer.flush()
            assert len(errors) == faults
            assert all(isinstance(error, StoreError) for error in errors)
            gate.is_open = True
            assert writer.flush()


def test_a_function_for_errors_that_fails_itself_stops_nothing(url, gate, tmp_path, read_scalars):
    with Writer(url, on_error=lambda _: 1 / 0) as writer:
        _log(writer, range(10))
        assert not writer.flush()
        gate.is_open = True
    assert read_scalars(tmp_path) == _loss(10)


@pytest.mark.parametrize("barrier", [Writer.flush, Writer.close])
def test_a_strict_writer_raises_at_the_barrier_alone(url, gate, barrier):
    writer = Writer(url, on_error="raise")
    _log(writer, range(10))
    with pytest.raises(StoreError, match="refused"):
        barrier(writer)
    gate.is_open = True
    _log(writer, range(10))
    assert writer.flush()
    assert writer.close()


def test_a_with_block_of_a_strict_writer_raises_at_its_end(url):
    def train():
        with Writer(url, on_error="raise") as writer:
            _log(writer, range(10))

    with pytest.raises(StoreError, match="refused"):
        train()


def test_what_close_has_to_give_up_is_counted_and_said(url, gate, caplog):
    writer = Writer(url)
    _log(writer, range(10))
    assert not writer.close()
    assert writer.stats().rows_dropped == 10
    assert any("lost" in message for message in _warnings(caplog))
    gate.is_open = True
    _log(writer, range(10))
    assert writer.close()


def test_a_sink_that_fails_concerns_no_other(tmp_path, caplog, read_scalars):
    def fail(_):
        message = "the sink is broken"
        raise LookupError(message)

    with Writer(tmp_path, sinks=[fail, "events"]) as writer:
        for step in range(10):
            writer.add_scalar("loss", 1.0, step)
            assert not writer.flush()
        [message] = _warnings(caplog)
        assert "the sink is broken" in message
        assert writer.stats().errors == 10
    assert read_scalars(tmp_path) == _loss(10)


def test_a_loss_between_two_barriers_is_reported_by_the_second(tmp_path, read_scalars):
    refusals = iter([True])

    def refuse_once(_):
        if next(refusals, False):
            raise LookupError

    with Writer(tmp_path, sinks=[refuse_once, "events"]) as writer:
        _log(writer, range(5))
        writer._pipeline.drain_once()  # as the worker thread does at each tick
        _log(writer, range(5, 10))
        assert not writer.flush()
        assert writer.flush()
    assert read_scalars(tmp_path) == _loss(10)


def test_a_file_found_deleted_between_two_barriers_is_reported_by_the_second(tmp_path, event_files):
    with Writer(tmp_path, flush_secs=0) as writer:  # the worker thread flushes at every tick
        _log(writer, range(5))
        assert writer.flush()
        event_files(tmp_path)[0].unlink()
        _log(writer, range(5, 10))
        while writer.stats().errors == 0 or writer.stats().bytes_pending > 0:
            pass
        assert not writer.flush()
        assert writer.flush()


def test_a_loss_is_reported_by_the_barrier_that_waited_for_it_whoever_else_flushes(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def lose_the_first(_):
        if not begun.is_set():
            begun.set()
            go_on.wait()
            raise LookupError

    writer = Writer(tmp_path, sinks=[lose_the_first], on_error=lambda _: None)
    _log(writer, range(5))
    results = []
    first = threading.Thread(target=lambda: results.append(writer.flush()))
    first.start()
    begun.wait()
    second = threading.Thread(target=writer.flush)
    second.start()
    while writer._pipeline._last_ticket < 2:
        pass
    go_on.set()
    first.join()
    second.join()
    assert results == [False]


# A store that hangs.


@pytest.fixture
def hanging_url(tmp_path, store_at, monkeypatch):
    """The URL of a store that hangs, an event set when it hangs, and an event that releases it."""
    monkeypatch.setattr(barriers, "BARRIER_TIMEOUT", 0.1)
    monkeypatch.setattr(buffer, "STALL_TIMEOUT", 0.1)
    hangs, released = threading.Event(), threading.Event()

    def append(store, data):
        hangs.set()
        released.wait()
        LocalStore.append(store, data)

    yield store_at(tmp_path, append=append), hangs, released
    released.set()


def _await_flush(writer):
    """Flush once the worker thread makes progress; until then, barriers return at once."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(FlushTimeoutError):
            if writer.flush():
                return
    pytest.fail("what hung is never stored")


def test_a_store_that_hangs_is_waited_for_no_longer_than_patience(
    tmp_path, hanging_url, caplog, read_scalars
):
    url, hangs, released = hanging_url
    writer = Writer(url)
    for begin in range(0, 50, 10):
        _log(writer, range(begin, begin + 10))
        assert not writer.flush()
    assert hangs.is_set()
    _assert_said_once_and_counted(caplog, writer, tmp_path)
    released.set()
    _await_flush(writer)
    _log(writer, range(50, 60))
    assert writer.close()
    assert read_scalars(tmp_path) == _loss(60)


def test_values_are_taken_while_a_store_hangs(tmp_path, hanging_url, read_events, event_files):
    url, hangs, released = hanging_url
    writer = Writer(url, on_error=lambda _: None)
    for step in range(100):
        writer.add_text("text", "x", step)
        if step % 50 == 0:
            assert not writer.flush()
    assert hangs.is_set()
    released.set()
    _await_flush(writer)
    assert writer.close()
    [path] = event_files(tmp_path)
    assert [event.step for event in read_events(path)[1:]] == list(range(100))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("barrier", [Writer.flush, Writer.close])
def test_a_barrier_waits_no_longer_than_it_is_told_to(hanging_url, monkeypatch, barrier):
    monkeypatch.setattr(barriers, "BARRIER_TIMEOUT", 600.0)
    url, _, released = hanging_url
    errors = []
    writer = Writer(url, on_error=errors.append)
    _log(writer, range(10))
    assert not barrier(writer, timeout=0)
    assert not barrier(writer, timeout=0.05)
    assert [type(error) for error in errors] == [FlushTimeoutError]
    released.set()
    assert barrier(writer, timeout=60)


def test_flush_waits_as_long_as_it_is_told_to_for_what_has_hung(hanging_url, monkeypatch):
    url, _, released = hanging_url
    writer = Writer(url, on_error=lambda _: None)
    _log(writer, range(10))
    assert not writer.flush()
    monkeypatch.setattr(barriers, "BARRIER_TIMEOUT", 30.0)
    released.set()
    assert writer.flush(timeout=60)


def test_a_strict_writer_raises_where_a_store_hangs(hanging_url):
    url, _, released = hanging_url
    writer = Writer(url, on_error="raise")
    _log(writer, range(10))
    with pytest.raises(FlushTimeoutError):
        writer.flush()
    released.set()
    _await_flush(writer)
    assert writer.flush()


def test_closing_where_a_store_hangs_comes_back_and_loses_nothing(
    tmp_path, hanging_url, read_scalars
):
    url, hangs, released = hanging_url
    writer = Writer(url, on_error=lambda _: None)
    _log(writer, range(10))
    worker = writer._pipeline._worker
    assert not writer.close()
    assert hangs.is_set()
    _log(writer, range(10, 20))
    assert not writer.close()
    released.set()
    worker.join(30)
    assert not worker.is_alive()
    assert writer.close()
    steps = [step for step, _ in read_scalars(tmp_path)[""]["loss"]]
    assert sorted(steps) == list(range(20))
