"""Child processes of every kind: each logs to its own file, and none hangs.

Children forked here end with ``os._exit``, so that the test runner continues only in the parent.
They report failures through a pipe.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import traceback
import types

import pytest

from sm_tblog import Writer
from sm_tblog.pipeline import imports
from sm_tblog.sinks import event_file
from sm_tblog.storage.local import LocalStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

DEADLINE = 20
"""Seconds after which a child is considered hung; less than a barrier's own timeout."""


class Child:
    """A forked process that calls a function and ends at once, without running exit handlers."""

    def __init__(self, function):
        self._pipe, pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            failure = b""
            try:
                function()
            except BaseException:  # noqa: BLE001 - passed to the parent
                failure = traceback.format_exc().encode()
            os.write(pipe, failure)
            os._exit(0)
        os.close(pipe)

    def join(self):
        """Wait for the process to end; fail if it hangs or if the function failed."""
        failure = b""
        while True:
            ready, _, _ = select.select([self._pipe], [], [], DEADLINE)
            piece = os.read(self._pipe, 4096) if ready else b"the child hangs"
            failure += piece
            if not piece or not ready:
                break
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self._pipe)
        os.waitpid(self.pid, 0)
        assert failure.decode() == ""


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path) as writer:
        yield writer


def _log(writer, tag, steps):
    for step in steps:
        writer.add_scalar(tag, 1.0, step)


def _log_and_flush(writer, tag, steps):
    _log(writer, tag, steps)
    assert writer.flush()


@contextlib.contextmanager
def _repeating(action):
    """Repeat an action in another thread."""
    ended = threading.Event()

    def run():
        while not ended.is_set():
            action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_child_logs_into_a_file_of_its_own(tmp_path, writer, read_scalars, event_files):
    _log_and_flush(writer, "parent", range(10))
    [path] = event_files(tmp_path)
    content = path.read_bytes()
    Child(lambda: _log_and_flush(writer, "child", range(10))).join()
    assert path.read_bytes() == content
    assert len(event_files(tmp_path)) == 2
    _log_and_flush(writer, "parent", range(10, 20))
    assert len(event_files(tmp_path)) == 2
    assert read_scalars(tmp_path) == {
        "": {
            "parent": [(step, 1.0) for step in range(20)],
            "child": [(step, 1.0) for step in range(10)],
        }
    }


def test_every_sink_of_a_child_has_a_file_of_its_own(tmp_path):
    with Writer(tmp_path, sinks=["events", "jsonl"]) as writer:
        _log_and_flush(writer, "parent", range(10))
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        Child(lambda: _log_and_flush(writer, "child", range(10))).join()
        assert {path: path.read_bytes() for path in before} == before
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    counts = sorted((data.count(b"parent"), data.count(b"child")) for data in files)
    assert counts == [(0, 10), (0, 10), (10, 0), (10, 0)]


def test_a_child_logs_although_its_parent_never_did(tmp_path, writer, read_scalars):
    Child(lambda: _log_and_flush(writer, "child", range(3))).join()
    assert read_scalars(tmp_path) == {"": {"child": [(0, 1.0), (1, 1.0), (2, 1.0)]}}


@pytest.mark.parametrize("action", [Writer.flush, Writer.close, Writer.stats])
def test_a_child_that_does_not_log_leaves_no_trace(tmp_path, writer, event_files, action):
    _log_and_flush(writer, "parent", range(10))
    [path] = event_files(tmp_path)
    content = path.read_bytes()
    _log(writer, "parent", range(10))
    Child(lambda: action(writer)).join()
    assert event_files(tmp_path) == [path]
    assert path.read_bytes()[: len(content)] == content


def test_rows_that_wait_at_the_fork_are_stored_by_the_parent_alone(
    tmp_path, writer, read_scalars, event_files
):
    _log(writer, "parent", range(1000))
    writer.add_text("text", "waits too", 0)
    Child(writer.close).join()
    writer.close()
    assert len(event_files(tmp_path)) == 1
    assert read_scalars(tmp_path)[""]["parent"] == [(step, 1.0) for step in range(1000)]


