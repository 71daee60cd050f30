"""Side files: written in order and once, despite refusals, and independently of other faults."""

import logging
import multiprocessing
import pickle

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from sm_tblog import StoreError, Writer
from sm_tblog.sinks.base import File
from sm_tblog.storage.local import LocalStore

pytestmark = pytest.mark.usefixtures("worker_at_barriers_alone")


def build(tag, files):
    return list(files)


def put(writer, *files):
    """Log side files, as methods with side files do."""
    writer._put("side files", build, (files,), 0, None)


def add(text):
    """Return a function that appends to a file's content."""
    return lambda held: (held or b"") + text


def fail(held):
    raise LookupError("the function failed")


def messages(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "sm_tblog" and record.levelno >= logging.WARNING
    ]


class Calls:
    """The calls that a store receives, and the names that its ``put`` refuses."""

    def __init__(self):
        self.refused = set()
        self.made = []

        def put(store, name, data):
            if name in self.refused:
                raise StoreError(f"{name}: refused")
            LocalStore.put(store, name, data)
            self.made.append(name)

        def append(store, data):
            LocalStore.append(store, data)
            self.made.append("append")

        self.methods = {"put": put, "append": append}


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def url(tmp_path, store_at, calls):
    return store_at(tmp_path, **calls.methods)


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tfevents" not in path.name
    }


def test_files_are_written_in_their_order_after_the_events_of_their_batch(url, calls):
    with Writer(url) as writer:
        put(writer, *(File("", f"b/{9 - i}", b"x") for i in range(5)))
        writer.add_scalar("loss", 1.0, 0)
        assert writer.flush()
    names = [name for name in calls.made if name != "append"]
    assert names == ["b/9", "b/8", "b/7", "b/6", "b/5"]
    assert calls.made.index("b/9") > max(i for i, c in enumerate(calls.made) if c == "append")


def test_a_function_is_given_what_the_file_holds(tmp_path):
    (tmp_path / "list").write_bytes(b"mine ")
    with Writer(tmp_path) as writer:
        for i in range(4):
            put(writer, File("", "list", add(b"%d" % i)), File("sub", "list", add(b"%d" % i)))
    assert files_in(tmp_path) == {"list": b"mine 0123", "sub/list": b"0123"}


def test_files_go_below_their_runs_folders(tmp_path):
    with Writer(tmp_path) as writer:
        put(writer, File("", "a", b"1"), File("x/y", "b/c", b"2"), File("x", "d", b""))
    assert files_in(tmp_path) == {"a": b"1", "x/y/b/c": b"2", "x/d": b""}


def test_files_go_to_memory():
    folder = "memory://test_side_files/run"
    with Writer(folder) as writer:
        put(writer, File("", "a/b", b"1"), File("sub", "c", add(b"2")), File("sub", "c", add(b"3")))
    files = MemoryFileSystem()
    assert files.cat_file(f"{folder}/a/b") == b"1"
    assert files.cat_file(f"{folder}/sub/c") == b"23"


def test_tensorboard_knows_a_run_that_has_side_files_alone(tmp_path, read_events, event_files):
    with Writer(tmp_path / "run") as writer:
        put(writer, File("", "a", b"1"), File("", "b", b"2"), File("sub", "c", b"3"))
        writer.flush()
        put(writer, File("", "d", b"4"))
    paths = event_files(tmp_path)
    assert [path.parent.name for path in paths] == ["run", "sub"]
    assert [[event.file_version for event in read_events(path)] for path in paths] == [
        ["brain.Event:2"]
    ] * 2
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload().Runs()
    assert set(runs) == {"run", "run/sub"}


def test_what_was_written_is_counted(tmp_path, event_files):
    with Writer(tmp_path) as writer:
        put(writer, File("", "a", b"12345"))
        assert writer.flush()
        [path] = event_files(tmp_path)
        assert writer.stats().bytes_stored == path.stat().st_size + 5
    assert writer.stats().bytes_stored == path.stat().st_size + 5


# A store that refuses.


def test_a_refused_file_and_those_behind_it_wait_and_keep_their_order(url, calls, tmp_path):
    calls.refused = {"b"}
    writer = Writer(url, on_error=lambda _: None)
    put(writer, *(File("", name, add(name.encode())) for name in "abac"))
    for _ in range(3):
        assert not writer.flush()
    put(writer, File("", "d", b"d"))
    assert not writer.flush()
    assert files_in(tmp_path) == {"a": b"a"}
    assert writer.stats().rows_dropped == 0
    calls.refused = set()
    assert writer.close()
    assert [name for name in calls.made if name != "append"] == list("abacd")
    assert files_in(tmp_path) == {"a": b"aa", "b": b"b", "c": b"c", "d": b"d"}
    assert writer.stats().rows_dropped == 0


@pytest.mark.parametrize("data", [b"bytes", b"", add(b"text")], ids=["bytes", "none", "function"])
def test_what_waits_is_pending_and_not_lost(url, calls, tmp_path, data):
    calls.refused = {"a"}
    writer = Writer(url, on_error=lambda _: None)
    put(writer, File("", "a", data))
    assert not writer.flush()
    stats = writer.stats()
    assert (stats.rows_dropped, stats.bytes_pending) == (0, len(data) if data == b"bytes" else 1)
    calls.refused = set()
    assert writer.flush()
    assert writer.stats().bytes_pending == 0
    assert list(files_in(tmp_path)) == ["a"]
    writer.close()


def test_a_refusal_is_said_once(url, calls, caplog):
    calls.refused = {"a"}
    with Writer(url) as writer:
        put(writer, File("", "a", b"1"))
        for _ in range(4):
            assert not writer.flush()
        [message] = messages(caplog)
        assert message.startswith("sm_tblog: a: refused; training continues")
        calls.refused = set()


