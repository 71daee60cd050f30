"""The names of growing files: their order is that in which the files are created."""

import os
import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.io_wrapper import IsTensorFlowEventsFile

from sm_tblog import Writer
from sm_tblog.sinks.event_file import event_file_name
from sm_tblog.storage import file_names, local_file
from sm_tblog.storage.file_names import is_timed, later_name, new_name
from sm_tblog.storage.local import LocalStore
from sm_tblog.storage.memory import MemoryStore

PREFIX = "events.out.tfevents."
PATTERN = re.compile(r"events\.out\.tfevents\.\d{10,}\.[\w.-]+\.\d+\.\d{4}\.[0-9a-f]{8}")


@pytest.fixture(autouse=True)
def _as_before():
    last, advanced = file_names._last, dict(file_names._advanced)
    yield
    file_names._last = last
    file_names._advanced.clear()
    file_names._advanced.update(advanced)


@pytest.fixture
def clock(monkeypatch):
    """The clock of the process, which tests set."""
    now = SimpleNamespace(seconds=time.time())
    monkeypatch.setattr(file_names, "time", SimpleNamespace(time=lambda: now.seconds), raising=True)
    return now


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def steps_in(folder, tag="loss"):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [event.step for event in accumulator.Scalars(tag)]


def test_names_sort_past_the_last_number_of_a_second(clock):
    file_names._last = int(clock.seconds), 9990
    names = [event_file_name() for _ in range(30)]
    assert names == sorted(names)
    assert len(set(names)) == 30
    assert all(PATTERN.fullmatch(name) for name in names)


def test_names_sort_though_the_clock_goes_back(clock):
    names = []
    for change in (0, -1, -3600, 10, -1e9, 1e6):
        clock.seconds += change
        names += [event_file_name(), event_file_name()]
    assert names == sorted(names)


def test_a_time_before_the_epoch_is_a_time(clock):
    file_names._last = 0, file_names.MAX_COUNT
    clock.seconds = -5.0
    assert PATTERN.fullmatch(event_file_name())


def test_a_name_is_one_that_tensorboard_takes():
    name = event_file_name(".mine")
    assert name.endswith(".mine")
    assert IsTensorFlowEventsFile(name)
    assert str(os.getpid()) in name.split(".")
    assert new_name("metrics", ".jsonl").startswith("metrics.")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_names_after_its_parents(clock):
    clock.seconds = file_names._last[0] - 10.0
    before = event_file_name()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, event_file_name().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        name = pipe.read()
    # The process ID of the child, which comes before the counter, may sort before the parent's.
    assert name.split(".")[3] > before.split(".")[3]


@pytest.mark.parametrize(
    "there",
    [
        "1733000000.host",
        "1733000000.zzz.9.9999.x",
        "1733000001.host.profile-empty",
        "4000000000.host",
        "1733000000123.milliseconds",
        "1733000000123456789.nanoseconds",
        "9999999999.host",
        "99999999990.host",
        "9999999999999.host",
        "5.x",
        "9",
        "",
        "0000000000.hparams",
    ],
)
def test_a_name_is_advanced_after_those_in_the_folder(there):
    name = f"{PREFIX}1733000000.host.7.0003.00000000.suffix"
    later = later_name("folder", name, [PREFIX + there])
    assert later > PREFIX + there
    assert later >= name
    assert later.endswith(".host.7.0003.00000000.suffix")
    assert PATTERN.match(later)
    again = later_name("folder", name, [PREFIX + there, later])
    assert again > later or again == name


def test_names_that_no_time_sorts_after_are_ignored():
    name = f"{PREFIX}1733000000.host.7.0003.00000000"
    there = [f"{PREFIX}v2.5", f"{PREFIX}9a", "z.tfevents.1733000009.x", "metrics.1833000000.x"]
    assert later_name("folder", name, there) == name
    later = later_name("folder", name, [*there, f"{PREFIX}1800000000.x"])
    assert later.startswith(f"{PREFIX}1800000001.host")


