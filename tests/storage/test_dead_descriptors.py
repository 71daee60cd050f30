"""What a local store does when its file server, mount or disk goes away and comes back."""

import contextlib
import errno
import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest

from sm_tblog import StoreError, Writer, read
from sm_tblog._types import Series
from sm_tblog.sinks import event_file
from sm_tblog.sinks.base import File
from sm_tblog.sinks.event_file import EventFileSink
from sm_tblog.sinks.side_files import SideFiles
from sm_tblog.storage import Appender
from sm_tblog.storage.base import StoreLostError
from sm_tblog.storage.local import LocalStore
from sm_tblog.testing import FlakyStore, make_batch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lists /proc/self/fd")

DEAD = ("ESTALE", "ENOTCONN", "ENOENT", "EBADF", "ENODEV", "ENXIO", "ESHUTDOWN", "ECONNABORTED")


class Descriptors:
    """Makes chosen functions of ``os`` fail for the descriptors of a folder that are open now."""

    def __init__(self, folder, monkeypatch):
        self._folder = str(folder)
        self._monkeypatch = monkeypatch
        self._dead = set()
        self.closed = []
        self._close = os.close
        monkeypatch.setattr(os, "close", self._closing)

    def kill(self, calls, name, count=None):
        """Let calls on the descriptors fail; after ``count`` failures, succeed again."""
        number = getattr(errno, name)
        self._dead = open_in(self._folder)
        left = itertools.count() if count is None else iter(range(count))

        def failing(real):
            def call(descriptor, *args):
                if descriptor in self._dead and next(left, None) is not None:
                    raise OSError(number, os.strerror(number))
                return real(descriptor, *args)

            return call

        for one in calls:
            self._monkeypatch.setattr(os, one, failing(getattr(os, one)))

    def _closing(self, descriptor):
        if descriptor in self._dead:
            self._dead.discard(descriptor)
            self.closed.append(descriptor)
        self._close(descriptor)


