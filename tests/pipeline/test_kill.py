"""``kill -9``, the out-of-memory killer, a lost node: the remaining files can be read cleanly.

The children report what they have logged through a pipe, one write per report. The moment of the
kill is random, from a seed.
"""

from __future__ import annotations

import random
import signal
import subprocess

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

MAY_BE_LOST = 1.0
"""Seconds of data that may be lost: the documented limit, and twice the worker thread's tick."""

REPORTING = """
import os, select, sys, time
from sm_tblog import Writer

writer = Writer(sys.argv[1])

def report(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""

AT_A_STEADY_RATE = """
step = 0
while True:
    for _ in range(5):
        writer.add_scalar("loss", float(step), step)
        step += 1
    report(step - 1, time.monotonic())
    select.select([], [], [], 0.002)  # limits the number of rows per second
"""

WITH_BARRIERS = """
step = 0
while True:
    for _ in range(50):
        writer.add_scalar("loss", float(step), step)
        step += 1
    assert writer.flush()
    report(step - 1)
"""

IN_LARGE_WRITES = """
step = 0
while True:
    for _ in range(32):
        writer.add_text("text", "x" * 10_000, step)
        step += 1
    report(step - 1)
    assert writer.flush()
"""


@pytest.fixture
def start(tmp_path, script):
    """``start(source, name)``: start a child that logs to its own folder; return both."""
    children = []

    def begin(source, name):
        folder = tmp_path / name
        command = script(REPORTING + source, folder)
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child, folder

    yield begin
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def _kill(child):
    """Kill a child; return its reports that were not read yet."""
    child.kill()
    return child.stdout.read().splitlines()


@pytest.fixture
def surviving_steps(event_files):
    """``surviving_steps(folder)``: the steps in the folder's only event file, in file order.

    The last record may be truncated, which TensorBoard's loader accepts. Any other damage fails
    the test.
    """
    from tensorboard.compat import tf
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    def read(folder):
        files = event_files(folder)
        if not files:
            return []
        [path] = files
        reader = PyRecordReader_New(str(path))
        events = []
        while True:
            try:
                reader.GetNext()
            except tf.errors.OutOfRangeError:
                break
            except tf.errors.DataLossError as error:
                assert "truncated record" in str(error)  # noqa: PT017 - otherwise the data is corrupt
                break
            events.append(Event.FromString(reader.record()))
        return [event.step for event in events if event.WhichOneof("what") == "summary"]

    return read


def test_at_most_the_last_second_is_lost(start, surviving_steps):
    generator = random.Random(9)
    for trial in range(10):
        lifetime = generator.uniform(0.0, 1.5)
        child, folder = start(AT_A_STEADY_RATE, f"{trial}")
        reports = [child.stdout.readline()]
        begun = float(reports[0].split()[1])
        while float(reports[-1].split()[1]) < begun + lifetime:
            reports.append(child.stdout.readline())
        reports += _kill(child)
        logged = [(int(step), float(at)) for step, at in map(str.split, reports)]
        killed = logged[-1][1]
        promised = max((step for step, at in logged if at < killed - MAY_BE_LOST), default=-1)
        steps = surviving_steps(folder)
        assert steps == list(range(len(steps)))
        assert len(steps) > promised


def test_nothing_that_was_flushed_is_lost(start, surviving_steps):
    generator = random.Random(10)
    for trial in range(8):
        child, folder = start(WITH_BARRIERS, f"{trial}")
        for _ in range(generator.randint(1, 100)):
            last = child.stdout.readline()
        last = [last, *_kill(child)][-1]
        steps = surviving_steps(folder)
        assert steps == list(range(len(steps)))
        assert len(steps) > int(last)


def test_a_file_whose_writer_died_in_the_middle_of_a_write_reads_up_to_there(
    start, surviving_steps, event_files
):
    generator = random.Random(11)
    for trial in range(5):
        target = generator.randint(0, 1_500_000)
        child, folder = start(IN_LARGE_WRITES, f"{trial}")
        child.stdout.readline()
        while sum(path.stat().st_size for path in event_files(folder)) < target:
            pass
        _kill(child)
        steps = surviving_steps(folder)
        assert steps == list(range(len(steps)))