def test_a_function_is_asked_again_with_what_the_file_holds_then(tmp_path, store_at):
    plan = iter([True, True])

    def refuse_after_asking(store, name, data):
        made = data(LocalStore.get(store, name))
        if next(plan, False):
            raise StoreError("refused")
        LocalStore.put(store, name, made)

    writer = Writer(store_at(tmp_path, put=refuse_after_asking), on_error=lambda _: None)
    put(writer, File("", "list", add(b" ours")))
    assert not writer.flush()
    (tmp_path / "list").write_bytes(b"theirs")
    assert writer.close()
    assert files_in(tmp_path) == {"list": b"theirs ours"}


def test_one_runs_refusal_is_not_anothers(tmp_path, caplog):
    obstacle = tmp_path / "blocked"
    obstacle.touch()
    with Writer(tmp_path) as writer:
        put(writer, File("blocked", "a", b"1"), File("free", "b", b"2"), File("", "c", b"3"))
        assert not writer.flush()
        assert files_in(tmp_path) == {"blocked": b"", "free/b": b"2", "c": b"3"}
        assert len(messages(caplog)) == 1
        obstacle.unlink()
    assert files_in(tmp_path) == {"blocked/a": b"1", "free/b": b"2", "c": b"3"}


def test_events_do_not_wait_for_side_files(url, calls, tmp_path, read_scalars):
    calls.refused = {"a"}
    writer = Writer(url, on_error=lambda _: None)
    put(writer, File("", "a", b"1"))
    writer.add_scalar("loss", 1.0, 0)
    assert not writer.flush()
    assert read_scalars(tmp_path) == {"": {"loss": [(0, 1.0)]}}
    assert not writer.close()


def test_close_loses_what_is_refused_and_says_so(url, calls, tmp_path, caplog):
    calls.refused = {"b"}
    writer = Writer(url)
    put(writer, *(File("", name, add(b"x")) for name in "ab"))
    assert not writer.close()
    assert writer.stats().bytes_pending == 0
    assert writer.stats().rows_dropped == 2  # the whole batch is counted as kept by the sink
    assert messages(caplog)[0].startswith("sm_tblog: b: refused; ")
    assert "could not be stored and are lost" in messages(caplog)[1]
    calls.refused = set()
    put(writer, File("", "c", b"x"))
    assert writer.close()
    assert files_in(tmp_path) == {"a": b"x", "c": b"x"}


def test_more_than_may_wait_is_dropped(url, calls, tmp_path):
    calls.refused = {"0"}
    writer = Writer(url, max_bytes=1000, on_error=lambda _: None)
    for i in range(4):
        put(writer, File("", str(i), bytes(600)))
        assert not writer.flush()
    assert writer.stats().bytes_pending == 1200
    assert writer.stats().rows_dropped == 2
    calls.refused = set()
    assert writer.close()
    assert sorted(files_in(tmp_path)) == ["0", "1"]


# A file that can never be written.


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (File("", "bad", fail), "the function failed"),
        (File("", "../outside", b"x"), "a relative path below the log directory, not '../outside'"),
        (File("", "bad", lambda _: None), "NoneType"),
    ],
)
def test_it_is_lost_and_said_once_and_those_behind_it_are_written(tmp_path, caplog, file, says):
    with Writer(tmp_path) as writer:
        put(writer, File("", "a", b"1"), file, File("", "c", b"3"), File("sub", "d", b"4"))
        assert not writer.flush()
        [message] = messages(caplog)
        assert says in message
        assert writer.stats().rows_dropped > 0
        assert writer.stats().bytes_pending == 0
        assert writer.flush()
        assert len(messages(caplog)) == 1
    assert files_in(tmp_path) == {"a": b"1", "c": b"3", "sub/d": b"4"}
    assert not (tmp_path.parent / "outside").exists()


def test_a_strict_writer_raises_it_at_the_barrier(tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        put(writer, File("", "bad", fail))
        with pytest.raises(Exception, match="the function failed"):
            writer.flush()


def test_what_had_failed_before_a_refusal_is_said_although_the_refusal_is_too(url, calls):
    calls.refused = {"b"}
    errors = []
    writer = Writer(url, on_error=errors.append)
    put(writer, File("", "a", fail), File("", "b", b"2"), File("", "c", b"3"))
    assert not writer.flush()
    assert "the function failed" in str(errors[0])
    calls.refused = set()
    assert writer.flush()
    assert [name for name in calls.made if name != "append"] == ["b", "c"]
    writer.close()


# Copies.


def test_a_forked_child_leaves_the_parents_files_alone(url, calls, tmp_path):
    calls.refused = {"a"}
    writer = Writer(url, on_error=lambda _: None)
    put(writer, File("", "a", add(b"parent")))
    assert not writer.flush()
    put(writer, File("", "b", add(b"parent")))  # waits for the worker thread
    calls.refused = set()

    def log_and_close():
        put(writer, File("", "c", add(b"child")))
        writer.close()

    child = multiprocessing.get_context("fork").Process(target=log_and_close)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert files_in(tmp_path) == {"c": b"child"}
    assert writer.close()
    assert files_in(tmp_path) == {"a": b"parent", "b": b"parent", "c": b"child"}


def test_a_copy_leaves_the_originals_files_alone(url, calls, tmp_path):
    calls.refused = {"a"}
    writer = Writer(url, on_error="warn")
    put(writer, File("", "a", add(b"original")))
    assert not writer.flush()
    copy = pickle.loads(pickle.dumps(writer))
    calls.refused = set()
    put(copy, File("", "c", add(b"copy")))
    assert copy.close()
    assert files_in(tmp_path) == {"c": b"copy"}
    assert writer.close()
    assert files_in(tmp_path) == {"a": b"original", "c": b"copy"}
