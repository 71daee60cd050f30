import errno
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sm_tblog import InvalidValueError, MissingDependencyError, StoreError, Writer
from sm_tblog.sinks import event_file
from sm_tblog.storage import Appender, open_store, register_store
from sm_tblog.storage.base import StoreLostError
from sm_tblog.storage.local import LocalStore, local_path
from sm_tblog.storage.memory import MemoryStore
from sm_tblog.testing import FlakyStore, SlowStore, StoreTests


class TestLocalStore(StoreTests):
    pass


class TestFileURL(StoreTests):
    @pytest.fixture
    def folder(self, tmp_path):
        return (tmp_path / "a run").as_uri()

    def read_back(self, folder, name):
        return super().read_back(str(local_path(folder)), name)


class TestMemoryStore(StoreTests):
    @pytest.fixture
    def folder(self, tmp_path):
        return f"memory:/{tmp_path}"

    def read_back(self, folder, name):
        path = f"{folder}/{name}"
        files = MemoryFileSystem()
        return files.cat_file(path) if files.exists(path) else None


class TestFlakyStore(StoreTests):
    """A wrapper that fails never is a store like any other."""

    def open(self, folder, name):
        return FlakyStore(super().open(folder, name), [])


class TestSlowStore(StoreTests):
    """A wrapper whose gate is open is a store like any other."""

    def open(self, folder, name):
        gate = threading.Event()
        gate.set()
        return SlowStore(super().open(folder, name), gate)


def test_stores_are_found_by_scheme(tmp_path):
    assert isinstance(open_store(str(tmp_path), "f"), LocalStore)
    assert isinstance(open_store("FILE:///tmp/x", "f"), LocalStore)
    assert isinstance(open_store("memory://x", "f"), MemoryStore)


def test_an_unknown_scheme_is_named_with_those_known():
    with pytest.raises(InvalidValueError, match=r"nowhere://x.*'nowhere'.*file, memory"):
        open_store("nowhere://x", "f")


def test_registered_stores_are_imported_when_used(monkeypatch):
    monkeypatch.setattr("sm_tblog.storage.base._STORES", {})
    register_store("mine", "sm_tblog.storage.memory:MemoryStore")
    assert isinstance(open_store("mine://x", "f"), MemoryStore)
    register_store("absent", "no_such_package:Store", "pip install no-such-package")
    with pytest.raises(MissingDependencyError, match="pip install no-such-package"):
        open_store("absent://x", "f")


def test_a_local_store_never_takes_an_existing_file(tmp_path):
    (tmp_path / "f").write_bytes(b"someone else's")
    with pytest.raises(StoreError, match="exists"):
        LocalStore(str(tmp_path), "f").append(b"x")
    assert (tmp_path / "f").read_bytes() == b"someone else's"


def test_a_local_store_names_the_path_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file") as caught:
        LocalStore(str(tmp_path / "file" / "run"), "f").append(b"x")
    assert caught.value.errno == errno.ENOTDIR
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StoreError, match="side"):
        LocalStore(str(tmp_path / "file" / "run"), "f").put("side", b"x")


def test_a_write_that_fails_half_way_is_written_over(tmp_path, monkeypatch):
    store = LocalStore(str(tmp_path), "f")
    store.append(b"first.")
    write = os.pwrite
    left = [4]

    def disk_full(descriptor, data, offset):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(descriptor, data[: left[0]], offset)
        left[0] -= count
        return count

    monkeypatch.setattr(os, "pwrite", disk_full)
    with pytest.raises(StoreError, match="No space left"):
        store.append(b"second.")
    assert (tmp_path / "f").read_bytes() == b"first.seco"
    left[0] = 100
    store.append(b"second.")
    assert (tmp_path / "f").read_bytes() == b"first.second."


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("call", ["append", "flush"])
def test_a_local_store_notices_that_its_file_is_gone(tmp_path, replace, call):
    store = LocalStore(str(tmp_path / "run"), "f")
    store.append(b"x")
    shutil.rmtree(tmp_path / "run")
    if replace:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "f").write_bytes(b"other")
    with pytest.raises(StoreLostError, match="deleted or replaced"):
        store.append(b"y") if call == "append" else store.flush()


