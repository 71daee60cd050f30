"""Reading from S3: the same options and environment as a writer's, and errors that give advice."""

import os
import warnings
from itertools import count, repeat

import pytest
from fsspec.config import conf

import sm_tblog
from sm_tblog import InvalidValueError, StoreError, Writer, readers
from sm_tblog.readers import DamagedFileWarning, read, read_all, s3_tree

folders = (f"s3://bucket/read-{i}" for i in count())


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """Only the test's own credentials and configuration: the folder of both files."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "REQUESTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


@pytest.fixture
def folder():
    return next(folders)


def log(url, options, name="loss", values=(0.5, 0.25)):
    with Writer(url, storage_options=options) as writer:
        for step, value in enumerate(values):
            writer.add_scalar(name, value, step)


def keys(moto, url):
    prefix = url.removeprefix("s3://bucket/") + "/"
    listed = moto.server.client().list_objects_v2(Bucket="bucket", Prefix=prefix)
    return [entry["Key"] for entry in listed.get("Contents", [])]


# What a writer accepts, a reader accepts.


def test_a_run_is_read_with_the_options_that_it_was_written_with(moto, folder, tmp_path):
    options = {
        **moto.options,
        "use_ssl": False,
        "requester_pays": True,
        "s3_additional_kwargs": {"ServerSideEncryption": "AES256"},
        "spool": str(tmp_path / "mine"),
        "stretch": 0.01,
    }
    log(folder, options)
    moto.requests.clear()
    run = sm_tblog.read(folder, storage_options=options)
    assert run.scalars["loss"].value.tolist() == [0.5, 0.25]
    assert run.path == folder
    assert {request.headers["x-amz-request-payer"] for request in moto.requests} == {"requester"}


def test_what_s3fs_accepts_is_accepted_by_both(moto, folder):
    tuning = {
        "default_block_size": 1 << 20,
        "default_fill_cache": False,
        "use_listings_cache": False,
        "max_concurrency": 2,
    }
    options = {**moto.options, **tuning}
    options["client_kwargs"] = {name: options.pop(name) for name in ("endpoint_url", "region_name")}
    log(folder, options)
    assert read(folder, storage_options=options).scalars["loss"].value.tolist() == [0.5, 0.25]


def test_a_customers_key_is_sent(moto, folder):
    more = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    options = {**moto.options, "s3_additional_kwargs": more}
    log(folder, options)
    moto.requests.clear()
    assert list(read(folder, storage_options=options).scalars) == ["loss"]
    header = "x-amz-server-side-encryption-customer-key"
    asked = {r.operation: header in r.headers for r in moto.requests}
    assert asked == {"ListObjectsV2": False, "GetObject": True}


@pytest.mark.parametrize("name", ["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_the_environment_names_the_server_for_both(moto, folder, name, monkeypatch):
    monkeypatch.setenv(name, moto.url)
    options = {name: moto.options[name] for name in ("key", "secret")}
    log(folder, options)
    assert list(read(folder, storage_options=options).scalars) == ["loss"]
    assert moto.count("ListObjectsV2")


def test_fsspecs_configuration_is_read_by_both(moto, folder, monkeypatch):
    monkeypatch.setitem(conf, "s3", {**moto.options, "strange": "of another release"})
    log(folder, None)
    assert list(read(folder).scalars) == ["loss"]


def test_an_option_that_there_is_not_is_named(folder):
    with pytest.raises(InvalidValueError, match="regoin_name; known options"):
        read(folder, storage_options={"regoin_name": "eu-west-1"})


# What is found.


def test_files_folders_and_runs_are_found(moto, folder):
    for name in ("", "/b", "/a/train", "/ü x"):
        log(folder + name, moto.options, f"in {name}")
    moto.server.client().put_object(Bucket="bucket", Key=f"{folder[12:]}/b/model.pt", Body=b"x")
    runs = read_all(f"{folder}/", storage_options=moto.options)
    assert list(runs) == [".", "a/train", "b", "ü x"]
    assert [list(run.scalars) for run in runs.values()] == [
        [f"in {name}"] for name in ("", "/a/train", "/b", "/ü x")
    ]
    (key,) = keys(moto, f"{folder}/a")
    run = read(f"s3://bucket/{key}", storage_options=moto.options)
    assert list(run.scalars) == ["in /a/train"]
    with pytest.raises(InvalidValueError, match=r"only in folders below it: train;"):
        read(f"{folder}/a", storage_options=moto.options)
    with pytest.raises(InvalidValueError, match="no file or folder"):
        read(f"{folder}/c", storage_options=moto.options)
    moto.server.client().copy_object(
        Bucket="bucket", Key=f"{folder[12:]}/renamed", CopySource={"Bucket": "bucket", "Key": key}
    )
    renamed = read(f"{folder}/renamed", storage_options=moto.options)
    assert list(renamed.scalars) == ["in /a/train"]


def test_a_list_of_many_pages_is_read_whole(moto, folder, monkeypatch):
    for name in "abc":
        log(f"{folder}/{name}", moto.options)
    call = s3_tree.Bucket.call

    def one_at_a_time(self, operation, **parameters):
        if operation == "ListObjectsV2":
            parameters["MaxKeys"] = 1
        return call(self, operation, **parameters)

    monkeypatch.setattr(s3_tree.Bucket, "call", one_at_a_time)
    moto.requests.clear()
    assert list(read_all(folder, storage_options=moto.options)) == ["a", "b", "c"]
    assert moto.count("ListObjectsV2") == 3


def test_few_requests_read_many_runs(moto, folder):
    for name in "abc":
        log(f"{folder}/{name}", moto.options)
    moto.requests.clear()
    read_all(folder, storage_options=moto.options)
    assert [request.operation for request in moto.requests] == [
        "ListObjectsV2",
        *["GetObject"] * 3,
    ]


def test_a_file_is_read_without_the_permission_to_list(moto, folder):
    log(folder, moto.options)
    (key,) = keys(moto, folder)
    moto.fail("ListObjectsV2", ["403"])
    run = read(f"s3://bucket/{key}", storage_options=moto.options)
    assert list(run.scalars) == ["loss"]


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_connection_that_breaks_is_resumed(moto, folder, fault, monkeypatch):
    values = [i / 8 for i in range(20_000)]
    log(folder, moto.options, values=values)
    moto.fail("GetObject", "cut", None if fault == "cut" else fault)
    options = {**moto.options, "config_kwargs": {"retries": {"total_max_attempts": 2}}}
    assert read(folder, storage_options=options).scalars["loss"].value.tolist() == values
    ranges = [request.headers.get("range") for request in moto.requests]
    assert any(ranges)


class Breaking:
    """A body that breaks after its first bytes."""

    def __init__(self, body):
        self.body = body
        self.reads = 0

    def read(self, size):
        self.reads += 1
        if self.reads > 1:
            raise ConnectionError("broken")
        return self.body.read(min(size, 2000))

    def close(self):
        self.body.close()


def test_a_connection_that_breaks_for_good_costs_what_was_not_read(moto, folder, monkeypatch):
    log(folder, moto.options, values=[i / 8 for i in range(1000)])
    call = s3_tree.Bucket.call

    def give_way(self, operation, Range="", **parameters):  # noqa: N803 - S3's name
        reply = call(self, operation, **parameters)
        if operation == "GetObject":
            reply["Body"] = Breaking(reply["Body"])
            reply["Body"].reads = len(Range)
        return reply

    monkeypatch.setattr(s3_tree.Bucket, "call", give_way)
    with pytest.warns(DamagedFileWarning, match="cannot be read from byte 1,982 on"):
        run = read(folder, storage_options=moto.options)
    assert 0 < len(run.scalars["loss"].value) < 60
    assert [(damage.offset, damage.size) for damage in run.damages] == [(1982, 0)]


def test_an_object_that_vanishes_after_it_is_listed_costs_itself_alone(moto, folder, monkeypatch):
    for name in "ab":
        log(f"{folder}/{name}", moto.options)
    (gone,) = keys(moto, f"{folder}/a")
    find_runs = readers.reading.find_runs

    def find_then_remove(*args, **kwargs):
        found = list(find_runs(*args, **kwargs))
        moto.server.client().delete_object(Bucket="bucket", Key=gone)
        return found

    monkeypatch.setattr(readers.reading, "find_runs", find_then_remove)
    with pytest.warns(DamagedFileWarning, match="there is no such object any more"):
        runs = read_all(folder, storage_options=moto.options)
    assert list(runs) == ["a", "b"]
    assert runs["a"].scalars == {}
    assert runs["a"].damages[0].path == f"s3://bucket/{gone}"
    assert list(runs["b"].scalars) == ["loss"]


# Errors.


def test_no_such_bucket_is_an_invalid_value(moto):
    for url in ("s3://there-is-none/x", "s3://there-is-none/x.tfevents"):
        with pytest.raises(InvalidValueError, match="there is no such bucket"):
            read_all(url, storage_options=moto.options)


@pytest.mark.parametrize(
    ("operation", "fault", "said"),
    [
        ("ListObjectsV2", "403", "not allow reading there; grant s3:ListBucket"),
        ("GetObject", "403", "not allow reading there; grant s3:GetObject"),
        ("ListObjectsV2", "expired", "the session token has expired"),
        ("ListObjectsV2", "skew", "clock is off"),
        ("ListObjectsV2", "500", "reading failed (InternalError"),
        ("ListObjectsV2", "reset", "reading failed (ConnectionClosedError"),
    ],
)
def test_a_refusal_is_a_store_error_with_advice(moto, folder, operation, fault, said):
    log(folder, moto.options)
    moto.fail(operation, [fault])
    with pytest.raises(StoreError) as caught:
        read(folder, storage_options=moto.options)
    assert said in str(caught.value)
    assert str(caught.value).startswith((folder, f"cannot read {folder}"))


def test_a_file_that_may_not_be_read_is_not_called_missing(moto, folder):
    log(folder, moto.options)
    (key,) = keys(moto, folder)
    moto.fail("GetObject", ["403"])
    with pytest.raises(StoreError, match="grant s3:GetObject"):
        read(f"s3://bucket/{key}", storage_options=moto.options)


def test_no_credentials_and_no_server_are_store_errors(folder):
    with pytest.raises(StoreError, match="there are no credentials; set AWS_PROFILE"):
        read(folder, storage_options={"endpoint_url": "http://127.0.0.1:9"})
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"}
    with pytest.raises(StoreError, match="cannot be reached; check the network and endpoint_url"):
        read(folder, storage_options=options)


def test_secrets_are_in_no_message(moto, folder):
    moto.plan = repeat("403")
    options = {**moto.options, "secret": "hush-secret", "token": "hush-token"}
    with pytest.raises(StoreError) as caught, warnings.catch_warnings():
        read(folder, storage_options=options)
    assert "hush" not in f"{caught.value!r}"
