"""Remote folders on fsspec file systems, tested with file systems in memory."""

import importlib
import itertools
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sm_tblog import StoreError, Writer
from sm_tblog._types import Series
from sm_tblog.format.scalars import encode_scalars
from sm_tblog.storage import fsspec_folder, spool, upload_queue
from sm_tblog.storage.fsspec_folder import MAX_OBJECT_SIZE, MAX_REWRITTEN_SIZE, FsspecFolder
from sm_tblog.storage.object_store import ObjectStore
from sm_tblog.storage.spool import SpoolFile
from sm_tblog.testing import StoreTests

LONG = 600.0

names = (f"object-{i}" for i in itertools.count())

CHANGES = ("pipe_file", "merge", "append", "rm_file")


class State:
    """The faults to inject into the file systems, and the calls made.

    Attributes:
        plan: an iterator of the fault of each call: it fails ``before`` it changes anything, or
            after that (``lost``), or makes the change ``twice``; None for no fault.
        refused: the names of the calls that always fail.
        calls: the names of the calls that were made.
        after_change: called after each change.
        options: the options of the last file system created.
    """

    def __init__(self):
        self.begin()
        self.options = {}

    def begin(self, *plan):
        self.plan = iter(plan)
        self.refused = set()
        self.calls = []
        self.after_change = lambda: None


state = State()


class FakeFileSystem(MemoryFileSystem):
    """A file system in memory with the faults of ``state``."""

    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]

    def __init__(self, **options):
        super().__init__()
        state.options = options

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.rpartition("://")[2])

    def _do(self, name, change, *args, **kwargs):
        state.calls.append(name)
        fault = next(state.plan, None)
        if name in state.refused:
            raise PermissionError(f"{name}: not allowed")
        if fault == "before":
            raise ConnectionError(f"{name}: no connection")
        result = change(*args, **kwargs)
        if fault == "twice" and name in ("merge", "append"):
            change(*args, **kwargs)
        if name in CHANGES:
            state.after_change()
        if fault == "lost":
            raise TimeoutError(f"{name}: no reply")
        return result

    def pipe_file(self, path, value, **kwargs):
        self._do("pipe_file", super().pipe_file, path, value, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        return self._do("cat_file", super().cat_file, path, start, end, **kwargs)

    def info(self, path, **kwargs):
        return self._do("info", super().info, path, **kwargs)

    def isfile(self, path):  # which fsspec 2023.1 asks before it writes, by info
        return self._strip_protocol(path) in self.store

    def rm_file(self, path):
        def remove():  # fsspec 2023.1 has neither rm_file nor _rm in memory
            if self.store.pop(self._strip_protocol(path), None) is None:
                raise FileNotFoundError(path)

        self._do("rm_file", remove)


class FakeGoogle(FakeFileSystem):
    protocol = "gs"

    def merge(self, path, paths):
        def compose():
            path_ = self._strip_protocol(path)
            data = b"".join(self.store[self._strip_protocol(p)].getvalue() for p in paths)
            self.store[path_].seek(0)
            self.store[path_].write(data)

        self._do("merge", compose)


class FakeAzure(FakeFileSystem):
    protocol = "az"

    def open(self, path, mode="rb", **kwargs):
        if mode != "ab":
            return super().open(path, mode, **kwargs)
        return Appended(self, path)


class Appended:
    """An append blob that is written when it is closed."""

    def __init__(self, files, path):
        self._files, self._path, self._data = files, path, b""

    def write(self, data):
        self._data += data

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._files._do("append", self._append)

    def _append(self):
        path = self._files._strip_protocol(self._path)
        mode = "ab" if path in self._files.store else "wb"
        with MemoryFileSystem.open(self._files, self._path, mode) as file:
            file.write(self._data)


class FakeOther(FakeFileSystem):
    protocol = "other"


@pytest.fixture(autouse=True)
def _file_systems(monkeypatch, tmp_path):
    known = importlib.import_module("fsspec.registry")._registry
    for scheme, found in (("gs", FakeGoogle), ("az", FakeAzure), ("other", FakeOther)):
        monkeypatch.setitem(known, scheme, found)
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.0,))
    state.begin()


@pytest.fixture(params=["gs", "az", "other"])
def scheme(request):
    return request.param


def records(first, count):
    steps = np.arange(first, first + count)
    codes = np.zeros(count, np.intp)
    return encode_scalars([Series("loss")], codes, steps, np.full(count, 1e9), steps / 8)


def content(scheme, name):
    files = fsspec.get_filesystem_class(scheme)
    stored = files.store.get(f"/box/run/{name}")
    return b"" if stored is None else stored.getvalue()


def left_over():
    return [path for path in FakeFileSystem.store if "part" in path]


def grow(growing, file):
    assert growing.padding(file.size) == 0
    try:
        growing.commit(file, file.size)
    except StoreError:
        return False
    return True


