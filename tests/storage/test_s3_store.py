"""``s3://`` stores: the guarantees of every store, and the cost of a slow or failing network."""

import itertools
import logging
import multiprocessing
import os
import sys
import threading
from itertools import cycle, islice, repeat
from pathlib import Path
from random import Random

import numpy as np
import pytest
from s3_servers import FAULTS

from sm_tblog import (
    FlushTimeoutError,
    InvalidValueError,
    MissingDependencyError,
    StoreError,
    Writer,
)
from sm_tblog.storage import object_store, open_store, s3, s3_options, spool, upload_queue
from sm_tblog.storage.object_store import ObjectStore
from sm_tblog.testing import StoreTests

runs = (f"run-{i}" for i in itertools.count())

LONG = 600.0
"""A timeout in seconds that no barrier may reach: pytest ends a test long before."""


@pytest.fixture(autouse=True)
def spool_folder(tmp_path, monkeypatch):
    folder = tmp_path / "spool"
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(folder))
    monkeypatch.setattr(object_store, "_refusals", {})
    spool._warn_spooling_in_memory.cache_clear()
    return folder


@pytest.fixture
def folder():
    return f"s3://bucket/{next(runs)}"


@pytest.fixture
def quick(monkeypatch):
    """Failed uploads are retried at once."""
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.0,))


@pytest.fixture
def copying(monkeypatch):
    """Objects are padded at their second upload, to a small size; the third is a copy."""
    monkeypatch.setattr(s3, "MAX_REPEATED_BYTES", 0)
    monkeypatch.setattr(s3, "MIN_PART_SIZE", 4096)


@pytest.fixture
def bucket(moto):
    return Bucket(moto.server.make_bucket())


class Bucket:
    """Reads a bucket without the store."""

    def __init__(self, client):
        self.client = client

    def keys(self, folder):
        prefix = folder.removeprefix("s3://bucket/") + "/"
        listed = self.client.list_objects_v2(Bucket="bucket", Prefix=prefix)
        return [one["Key"] for one in listed.get("Contents", [])]

    def get(self, key):
        return self.client.get_object(Bucket="bucket", Key=key)["Body"].read()

    def download(self, folder, path):
        """Return a local copy of a folder."""
        root = folder.removeprefix("s3://bucket/")
        for key in self.keys(folder):
            copy = path / key[len(root) + 1 :]
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(self.get(key))
        return path


def log(writer, steps, tag="loss"):
    for step in steps:
        writer.add_scalar(tag, step / 8, step)


def points(count):
    return [(step, step / 8) for step in range(count)]


def messages(caplog, level=logging.WARNING):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "sm_tblog" and record.levelno >= level
    ]


# The guarantees of every store.


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


class TestS3Store(StoreTests):
    @pytest.fixture
    def folder(self, moto, bucket, monkeypatch):
        monkeypatch.setattr(self, "_moto", moto, raising=False)
        monkeypatch.setattr(self, "_bucket", bucket, raising=False)
        return f"s3://bucket/{next(runs)}"

    def open(self, folder, name):
        return WaitingStore(folder, name, **self._moto.options)

    def read_back(self, folder, name):
        key = f"{folder}/{name}".removeprefix("s3://bucket/")
        return self._bucket.get(key) if key in self._bucket.keys(folder) else None


# Read by TensorBoard's own code.


def test_each_barrier_shows_all_and_one_object_holds_it(
    moto, bucket, folder, tmp_path, read_scalars
):
    with Writer(folder, storage_options=moto.options) as writer:
        for part in range(3):
            log(writer, range(part * 100, part * 100 + 100))
            assert writer.flush(force=True)
            local = bucket.download(folder, tmp_path / f"{part}")
            assert read_scalars(local) == {"": {"loss": points(part * 100 + 100)}}
        assert writer.stats().bytes_pending == 0
    assert len(bucket.keys(folder)) == 1