def test_a_child_counts_only_its_own(writer):
    _log_and_flush(writer, "parent", range(10))

    def check():
        assert writer.stats().rows_written == 0
        assert writer.stats().bytes_stored == 0
        _log_and_flush(writer, "child", range(3))
        assert writer.stats().rows_written == 3

    Child(check).join()
    assert writer.stats().rows_written == 10


def test_a_child_is_not_charged_with_what_its_parent_could_not_store(
    tmp_path, store_at, read_scalars
):
    parent = os.getpid()

    def append(store, data):
        if os.getpid() == parent:
            raise OSError
        LocalStore.append(store, data)

    writer = Writer(store_at(tmp_path, append=append), max_bytes=10_000, on_error=lambda _: None)
    _log(writer, "parent", range(1000))
    assert not writer.flush()
    assert writer.stats().bytes_pending > 10_000
    Child(lambda: _log_and_flush(writer, "child", range(10))).join()
    assert read_scalars(tmp_path) == {"": {"child": [(step, 1.0) for step in range(10)]}}


def test_fork_while_the_worker_is_in_the_middle_of_an_append(tmp_path, store_at, read_scalars):
    parent = os.getpid()
    begun, go_on = threading.Event(), threading.Event()

    def append(store, data):
        if os.getpid() == parent:
            begun.set()
            go_on.wait()
        LocalStore.append(store, data)

    with Writer(store_at(tmp_path, append=append)) as writer:
        _log(writer, "parent", range(10))
        begun.wait()
        Child(lambda: _log_and_flush(writer, "child", range(10))).join()
        go_on.set()
    expected = [(step, 1.0) for step in range(10)]
    assert read_scalars(tmp_path) == {"": {"parent": expected, "child": expected}}


@pytest.mark.parametrize("action", ["log", "flush", "put", "stats"])
def test_fork_while_another_thread_uses_the_writer(
    tmp_path, writer, read_events, event_files, action
):
    actions = {
        "log": lambda: _log(writer, "busy", range(10)),
        "flush": lambda: _log_and_flush(writer, "busy", range(10)),
        "put": lambda: writer.add_text("text", "busy"),
        "stats": writer.stats,
    }
    children = 10
    with _repeating(actions[action]):
        for _ in range(children):
            Child(lambda: _log_and_flush(writer, "child", range(10))).join()
    writer.close()
    own = [path for path in event_files(tmp_path) if f".{os.getpid()}." in path.name]
    logged = b"".join(path.read_bytes() for path in own)
    assert logged.count(b"busy") == writer.stats().rows_written + writer.stats().values_written
    assert logged.count(b"child") == 0
    others = set(event_files(tmp_path)).difference(own)
    assert len(others) == children
    for path in others:
        assert [event.step for event in read_events(path)[1:]] == list(range(10))


def test_fork_in_a_thread_that_is_not_the_main_one(tmp_path, writer, read_scalars):
    _log_and_flush(writer, "parent", range(10))
    children = []

    def fork():
        children.append(Child(lambda: _log_and_flush(writer, "child", range(10))))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    children[0].join()
    assert len(read_scalars(tmp_path)[""]["child"]) == 10


def test_a_childs_child_logs_into_a_third_file(tmp_path, writer, read_scalars, event_files):
    _log_and_flush(writer, "parent", range(5))

    def child():
        _log_and_flush(writer, "child", range(5))
        Child(lambda: _log_and_flush(writer, "grandchild", range(5))).join()
        _log_and_flush(writer, "child", range(5, 10))

    Child(child).join()
    assert len(event_files(tmp_path)) == 3
    lengths = {tag: len(points) for tag, points in read_scalars(tmp_path)[""].items()}
    assert lengths == {"parent": 5, "child": 10, "grandchild": 5}


