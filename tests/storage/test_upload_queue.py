"""Upload queues and their pool, on a remote folder in memory that works, fails or hangs."""

import logging
import math
import os
import threading
import types
from pathlib import Path

import pytest

from sm_tblog import StoreError
from sm_tblog.storage import side_spool, spool, upload_queue
from sm_tblog.storage.base import RefusedError
from sm_tblog.storage.spool import SpoolFile
from sm_tblog.storage.upload_pool import MAX_THREADS, UploadPool
from sm_tblog.storage.upload_queue import MIN_UPLOAD_INTERVAL, UploadJob, UploadQueue

LONG = 600.0
"""A timeout in seconds that no barrier may reach: pytest ends a test long before."""


class FakePlace:
    """Keeps objects in a dictionary.

    Attributes:
        events: the calls made, in order.
        fault: the error that every call raises; None for success.
        gate: every call waits until it is set.
        entered: set when a call starts to wait.
        padding: the padding that objects request, in bytes.
    """

    def __init__(self):
        self.objects = {}
        self.events = []
        self.fault = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.padding = 0

    def do(self, *event):
        self.entered.set()
        self.gate.wait()
        self.events.append(event)
        if self.fault:
            raise self.fault

    def open_object(self, name, *, is_new):
        return FakeObject(self, name, is_new)

    def put(self, name, data):
        self.do("put", name)
        self.objects[name] = data

    def update(self, name, change):
        self.do("update", name)
        self.objects[name] = change(self.objects.get(name))


class FakeObject:
    max_size = 1000

    def __init__(self, place, name, is_new):
        self.place = place
        self.name = name
        self.is_new = is_new
        self.committed = 0

    def padding(self, size):
        return self.place.padding

    def commit(self, file, size):
        self.place.do("commit" if self.is_new else "finish", self.name, size)
        self.place.objects[self.name] = file.read(0, size)
        self.committed = size

    def close(self):
        self.place.events.append(("close", self.name))


class IdlePool:
    """Has no threads: the test calls ``step``."""

    def __init__(self):
        self.condition = threading.Condition()

    def schedule(self, queue):
        return True


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        fake = types.SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(upload_queue, "time", fake)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def place():
    made = FakePlace()
    yield made
    made.fault = None
    made.gate.set()


def put(queue, name, data):
    """Queue a side file with a spool file in memory."""
    job = side_spool.create(Path(os.devnull), "fake://folder", name, data)
    queue.put(job)
    return job


def make_queue(place, pool, find_orphans=tuple):
    return UploadQueue(
        "fake://folder", lambda: place, lambda count: b"." * count, pool, find_orphans
    )


@pytest.fixture
def queue(place):
    """A queue without threads: the test calls ``step``."""
    return make_queue(place, IdlePool())


@pytest.fixture
def running(place):
    """A queue with threads."""
    return make_queue(place, UploadPool())


def begin(queue, name="tfevents", data=b""):
    job = UploadJob(SpoolFile("fake://folder", name))
    job.file.append(data)
    queue.add(job)
    return job


def finish(queue, job):
    job.closed = True
    queue.request_upload(force=True)


# When.


def test_a_lane_that_nobody_asked_is_not_due(queue):
    begin(queue, data=b"x")
    assert queue.due == math.inf
    queue.request_upload()
    assert queue.due < math.inf


def test_uploads_are_a_second_apart_unless_one_is_forced(queue, clock):
    begin(queue, data=b"x")
    queue.step()
    assert queue.due == math.inf
    clock.now += 0.25
    queue.request_upload()
    assert queue.due == 1000.0 + MIN_UPLOAD_INTERVAL
    queue.request_upload(force=True)
    assert queue.due <= clock.now


def test_failures_are_repeated_ever_less_often_unasked(queue, clock, place):
    begin(queue, data=b"x")
    place.fault = StoreError("no")
    pauses = []
    for _ in range(8):
        queue.step()
        clock.now += 3
        pauses.append(queue.due - clock.now + 3)
    for pause, longest in zip(pauses, (0.5, 1, 2, 5, 10, 30, 30, 30), strict=True):
        assert longest / 2 <= pause <= longest
    place.fault = None
    queue.step()
    assert queue.due == math.inf


def test_a_barrier_does_not_make_attempts_at_a_failing_place_follow_at_once(queue, clock, place):
    begin(queue, data=b"x")
    place.fault = StoreError("no")
    for _ in range(6):
        queue.step()
    queue.request_upload(force=True)
    assert queue.due == clock.now + 0.5


