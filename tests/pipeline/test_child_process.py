"""Children of ``multiprocessing`` that their parent ends: what came before a result is stored."""

from __future__ import annotations

import importlib.util
import os
import sys
import types

import pytest

from sm_tblog import Writer
from sm_tblog.pipeline import buffer, child_process

METHODS = [method for method in ("fork", "spawn", "forkserver") if hasattr(os, "fork")] or ["spawn"]

BEGIN = """
import multiprocessing, sys
from sm_tblog import Writer

def begin(folder):
    global writer
    writer = Writer(folder)

def log(step):
    writer.add_scalar("loss", 1.0, step)

def log_image(step):
    writer.add_image("image", [[[step]]], step)
    log(step)

def log_and_fail(step):
    log(step)
    raise ValueError(step)

def log_in_a_thread(step):
    import threading
    thread = threading.Thread(target=log, args=(step,))
    thread.start()
    thread.join()

def log_by_an_own_writer(task):
    Writer(task[0]).add_scalar("loss", 1.0, task[1])

if __name__ == "__main__":
    folder, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
"""


def _pool(*lines):
    """Return a script that calls a pool, whose end terminates its processes."""
    body = "".join(f"        {line}\n" for line in lines)
    return f"{BEGIN}    with context.Pool(2, begin, (folder,)) as pool:\n{body}"


SCRIPTS = {
    "map": _pool("pool.map(log, range(100))"),
    "one by one": _pool("pool.map(log, range(100), chunksize=1)"),
    "unordered": _pool("list(pool.imap_unordered(log, range(100)))"),
    "apply": _pool("for step in range(100): pool.apply(log, (step,))"),
    "images": _pool("pool.map(log_image, range(100), chunksize=10)"),
    "threads": _pool("pool.map(log_in_a_thread, range(100), chunksize=10)"),
    "own writers": _pool("pool.map(log_by_an_own_writer, [(folder, i) for i in range(100)])"),
    "failures": _pool(
        "results = [pool.apply_async(log_and_fail, (step,)) for step in range(100)]",
        "for result in results: result.wait()",
    ),
    "few tasks": _pool("pool.map(log, range(100))").replace(
        "Pool(2, begin, (folder,)", "Pool(2, begin, (folder,), maxtasksperchild=1"
    ),
    "executor": BEGIN
    + """
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, context, begin, (folder,)) as executor:
        list(executor.map(log, range(100)))
        for process in executor._processes.values():
            process.terminate()
""",
}


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("method", METHODS[:1])
def test_nothing_that_was_logged_before_a_result_is_lost(
    tmp_path, run_script, read_scalars, method, kind
):
    done = run_script(SCRIPTS[kind], tmp_path, method)
    assert (done.returncode, done.stderr) == (0, "")
    steps = sorted(step for step, _ in read_scalars(tmp_path)[""]["loss"])
    assert steps == list(range(100))


@pytest.mark.parametrize("method", METHODS[1:])
def test_nothing_is_lost_however_processes_start(tmp_path, run_script, read_scalars, method):
    done = run_script(SCRIPTS["map"], tmp_path, method)
    assert (done.returncode, done.stderr) == (0, "")
    steps = sorted(step for step, _ in read_scalars(tmp_path)[""]["loss"])
    assert steps == list(range(100))


PROCESSES = """
def send(pipe, queue, simple_queue):
    log(0)
    {action}
    multiprocessing.Event().wait()

if __name__ == "__main__":
    begin(folder)
    pipe, other = context.Pipe()
    queue, simple_queue = context.Queue(), context.SimpleQueue()
    process = context.Process(target=send, args=(other, queue, simple_queue))
    process.start()
    {wait}
    process.kill()
    process.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("action", "wait"),
    [
        ("pipe.send(1)", "other = pipe.recv()"),
        ("pipe.send_bytes(b'1')", "pipe.recv_bytes()"),
        ("queue.put(1)", "queue.get()"),
        ("queue.put(bytes(1 << 20))", "queue.get()"),
        ("simple_queue.put(1)", "simple_queue.get()"),
    ],
)
def test_nothing_that_was_logged_before_a_message_is_lost(
    tmp_path, run_script, read_scalars, action, wait
):
    done = run_script(BEGIN + PROCESSES.format(action=action, wait=wait), tmp_path, "fork")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_scalars(tmp_path)[""] == {"loss": [(0, 1.0)]}


JOBLIB = """
import sys
from joblib import Parallel, delayed
from sm_tblog import Writer

def log(folder, step):
    Writer(folder).add_scalar("loss", 1.0, step)

if __name__ == "__main__":
    with Parallel(2, timeout=60) as parallel:
        parallel(delayed(log)(sys.argv[1], step) for step in range(20))
        from joblib.externals.loky import get_reusable_executor
        get_reusable_executor().shutdown(kill_workers=True)