def test_the_files_of_children_that_begin_together_do_not_collide(
    tmp_path, writer, read_scalars, event_files
):
    _log(writer, "parent", range(5))
    children = [Child(lambda i=i: _log_and_flush(writer, f"child{i}", range(5))) for i in range(20)]
    for child in children:
        child.join()
    writer.close()
    assert len(event_files(tmp_path)) == 21
    expected = [(step, 1.0) for step in range(5)]
    tags = ["parent", *(f"child{i}" for i in range(20))]
    assert read_scalars(tmp_path) == {"": dict.fromkeys(tags, expected)}


@pytest.fixture
def clock(monkeypatch):
    """``clock(seconds)``: set the time in file names, in whose order TensorBoard reads files."""

    def set_to(seconds):
        monkeypatch.setattr(
            event_file,
            "time",
            types.SimpleNamespace(time=lambda: seconds, monotonic=time.monotonic),
        )

    return set_to


def test_a_childs_file_supersedes_nothing(tmp_path, clock, read_scalars, read_events, event_files):
    clock(1e9)
    with Writer(tmp_path, purge_step=5) as writer:
        _log_and_flush(writer, "loss", range(5, 8))
        clock(1e9 + 1)
        Child(lambda: _log_and_flush(writer, "loss", range(8, 10))).join()
    marks = [
        {e.step for e in read_events(path) if e.WhichOneof("what") == "session_log"}
        for path in event_files(tmp_path)
    ]
    assert marks == [{5}, set()]
    assert [step for step, _ in read_scalars(tmp_path)[""]["loss"]] == list(range(5, 10))


def test_what_a_child_logs_before_its_parent_is_not_superseded(tmp_path, clock, read_scalars):
    clock(1e9)
    with Writer(tmp_path) as earlier:
        _log_and_flush(earlier, "loss", range(10))
    clock(1e9 + 1)
    with Writer(tmp_path, purge_step=5) as writer:
        assert writer.flush()
        clock(1e9 + 2)
        Child(lambda: _log_and_flush(writer, "child", range(5, 7))).join()
        clock(1e9 + 3)
        _log_and_flush(writer, "parent", range(5, 7))
    steps = {tag: [s for s, _ in points] for tag, points in read_scalars(tmp_path)[""].items()}
    assert steps == {"loss": [0, 1, 2, 3, 4], "child": [5, 6], "parent": [5, 6]}


def test_a_child_that_never_logged_dies_of_sigterm_as_ever(writer):
    _log_and_flush(writer, "parent", range(5))  # from here on our handler receives SIGTERM
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


# Modules that a thread of the library is importing at the fork.


SLOW_MODULE = """
import logging, shared
shared.begun.set()
shared.never.wait(0.5)
logger = logging.getLogger("slow")
value = 1.0
"""