def test_putting_leaves_nothing_behind_when_it_fails(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match="taken"):
        LocalStore(str(tmp_path), "f").put("taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def appender(tmp_path, plan, preamble=b""):
    stores = []

    def open_next():
        stores.append(FlakyStore(LocalStore(str(tmp_path), str(len(stores))), plan))
        return stores[-1]

    return Appender(open_next, lambda: preamble)


def test_an_appender_keeps_what_is_refused_in_order(tmp_path):
    out = appender(tmp_path, iter([None, True, True, None]), b"begin.")
    with pytest.raises(StoreError):
        out.append(b"one.")
    with pytest.raises(StoreError):
        out.append(b"two.")
    assert (out.pending, out.stored) == (8, 6)
    out.append(b"three.")
    assert (out.pending, out.stored) == (0, 20)
    assert (tmp_path / "0").read_bytes() == b"begin.one.two.three."


def test_an_appender_begins_anew_when_its_store_is_lost(tmp_path):
    out = appender(tmp_path, iter([None, None, StoreLostError("gone"), None]), b"begin.")
    out.append(b"one.")
    with pytest.raises(StoreLostError):
        out.append(b"two.")
    out.append(b"three.")
    assert (tmp_path / "0").read_bytes() == b"begin.one."
    assert (tmp_path / "1").read_bytes() == b"begin.two.three."


def test_an_appender_that_is_closed_lets_go_even_if_that_fails(tmp_path):
    out = appender(tmp_path, iter([None, True, True]))
    out.append(b"one.")
    with pytest.raises(StoreError):
        out.append(b"two.")
    with pytest.raises(StoreError):
        out.close()
    assert out.pending == 0
    out.close()
    assert (tmp_path / "0").read_bytes() == b"one."


def test_an_appender_that_was_given_nothing_makes_nothing(tmp_path):
    out = appender(tmp_path / "run", [], b"begin.")
    out.flush()
    out.close()
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="counts /proc/self/fd")
def test_a_resting_file_is_written_on_and_held_by_nobody(tmp_path):
    store = LocalStore(str(tmp_path), "file")
    store.release()  # before the first append it does nothing
    before = open_files()
    for piece in (b"one", b"two"):
        store.append(piece)
        assert open_files() == before + 1
        store.release()
        assert open_files() == before
    store.flush()
    store.close()
    assert (tmp_path / "file").read_bytes() == b"onetwo"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_resting_file_that_was_deleted_or_replaced_is_noticed(tmp_path, replaced):
    store = LocalStore(str(tmp_path), "file")
    store.append(b"one")
    store.release()
    (tmp_path / "file").rename(tmp_path / "elsewhere")
    if replaced:
        (tmp_path / "file").write_bytes(b"another")
    with pytest.raises(StoreLostError):
        store.append(b"two")
    assert (tmp_path / "elsewhere").read_bytes() == b"one"


@pytest.mark.skipif(sys.platform != "linux", reason="counts /proc/self/fd")
def test_hundreds_of_runs_share_some_descriptors_at_every_moment(
    tmp_path, read_scalars, monkeypatch
):
    def append_and_count(store, data):
        append(store, data)
        most.append(open_files())

    before, most = open_files(), []
    append = LocalStore.append
    monkeypatch.setattr(LocalStore, "append", append_and_count)
    with Writer(tmp_path) as writer:
        for step in range(3):
            writer.add_scalars("chart", {f"{i:03}": float(i) for i in range(150)}, step)
            writer.add_scalar("loss", 1.0, step)
            writer.add_scalars("chart", {"007": 0.0}, step + 10)
            writer.flush()
    assert max(most) <= before + event_file.MAX_OPEN_FILES
    found = read_scalars(tmp_path)
    assert found.pop("") == {"loss": [(step, 1.0) for step in range(3)]}
    assert len(found.pop("chart_007")["chart"]) == 6
    assert found == {
        f"chart_{i:03}": {"chart": [(step, float(i)) for step in range(3)]}
        for i in range(150)
        if i != 7
    }
    assert sum(1 for _ in tmp_path.rglob("*tfevents*")) == 151


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be locked there")
def test_a_side_file_that_many_extend_at_once_loses_nothing(tmp_path):
    def extend(name):
        store = LocalStore(str(tmp_path), "")
        for i in range(25):
            store.put("list", lambda before, line=f"{name} {i}\n": (before or b"") + line.encode())

    threads = [threading.Thread(target=extend, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "list").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {i}" for name in range(4) for i in range(25))