def test_through_any_faults_every_row_arrives_once_and_in_order(
    moto, bucket, folder, tmp_path, read_scalars, read_events, event_files, quick, copying
):
    generator = Random(11)
    moto.plan = islice(iter(lambda: generator.choice([None, None, *FAULTS]), ""), 80)
    writer = Writer(folder, storage_options=moto.options, on_error=lambda _: None)
    for part in range(20):
        log(writer, range(part * 50, part * 50 + 50))
        writer.flush(force=True)
    while not writer.flush(force=True):
        pass
    assert writer.close()
    moto.do_late()
    local = bucket.download(folder, tmp_path)
    assert read_scalars(local) == {"": {"loss": points(1000)}}
    steps = [event.step for path in event_files(local) for event in read_events(path)]
    assert [step for step in steps if step] == list(range(1, 1000))
    assert len(moto.faults) > 20
    assert writer.stats().rows_dropped == 0


def assert_one_after_the_other(moto, keys):
    """Every request for an object comes before the first one for the next."""
    order = [request.path.removeprefix("/bucket/") for request in moto.requests]
    order = [key for key in order if key in keys]
    assert [key for key, _ in itertools.groupby(order)] == sorted(keys)


def test_a_long_run_is_in_objects_one_after_the_other(
    moto, bucket, folder, tmp_path, read_scalars, copying, monkeypatch
):
    monkeypatch.setattr(s3, "MAX_OBJECT_SIZE", 10_000)
    with Writer(folder, storage_options=moto.options) as writer:
        for part in range(10):
            log(writer, range(part * 100, part * 100 + 100))
            writer.flush(force=True)
    keys = bucket.keys(folder)
    assert len(keys) > 2
    assert_one_after_the_other(moto, keys)
    assert read_scalars(bucket.download(folder, tmp_path)) == {"": {"loss": points(1000)}}


def test_a_writer_that_begins_again_waits_for_what_it_had(
    moto, bucket, folder, tmp_path, read_scalars, quick
):
    moto.fail("PutObject", "hang")
    writer = Writer(folder, storage_options=moto.options, on_error=lambda _: None)
    log(writer, range(10))
    assert not writer.close(timeout=1.0)
    log(writer, range(10, 20))
    assert not writer.flush(timeout=1.0)
    moto.released.set()
    assert writer.close()
    keys = bucket.keys(folder)
    assert len(keys) == 2
    assert_one_after_the_other(moto, keys)
    assert read_scalars(bucket.download(folder, tmp_path)) == {"": {"loss": points(20)}}


def test_two_writers_of_one_folder_do_not_wait_for_each_other(
    moto, bucket, folder, tmp_path, read_scalars
):
    options = {"storage_options": moto.options}
    with Writer(folder, **options) as one, Writer(folder, **options) as other:
        log(one, range(10), "one")
        assert one.flush(force=True)
        log(other, range(10), "other")
        assert other.flush(force=True)
        local = bucket.download(folder, tmp_path)
        assert read_scalars(local) == {"": {"one": points(10), "other": points(10)}}


RANK = """
import sys
from sm_tblog import Writer

folder, rank, endpoint = sys.argv[1:]
options = {"endpoint_url": endpoint, "key": "testkey", "secret": "testsecret"}
with Writer(folder, storage_options=options) as writer:
    for step in range(500):
        writer.add_scalar(f"rank {rank}", step / 8, step)
        if step % 100 == 0:
            assert writer.flush(force=True)
"""


def test_many_ranks_and_restarts_share_a_folder(
    moto, bucket, folder, tmp_path, read_scalars, script
):
    import subprocess

    for restart in range(2):
        ranks = [f"{restart}-{i}" for i in range(3)]
        children = [subprocess.Popen(script(RANK, folder, r, moto.server.url)) for r in ranks]
        assert [child.wait() for child in children] == [0] * 3
    assert len(bucket.keys(folder)) == 6
    read = read_scalars(bucket.download(folder, tmp_path))
    tags = {f"rank {restart}-{i}" for restart in range(2) for i in range(3)}
    assert read == {"": dict.fromkeys(tags, points(500))}


