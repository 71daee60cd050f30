"""URLs of buckets: split in one way, whatever stands for the bucket."""

import os

import numpy as np
import pytest

import sm_tblog
import sm_tblog.readers
from sm_tblog import InvalidValueError, Writer
from sm_tblog.format.records import frame
from sm_tblog.storage import object_store, s3_bucket, spool, urls
from sm_tblog.storage.s3_bucket import Bucket
from sm_tblog.storage.s3_options import make_client, public

POINTS = [
    "arn:aws:s3:us-west-2:123456789012:accesspoint/mine",
    "arn:aws:s3:us-west-2:123456789012:accesspoint:mine",
    "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/mine",
    "arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/mine",
    "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
    "arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap",
    "arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/mine",
    "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01ac5d28a6a232904/accesspoint/mine",
    "arn:aws:s3-outposts:us-west-2:123456789012:outpost:op-01ac5d28a6a232904:accesspoint:mine",
]
NAMES = [
    "bucket",
    "my.bucket-1",
    "mine-abcdefghijklmnopqrstuvwxyz0123456789-s3alias",
    "mine-o01ac5d28a6a232904e8xz5w8ijx1qzlbp3i3kuse10--op-s3",
    "logs--usw2-az1--x-s3",
]


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "REQUESTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize("bucket", POINTS + NAMES)
@pytest.mark.parametrize("scheme", ["s3", "s3a", "S3"])
def test_the_bucket_is_split_from_the_folder(bucket, scheme):
    url = f"{scheme}://{bucket}"
    assert urls.bucket_and_prefix(url) == (bucket, "")
    assert urls.bucket_and_prefix(f"{url}/") == (bucket, "")
    assert urls.bucket_and_prefix(f"{url}/runs/a:b/") == (bucket, "runs/a:b/")
    assert urls.key_of(f"{url}/runs/a", "b/c") == "runs/a/b/c"
    assert urls.key_of(url, "c") == "c"
    assert urls.server_of(f"{url}/runs/a") == url
    urls.check_bucket(url)


def test_the_arn_of_a_bucket_names_the_bucket():
    assert urls.bucket_and_prefix("s3://arn:aws:s3:::mine/runs/a") == ("mine", "runs/a/")
    assert urls.resource_pattern("s3://arn:aws:s3:::mine/runs") == "arn:aws:s3:::mine/runs/*"


def test_a_policy_names_the_objects_of_an_access_point():
    assert urls.resource_pattern("s3://bucket") == "arn:aws:s3:::bucket/*"
    assert urls.resource_pattern(f"s3://{POINTS[0]}/runs/a") == f"{POINTS[0]}/object/runs/a/*"


@pytest.mark.parametrize(
    "url",
    [
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint",
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/",
        "s3://arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/bucket/mine/x",
        "s3://arn:aws:sns:us-west-2:123456789012:topic/x",
        "s3://arn:aws:s3:::",
    ],
)
def test_an_arn_that_is_no_access_points_is_refused(url):
    with pytest.raises(InvalidValueError, match=r"accesspoint/NAME/folder"):
        Writer(url)
    with pytest.raises(InvalidValueError, match=r"accesspoint/NAME/folder"):
        sm_tblog.read(url)


@pytest.mark.parametrize(
    "url", ["s3://bucket", *(f"s3://{point}" for point in POINTS), "gs://bucket"]
)
def test_only_the_key_counts_towards_its_greatest_length(url):
    longest = "k" * (object_store.MAX_KEY_SIZE - len("runs/"))
    store = object_store.ObjectStore.__new__(object_store.ObjectStore)
    store._folder = f"{url}/runs"
    store._check_name(longest)
    with pytest.raises(object_store.InvalidNameError, match="1,025 bytes"):
        store._check_name(longest + "k")


# What is sent.