def test_what_was_logged_is_uploaded_once(scheme):
    place = FsspecFolder(f"{scheme}://box/run", {})
    name, file = next(names), SpoolFile(f"{scheme}://box/run", "tfevents")
    growing = place.open_object(name, is_new=True)
    uploaded, sizes = [], []
    write = place.write
    place.write = lambda path, data: (uploaded.append(len(data)), write(path, data))
    for i in range(5):
        file.append(records(i * 10, 10))
        assert grow(growing, file)
        assert content(scheme, name) == file.read(0, file.size)
        sizes.append(file.size)
    growing.close()
    assert growing.max_size == (MAX_REWRITTEN_SIZE if scheme == "other" else MAX_OBJECT_SIZE)
    expected = {"gs": file.size, "az": 0, "other": sum(sizes)}[scheme]
    assert sum(uploaded) == expected
    assert left_over() == []


def test_a_long_tail_is_appended_in_pieces(scheme, monkeypatch):
    monkeypatch.setattr(fsspec_folder, "MAX_APPEND_SIZE", 1000)
    place = FsspecFolder(f"{scheme}://box/run", {})
    name, file = next(names), SpoolFile(f"{scheme}://box/run", "tfevents")
    file.append(records(0, 200))
    assert grow(place.open_object(name, is_new=True), file)
    assert content(scheme, name) == file.read(0, file.size)
    pieces = -(-file.size // 1000)
    expected = {"gs": pieces - 1, "az": pieces, "other": 0}[scheme]
    assert state.calls.count("merge") + state.calls.count("append") == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=st.lists(st.sampled_from([None, "before", "lost", "twice"]), max_size=20),
    appends=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    let_go=st.booleans(),
)
def test_whatever_fails_the_object_is_what_was_appended(scheme, plan, appends, let_go):
    place = FsspecFolder(f"{scheme}://box/run", {})
    name, file = next(names), SpoolFile(f"{scheme}://box/run", "tfevents")
    growing = place.open_object(name, is_new=True)
    sizes = [0]
    state.begin(*plan)
    state.after_change = lambda: sizes.append(len(content(scheme, name)))
    first = 0
    for count in appends:
        file.append(records(first, count))
        first += count
        grow(growing, file)
    if let_go and "twice" not in plan:
        growing = place.open_object(name, is_new=False)
    attempts = 0
    while not grow(growing, file):
        attempts += 1
        assert attempts <= len(plan)
    growing.close()
    assert content(scheme, name) == file.read(0, file.size)
    assert sizes == sorted(sizes) or "twice" in plan
    assert let_go or left_over() == [] or plan[-1:] == ["before"] or len(plan) == 20
    FakeFileSystem.store.clear()


def test_a_part_that_could_not_be_removed_is_removed_before_the_next_append():
    place = FsspecFolder("gs://box/run", {})
    name, file = next(names), SpoolFile("gs://box/run", "tfevents")
    growing = place.open_object(name, is_new=True)
    for i in range(2):
        file.append(records(i * 10, 10))
        state.begin(*([None] * 2 + ["before"] if i else []))
        assert grow(growing, file) == (i == 0)
    [part] = left_over()
    assert "tfevents" not in part
    state.begin()
    file.append(records(20, 10))
    assert grow(growing, file)
    assert state.calls[0] == "rm_file"
    assert left_over() == []
    assert content("gs", name) == file.read(0, file.size)


def test_an_append_that_was_made_twice_is_undone_and_not_tried_again():
    place = FsspecFolder("az://box/run", {})
    name, file = next(names), SpoolFile("az://box/run", "tfevents")
    growing = place.open_object(name, is_new=True)
    file.append(records(0, 10))
    state.begin("twice")
    assert grow(growing, file)
    file.append(records(10, 10))
    assert grow(growing, file)
    assert content("az", name) == file.read(0, file.size)
    assert state.calls.count("append") == 1
    assert growing.max_size == MAX_REWRITTEN_SIZE


@pytest.mark.parametrize(("scheme", "operation"), [("gs", "merge"), ("az", "append")])
def test_after_refused_appends_objects_are_uploaded_whole(scheme, operation, caplog):
    place = FsspecFolder(f"{scheme}://box/run", {})
    state.refused = {operation}
    for i in range(3):
        name, file = next(names), SpoolFile(f"{scheme}://box/run", "tfevents")
        growing = place.open_object(name, is_new=True)
        refused = 0
        for part in range(3):
            file.append(records(part * 10, 10))
            while not grow(growing, file):
                refused += 1
            assert content(scheme, name) == file.read(0, file.size)
        growing.close()
        assert refused == (2 if i == 0 else 0)
        assert growing.max_size == MAX_REWRITTEN_SIZE
    assert left_over() == []
    [record] = caplog.records
    assert "does not append to objects" in record.getMessage()
    assert "not allowed" in record.getMessage()


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_where_appends_have_worked_only_one_object_is_given_up(scheme, caplog):
    place = FsspecFolder(f"{scheme}://box/run", {})
    names_ = [next(names) for _ in range(2)]
    for name in names_:
        file = SpoolFile(f"{scheme}://box/run", "tfevents")
        growing = place.open_object(name, is_new=True)
        for part in range(4):
            state.refused = {"merge", "append"} if (name, part) == (names_[0], 3) else set()
            file.append(records(part * 10, 10))
            while not grow(growing, file):
                pass
        growing.close()
        assert content(scheme, name) == file.read(0, file.size)
    assert growing.max_size == MAX_OBJECT_SIZE
    assert caplog.records == []