def test_a_forked_child_uploads_its_own(moto, bucket, folder, tmp_path, read_scalars):
    writer = Writer(folder, storage_options=moto.options)
    log(writer, range(10))
    assert writer.flush(force=True)

    def child():
        log(writer, range(10), "child")
        assert writer.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    log(writer, range(10, 20))
    process.join()
    assert process.exitcode == 0
    assert writer.close()
    local = bucket.download(folder, tmp_path)
    assert read_scalars(local) == {"": {"loss": points(20), "child": points(10)}}
    assert len(bucket.keys(folder)) == 2


def test_hundreds_of_runs_are_uploaded_by_a_few_threads(
    moto, bucket, folder, tmp_path, read_scalars
):
    before = set(threading.enumerate())
    with Writer(folder, storage_options=moto.options) as writer:
        for step in range(2):
            writer.add_scalars("chart", {f"{i}": step / 8 for i in range(40)}, step)
            assert writer.flush(force=True)
        new = set(threading.enumerate()) - before
        assert sum(thread.name == "sm_tblog upload" for thread in new) <= 8
    read = read_scalars(bucket.download(folder, tmp_path))
    assert read == {f"chart_{i}": {"chart": points(2)} for i in range(40)}


def test_json_lines_are_uploaded_and_waited_for(moto, bucket, folder, copying):
    with Writer(folder, sinks=["jsonl"], storage_options=moto.options) as writer:
        for part in range(5):
            log(writer, range(part * 10, part * 10 + 10))
            assert writer.flush(force=True)
    lines = b"".join(map(bucket.get, bucket.keys(folder))).decode().splitlines()
    assert len(lines) == 50
    assert all(line.startswith('{"run"') for line in lines)
    assert moto.count("UploadPartCopy") == 0


# The cost of the network for the training loop.


def test_making_a_writer_touches_neither_network_nor_disk(moto, folder, spool_folder):
    writer = Writer(folder, storage_options=moto.options)
    assert writer.flush()
    assert writer.close()
    assert moto.requests == []
    assert not spool_folder.exists()


def test_a_store_takes_everything_while_the_network_hangs(moto, bucket, folder, tmp_path):
    moto.plan = repeat("hang")
    store = open_store(folder, "tfevents", **moto.options)
    for i in range(100):
        store.append(b"%03d" % i)
        store.flush()
    moto.arrived.wait()
    for i in range(100, 200):
        store.append(b"%03d" % i)
        store.flush()
    assert store.unacknowledged == 600
    store.close()
    assert not store.wait(0.0)
    assert not store.is_done
    moto.begin()
    assert store.wait(LONG)
    assert store.is_done
    assert bucket.get(bucket.keys(folder)[0]) == b"".join(b"%03d" % i for i in range(200))


def test_a_writer_goes_on_while_the_network_hangs(
    moto, bucket, folder, tmp_path, read_scalars, caplog
):
    moto.plan = repeat("hang")
    writer = Writer(folder, storage_options=moto.options)
    log(writer, range(1000))
    assert not writer.flush(timeout=0.5)
    moto.arrived.wait()
    log(writer, range(1000, 2000))
    assert not writer.flush(timeout=0.5)
    assert writer.stats().rows_written == 2000
    assert writer.stats().bytes_pending > 2000 * 30
    [message] = messages(caplog)
    assert "kept and uploaded later" in message
    assert str(tmp_path / "spool") in message
    moto.begin()
    assert writer.close()
    assert read_scalars(bucket.download(folder, tmp_path)) == {"": {"loss": points(2000)}}


