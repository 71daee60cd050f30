"""Network file systems and mounted buckets, where a written byte is not visible at once."""

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

from sm_tblog import InvalidValueError, StoreError, Writer
from sm_tblog.sinks.event_file import EventFileSink
from sm_tblog.sinks.json_lines import JsonLinesSink
from sm_tblog.storage import Appender, local, local_file, mounts
from sm_tblog.storage.base import StoreLostError
from sm_tblog.storage.local import LocalStore
from sm_tblog.storage.mounts import LOCAL, mount_of
from sm_tblog.testing import StoreTests

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux names file systems")


class Bucket:
    """A folder that pretends to be on another file system.

    Attributes:
        calls: the calls of ``fsync`` and ``close`` on its files.
        visible: the content that others see, by file name.
        faults: errors that the next of these calls raise, by name; the unsynced bytes are lost.
        can_reopen: whether a file that was closed can be opened again.
    """

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.calls, self.visible, self.can_reopen = [], {}, True
        self.faults = {"fsync": [], "close": []}
        self._real = {name: getattr(os, name) for name in ("fsync", "close", "open")}
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(os, "close", self._close)
        monkeypatch.setattr(os, "open", self._open)
        self._set = lambda name: monkeypatch.setattr(mounts, "_type_of", lambda _: name)
        self.syncs = ("fsync", "close")

    def become(self, name, *syncs):
        self._set(name)
        self.syncs = syncs or self.syncs
        return self

    def _path(self, descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return path if path.is_relative_to(self.folder) and path.is_file() else None

    def _sync(self, name, descriptor):
        path = self._path(descriptor)
        if path is None:
            return
        self.calls.append(name)
        before = self.visible.get(path.name, b"")
        if self.faults[name] and (fault := self.faults[name].pop(0)):
            if fault != "ENOSYS":
                os.truncate(path, len(before))  # the server has never received the rest
            if name == "close":
                self._real["close"](descriptor)
            raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))
        if name in self.syncs:
            self.visible[path.name] = path.read_bytes()

    def _fsync(self, descriptor):
        self._sync("fsync", descriptor)

    def _close(self, descriptor):
        self._sync("close", descriptor)
        self._real["close"](descriptor)

    def _open(self, path, flags, *args):
        writes = flags & os.O_WRONLY and not flags & os.O_CREAT
        if writes and not self.can_reopen and str(path).startswith(str(self.folder)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return self._real["open"](path, flags, *args)


@pytest.fixture(autouse=True)
def _no_mounts_known(monkeypatch):
    monkeypatch.setattr(local, "_mounted", {})


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    return Bucket(tmp_path, monkeypatch)


class TestStoreThatSyncs(StoreTests):
    def open(self, folder, name):
        return LocalStore(folder, name, sync=True)


class TestStoreThatCloses(StoreTests):
    def open(self, folder, name):
        return LocalStore(folder, name, sync="close")


def numbered(folder, **options):
    """Return an appender whose files are called 0, 1, 2, …."""
    count = iter(range(99))
    return Appender(lambda: LocalStore(str(folder), str(next(count)), **options))


@pytest.mark.parametrize(
    ("name", "sync", "rewrites"),
    [
        ("ext4", None, False),
        ("tmpfs", None, False),
        ("overlay", None, False),
        ("fuseblk", None, False),
        ("fuse.fuse-overlayfs", None, False),
        ("virtiofs", None, False),
        ("", None, False),
        ("nfs", "fsync", False),
        ("nfs4", "fsync", False),
        ("cifs", "fsync", False),
        ("lustre", "fsync", False),
        ("fuse.sshfs", "fsync", False),
        ("fuse.s3fs", "fsync", True),
        ("fuse.rclone", "close", True),
        ("fuse.gcsfuse", "close", True),
        ("fuse.mountpoint-s3", "close", True),
        ("fuse", "close", True),
    ],
)
def test_a_flush_does_what_the_file_system_needs(tmp_path, bucket, name, sync, rewrites):
    bucket.become(name)
    out = numbered(tmp_path)
    out.append(b"one.")
    out.flush()
    assert bucket.calls == ([] if sync is None else [sync])
    assert bucket.visible == ({} if sync is None else {"0": b"one."})
    out.flush()  # there is nothing new
    out.append(b"two.")
    out.flush()
    assert bucket.calls == ([] if sync is None else [sync, sync])
    assert (tmp_path / "0").read_bytes() == b"one.two."
    assert EventFileSink(str(tmp_path)).flush_secs == (10.0 if rewrites else 1.0)
    assert JsonLinesSink(str(tmp_path)).flush_secs == (10.0 if rewrites else 1.0)


def test_the_file_system_of_a_folder_is_found_before_the_folder_exists(tmp_path):
    name = mounts._type_of(tmp_path)
    assert name
    assert mounts._type_of(tmp_path / "a" / "b") == name
    assert mounts._type_of(Path("/proc")) == "proc"
    (tmp_path / "file").touch()
    assert mounts._type_of(tmp_path / "file" / "below") == name


def test_what_cannot_be_found_out_is_local(tmp_path, monkeypatch):
    def read_bytes(_path):
        return b"pos:\t0\n"

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert mount_of(tmp_path) == LOCAL


@pytest.mark.parametrize(
    ("sync", "calls"), [(True, ["fsync"]), ("close", ["close"]), (False, []), ("auto", [])]
)
def test_the_user_may_say_what_a_flush_does(tmp_path, bucket, sync, calls):
    with Writer(tmp_path, storage_options={"sync": sync}) as writer:
        writer.add_scalar("a", 1.0, 0)
        assert writer.flush()
        assert bucket.calls[:1] == calls


def test_syncing_is_switched_off_on_a_mount(tmp_path, bucket):
    bucket.become("fuse.rclone")
    store = LocalStore(str(tmp_path), "f", sync=False)
    store.append(b"x")
    store.flush()
    assert not bucket.calls
    assert store.flush_secs == 1.0


@pytest.mark.parametrize("sync", [1, 0, None, "fsync", "always", 2.5, [True]])
def test_other_values_are_refused(tmp_path, sync):
    with pytest.raises(InvalidValueError, match='sync must be "auto", True, False or "close"'):
        Writer(tmp_path, storage_options={"sync": sync})


def test_an_unknown_option_is_named(tmp_path):
    with pytest.raises(InvalidValueError, match=r"unknown storage_options .*: endpoint_url; "):
        Writer(tmp_path, storage_options={"endpoint_url": "http://localhost"})


def test_a_side_file_is_synced_where_the_user_wants_it(tmp_path, bucket):
    LocalStore(str(tmp_path), "", sync=True).put("side", b"x")
    assert bucket.calls == ["fsync"]
    assert (tmp_path / "side").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["fuse.rclone", "fuse.gcsfuse", "fuse.unknown"])