def test_why_the_last_attempt_failed_is_known_until_one_succeeds(queue, place):
    begin(queue, data=b"x")
    place.fault = StoreError("no")
    queue.step()
    assert queue.error is place.fault
    place.fault = ValueError("a bug")
    queue.step()
    assert isinstance(queue.error, StoreError)
    assert str(queue.error) == "fake://folder: ValueError: a bug"
    place.fault = None
    queue.step()
    assert queue.error is None


# In which order.


def test_an_object_is_finished_before_a_later_one_begins(queue, place):
    first, second = begin(queue, "first", b"1"), begin(queue, "second", b"2")
    first.closed = True
    place.fault = StoreError("no")
    queue.step()
    assert place.events == [("commit", "first", 1)]
    place.fault = None
    queue.step()
    assert place.events[1:] == [("commit", "first", 1), ("close", "first"), ("commit", "second", 1)]
    assert (first.done, second.done) == (True, False)


def test_an_object_that_stays_open_does_not_hold_up_another_writers(queue, place):
    begin(queue, "first", b"1")
    begin(queue, "second", b"2")
    queue.step()
    assert place.objects == {"first": b"1", "second": b"2"}


def test_what_was_left_behind_comes_first_and_is_not_padded(place):
    files = [SpoolFile("fake://folder", f"tfevents.{i}") for i in range(2)]
    for file in files:
        file.append(b"left")
    queue = make_queue(place, IdlePool(), lambda: files)
    place.padding = 10
    begin(queue, "tfevents.2", b"new")
    queue.step()
    commits = [event for event in place.events if event[0] != "close"]
    expected = [("finish", "tfevents.0", 4), ("finish", "tfevents.1", 4)]
    assert commits == [*expected, ("commit", "tfevents.2", 13)]


def test_event_files_are_padded_and_others_give_way(queue, place):
    place.padding = 10
    events, text = begin(queue, "tfevents", b"x"), begin(queue, "metrics.jsonl", b"x")
    queue.step()
    assert place.objects == {"tfevents": b"x..........", "metrics.jsonl": b"x"}
    assert (events.is_full, text.is_full) == (False, True)


def test_an_object_is_full_when_its_place_says_so_or_64_mib_wait(queue):
    job = begin(queue)
    job.file.append(bytes(1000))
    assert not job.is_full
    queue.step()
    assert job.is_full
    waiting = begin(queue)
    waiting.file.append(bytes(64 << 20))
    assert waiting.is_full


def test_side_files_are_written_in_order_and_again_after_a_fault(queue, place):
    put(queue, "a", b"1")
    put(queue, "b", lambda before: (before or b"") + b"2")
    put(queue, "b", lambda before: before + b"3")
    place.fault = StoreError("no")
    queue.step()
    place.fault = None
    queue.step()
    assert place.objects == {"a": b"1", "b": b"23"}
    assert [event[0] for event in place.events] == ["put", "put", "update", "update"]


def test_a_side_file_whose_function_fails_is_given_up_and_said(queue, place, caplog):
    def fail(before):
        raise LookupError("nothing there")

    failing = put(queue, "a", fail)
    put(queue, "b", b"1")
    queue.step()
    assert place.objects == {"b": b"1"}
    assert failing.done
    [record] = caplog.records
    assert (
        record.getMessage() == "sm_tblog: fake://folder: the side file a is given up: nothing there"
    )


# Barriers.


def test_a_barrier_waits_for_what_was_appended_before_it(running, place):
    job = begin(running, data=b"12")
    assert running.wait(LONG, force=True)
    assert place.objects == {"tfevents": b"12"}
    job.file.append(b"3")
    assert running.wait(LONG, force=True)
    assert place.objects == {"tfevents": b"123"}


def test_a_barrier_for_a_closed_object_waits_until_its_spool_file_is_gone(running, tmp_path):
    file = spool.create(tmp_path, "fake://folder", "tfevents")
    file.append(b"x")
    job = UploadJob(file)
    running.add(job)
    job.closed = True
    assert running.wait(LONG)
    assert list(tmp_path.iterdir()) == []


def test_a_barrier_just_after_an_upload_leaves_the_rest_to_the_next(running, place):
    job = begin(running, data=b"1")
    assert running.wait(LONG, force=True)
    running._last_success = math.inf  # not a second ago
    place.gate.clear()
    job.file.append(b"2")
    assert running.wait(LONG)
    assert running.due < math.inf


def test_a_barrier_that_forces_does_not(running, place):
    job = begin(running, data=b"1")
    assert running.wait(LONG, force=True)
    job.file.append(b"2")
    assert running.wait(LONG, force=True)
    assert place.objects == {"tfevents": b"12"}


def test_a_barrier_with_nothing_to_wait_for_asks_for_nothing(running, place):
    begin(running, data=b"1")
    assert running.wait(LONG, force=True)
    events = list(place.events)
    assert running.wait(LONG, force=True)
    assert place.events == events


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.0,))


