"""The end of the process, voluntary or not: logged data is stored, and the exit is unaffected.

Each script runs in a separate process. Its first argument is the log directory.
"""

from __future__ import annotations

import signal
import subprocess
import threading

import pytest

from sm_tblog import Writer
from sm_tblog.storage.local import LocalStore

BEGIN = """
import atexit, builtins, os, signal, sys, threading
from sm_tblog import Writer

writer = Writer(sys.argv[1])
for step in range(100):
    writer.add_scalar("loss", 1.0, step)
"""

LOGGED = {"loss": [(step, 1.0) for step in range(100)]}


class Running:
    """A script that runs until it receives a signal; the lines that it prints are its reports."""

    def __init__(self, command):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes)

    def await_line(self):
        """Return the script's next report."""
        return self.process.stdout.readline().strip()

    def end(self, number):
        """Send a signal; return the exit status, the remaining reports, and standard error."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output.split(), errors


@pytest.fixture
def start_script(script):
    """``start_script(source, *args)``: start running Python source; return a ``Running``."""
    running = []

    def start(source, *args):
        running.append(Running(script(source, *args)))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.communicate()


# Interpreter exit.


@pytest.mark.parametrize(
    ("end", "status", "last_error"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("raise SystemExit('enough')", 1, "enough"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("writer.close(); writer.add_scalar('again', 1.0, 0)", 0, ""),
        ("threading.Thread(target=writer.add_scalar, args=('again', 1.0, 0)).start()", 0, ""),
        ("del writer", 0, ""),
    ],
)
def test_a_script_may_just_end(tmp_path, run_script, read_scalars, end, status, last_error):
    done = run_script(BEGIN + end, tmp_path)
    assert done.returncode == status
    assert done.stderr.strip().rpartition("\n")[2] == last_error
    again = {"again": [(0, 1.0)]} if "again" in end else {}
    assert read_scalars(tmp_path) == {"": {**LOGGED, **again}}


def test_a_non_daemon_thread_may_log_after_the_main_thread_has_ended(
    tmp_path, run_script, read_scalars
):
    source = """
def log():
    threading.main_thread().join()
    for step in range(100, 200):
        writer.add_scalar("loss", 1.0, step)

threading.Thread(target=log).start()
"""
    done = run_script(BEGIN + source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_scalars(tmp_path) == {"": {"loss": [(step, 1.0) for step in range(200)]}}


def test_an_exit_handler_registered_after_the_import_may_log(tmp_path, run_script, read_scalars):
    source = """
@atexit.register
def log():
    writer.add_scalar("late", 1.0, 0)
"""
    done = run_script(BEGIN + source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_scalars(tmp_path) == {"": {**LOGGED, "late": [(0, 1.0)]}}


@pytest.mark.parametrize("then", ["", "writer.flush()", "writer.close()"])
def test_an_exit_handler_registered_before_the_import_may_log(
    tmp_path, run_script, read_scalars, event_files, then
):
    source = f"""
import atexit

@atexit.register
def log():
    for step in range(100):
        writer.add_scalar("late", 1.0, step)
    {then}
"""
    done = run_script(source + BEGIN, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_scalars(tmp_path) == {"": {**LOGGED, "late": LOGGED["loss"]}}
    assert len(event_files(tmp_path)) == 2


@pytest.mark.parametrize("barrier", ["None", "writer.flush()", "writer.close()"])
@pytest.mark.parametrize("owner", ["sys.modules[__name__]", "builtins"])
def test_a_finalizer_at_the_interpreters_teardown_may_log_but_be_told_that_it_is_too_late(
    tmp_path, run_script, read_scalars, owner, barrier
):
    source = f"""
class Late:
    def __del__(self, writer=writer, write=os.write):
        writer.add_scalar("late", 1.0, 0)
        write(1, str({barrier}).encode())

{owner}.late = Late()
"""
    done = run_script(BEGIN + source, tmp_path, timeout=20)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert done.stdout in ("None", "True", "False")
    points = read_scalars(tmp_path)[""]
    late = points.pop("late", [])
    assert points == LOGGED
    assert late == [(0, 1.0)] or (late == [] and done.stdout != "True")


def test_daemon_threads_may_log_until_the_end(tmp_path, run_script, event_files):
    source = """