@pytest.mark.parametrize("bucket", [POINTS[0], POINTS[7], NAMES[4]])
def test_a_run_in_an_access_point_is_written_finished_and_read(
    bucket, moto_server, monkeypatch, tmp_path
):
    """A client that sends to an ordinary bucket what is for the access point."""
    moto_server.make_bucket()
    asked = set()

    def make(options):
        client = make_client(options)

        def redirect(params, **_):
            asked.add(params["Bucket"])
            params["Bucket"] = "bucket"

        client.meta.events.register("provide-client-params.s3", redirect)
        return client

    monkeypatch.setattr(s3_bucket, "make_client", make)
    monkeypatch.setattr(s3_bucket, "_clients", {})
    url = f"s3://{bucket}/{tmp_path.name}"
    with Writer(url, storage_options=moto_server.options) as writer:
        writer.add_scalar("loss", 0.5, 0)
        writer.add_scalars("both", {"a": 1.0}, 0)
        writer.add_embedding(np.zeros((2, 2)), metadata=["a", "b"])
    file = spool.create(spool.default_folder(), name="left.tfevents", url=url, **public({}))
    file.append(frame(b""))
    file.release()
    ((left, error),) = object_store.upload_orphans(
        spool.default_folder(), lambda _: moto_server.options, 60.0
    )
    assert (left.url, error) == (url, None)
    runs = sm_tblog.readers.read_all(url, storage_options=moto_server.options)
    assert list(runs) == [".", "both_a"]
    assert runs["."].scalars["loss"].value.tolist() == [0.5]
    listed = moto_server.client().list_objects_v2(Bucket="bucket", Prefix=f"{tmp_path.name}/")
    names = [entry["Key"].removeprefix(f"{tmp_path.name}/") for entry in listed["Contents"]]
    assert "left.tfevents" in names
    assert "projector_config.pbtxt" in names
    assert asked == {bucket}


class Sent(Exception):  # noqa: N818 - no error
    """A request that is not sent."""


def sent_to(url, options=None, operation="PutObject", **parameters):
    """Return the URL and the headers of the request of an operation, without sending it."""
    bucket = Bucket(url, {})
    client = make_client({"key": "k", "secret": "s", **(options or {})})
    requests = []

    def stop(request, **_):
        requests.append(request)
        raise Sent

    client.meta.events.register("before-send.s3", stop)
    with pytest.raises(Sent):
        client._make_api_call(
            operation, {"Bucket": bucket.bucket, "Key": f"{bucket.prefix}tfevents", **parameters}
        )
    return requests[0]


@pytest.mark.parametrize(
    ("bucket", "expected"),
    [
        (POINTS[0], "https://mine-123456789012.s3-accesspoint.us-west-2.amazonaws.com"),
        (POINTS[1], "https://mine-123456789012.s3-accesspoint.us-west-2.amazonaws.com"),
        (POINTS[2], "https://mine-123456789012.s3-accesspoint.cn-north-1.amazonaws.com.cn"),
        (
            POINTS[7],
            "https://mine-123456789012.op-01ac5d28a6a232904.s3-outposts.us-west-2.amazonaws.com",
        ),
        (NAMES[2], f"https://{NAMES[2]}.s3.amazonaws.com"),
    ],
)
def test_a_request_goes_to_the_access_point(bucket, expected):
    options = {"region_name": "cn-north-1"} if "aws-cn" in bucket else {}
    assert sent_to(f"s3://{bucket}/runs/a", options).url == f"{expected}/runs/a/tfevents"


def test_a_part_is_copied_from_the_access_point():
    url = f"s3://{POINTS[0]}/runs/a"
    source = {"Bucket": Bucket(url, {}).bucket, "Key": "runs/a/tfevents"}
    request = sent_to(
        url, operation="UploadPartCopy", CopySource=source, UploadId="u", PartNumber=1
    )
    copied = request.headers["x-amz-copy-source"].decode().replace("%3A", ":").replace("%2F", "/")
    assert copied == f"{POINTS[0]}/object/runs/a/tfevents"
