"""S3: an object that grows by copying itself, on servers that work, lie and fail."""

import io
import itertools
from collections import deque

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_servers import FAULTS, FaultProxy

from sm_tblog import StoreError
from sm_tblog._types import Series
from sm_tblog.format.records import padding
from sm_tblog.format.scalars import encode_scalars
from sm_tblog.storage import s3
from sm_tblog.storage.s3 import LEAST_PART, S3Place
from sm_tblog.storage.spool import SpoolFile

names = (f"folder/object-{i}" for i in itertools.count())

SERVERS = ["moto_server", "ceph_gateway"]


@pytest.fixture(params=SERVERS)
def server(request):
    return request.getfixturevalue(request.param)


def make_bucket(server, name="bucket"):
    client = server.client()
    if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=name)
    return client


def spool_file():
    return SpoolFile(io.BytesIO(), "s3://bucket", "name")


def records(first, count):
    steps = np.arange(first, first + count)
    codes = np.zeros(count, np.intp)
    return encode_scalars([Series("loss")], codes, steps, np.full(count, 1e9), steps / 8)


def options_of(server, **config):
    return {
        **server.options,
        "config_kwargs": {
            "s3": {"addressing_style": "path"},
            "retries": {"max_attempts": 0},
            **config,
        },
    }


def grow(place, name, file):
    """Do what a lane does: pad if that is wanted, then commit; return whether it succeeded."""
    if missing := name.padding(file.size):
        file.append(padding(missing))
    try:
        name.commit(file, file.size)
    except StoreError:
        return False
    return True


def body_of(client, key):
    return client.get_object(Bucket="bucket", Key=key)["Body"].read()


def test_an_object_grows_by_copying_itself(server):
    client = make_bucket(server)
    with FaultProxy(server.url) as proxy:
        place = S3Place("s3://bucket", {**options_of(server), "endpoint_url": proxy.url})
        key, file = next(names), spool_file()
        growing = place.grow(key)
        for i in range(60):
            file.append(records(i * 500, 500))
            assert grow(place, growing, file)
            assert growing.committed == file.size
        logged = 60 * len(records(0, 500))
        assert body_of(client, key) == file.read(0, file.size)
        assert logged < 1.3e6
        assert proxy.uploaded < LEAST_PART + 3 * logged
        assert proxy.count("UploadPartCopy") > 10
        writes = proxy.count("PutObject") + proxy.count("UploadPartCopy")
        assert writes - 60 in (0, 1)  # Ceph takes no condition, which is found out once
        assert not client.list_multipart_uploads(Bucket="bucket").get("Uploads")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    plan=st.lists(st.sampled_from([None, None, *FAULTS]), max_size=16),
    appends=st.lists(st.integers(1, 300), min_size=2, max_size=6),
    copying=st.booleans(),
)
def test_whatever_fails_the_object_is_what_was_appended_and_never_shrinks(
    server, monkeypatch, plan, appends, copying
):
    monkeypatch.setattr(s3, "REPEATED", 0 if copying else 1 << 30)
    client = make_bucket(server)
    key, file = next(names), spool_file()
    sizes = [0]

    def note_size(path):
        if path.endswith(key):
            found = client.list_objects_v2(Bucket="bucket", Prefix=key).get("Contents", [])
            sizes.extend(one["Size"] for one in found)

    with FaultProxy(server.url) as proxy:
        options = options_of(server, connect_timeout=1, read_timeout=0.5)
        place = S3Place("s3://bucket", {**options, "endpoint_url": proxy.url})
        growing = place.grow(key)
        proxy.after_change = note_size
        proxy.plan = deque(plan)
        first = 0
        for count in appends:
            file.append(records(first, count))
            first += count
            grow(place, growing, file)
        attempts = 0
        while not grow(place, growing, file):
            attempts += 1
            assert attempts <= len(plan) + 2
        growing.close()
        proxy.released.set()
    assert body_of(client, key) == file.read(0, file.size)
    assert growing.committed == file.size
    assert sizes == sorted(sizes)
    assert not client.list_multipart_uploads(Bucket="bucket", Prefix=key).get("Uploads")


def test_a_server_that_takes_a_copy_for_nothing_is_found_out(rclone_server):
    client = make_bucket(rclone_server)
    place = S3Place("s3://bucket", options_of(rclone_server))
    key, file = next(names), spool_file()
    growing = place.grow(key)
    file.append(records(0, 10))
    file.append(padding(LEAST_PART))
    assert grow(place, growing, file)
    file.append(records(10, 10))
    assert grow(place, growing, file)
    assert growing.roll_bytes == s3.ROLL_WHOLE
    assert body_of(client, key) == file.read(0, file.size)


def test_a_bucket_that_keeps_versions_is_not_appended_to(moto_server):
    client = make_bucket(moto_server, "versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    place = S3Place("s3://versioned", options_of(moto_server))
    file = spool_file()
    growing = place.grow("key")
    for i in range(40):
        file.append(records(i * 1000, 1000))
        assert growing.padding(file.size) == 0 or i == 0
        assert grow(place, growing, file)
    assert growing.roll_bytes == s3.ROLL_WHOLE