def test_an_outage_does_not_end_appends(scheme):
    place = FsspecFolder(f"{scheme}://box/run", {})
    name, file = next(names), SpoolFile(f"{scheme}://box/run", "tfevents")
    growing = place.open_object(name, is_new=True)
    for part in range(3):
        file.append(records(part * 10, 10))
        state.refused = set(CHANGES)
        assert not any(grow(growing, file) for _ in range(10))
        state.refused = set()
        assert grow(growing, file)
        assert content(scheme, name) == file.read(0, file.size)
    assert growing.max_size == (MAX_REWRITTEN_SIZE if scheme == "other" else MAX_OBJECT_SIZE)


def test_side_files_are_put_changed_and_read(scheme):
    place = FsspecFolder(f"{scheme}://box/run", {})
    name = next(names)
    assert place.get(name) is None
    place.put(f"{name}/config", b"one")
    place.update(f"{name}/config", lambda before: before + b" two")
    place.update(f"{name}/new", lambda before: b"new" if before is None else b"")
    assert place.get(f"{name}/config") == b"one two"
    assert place.get(f"{name}/new") == b"new"


def test_the_file_system_is_the_places_own_and_gets_the_options():
    FsspecFolder("gs://box/run", {"project": "mine"})
    expected = {"project": "mine", "skip_instance_cache": True, "use_listings_cache": False}
    assert {k: v for k, v in expected.items() if k in state.options} == state.options


@pytest.mark.parametrize("call", ["get", "put", "size"])
def test_a_failure_is_a_store_error_without_the_password(call):
    place = FsspecFolder("other://box/run", {})
    place._url = "other://me:hush@box/run"
    state.begin("before")
    with pytest.raises(StoreError, match="other://me@box/run: ConnectionError") as caught:
        getattr(place, call)("x", *[b""] * (call == "put"))
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_writer_writes_there(scheme, tmp_path, read_scalars):
    folder = f"{scheme}://box/run/{next(names)}"
    with Writer(folder) as writer:
        for step in range(30):
            writer.add_scalar("loss", step / 8, step)
            if step % 10 == 9:
                assert writer.flush(force=True)
    stored = fsspec.get_filesystem_class(scheme).store
    prefix = folder.partition("://")[2]
    for path, file in stored.items():
        if path.startswith(f"/{prefix}/"):
            (tmp_path / path.rpartition("/")[2]).write_bytes(file.getvalue())
    assert read_scalars(tmp_path) == {"": {"loss": [(step, step / 8) for step in range(30)]}}


class WaitingStore(ObjectStore):
    """Waits for uploads, as every other store does."""

    def put(self, name, data):
        super().put(name, data)
        self.flush()

    def flush(self):
        super().flush()
        assert self.wait(LONG, force=True)

    def close(self):
        super().close()
        assert self.wait(LONG)


class TestFsspecStore(StoreTests):
    @pytest.fixture
    def folder(self, scheme):
        return f"{scheme}://box/run/{next(names)}"

    def open(self, folder, name):
        return WaitingStore(folder, name)

    def read_back(self, folder, name):
        scheme, _, path = folder.partition("://")
        stored = fsspec.get_filesystem_class(scheme).store.get(f"/{path}/{name}")
        return None if stored is None else stored.getvalue()


def test_what_a_process_left_behind_is_finished(scheme, tmp_path):
    folder = f"{scheme}://box/run"
    names_ = next(names), next(names)
    for begun in (False, True):
        file = spool.create(tmp_path / "spool", folder, names_[begun])
        file.append(b"line\n" * 10)
        if begun:
            grow(FsspecFolder(folder, {}).open_object(names_[begun], is_new=True), file)
            file.append(b"line\n" * 10 + b"torn")
        file.release()
    store = WaitingStore(folder, next(names))
    store.append(b"x")
    store.close()
    assert [content(scheme, name) for name in names_] == [b"line\n" * 10, b"line\n" * 20]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_name_comes_after_those_in_the_folder(scheme):
    prefix = "events.out.tfevents"
    first = f"{prefix}.4000000000.host.1.0000.x"
    FsspecFolder(f"{scheme}://box/ordered-{scheme}", {}).put(first, b"")
    with Writer(f"{scheme}://box/ordered-{scheme}") as writer:
        writer.add_scalar("loss", 1.0, 0)
    files = fsspec.get_filesystem_class(scheme)
    found = sorted(path.rpartition("/")[2] for path in files.store if f"ordered-{scheme}/" in path)
    assert found[0] == first
    assert [name.startswith(f"{prefix}.4000000001.") for name in found[1:]] == [True]


def test_a_folder_that_cannot_be_listed_has_no_names(scheme, monkeypatch):
    def ls(*_args, **_kwargs):
        raise PermissionError("may not list")

    monkeypatch.setattr(FakeFileSystem, "ls", ls)
    assert FsspecFolder(f"{scheme}://box/run", {}).names_after("x") == []