def open_in(folder):
    """Return the descriptors of the files in a folder."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(path.readlink()).startswith(str(folder)):
                found.add(int(path.name))
    return found


@pytest.fixture
def descriptors(tmp_path, monkeypatch):
    return Descriptors(tmp_path, monkeypatch)


def numbered(tmp_path, preamble=b""):
    """Return an appender whose files are called 0, 1, 2, …."""
    count = itertools.count()
    return Appender(lambda: LocalStore(str(tmp_path), str(next(count))), lambda: preamble)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", DEAD)
@pytest.mark.parametrize("calls", [("fstat",), ("pwrite",), ("fstat", "pwrite", "ftruncate")])
def test_a_dead_descriptor_is_let_go_and_a_new_file_begun(tmp_path, descriptors, name, calls):
    out = numbered(tmp_path, b"begin.")
    out.append(b"one.")
    descriptors.kill(calls, name)
    with pytest.raises(StoreLostError):
        out.append(b"two.")
    out.append(b"three.")
    out.flush()
    assert out.pending == 0
    assert contents(tmp_path) == {"0": b"begin.one.", "1": b"begin.two.three."}
    assert len(descriptors.closed) == (name != "EBADF")  # that number is not ours to close


@pytest.mark.parametrize("name", DEAD)
def test_a_flush_notices_a_dead_descriptor(tmp_path, descriptors, name):
    out = numbered(tmp_path)
    out.append(b"one.")
    descriptors.kill(("fstat",), name)
    with pytest.raises(StoreLostError):
        out.flush()
    out.append(b"two.")
    assert contents(tmp_path) == {"0": b"one.", "1": b"two."}


def test_a_file_is_opened_again_after_an_error_that_may_pass(tmp_path, descriptors):
    out = numbered(tmp_path)
    out.append(b"one.")
    descriptors.kill(("pwrite",), "EIO", count=1)
    with pytest.raises(StoreError, match="Input/output"):
        out.append(b"two.")
    out.append(b"three.")
    assert contents(tmp_path) == {"0": b"one.two.three."}


def test_a_file_that_fails_again_when_it_is_opened_again_is_given_up(tmp_path, monkeypatch):
    real, opened = os.pwrite, []

    def write(descriptor, *args):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name == "0" and opened:
            raise OSError(errno.EIO, "Input/output error")
        opened.append(path)
        return real(descriptor, *args)

    out = numbered(tmp_path)
    monkeypatch.setattr(os, "pwrite", write)
    out.append(b"one.")
    for piece in (b"two.", b"three."):
        with pytest.raises(StoreError):
            out.append(piece)
    out.append(b"four.")
    assert contents(tmp_path) == {"0": b"one.", "1": b"two.three.four."}


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG", "EINTR", "ENOMEM", "EROFS"])
def test_an_error_that_is_not_the_files_keeps_the_descriptor(tmp_path, descriptors, name):
    out = numbered(tmp_path)
    out.append(b"one.")
    descriptors.kill(("pwrite",), name, count=1)
    with pytest.raises(StoreError):
        out.append(b"two.")
    out.append(b"three.")
    assert contents(tmp_path) == {"0": b"one.two.three."}
    assert not descriptors.closed


def test_a_path_that_cannot_be_queried_again_and_again_is_given_up(tmp_path, monkeypatch):
    real = Path.stat

    def stat(path, **kwargs):
        if path.name == "0":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, **kwargs)

    out = numbered(tmp_path)
    out.append(b"one.")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        for piece in (b"two.", b"three."):
            with pytest.raises(StoreError):
                out.append(piece)
        out.append(b"four.")
    assert contents(tmp_path) == {"0": b"one.", "1": b"two.three.four."}


def test_a_disk_that_takes_nothing_gets_one_empty_file(tmp_path, monkeypatch):
    def write(*_args):
        raise OSError(errno.EIO, "Input/output error")

    out = numbered(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        for _ in range(5):
            with pytest.raises(StoreError):
                out.append(b"x")
    out.write_pending()
    assert contents(tmp_path) == {"0": b"xxxxx"}


def test_a_file_system_that_cannot_fstat_is_written_unchecked(tmp_path, monkeypatch):
    def fstat(_descriptor):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    out = numbered(tmp_path, b"begin.")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        for piece in (b"one.", b"two."):
            out.append(piece)
            out.flush()
    assert contents(tmp_path) == {"0": b"begin.one.two."}


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "ESTALE", "EIO", "ELOOP"])
def test_a_released_file_that_cannot_be_opened_is_followed_by_another(tmp_path, monkeypatch, name):
    real, number = os.open, getattr(errno, name)

    def opening(path, *args):
        if str(path).endswith("/0"):
            raise OSError(number, os.strerror(number))
        return real(path, *args)

    out = numbered(tmp_path)
    out.append(b"one.")
    out.release()
    monkeypatch.setattr(os, "open", opening)
    with pytest.raises(StoreLostError):
        out.append(b"two.")
    out.append(b"three.")
    assert contents(tmp_path) == {"0": b"one.", "1": b"two.three."}


def test_a_released_file_waits_for_free_descriptors(tmp_path, monkeypatch):
    def opening(*_args):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    out = numbered(tmp_path)
    out.append(b"one.")
    out.release()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        with pytest.raises(StoreError):
            out.append(b"two.")
    out.write_pending()
    assert contents(tmp_path) == {"0": b"one.two."}


def test_releasing_a_dead_descriptor_raises_nothing_foreign(tmp_path, descriptors):
    store = LocalStore(str(tmp_path), "f")
    store.append(b"one.")
    descriptors.kill(("fstat",), "ESTALE")
    store.release()
    store.append(b"two.")
    assert contents(tmp_path) == {"f": b"one.two."}


def test_a_descriptor_that_somebody_else_closed_is_never_written_or_closed(tmp_path):
    store = LocalStore(str(tmp_path), "f")
    store.append(b"one.")
    (number,) = open_in(tmp_path)
    os.close(number)
    with (tmp_path / "theirs").open("wb", buffering=0) as theirs:
        assert theirs.fileno() == number
        with pytest.raises(StoreLostError):
            store.append(b"two.")
        store.close()
        theirs.write(b"theirs")
    assert contents(tmp_path) == {"f": b"one.", "theirs": b"theirs"}


def test_a_name_that_a_failed_attempt_has_created_is_given_up(tmp_path, monkeypatch):
    real = os.open

    def opening(path, *args):
        os.close(real(path, *args))
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    out = numbered(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opening)
        with pytest.raises(StoreError):
            out.append(b"one.")
    with pytest.raises(StoreLostError, match="exists"):
        out.write_pending()
    out.write_pending()
    assert contents(tmp_path) == {"0": b"", "1": b"one."}


@pytest.mark.parametrize("sink", ["events", "jsonl"])
@pytest.mark.parametrize("name", ["ESTALE", "ENOTCONN", "ENOENT"])
def test_a_writer_goes_on_where_the_folder_is_back(tmp_path, descriptors, sink, name):
    run = tmp_path / "run"
    writer = Writer(run, sinks=[sink])
    writer.add_scalar("a", 1.0, 0)
    assert writer.flush()
    shutil.move(run, tmp_path / "away")
    descriptors.kill(("fstat", "pwrite"), name)
    writer.add_scalar("a", 2.0, 1)
    assert not writer.flush()
    writer.add_scalar("a", 3.0, 2)
    assert writer.flush()
    assert writer.close()
    assert writer.stats().rows_dropped == 0
    (path,) = run.iterdir()
    if sink == "events":
        assert list(read(run).scalars["a"].step) == [1, 2]
    else:
        assert len(path.read_text().splitlines()) == 2


def test_a_lost_store_that_cannot_be_closed_still_says_that_it_is_lost(tmp_path):
    class Stubborn(FlakyStore):
        def close(self):
            raise StoreError("not even that")

    plan = [None, StoreLostError("gone")]
    stores = iter([Stubborn(LocalStore(str(tmp_path), "0"), plan), LocalStore(str(tmp_path), "1")])
    out = Appender(lambda: next(stores))
    out.append(b"one.")
    with pytest.raises(StoreLostError, match="gone"):
        out.append(b"two.")
    out.write_pending()
    assert (tmp_path / "1").read_bytes() == b"two."


def test_a_side_file_goes_to_a_new_store_when_its_own_is_lost(tmp_path):
    lost = FlakyStore(LocalStore(str(tmp_path), ""), [StoreLostError("gone")] * 9)
    stores = iter([lost, LocalStore(str(tmp_path), "")])
    files = SideFiles(lambda: next(stores))
    files.add(File("", "list", b"content"))
    with pytest.raises(StoreLostError):
        files.write_pending()
    files.write_pending()
    assert contents(tmp_path) == {"list": b"content"}


def test_a_side_file_is_not_lost_where_its_lock_cannot_be_freed(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(_descriptor, operation):
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(fcntl, "flock", flock)
    store = LocalStore(str(tmp_path), "")
    store.put("list", lambda before: (before or b"") + b"x")
    assert store.get("list") == b"x"


def test_many_runs_share_descriptors_though_one_is_dead(tmp_path, monkeypatch, descriptors):
    monkeypatch.setattr(event_file, "MAX_OPEN_FILES", 2)
    sink = EventFileSink(str(tmp_path))
    for step in range(3):
        for run in "abc":
            sink.write(make_batch([(Series("t", run), step, 1e9, 1.0)]))
        if not step:
            descriptors.kill(("fstat",), "ESTALE")
    sink.close()
    assert sink.pending == 0