def test_in_an_outage_barriers_cost_little_however_many_runs_there_are(
    moto, folder, monkeypatch, tmp_path, bucket, read_scalars
):
    monkeypatch.setattr(upload_queue, "HANG_TIMEOUT", 0.01)
    monkeypatch.setattr(upload_queue, "DOWN_TIMEOUT", 0.0)
    moto.plan = repeat("hang")
    writer = Writer(folder, storage_options=moto.options, on_error=lambda _: None)
    writer.add_scalars("chart", {f"{i}": 1.0 for i in range(20)}, 0)
    assert not writer.flush(timeout=1.0)
    for _ in range(10):
        assert not writer.flush(timeout=LONG)
    moto.begin()
    assert writer.close()
    assert len(read_scalars(bucket.download(folder, tmp_path))) == 20


def test_barriers_that_follow_each_other_share_an_upload(moto, bucket, folder, monkeypatch):
    monkeypatch.setattr(upload_queue, "MIN_UPLOAD_INTERVAL", LONG)
    writer = Writer(folder, storage_options=moto.options)
    for step in range(100):
        log(writer, [step])
        assert writer.flush()
    assert moto.count("PutObject") == 1
    assert writer.flush(force=True)
    assert moto.count("PutObject") == 2
    assert writer.stats().bytes_pending == 0
    assert writer.close()


def test_uploads_may_become_rarer_as_the_run_goes_on(moto, folder, monkeypatch):
    store = open_store(folder, "tfevents", stretch=0.5, **moto.options)
    store.append(b"x")
    asked = []
    monkeypatch.setattr(
        upload_queue.UploadQueue,
        "request_upload",
        lambda self, force=False: asked.append(store._now),
    )
    clock = itertools.count(1)
    monkeypatch.setattr(object_store.time, "monotonic", lambda: store._started_at + store._now)
    for store._now in islice(clock, 100):
        store.flush()
    assert asked == [1, 2, 4, 8, 16, 32, 64]
    monkeypatch.undo()
    store.close()
    assert store.wait(LONG)


# Messages.


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("403", "do not allow writing there; grant s3:PutObject"),
        ("expired", "the session token has expired; credentials are looked up again"),
        ("skew", "this machine's clock is off"),
        ("503", "asks for fewer requests"),
    ],
)
def test_a_refusal_is_said_once_with_what_to_do_and_its_end(
    moto, bucket, folder, tmp_path, read_scalars, caplog, quick, fault, advice
):
    caplog.set_level(logging.INFO, "sm_tblog")
    moto.plan = repeat(fault)
    writer = Writer(folder, storage_options=moto.options)
    for part in range(3):
        log(writer, range(part * 10, part * 10 + 10))
        assert not writer.flush()
    said = messages(caplog)
    assert sorted(advice in message for message in said) == [False, True]
    assert all(folder in message for message in said)
    assert writer.stats().errors >= 3
    moto.plan = iter(())
    while not writer.flush():
        pass
    assert writer.flush()
    assert messages(caplog, logging.INFO) == [*said, f"sm_tblog: {folder}: uploads have resumed"]
    assert writer.close()
    assert read_scalars(bucket.download(folder, tmp_path)) == {"": {"loss": points(30)}}


def test_a_bucket_that_is_missing_may_still_be_made(moto, caplog, quick, tmp_path):
    writer = Writer("s3://later/run", storage_options=moto.options)
    log(writer, range(10))
    assert not writer.flush()
    assert not writer.flush()
    assert "s3://later/run: there is no such bucket; create it or correct the URL" in caplog.text
    assert moto.count("PutObject") > 0
    asked = {request.operation for request in moto.requests}
    assert asked <= {"PutObject", "GetObject", "ListObjectsV2"}
    client = moto.server.make_bucket("later")
    assert writer.close()
    assert client.list_objects_v2(Bucket="later")["KeyCount"] == 1


@pytest.mark.parametrize("result", [FlushTimeoutError, StoreError])
def test_a_strict_writer_raises_at_the_barrier(moto, folder, quick, result):
    moto.plan = repeat("403")
    writer = Writer(folder, storage_options=moto.options, on_error="raise")
    log(writer, range(10))
    with pytest.raises((FlushTimeoutError, StoreError)):
        writer.flush()
    with pytest.raises(StoreError, match="do not allow writing there"):
        writer.flush()
    moto.plan = iter(())
    writer._pipeline._faults.raise_first = lambda: None
    assert writer.close()