@pytest.mark.parametrize("name", ["file", "", "events.out.tfevents.5.x", "plugins/x"])
def test_a_name_without_a_time_stays_as_it_is(name):
    assert not is_timed(name)
    assert later_name("folder", name, ["zzz", f"{PREFIX}9999999999.x"]) == name


@given(st.lists(st.from_regex(r"[0-9]{1,14}\.[a-z0-9.]{0,5}", fullmatch=True)))
def test_a_name_sorts_after_any_names_with_times(rests):
    file_names._advanced.clear()
    names = [PREFIX + rest for rest in rests]
    later = later_name("folder", f"{PREFIX}1733000000.host.7.0003.00000000", names)
    assert all(later > name for name in names)


@pytest.mark.parametrize("there", [f"{PREFIX}4000000000.host.1.0.x", f"{PREFIX}9999999999.z"])
@pytest.mark.parametrize("run", ["", "child"])
def test_resuming_supersedes_what_a_clock_ahead_has_written(tmp_path, there, run):
    def log(writer, steps):
        target = writer.child(run) if run else writer
        for step in steps:
            target.add_scalar("loss", float(step), step)

    folder = tmp_path / run
    with Writer(tmp_path) as writer:
        log(writer, range(100))
    (path,) = (one for one in folder.iterdir() if one.is_file())
    path.rename(folder / there)
    with Writer(tmp_path, resume=50) as writer:
        log(writer, range(50, 60))
    assert steps_in(folder) == list(range(60))
    assert names_in(folder)[0] == there


@pytest.mark.parametrize("sink", ["events", "jsonl"])
def test_a_file_that_was_begun_again_has_a_later_name(tmp_path, sink):
    first = {"events": PREFIX, "jsonl": "metrics."}[sink] + "4000000000.x"
    (tmp_path / first).touch()
    with Writer(tmp_path, sinks=[sink]) as writer:
        writer.add_scalar("a", 1.0, 0)
        assert writer.flush()
        _, second = names_in(tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()  # the next name must not depend on what is there
        writer.add_scalar("a", 2.0, 1)
        writer.flush()
        writer.flush()
        (third,) = names_in(tmp_path)
    assert first < second < third


def test_stores_in_memory_sort_too():
    store = MemoryStore("memory://names", f"{PREFIX}4000000000.host.1.0000.x")
    store.append(b"x")
    store = MemoryStore("memory://names", new_name("events.out.tfevents"))
    store.append(b"y")
    store.append(b"z")
    assert str(store).startswith(f"memory://names/{PREFIX}4000000001.")
    assert store._files.cat_file(str(store)) == b"yz"


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be locked there")
def test_stores_that_begin_at_once_are_created_in_the_order_of_their_names(tmp_path, monkeypatch):
    created, real = [], os.open

    def opening(path, flags, *args):
        descriptor = real(path, flags, *args)
        if flags & os.O_CREAT:
            created.append(Path(path).name)
        return descriptor

    def begin(number):
        name = f"{PREFIX}1733000000.host-{99 - number}.1.0000.x"
        LocalStore(str(tmp_path), name).append(b"x")

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(local_file, "LOCK_TIMEOUT", 60.0)
    threads = [threading.Thread(target=begin, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == sorted(created)
    assert len(created) == 20


def test_a_folder_that_somebody_locks_all_the_time_is_used_all_the_same(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(local_file, "LOCK_TIMEOUT", 0.0)
    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)  # as `flock runs/x python train.py` does
        LocalStore(str(tmp_path), new_name("events.out.tfevents")).append(b"x")
    finally:
        os.close(holder)
    assert len(names_in(tmp_path)) == 1


def test_a_folder_that_cannot_be_listed_is_used_all_the_same(tmp_path, monkeypatch):
    def iterdir(_path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.iterdir", iterdir)
        LocalStore(str(tmp_path), new_name("events.out.tfevents")).append(b"x")
    assert len(names_in(tmp_path)) == 1