FORK_DURING_AN_IMPORT = """
from sm_tblog import Writer  # before ``logging``, whose lock is held while a process forks
import os, sys, threading, types, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from Python 3.12

begun = threading.Event()
sys.modules["shared"] = types.SimpleNamespace(begun=begun, never=threading.Event())
sys.path.insert(0, sys.argv[1])

def build(tag):
    from slow import value
    from sm_tblog.format import schema
    return schema.Value(tag=tag, simple_value=value)

def log(tag):
    writer._put(tag, build, (), 0, None)
    return writer.flush() and writer.stats().errors == 0

def import_it():
    import slow

writer = Writer(sys.argv[1])
if sys.argv[2] == "worker":
    writer._put("parent", build, (), 0, None)
else:
    threading.Thread(target=import_it, name="sm_tblog upload").start()
begun.wait()
pid = os.fork()
if pid == 0:
    os._exit(0 if log("child") else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("thread", ["worker", "upload"])
def test_a_fork_waits_for_a_module_that_is_being_imported(
    tmp_path, run_script, read_scalars, thread
):
    (tmp_path / "slow.py").write_text(SLOW_MODULE)
    done = run_script(FORK_DURING_AN_IMPORT, tmp_path, thread, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    expected = {"worker": {"parent", "child"}, "upload": {"child"}}
    assert set(read_scalars(tmp_path)[""]) == expected[thread]


def test_a_fork_does_not_wait_forever_for_an_import(tmp_path, writer, monkeypatch):
    monkeypatch.setattr(imports, "IMPORT_TIMEOUT", 0.1)
    shared = types.SimpleNamespace(begun=threading.Event(), go_on=threading.Event())
    monkeypatch.setitem(sys.modules, "shared_with_the_test", shared)
    source = "import shared_with_the_test as s\ns.begun.set()\nassert s.go_on.wait(30)\n"
    (tmp_path / "waits_for_the_test.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    thread = threading.Thread(
        target=importlib.import_module, args=("waits_for_the_test",), name="sm_tblog upload"
    )
    thread.start()
    assert shared.begun.wait(30)
    Child(lambda: _log_and_flush(writer, "child", range(3))).join()
    shared.go_on.set()
    thread.join()


# multiprocessing: its children also end with ``os._exit``, after its own exit hooks.


def test_a_forked_child_of_multiprocessing_need_not_flush(tmp_path, writer, read_scalars):
    _log(writer, "parent", range(100))
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_log, args=(writer, f"child{i}", range(100))) for i in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE)
        assert process.exitcode == 0
    writer.close()
    expected = [(step, 1.0) for step in range(100)]
    tags = ["parent", *(f"child{i}" for i in range(3))]
    assert read_scalars(tmp_path) == {"": dict.fromkeys(tags, expected)}


def test_a_child_of_multiprocessing_is_ended_by_sigterm_at_once(tmp_path, writer, read_scalars):
    _log_and_flush(writer, "parent", range(5))  # from here on our handler receives SIGTERM
    context = multiprocessing.get_context("fork")
    logged = context.Event()

    def log():
        _log_and_flush(writer, "child", range(100))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        logged.set()
        signal.pause()

    process = context.Process(target=log)
    process.start()
    assert logged.wait(DEADLINE)
    process.terminate()
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGTERM
    assert read_scalars(tmp_path)[""]["child"] == [(step, 1.0) for step in range(100)]


CHILDREN_OF_MULTIPROCESSING = """
import multiprocessing
import sys

from sm_tblog import Writer

def log(writer, number):
    for step in range(100):
        writer.add_scalar(f"child{number}", 1.0, step)
    if number == 2:
        writer.close()
        writer.add_scalar("late", 1.0, 0)
    if number == 3:
        sys.exit(3)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    writer = Writer(sys.argv[1])
    writer.add_scalar("parent", 1.0, 0)
    processes = [context.Process(target=log, args=(writer, i)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print([process.exitcode for process in processes])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_given_the_writer(
    tmp_path, run_script, read_scalars, event_files, method
):
    done = run_script(CHILDREN_OF_MULTIPROCESSING, tmp_path, method)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 0, 0, 3]\n", "")
    expected = {f"child{i}": [(step, 1.0) for step in range(100)] for i in range(4)}
    points = read_scalars(tmp_path)[""]
    assert points == {**expected, "parent": [(0, 1.0)], "late": [(0, 1.0)]}
    assert len(event_files(tmp_path)) == 6


DATA_LOADER = """
import sys

from torch.utils.data import DataLoader, Dataset

from sm_tblog import Writer

class Logging(Dataset):
    def __init__(self, writer):
        self.writer = writer

    def __len__(self):
        return 100

    def __getitem__(self, index):
        self.writer.add_scalar("item", 1.0, index)
        return index

if __name__ == "__main__":
    writer = Writer(sys.argv[1])
    loader = DataLoader(
        Logging(writer), batch_size=5, num_workers=2, multiprocessing_context=sys.argv[2]
    )
    for step, _ in enumerate(loader):
        writer.add_scalar("batch", 1.0, step)
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_dataset_may_log_in_the_workers_of_a_data_loader(
    tmp_path, run_script, read_scalars, event_files, method
):
    done = run_script(DATA_LOADER, tmp_path, method)
    # On a busy machine, multiprocessing may warn about its own semaphores.
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    points = read_scalars(tmp_path)[""]
    assert sorted(points["item"]) == [(step, 1.0) for step in range(100)]
    assert points["batch"] == [(step, 1.0) for step in range(20)]
    assert len(event_files(tmp_path)) == 3