flushed = threading.Event()

def log():
    step = 0
    while True:
        writer.add_scalar("daemon", 1.0, step)
        step += 1
        if step == 1000:
            writer.flush()
            flushed.set()

threading.Thread(target=log, daemon=True).start()
flushed.wait()
"""
    done = run_script(BEGIN + source, tmp_path, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(event_files(tmp_path)) <= 2
    content = event_files(tmp_path)[0].read_bytes()
    assert content.count(b"loss") == 100
    assert content.count(b"daemon") >= 1000


# SIGTERM.

READY_AND_WAIT = """
print("ready", flush=True)
while True:
    sys.stdin.read()  # returns once the test closes it, if not earlier
"""


def test_sigterm_stores_the_rows_and_ends_the_process_by_the_signal(
    tmp_path, start_script, read_scalars
):
    script = start_script(BEGIN + READY_AND_WAIT, tmp_path)
    script.await_line()
    assert script.end(signal.SIGTERM) == (-signal.SIGTERM, [], "")
    assert read_scalars(tmp_path) == {"": LOGGED}


def test_sigterm_in_the_middle_of_logging_stores_what_was_logged(
    tmp_path, start_script, read_events, event_files
):
    source = """
import itertools
for step in itertools.count(100):
    writer.add_scalar("loss", 1.0, step)
    if step >= 1000:
        os.write(2, b"%d\\n" % step)
    if step == 1000:
        print("ready", flush=True)
"""
    script = start_script(BEGIN + source, tmp_path)
    script.await_line()
    status, _, reports = script.end(signal.SIGTERM)
    assert status == -signal.SIGTERM
    last = int(reports.split()[-1])
    [path] = event_files(tmp_path)
    steps = [event.step for event in read_events(path)[1:]]
    assert steps in (list(range(last + 1)), list(range(last + 2)))


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_handler_of_the_scripts_own_is_called_once(tmp_path, start_script, read_scalars, place):
    handler = """
import signal, sys

def handle(number, frame):
    print("handled", flush=True)
    if callable(old):
        old(number, frame)
    sys.exit(7)

old = signal.signal(signal.SIGTERM, handle)
"""
    source = handler + BEGIN if place == "before" else BEGIN + handler
    script = start_script(source + READY_AND_WAIT, tmp_path)
    script.await_line()
    assert script.end(signal.SIGTERM) == (7, ["handled"], "")
    assert read_scalars(tmp_path) == {"": LOGGED}


@pytest.mark.parametrize("more", ["writer.close()", "writer = Writer(sys.argv[1])"])
def test_a_chain_of_handlers_is_run_through_once_when_logging_begins_anew(
    tmp_path, start_script, read_scalars, more
):
    source = f"""
def handle(number, frame):
    print("handled", flush=True)
    old(number, frame)
    sys.exit(7)

old = signal.signal(signal.SIGTERM, handle)
{more}
writer.add_scalar("again", 1.0, 0)
"""
    script = start_script(BEGIN + source + READY_AND_WAIT, tmp_path)
    script.await_line()
    assert script.end(signal.SIGTERM) == (7, ["handled"], "")
    assert read_scalars(tmp_path) == {"": {**LOGGED, "again": [(0, 1.0)]}}


def test_a_process_that_ignores_sigterm_goes_on_ignoring_it(tmp_path, run_script, read_scalars):
    source = """
assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
os.kill(os.getpid(), signal.SIGTERM)
writer.add_scalar("after", 1.0, 0)
"""
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    done = run_script(ignore + BEGIN + source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_scalars(tmp_path) == {"": {**LOGGED, "after": [(0, 1.0)]}}


def test_a_writer_made_in_the_main_thread_and_used_in_another_is_stored_at_sigterm(
    tmp_path, start_script, read_scalars
):
    source = """
import signal, sys, threading
from sm_tblog import Writer

writer = Writer(sys.argv[1])

def log():
    for step in range(100):
        writer.add_scalar("loss", 1.0, step)