@pytest.mark.parametrize("fault", [StoreError("no"), RefusedError("no")])
def test_a_barrier_gives_up_a_place_that_fails_again_and_again(running, place, at_once, fault):
    begin(running, data=b"1")
    place.fault = fault
    assert not running.wait(LONG, force=True)
    assert len(place.events) >= upload_queue.MAX_FAILURES
    assert not running.wait(LONG)


@pytest.mark.parametrize("fault", [StoreError("no"), RefusedError("no")])
def test_a_barrier_leaves_a_place_that_is_down_to_the_next_attempt(
    running, place, monkeypatch, fault
):
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.0, 0.0, LONG))
    monkeypatch.setattr(upload_queue.random, "uniform", lambda low, high: high)
    begin(running, data=b"1")
    place.fault = fault
    assert not running.wait(LONG, force=True)
    while running._failures < upload_queue.MAX_FAILURES:
        assert not running.wait(LONG, force=True)
    place.gate.clear()  # from here on an attempt would not end
    assert [running.wait(LONG) for _ in range(100)] == [False] * 100
    place.fault = None
    place.gate.set()
    assert running.wait(LONG, force=True)  # it may be up again, and is tried
    assert running.wait(LONG)


def test_the_last_barrier_gives_up_a_place_that_refuses(running, place, at_once):
    begin(running, data=b"1").closed = True
    place.fault = RefusedError("no such bucket")
    assert not running.wait(LONG)


def test_a_barrier_does_not_count_an_attempt_that_began_before_it(
    running, place, at_once, monkeypatch
):
    refusal = RefusedError("no such bucket")
    begin(running, data=b"1").closed = True
    place.fault = refusal
    assert not running.wait(LONG)
    attempts = []
    entered, go_on, judged = (threading.Event() for _ in range(3))
    attempt, request, wait_for = place.do, running.request_upload, running._condition.wait_for

    def do(*event):
        attempts.append(running._failures)
        if len(attempts) == 1:  # the bucket is created while this attempt is under way
            entered.set()
            go_on.wait(LONG)
            raise refusal
        judged.wait(LONG)
        place.fault = None
        attempt(*event)

    def request_then_go_on(**options):
        request(**options)
        go_on.set()

    def wait_for_and_tell(predicate, timeout):
        def judge():
            result = predicate()
            if running._failures > attempts[0]:
                judged.set()
            return result

        return wait_for(judge, timeout)

    place.do = do
    assert entered.wait(LONG)
    monkeypatch.setattr(running, "request_upload", request_then_go_on)
    monkeypatch.setattr(running._condition, "wait_for", wait_for_and_tell)
    assert running.wait(LONG)
    assert len(attempts) == 2


class NoThreads(UploadPool):
    """No thread can be started, as while the interpreter shuts down."""

    def _start_thread(self):
        pass


def test_a_barrier_without_threads_does_not_join_an_attempt_that_hangs(place):
    queue = make_queue(place, NoThreads())
    begin(queue, data=b"1").closed = True
    place.gate.clear()
    worker = threading.Thread(target=queue.request_upload, daemon=True)
    worker.start()
    assert place.entered.wait(LONG)
    assert not queue.wait(0.0, force=True)  # without the gate, or another attempt
    place.gate.set()
    worker.join()
    assert queue.wait(0.0)
    assert len([event for event in place.events if event[0] == "commit"]) == 1


def test_a_barrier_without_threads_makes_one_attempt_and_no_retry(place):
    queue = make_queue(place, NoThreads())
    begin(queue, data=b"1").closed = True
    place.fault = StoreError("no")
    assert not queue.wait(0.0, force=True)
    assert not queue.wait(0.0, force=True)
    assert len(place.events) == 1
    place.fault = None
    queue.request_upload(force=True)  # by the worker thread
    assert queue.wait(0.0)


def test_the_last_barrier_is_patient_with_a_place_that_fails(running, place, at_once):
    begin(running, data=b"1").closed = True
    place.fault = StoreError("no")
    failures = []

    def do(*event):
        failures.append(event)
        if len(failures) < 20:
            raise StoreError("no")

    place.do = do
    assert running.wait(LONG)
    assert len(failures) == 20


def test_barriers_wait_once_for_a_place_that_hangs(running, place, monkeypatch):
    monkeypatch.setattr(upload_queue, "HANG_TIMEOUT", 0.01)
    monkeypatch.setattr(upload_queue, "DOWN_TIMEOUT", 0.0)
    place.gate.clear()
    begin(running, data=b"1")
    assert not running.wait(0.01)
    assert [running.wait(LONG, force=force) for force in (False, True, True)] == [False] * 3
    place.gate.set()
    for job in running.jobs():
        finish(running, job)
    assert running.wait(LONG)