"""


@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="needs joblib")
def test_nothing_is_lost_in_the_processes_of_joblib(tmp_path, run_script, read_scalars):
    done = run_script(JOBLIB, tmp_path)
    assert done.returncode == 0
    steps = sorted(step for step, _ in read_scalars(tmp_path)[""]["loss"])
    assert steps == list(range(20))


DATA_LOADER = """
import os, signal, sys
from torch.utils.data import DataLoader, Dataset
from sm_tblog import Writer

class Logging(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index > 4:  # after the first message
            writer.add_scalar("loss", 1.0, index)
        return index

if __name__ == "__main__":
    writer = Writer(sys.argv[1])
    batches = iter(DataLoader(Logging(), 5, num_workers=1, multiprocessing_context="fork"))
    for _ in range(4):
        next(batches)
    worker = batches._workers[0]
    worker.kill()
    worker.join()
    os._exit(0)  # the loader reports the worker's end
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_nothing_that_was_logged_before_a_batch_is_lost(tmp_path, run_script, read_scalars):
    done = run_script(DATA_LOADER, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_scalars(tmp_path)[""] == {"loss": [(step, 1.0) for step in range(5, 20)]}


LATE = """
import multiprocessing, sys, threading
from multiprocessing import util
from sm_tblog import Writer

def log(writer):
    writer.add_scalar("loss", 1.0, 0)
    util.Finalize(None, writer.add_scalar, ("loss", 1.0, 1), exitpriority=-10)

if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=log, args=(Writer(sys.argv[1]),))
    process.start()
    process.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_child_logs_while_it_exits_is_stored(tmp_path, run_script, read_scalars):
    done = run_script(LATE, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_scalars(tmp_path)[""] == {"loss": [(0, 1.0), (1, 1.0)]}


# Handing over.


def test_the_package_is_left_alone_where_it_started_no_process(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 0)
    from multiprocessing.connection import Connection

    assert not hasattr(Connection._send_bytes, "__wrapped__")


@pytest.fixture
def package(monkeypatch):
    """A package like ``multiprocessing``, of which this process is a child."""
    calls = []

    class Connection:
        def _send_bytes(self, data):
            calls.append(data)

    name = "multiprocess"
    modules = {
        "": types.SimpleNamespace(),
        ".process": types.SimpleNamespace(parent_process=object),
        ".util": types.SimpleNamespace(
            Finalize=lambda *args, exitpriority: calls.append((*args, exitpriority))
        ),
        ".connection": types.SimpleNamespace(Connection=Connection),
    }
    for suffix, module in modules.items():
        monkeypatch.setitem(sys.modules, name + suffix, module)
    return Connection, calls


def test_children_of_the_variant_with_dill_are_known(package):
    connection, calls = package
    assert child_process.is_child_process()
    for _ in range(2):  # the second time in a process that the child forks
        child_process.call_at_exit_and_before_sending("exit", lambda: calls.append("before"))
    connection()._send_bytes(b"data")
    assert calls == [(None, "exit", 0)] * 2 + ["before", b"data"]


def test_a_package_without_the_method_is_left_alone(package):
    connection, _ = package
    del connection._send_bytes
    child_process.call_at_exit_and_before_sending("exit", "before")
    assert not hasattr(connection, "_send_bytes")


@pytest.mark.usefixtures("worker_at_barriers_alone")
def test_handing_over_writes_everything_and_asks_no_store_to_flush(tmp_path, read_scalars):
    flushes = []

    class Sink:
        def write(self, batch):
            written.append(len(batch.codes))

        def flush(self):
            flushes.append(1)

        close = flush

    written = []
    writer = Writer(tmp_path, sinks=[Sink()], flush_secs=600)
    for count in range(1, 4):
        for step in range(count):
            writer.add_scalar("loss", 1.0, step)
        writer._pipeline.hand_over()
        assert sum(written) == count * (count + 1) // 2
    writer._pipeline.hand_over()
    assert flushes == []
    assert writer.close()
    writer._pipeline.hand_over()


def test_handing_over_does_not_wait_long_for_a_store_that_hangs(tmp_path, monkeypatch):
    import threading

    monkeypatch.setattr(buffer, "STALL_TIMEOUT", 0.05)
    released = threading.Event()
    writer = Writer(tmp_path, sinks=[lambda _: released.wait()])
    writer.add_scalar("loss", 1.0, 0)
    writer._pipeline.hand_over()
    writer._pipeline.hand_over()
    released.set()
    assert writer.close()


def test_a_sink_may_send(tmp_path):
    writer = Writer(tmp_path, sinks=[lambda _: writer._pipeline.hand_over()], on_error="raise")
    writer.add_scalar("loss", 1.0, 0)
    assert writer.close()