@pytest.mark.parametrize(
    ("url", "options", "error", "named"),
    [
        ("s3://bucket/run", {"acces_key": "x"}, InvalidValueError, "acces_key.*key, secret"),
        ("s3://", {}, InvalidValueError, "no bucket name"),
        ("s3:///run", {}, InvalidValueError, "no bucket name"),
        ("gs://bucket/run", {}, MissingDependencyError, "pip install gcsfs"),
        ("az://box/run", {}, MissingDependencyError, "pip install adlfs"),
    ],
)
def test_a_bad_place_raises_at_the_call(url, options, error, named, monkeypatch):
    if url.startswith("s3"):
        pytest.importorskip("botocore")
    for package in ("gcsfs", "adlfs"):  # whether it is installed or not
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(error, match=named):
        Writer(url, storage_options=options)
    with pytest.raises(error, match=named):
        Writer(url, storage_options=options, sinks=["jsonl"])


def test_without_botocore_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(s3_options, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sm-tblog\[s3\]'"):
        Writer("s3://bucket/run")


# The spool's limits.


def test_a_full_spool_drops_rows_and_counts_them(
    moto, bucket, folder, tmp_path, read_scalars, caplog, quick, monkeypatch
):
    monkeypatch.setattr(spool, "LIMIT", 20_000)
    moto.plan = repeat("503")
    writer = Writer(folder, storage_options=moto.options, max_bytes=20_000)
    for part in range(40):
        log(writer, range(part * 100, part * 100 + 100))
        assert not writer.flush(timeout=1.0)
    dropped = writer.stats().rows_dropped
    assert 0 < dropped < 4000
    assert "the spool is full" in caplog.text
    assert "rows are dropped" in caplog.text
    moto.plan = iter(())
    monkeypatch.setattr(spool, "LIMIT", 1 << 30)
    assert writer.close()
    read = read_scalars(bucket.download(folder, tmp_path))[""]["loss"]
    assert len(read) == 4000 - dropped
    assert read == sorted(read)


@pytest.mark.parametrize("in_memory", [False, True])
def test_what_is_acknowledged_does_not_fill_the_spool(
    moto, bucket, folder, tmp_path, read_scalars, spool_folder, monkeypatch, in_memory
):
    monkeypatch.setattr(spool, "LIMIT", 30_000)
    monkeypatch.setattr(spool, "MEMORY_LIMIT", 30_000)
    if in_memory:
        spool_folder.touch()
    with Writer(folder, storage_options=moto.options) as writer:
        for part in range(30):
            log(writer, range(part * 100, part * 100 + 100))
            writer.flush(force=True)
    assert writer.stats().rows_dropped == 0
    assert len(bucket.keys(folder)) > 1
    assert read_scalars(bucket.download(folder, tmp_path / "x")) == {"": {"loss": points(3000)}}


@pytest.mark.parametrize("limit", ["LIMIT", "MEMORY_LIMIT"])
def test_side_files_that_wait_are_limited(moto, bucket, folder, monkeypatch, limit):
    monkeypatch.setattr(spool, limit, 1000)
    if limit == "MEMORY_LIMIT":
        monkeypatch.setenv("SM_TBLOG_SPOOL", os.devnull)  # no folder
    moto.plan = repeat("hang")
    store = open_store(folder, "", **moto.options)
    store.put("large", bytes(2000))  # alone it may be as large as it likes
    store.put("function", lambda before: b"")
    with pytest.raises(StoreError, match="the spool is full: it holds 2,000 bytes"):
        store.put("small", bytes(10))
    assert store.unacknowledged == 2000
    moto.begin()
    store.close()
    assert store.wait(LONG)
    assert [Path(key).name for key in bucket.keys(folder)] == ["function", "large"]


# Side files.


def test_embeddings_are_listed_whatever_fails(moto, bucket, folder, quick):
    generator = Random(12)
    moto.plan = islice(iter(lambda: generator.choice([None, *FAULTS]), ""), 40)
    options = {"storage_options": moto.options, "on_error": lambda _: None}
    with Writer(folder, **options) as writer:
        for step in range(4):
            writer.add_embedding(np.eye(4), metadata=list("abcd"), global_step=step, tag="e")
            writer.flush(force=True)
        while not writer.flush(force=True):
            pass
    names = [key.partition("/")[2] for key in bucket.keys(folder)]
    assert sum(name.endswith("metadata.tsv") for name in names) == 4
    [config] = [key for key in bucket.keys(folder) if key.endswith("projector_config.pbtxt")]
    text = bucket.get(config).decode()
    assert [text.count(f'tensor_name: "e:{step:05d}"') for step in range(4)] == [1] * 4


@pytest.mark.parametrize("exists", [False, True])
def test_a_side_file_that_another_process_extends_meanwhile_loses_nothing(
    moto, bucket, folder, exists
):
    key = f"{folder}/config".removeprefix("s3://bucket/")
    if exists:
        bucket.client.put_object(Bucket="bucket", Key=key, Body=b"first ")
    seen = []

    def extend(before):
        if not seen:
            bucket.client.put_object(Bucket="bucket", Key=key, Body=(before or b"") + b"theirs ")
        seen.append(before)
        return (before or b"") + b"mine"

    store = WaitingStore(folder, "", **moto.options)
    store.put("config", extend)
    store.close()
    assert bucket.get(key) == (b"first " if exists else b"") + b"theirs mine"
    assert len(seen) == 2


def test_a_server_without_conditions_takes_side_files_all_the_same(moto, bucket, folder):
    moto.plan = cycle([None, "412"])
    moto.plan = itertools.chain([None, "412"] * 3)
    store = WaitingStore(folder, "", **moto.options)
    store.put("config", lambda before: (before or b"") + b"mine")
    store.close()
    assert bucket.get(bucket.keys(folder)[0]) == b"mine"


# The order of names.


def leave(bucket, folder, name):
    """Leave an event file of a machine whose clock is ahead."""
    key = f"{folder}/{name}".removeprefix("s3://bucket/")
    bucket.client.put_object(Bucket="bucket", Key=key, Body=b"")
    return key


def test_a_name_comes_after_those_already_in_the_bucket(moto, bucket, folder):
    before = leave(bucket, folder, "events.out.tfevents.4000000000.host.1.0000.x")
    with Writer(folder, storage_options=moto.options) as writer:
        log(writer, range(3))
    assert bucket.keys(folder)[0] == before  # keys are listed in order
    (after,) = bucket.keys(folder)[1:]
    assert "tfevents.4000000001." in after


def test_more_names_than_one_reply_holds_are_all_seen(moto, bucket, folder, monkeypatch):
    for second in range(4000000000, 4000000003):
        leave(bucket, folder, f"events.out.tfevents.{second}.host.1.0000.x")
    call = s3.S3Folder.call

    def small(self, operation, **parameters):
        if operation == "ListObjectsV2":
            parameters["MaxKeys"] = 1
        return call(self, operation, **parameters)

    monkeypatch.setattr(s3.S3Folder, "call", small)
    with Writer(folder, storage_options=moto.options) as writer:
        log(writer, range(3))
    assert "tfevents.4000000003." in bucket.keys(folder)[-1]


@pytest.mark.parametrize("fault", ["403", "500", "reset"])
def test_a_bucket_that_cannot_be_listed_is_written_all_the_same(
    moto, bucket, folder, fault, caplog, quick
):
    leave(bucket, folder, "events.out.tfevents.4000000000.host.1.0000.x")
    moto.fail("ListObjectsV2", [fault])
    with Writer(folder, storage_options=moto.options) as writer:
        log(writer, range(3))
    assert moto.count("ListObjectsV2") > 0
    assert len(bucket.keys(folder)) == 2
    assert "tfevents.4000000000." in bucket.keys(folder)[1]
    assert not messages(caplog)