thread = threading.Thread(target=log)
thread.start()
thread.join()
"""
    script = start_script(source + READY_AND_WAIT, tmp_path)
    script.await_line()
    assert script.end(signal.SIGTERM) == (-signal.SIGTERM, [], "")
    assert read_scalars(tmp_path) == {"": LOGGED}


def test_a_writer_made_and_used_in_another_thread_leaves_sigterm_as_it_was(
    tmp_path, start_script, read_scalars
):
    source = """
import signal, sys, threading
from sm_tblog import Writer

def log():
    writer = Writer(sys.argv[1])
    for step in range(100):
        writer.add_scalar("loss", 1.0, step)
    writer.flush()

thread = threading.Thread(target=log)
thread.start()
thread.join()
"""
    script = start_script(source + READY_AND_WAIT, tmp_path)
    script.await_line()
    assert script.end(signal.SIGTERM) == (-signal.SIGTERM, [], "")
    assert read_scalars(tmp_path) == {"": LOGGED}


def test_sigterm_while_the_main_thread_waits_in_flush(tmp_path, start_script, read_scalars):
    source = """
from sm_tblog.storage.local import LocalStore

append = LocalStore.append

def slow_append(store, data):
    print("appending", flush=True)
    sys.stdin.readline()
    append(store, data)

LocalStore.append = slow_append
writer.add_scalar("late", 1.0, 0)
writer.flush()
"""
    script = start_script(BEGIN + "writer.flush()" + source, tmp_path)
    script.await_line()
    script.process.send_signal(signal.SIGTERM)
    script.process.stdin.write("\n" * 10)
    script.process.stdin.flush()
    script.process.wait(60)
    assert script.process.returncode == -signal.SIGTERM
    assert read_scalars(tmp_path) == {"": {**LOGGED, "late": [(0, 1.0)]}}


# SIGINT.


def test_an_interrupt_that_nobody_catches_ends_the_process_as_ever(
    tmp_path, start_script, read_scalars
):
    script = start_script(BEGIN + READY_AND_WAIT, tmp_path)
    script.await_line()
    status, _, errors = script.end(signal.SIGINT)
    assert status == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert read_scalars(tmp_path) == {"": LOGGED}


def test_an_interrupt_in_the_middle_of_logging_loses_nothing_that_was_logged(
    tmp_path, start_script, read_events, event_files
):
    source = """
import itertools
try:
    for step in itertools.count(100):
        writer.add_scalar("loss", 1.0, step)
        if step >= 1000:
            os.write(2, b"%d\\n" % step)
        if step == 1000:
            print("ready", flush=True)
except KeyboardInterrupt:
    writer.add_scalar("interrupted", 1.0, step)
"""
    script = start_script(BEGIN + source, tmp_path)
    script.await_line()
    status, _, reports = script.end(signal.SIGINT)
    assert status == 0
    last = int(reports.split()[-1])
    [path] = event_files(tmp_path)
    events = read_events(path)[1:]
    assert events[-1].summary.value[0].tag == "interrupted"
    steps = [event.step for event in events[:-1]]
    assert steps in (list(range(last + 1)), list(range(last + 2)))


@pytest.mark.timeout(20)  # less than a barrier's own timeout: an interrupt ends it at once
@pytest.mark.usefixtures("worker_at_barriers_alone")
@pytest.mark.parametrize("action", [Writer.flush, Writer.close])
def test_an_interrupt_in_a_barrier_loses_nothing(tmp_path, store_at, read_scalars, action):
    interrupted = threading.Event()

    def append(store, data):
        if not interrupted.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            interrupted.wait()
        LocalStore.append(store, data)

    writer = Writer(store_at(tmp_path, append=append))
    writer.add_scalar("loss", 1.0, 0)
    try:
        with pytest.raises(KeyboardInterrupt):
            action(writer)
    finally:
        interrupted.set()
    writer.add_scalar("loss", 1.0, 1)
    assert writer.flush()
    assert writer.close()
    assert read_scalars(tmp_path) == {"": {"loss": [(0, 1.0), (1, 1.0)]}}
