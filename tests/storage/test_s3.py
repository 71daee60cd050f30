"""S3 objects that grow by copying themselves, on correct, incorrect and failing servers."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from s3_servers import FAULTS, LATE

from sm_tblog import StoreError
from sm_tblog._types import Series
from sm_tblog.format.records import padding
from sm_tblog.format.scalars import encode_scalars
from sm_tblog.storage import s3
from sm_tblog.storage.s3 import MIN_PART_SIZE, S3Folder
from sm_tblog.storage.spool import SpoolFile, create

names = (f"folder/object-{i}" for i in itertools.count())

OPERATIONS = (
    "PutObject",
    "GetObject",
    "CreateMultipartUpload",
    "UploadPartCopy",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
)


@pytest.fixture
def moto(moto_server, fault_proxies):
    return fault_proxies(moto_server)


@pytest.fixture(params=["moto_server", "ceph_gateway"])
def proxy(request, fault_proxies):
    return fault_proxies(request.getfixturevalue(request.param))


def place_of(proxy, bucket="bucket", **config):
    options = proxy.options
    options["config_kwargs"].update(config)
    return S3Folder(f"s3://{bucket}", options)


def records(first, count):
    steps = np.arange(first, first + count)
    codes = np.zeros(count, np.intp)
    return encode_scalars([Series("loss")], codes, steps, np.full(count, 1e9), steps / 8)


def grow(growing, file):
    """Pad the file if needed and commit it, as a queue does; return whether it succeeded."""
    if missing := growing.padding(file.size):
        file.append(padding(missing))
    try:
        growing.commit(file, file.size)
    except StoreError:
        return False
    return True


class Watched:
    """An object, its spool file, and its size after each change."""

    def __init__(self, proxy, place=None, bucket="bucket"):
        self.proxy = proxy
        self.bucket = bucket
        self.client = proxy.server.make_bucket(bucket)
        self.key = next(names)
        self.file = SpoolFile("s3://bucket", self.key)
        self.place = place or place_of(proxy, bucket)
        self.remote_object = self.place.open_object(self.key, is_new=True)
        self.rows = 0
        self.sizes = [0]
        proxy.after_change = self._note_size

    def _note_size(self, path):
        if path.endswith(self.key):
            listed = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.key)
            self.sizes += [one["Size"] for one in listed.get("Contents", [])]

    def append(self, count):
        self.file.append(records(self.rows, count))
        self.rows += count
        return grow(self.remote_object, self.file)

    def finish(self, attempts):
        """Retry at most ``attempts`` times, then check the object."""
        while not grow(self.remote_object, self.file):
            attempts -= 1
            assert attempts > 0
        self.remote_object.close()
        self.proxy.do_late()
        self.check()

    def check(self):
        assert self.content() == self.file.read(0, self.file.size)
        assert self.remote_object.committed == self.file.size
        assert self.sizes == sorted(self.sizes)

    def content(self):
        return self.client.get_object(Bucket=self.bucket, Key=self.key)["Body"].read()

    def uploads(self):
        listed = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.key)
        return [one["Key"] for one in listed.get("Uploads", [])]


@pytest.fixture
def copying(monkeypatch):
    """Objects are padded at their second upload, to a small size; the third is a copy."""
    monkeypatch.setattr(s3, "MAX_REPEATED_BYTES", 0)
    monkeypatch.setattr(s3, "MIN_PART_SIZE", 4096)


# Servers that work.


def test_an_object_grows_by_copying_itself(proxy):
    watched = Watched(proxy)
    for _ in range(14):
        assert watched.append(1000)
    watched.check()
    logged = len(records(0, 14_000))
    assert proxy.uploaded < MIN_PART_SIZE + 3 * logged + s3.MAX_REPEATED_BYTES
    assert proxy.count("UploadPartCopy") > 5
    writes = proxy.count("PutObject") + proxy.count("UploadPartCopy")
    assert writes - 14 in (0, 1)  # Ceph's way with conditions is found out once
    assert not watched.uploads()
    assert watched.place.condition("PutObject", '"tag"')


def test_what_is_appended_last_is_not_padded_for(moto):
    watched = Watched(moto)
    for _ in range(10):
        assert watched.append(5)
    assert watched.file.size < 10_000
    watched.check()


def test_a_long_tail_is_not_read_into_memory(moto, copying, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "MIN_PART_SIZE", 8 << 20)  # and so that of the tail's parts
    watched = Watched(moto)
    watched.file = create(tmp_path, "s3://bucket", watched.key)
    assert all(watched.append(10) for _ in range(3))
    watched.file.append(bytes(24 << 20))
    tracemalloc.start()
    try:
        assert grow(watched.remote_object, watched.file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    watched.check()
    assert moto.count("UploadPart") == 3 + 1
    assert peak < 24 << 20  # the proxy's copies of a part, in this process
    watched.file.delete()


# Faults.


@pytest.mark.parametrize(
    ("operation", "nth"), [("PutObject", 1), *((operation, 0) for operation in OPERATIONS)]
)
def test_an_operation_may_fail_in_any_way(moto, copying, operation, nth):
    for fault in FAULTS:
        moto.begin()
        watched = Watched(moto)
        if operation == "AbortMultipartUpload":
            moto.fail("CompleteMultipartUpload", "lost")
        moto.fail(operation, *[None] * nth, fault)
        for _ in range(5):
            watched.append(10)
        watched.finish(3)
        assert moto.faults[-1] == fault
        assert not watched.uploads() or (operation, fault in LATE) == (OPERATIONS[2], True)
        assert watched.place.condition("PutObject", '"tag"') or fault.startswith("412")


@pytest.mark.parametrize("operation", ["PutObject", "UploadPartCopy", "CompleteMultipartUpload"])
def test_a_server_that_does_not_answer_is_given_up(moto, copying, operation):
    watched = Watched(moto, place_of(moto, read_timeout=1))
    moto.fail(operation, "hang")
    assert not all(watched.append(10) for _ in range(3))
    moto.released.set()
    watched.finish(5)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    plan=st.lists(st.sampled_from([None, None, *FAULTS]), max_size=16),
    appends=st.lists(st.integers(1, 300), min_size=2, max_size=6),
    copies=st.booleans(),
)
@example(plan=[None, None, "403", "late 1"], appends=[1, 1, 1], copies=False)
@example(plan=[None, "lost", "403", None, "late 1"], appends=[1, 1, 1], copies=False)
def test_whatever_fails_the_object_is_what_was_appended_and_never_shrinks(
    proxy, monkeypatch, plan, appends, copies
):
    monkeypatch.setattr(s3, "MAX_REPEATED_BYTES", 0 if copies else 1 << 30)
    if proxy.server.name == "moto":
        monkeypatch.setattr(s3, "MIN_PART_SIZE", 4096)
    proxy.begin()
    watched = Watched(proxy)
    proxy.plan = iter(plan)
    for count in appends:
        watched.append(count)
    watched.finish(len(plan) + 2)
    assert not watched.uploads() or LATE.keys() & set(plan)


# Objects that earlier processes started or others changed.


def let_go(watched):
    """Reopen the object as the next process does."""
    watched.remote_object = watched.place.open_object(watched.key, is_new=False)
    return watched


@pytest.mark.parametrize("begun", [0, 1, 3])
@pytest.mark.parametrize("more", [1, 10])
def test_an_object_that_was_begun_is_finished(moto, copying, begun, more):
    watched = Watched(moto)
    assert all(watched.append(10) for _ in range(begun))
    puts = moto.count("PutObject")
    assert let_go(watched).append(more)
    watched.check()
    assert moto.count("PutObject") - puts == (begun < 2)


def test_an_object_that_was_finished_is_left_as_it_is(moto):
    watched = Watched(moto)
    assert watched.append(10)
    assert grow(let_go(watched).remote_object, watched.file)
    watched.check()
    assert moto.count("PutObject") == 1


def test_an_append_that_was_begun_is_aborted(moto, copying):
    watched = Watched(moto)
    moto.fail("CompleteMultipartUpload", "late 4")
    assert not all(watched.append(10) for _ in range(3))
    assert watched.uploads()
    let_go(watched).finish(1)
    assert not watched.uploads()


def test_an_object_that_is_longer_than_what_was_left_of_its_file_is_left_alone(moto):
    watched = Watched(moto)
    assert watched.append(10)
    whole = watched.content()
    watched.file = SpoolFile("s3://bucket", watched.key)
    watched.file.append(whole[:100])
    assert grow(let_go(watched).remote_object, watched.file)
    assert watched.content() == whole


@pytest.mark.parametrize("grown", [1, 3])
def test_an_object_that_is_deleted_is_written_again_with_all_it_had(moto, copying, grown):
    watched = Watched(moto)
    assert all(watched.append(10) for _ in range(grown))
    watched.client.delete_object(Bucket="bucket", Key=watched.key)
    watched.append(10)
    watched.sizes.clear()
    watched.finish(2)


# Permissions, and buckets that keep versions.


def test_a_role_that_may_write_but_not_read_writes_whole_objects(moto, copying):
    for operation in ("GetObject", "UploadPartCopy"):
        moto.fail(operation, ["403"])
    watched = Watched(moto)
    assert all(watched.append(10) for _ in range(6))
    assert watched.remote_object.max_size == s3.MAX_REWRITTEN_SIZE
    moto.fail("PutObject", "503", None, "lost")
    assert [watched.append(10) for _ in range(4)] == [False, True, False, True]
    watched.check()


def test_a_role_that_may_not_list_the_bucket_appends_all_the_same(moto, copying):
    watched = Watched(moto)
    moto.fail("PutObject", "503")
    moto.fail("GetObject", "403")  # of what is not there
    moto.fail("ListMultipartUploads", ["403"])
    moto.fail("CreateMultipartUpload", "503")
    assert [watched.append(10) for _ in range(5)] == [False, True, True, False, True]
    watched.check()
    assert moto.count("UploadPartCopy") > 0
    assert watched.remote_object.max_size == s3.MAX_OBJECT_SIZE


@pytest.mark.parametrize("fault", [None, "lost"])
def test_a_bucket_that_keeps_versions_is_not_appended_to(moto, copying, fault):
    client = moto.server.make_bucket("versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    watched = Watched(moto, bucket="versioned")
    moto.fail("PutObject", fault)
    for _ in range(5):
        watched.append(10)
    assert watched.remote_object.max_size == s3.MAX_REWRITTEN_SIZE
    assert moto.count("CreateMultipartUpload") == 0
    watched.finish(2)


def test_a_server_that_takes_a_copy_for_nothing_is_found_out(rclone_server, fault_proxies):
    proxy = fault_proxies(rclone_server)
    watched = Watched(proxy)
    watched.file.append(padding(MIN_PART_SIZE))
    assert all(watched.append(10) for _ in range(3))
    assert watched.remote_object.max_size == s3.MAX_REWRITTEN_SIZE
    assert proxy.count("UploadPartCopy") == 1
    watched.check()


def test_a_server_that_drops_what_it_should_copy_is_found_out(moto, copying):
    watched = Watched(moto)
    copied_range = "x-amz-copy-source-range"
    assert all(watched.append(10) for _ in range(2))
    moto.rewrite = lambda request: {copied_range: "bytes=0-9"} if copied_range in request else {}
    assert watched.append(10)
    assert watched.remote_object.max_size == s3.MAX_REWRITTEN_SIZE
    assert watched.content() == watched.file.read(0, watched.file.size)