def test_a_barrier_is_not_impatient_after_one_that_had_no_time(running, place):
    place.gate.clear()
    begin(running, data=b"1")
    assert not running.wait(0.0)
    place.entered.wait()
    threading.Thread(target=place.gate.set).start()
    assert running.wait(LONG, force=True)


# Threads.


def uploading():
    return [thread for thread in threading.enumerate() if thread.name == "sm_tblog upload"]


def test_an_interrupt_while_a_thread_starts_leaves_one_thread(place, monkeypatch):
    start = threading.Thread.start
    started = []

    def start_and_interrupt(thread):
        start(thread)
        thread.is_alive = lambda: False  # it has not said so yet
        started.append(thread)
        raise KeyboardInterrupt

    pool = UploadPool()
    queue = make_queue(place, pool)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            put(queue, "side", b"x")
    del started[0].is_alive
    started[0].join()
    assert queue.wait(LONG, force=True)
    assert place.objects == {"side": b"x"}
    with pool.condition:
        assert pool.condition.wait_for(lambda: not pool._threads, LONG)


def test_many_folders_share_eight_threads_that_end_with_their_work(place):
    before = set(uploading())
    pool = UploadPool()
    queues = [make_queue(place, pool) for _ in range(50)]
    jobs = [begin(queue, f"{i}", b"x") for i, queue in enumerate(queues)]
    place.gate.clear()
    for queue in queues:
        queue.request_upload(force=True)
    threads = set(uploading()) - before
    assert len(threads) == MAX_THREADS
    assert all(thread.daemon for thread in threads)
    place.gate.set()
    assert all(queue.wait(LONG, force=True) for queue in queues)
    assert place.objects == {f"{i}": b"x" for i in range(50)}
    for queue, job in zip(queues, jobs, strict=True):
        finish(queue, job)
    for thread in threads:
        thread.join()


def test_a_lane_is_looked_after_by_one_thread_at_a_time(place):
    pool = UploadPool()
    queues = [make_queue(place, pool) for _ in range(3)]
    place.gate.clear()
    jobs = [begin(queue, f"{i}", b"x") for i, queue in enumerate(queues)]
    for _ in range(10):
        for queue in queues:
            queue.request_upload(force=True)
    place.gate.set()
    assert all(queue.wait(LONG, force=True) for queue in queues)
    assert sorted(place.events) == [("commit", f"{i}", 1) for i in range(3)]
    for queue, job in zip(queues, jobs, strict=True):
        finish(queue, job)
        assert queue.wait(LONG)


def test_one_destination_that_hangs_does_not_hold_up_another(place):
    place.gate.clear()
    stuck = [make_queue(place, pool) for pool in [UploadPool()] for _ in range(MAX_THREADS + 1)]
    for i, queue in enumerate(stuck):
        begin(queue, f"{i}", b"x")
        queue.request_upload(force=True)
    other = FakePlace()
    queue = make_queue(other, UploadPool())
    job = begin(queue, data=b"x")
    assert queue.wait(LONG, force=True)
    place.gate.set()
    finish(queue, job)
    for one in stuck:
        finish(one, *one.jobs())
        assert one.wait(LONG)


def test_where_no_thread_can_be_started_the_work_is_done_at_once(running, place, monkeypatch):
    def fail(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", fail)
    job = begin(running, data=b"x")
    running.request_upload()
    assert place.objects == {"tfevents": b"x"}
    finish(running, job)
    assert running.wait(0.0)


def test_what_is_finished_for_others_is_said(place, caplog):
    caplog.set_level(logging.INFO, "sm_tblog")
    queue = make_queue(place, IdlePool(), lambda: [SpoolFile("fake://folder", "tfevents")])
    begin(queue, data=b"x")
    queue.step()
    [record] = caplog.records
    assert record.getMessage() == "sm_tblog: fake://folder: orphaned spool files to upload: 1"


def test_only_what_this_process_created_gets_a_name_after_others(queue, place):
    place.names_after = lambda name: ["events.out.tfevents.1800000000.x"]
    own = SpoolFile("fake://folder", "events.out.tfevents.1700000000.own")
    orphan = SpoolFile("fake://folder", "events.out.tfevents.1600000000.orphan")
    for file in (own, orphan):
        file.append(b"x")
    queue.add(UploadJob(own))
    queue.resume([orphan])
    queue.step()
    assert set(place.objects) == {
        "events.out.tfevents.1800000001.own",
        "events.out.tfevents.1600000000.orphan",
    }