def test_a_file_that_cannot_be_opened_again_is_followed_by_another(tmp_path, bucket, name):
    bucket.become(name).can_reopen = False
    with Writer(tmp_path) as writer:
        for step in range(3):
            writer.add_scalar("a", 1.0, step)
            assert writer.flush()
    assert writer.stats().errors == 0
    assert len(bucket.visible) == 3
    assert bucket.visible == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_large_file_is_followed_by_another_where_it_is_stored_whole(tmp_path, bucket):
    bucket.become("fuse.s3fs")
    out = numbered(tmp_path)
    for piece in (b"a" * local_file.MAX_REWRITTEN_SIZE, b"b"):
        out.append(piece)  # a file that is not flushed yet stays
    out.flush()
    out.append(b"c")
    out.close()
    assert {name: len(data) for name, data in bucket.visible.items()} == {
        "0": local_file.MAX_REWRITTEN_SIZE + 1,
        "1": 1,
    }


@pytest.mark.parametrize(("name", "call"), [("nfs4", "fsync"), ("fuse.rclone", "close")])
@pytest.mark.parametrize("fault", ["ENOSPC", "EDQUOT", "EIO"])
def test_bytes_that_were_not_stored_are_written_again(tmp_path, bucket, name, call, fault):
    bucket.become(name)
    out = numbered(tmp_path)
    out.append(b"one.")
    out.flush()
    bucket.faults[call] = [fault]
    out.append(b"two.")
    out.append(b"three.")
    with pytest.raises(StoreError):
        out.flush()
    assert (tmp_path / "0").read_bytes() == b"one."
    out.append(b"four.")
    out.flush()
    assert bucket.visible == {"0": b"one.two.three.four."}


@pytest.mark.parametrize("fault", ["ESTALE", "ENOTCONN", "ENOENT"])
def test_bytes_that_were_not_stored_go_to_the_next_file(tmp_path, bucket, fault):
    bucket.become("nfs4")
    out = numbered(tmp_path)
    out.append(b"one.")
    out.flush()
    bucket.faults["fsync"] = [fault]
    out.append(b"two.")
    with pytest.raises(StoreLostError):
        out.flush()
    assert (out.pending, out.stored) == (4, 4)
    out.append(b"three.")
    out.flush()
    assert bucket.visible == {"0": b"one.", "1": b"two.three."}
    assert (out.pending, out.stored) == (0, 14)


def test_a_file_system_without_fsync_has_its_file_closed(tmp_path, bucket):
    bucket.become("nfs4", "close").faults["fsync"] = ["ENOSYS"]
    out = numbered(tmp_path)
    out.append(b"one.")
    out.flush()
    assert bucket.calls == ["fsync", "close"]
    out.append(b"two.")
    out.flush()
    assert bucket.visible == {"0": b"one.two."}


def test_only_so_many_bytes_are_kept(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(local_file, "MAX_UNSYNCED_SIZE", 10)
    bucket.become("fuse.rclone")
    out = numbered(tmp_path)
    for _ in range(3):
        out.append(b"0123456789")
    assert bucket.calls == ["close", "close"]
    assert (tmp_path / "0").read_bytes() == b"0123456789" * 3


def test_a_released_file_is_visible(tmp_path, bucket):
    bucket.become("nfs4", "fsync")
    store = LocalStore(str(tmp_path), "f")
    store.append(b"one.")
    store.release()
    assert bucket.visible == {"f": b"one."}
    store.append(b"two.")
    store.flush()
    assert bucket.visible == {"f": b"one.two."}


def test_inode_numbers_of_a_mount_may_change(tmp_path, bucket):
    bucket.become("fuse.rclone")
    out = numbered(tmp_path)
    out.append(b"one.")
    out.flush()
    shutil.copy(tmp_path / "0", tmp_path / "copy")
    (tmp_path / "copy").replace(tmp_path / "0")
    out.append(b"two.")
    out.flush()
    assert bucket.visible == {"0": b"one.two."}


def test_a_file_system_that_is_unmounted_is_waited_for(tmp_path, bucket, monkeypatch):
    run = tmp_path / "run"
    bucket.become("nfs4")
    out = numbered(run)
    out.append(b"one.")
    out.flush()
    shutil.move(run, tmp_path / "unmounted")
    bucket.become("ext4")
    with pytest.raises(StoreLostError):
        out.append(b"two.")
    for _ in range(2):
        with pytest.raises(StoreError, match="not mounted"):
            out.write_pending()
        with pytest.raises(StoreError, match="not mounted"):
            LocalStore(str(run / "below"), "").put("side", b"x")
    assert not run.exists()
    bucket.become("nfs4")
    out.flush()
    assert [path.read_bytes() for path in run.iterdir()] == [b"two."]


def test_a_file_system_that_stays_unmounted_is_given_up(tmp_path, bucket, monkeypatch):
    bucket.become("fuse.s3fs")
    LocalStore(str(tmp_path), "f").append(b"x")
    bucket.become("ext4")
    with pytest.raises(StoreError, match="not mounted"):
        LocalStore(str(tmp_path), "g").append(b"x")
    monkeypatch.setattr(local, "REMOUNT_SECS", 0.0)
    LocalStore(str(tmp_path), "g").append(b"x")
    assert (tmp_path / "g").read_bytes() == b"x"
