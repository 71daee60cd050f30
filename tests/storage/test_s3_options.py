"""``storage_options`` and the environment: what reaches the server and nobody else."""

import logging
import os
import traceback
from itertools import count, repeat

import pytest

from sm_tblog import StoreError, Writer, read
from sm_tblog.storage import s3, spool, upload_queue, urls
from sm_tblog.storage.base import RefusedError
from sm_tblog.storage.object_store import ObjectStore
from sm_tblog.storage.s3_errors import as_store_error
from sm_tblog.storage.s3_options import make_client, public
from sm_tblog.storage.urls import bucket_and_prefix

runs = (f"options-{i}" for i in count())

LONG = 600.0

SECRETS = {"key": "ASIATESTKEY", "secret": "hush-secret", "token": "hush-token"}


@pytest.fixture(autouse=True)
def spool_folder(tmp_path, monkeypatch):
    folder = tmp_path / "spool"
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(folder))
    return folder


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """Only the test's own credentials and configuration: the folder of both files."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "REQUESTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.0,))
    monkeypatch.setattr(s3, "MAX_REPEATED_BYTES", 0)
    monkeypatch.setattr(s3, "MIN_PART_SIZE", 4096)


@pytest.fixture
def folder():
    return f"s3://bucket/{next(runs)}"


def grow(moto, folder, options, **given):
    """Write an object, first whole and then by copying; return its key."""
    store = ObjectStore(folder, "tfevents", **{**options, **given})
    for _ in range(4):
        store.append(bytes(100))
        store.flush()
        assert store.wait(LONG, force=True), store._queue.error
    store.close()
    assert store.wait(LONG)
    assert moto.count("UploadPartCopy") > 0
    return f"{folder}/tfevents".removeprefix("s3://bucket/")


def signed_by(moto):
    """Return the access keys with which requests were signed."""
    return {
        request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        for request in moto.requests
    }


def write_files(environment, config="", credentials=""):
    (environment / "config").write_text(config)
    (environment / "credentials").write_text(credentials)


def profile(name, key):
    return f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = s\n"


# What the object is like.


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"ServerSideEncryption": "AES256"}, {"ServerSideEncryption": "AES256"}),
        (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/mine"},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/mine"},
        ),
        ({"StorageClass": "STANDARD_IA"}, {"StorageClass": "STANDARD_IA"}),
        ({"ContentType": "application/x-tfevents"}, {"ContentType": "application/x-tfevents"}),
        ({"Metadata": {"team": "vision"}}, {"Metadata": {"team": "vision"}}),
    ],
)
def test_an_object_has_its_attributes_also_after_an_append(moto, folder, more, expected):
    key = grow(moto, folder, moto.options, s3_additional_kwargs=more)
    head = moto.server.client().head_object(Bucket="bucket", Key=key)
    assert {name: head[name] for name in expected} == expected


def test_tags_and_permissions_stay_after_an_append(moto, folder):
    more = {"Tagging": "team=vision", "ACL": "public-read"}
    key = grow(moto, folder, moto.options, s3_additional_kwargs=more)
    client = moto.server.client()
    tags = client.get_object_tagging(Bucket="bucket", Key=key)["TagSet"]
    assert tags == [{"Key": "team", "Value": "vision"}]
    grants = client.get_object_acl(Bucket="bucket", Key=key)["Grants"]
    assert any(grant["Grantee"].get("URI", "").endswith("AllUsers") for grant in grants)


def test_who_uploads_pays_for_every_request(moto, folder):
    grow(moto, folder, moto.options, requester_pays=True)
    assert {request.headers.get("x-amz-request-payer") for request in moto.requests} == {
        "requester"
    }


def test_a_customers_key_is_sent_for_the_copy_too(moto, folder):
    more = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    grow(moto, folder, moto.options, s3_additional_kwargs=more)
    name = "x-amz-server-side-encryption-customer-key"
    source = "x-amz-copy-source-server-side-encryption-customer-key"
    for request in moto.requests:
        if request.operation not in ("AbortMultipartUpload", "ListMultipartUploads"):
            assert name in request.headers, request.operation
        assert (source in request.headers) == (request.operation == "UploadPartCopy")


def test_nothing_but_the_object_is_made(moto, folder):
    key = grow(moto, folder, moto.options)
    assert {request.path for request in moto.requests} == {f"/bucket/{key}"}
    assert min(r.uploaded for r in moto.requests if r.operation == "PutObject") > 0


def test_an_attribute_that_there_is_not_is_named(moto, folder):
    store = ObjectStore(folder, "tfevents", s3_additional_kwargs={"Encryption": "AES256"})
    store.append(b"x")
    assert not store.wait(LONG)
    with pytest.raises(StoreError, match="PutObject has no parameter Encryption"):
        store.flush()
    assert moto.requests == []
    store._queue.jobs()[0].file.delete()
    store._queue._jobs.clear()


# Where it goes, and who sends it.


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "S3_ENDPOINT"])
def test_the_environment_may_name_the_server(moto, folder, name, monkeypatch):
    monkeypatch.setenv(name, moto.url)
    options = {name: value for name, value in moto.options.items() if name != "endpoint_url"}
    grow(moto, folder, options)
    assert moto.requests


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"AWS_ENDPOINT_URL": "http://a"}, "http://a"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, "http://b"),
        ({"AWS_ENDPOINT_URL_S3": "http://b", "S3_ENDPOINT": "http://c"}, "http://c"),
        (
            {"AWS_ENDPOINT_URL_S3": "http://b", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            None,
        ),
    ],
)
def test_the_server_that_is_named_most_plainly_is_taken(given, expected, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert public({})["endpoint_url"] == expected
    assert public({"endpoint_url": "http://x"})["endpoint_url"] == "http://x"
    with_kwargs = {"client_kwargs": {"endpoint_url": "http://y"}, "endpoint_url": "http://x"}
    assert public(with_kwargs)["endpoint_url"] == "http://y"


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ({}, {"S3_ENDPOINT": "minio:9000"}, "https://minio:9000"),
        ({}, {"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}, "http://minio:9000"),
        ({}, {"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "1"}, "https://minio:9000"),
        ({}, {"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "false"}, "http://minio:9000"),
        ({}, {"S3_ENDPOINT": "minio", "S3_USE_HTTPS": ""}, "https://minio"),
        ({}, {"S3_ENDPOINT": "https://minio:9000", "S3_USE_HTTPS": "0"}, "https://minio:9000"),
        ({}, {"AWS_ENDPOINT_URL": "10.0.0.1:9000", "S3_USE_HTTPS": "0"}, "http://10.0.0.1:9000"),
        ({"use_ssl": False}, {"S3_ENDPOINT": "minio", "S3_USE_HTTPS": "1"}, "http://minio"),
        ({"use_ssl": True}, {"S3_ENDPOINT": "minio", "S3_USE_HTTPS": "0"}, "https://minio"),
        ({"endpoint_url": "localhost:1", "use_ssl": False}, {}, "http://localhost:1"),
        ({"client_kwargs": {"endpoint_url": "a:1", "use_ssl": False}}, {}, "http://a:1"),
        ({}, {"S3_USE_HTTPS": "0"}, "http://s3.amazonaws.com"),
        ({}, {}, "https://s3.amazonaws.com"),
    ],
)
def test_a_server_may_be_named_as_tensorflow_does(options, variables, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert make_client({"key": "k", "secret": "s", **options}).meta.endpoint_url == expected


def test_a_server_without_a_scheme_is_reached(moto, folder, monkeypatch):
    monkeypatch.setenv("S3_ENDPOINT", moto.url.removeprefix("http://"))
    monkeypatch.setenv("S3_USE_HTTPS", "0")
    grow(moto, folder, {name: moto.options[name] for name in ("key", "secret", "config_kwargs")})
    assert moto.requests


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ({}, {}, True),
        ({}, {"S3_VERIFY_SSL": "0"}, False),
        ({}, {"S3_VERIFY_SSL": "0", "AWS_CA_BUNDLE": "ca.pem"}, False),
        ({}, {"S3_VERIFY_SSL": "1"}, True),
        ({}, {"S3_CA_FILE": "ca.pem"}, "ca.pem"),
        ({}, {"AWS_CA_BUNDLE": "ca.pem"}, "ca.pem"),
        ({}, {"AWS_CA_BUNDLE": "ca.pem", "S3_CA_FILE": "other.pem"}, "ca.pem"),
        ({"client_kwargs": {"verify": "ca.pem"}}, {"S3_VERIFY_SSL": "0"}, "ca.pem"),
        ({"client_kwargs": {"verify": False}}, {"AWS_CA_BUNDLE": "ca.pem"}, False),
    ],
)
def test_certificates_are_those_named(options, variables, expected, environment, monkeypatch):
    monkeypatch.chdir(environment)
    (environment / "ca.pem").write_text("")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client = make_client({"key": "k", "secret": "s", **options})
    assert client._endpoint.http_session._verify == expected


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "S3_CA_FILE"])
def test_a_file_of_certificates_that_there_is_not_is_named(folder, name, monkeypatch):
    if name == "AWS_CA_BUNDLE":
        monkeypatch.setenv(name, "/missing.pem")
        options = {"key": "k", "secret": "s"}
    else:
        options = {"key": "k", "secret": "s", "client_kwargs": {"verify": "/missing.pem"}}
    with pytest.raises(StoreError, match=r"no file of certificates '/missing.pem'"):
        read(folder, storage_options=options)


def test_a_profile_gives_the_key(moto, folder, environment):
    write_files(environment, credentials=profile("default", "ONE") + profile("mine", "TWO"))
    grow(moto, folder, {"endpoint_url": moto.url}, profile="mine")
    assert signed_by(moto) == {"TWO"}


def test_a_profile_with_a_role_assumes_it(moto, folder, environment, monkeypatch):
    role = (
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/logger\n"
        "source_profile = default\n"
    )
    write_files(environment, role, profile("default", "ONE"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.server.url)
    grow(moto, folder, {"endpoint_url": moto.url}, profile="role")
    [key] = signed_by(moto)
    assert key.startswith("ASIA")
    assert all("x-amz-security-token" in request.headers for request in moto.requests)


def test_no_credentials_are_sent_if_none_are_wanted(moto):
    moto.server.make_bucket("public").put_bucket_acl(Bucket="public", ACL="public-read-write")
    grow(moto, "s3://public/run", {"endpoint_url": moto.url}, anon=True)
    assert all("authorization" not in request.headers for request in moto.requests)


def test_other_names_and_a_token_are_taken(moto, folder):
    given = {"username": "ME", "password": "s", "token": "t"}
    grow(moto, folder, {"endpoint_url": moto.url}, **given)
    assert signed_by(moto) == {"ME"}
    assert {request.headers["x-amz-security-token"] for request in moto.requests} == {"t"}


@pytest.mark.parametrize("how", ["option", "environment", "tensorflow", "configuration"])
def test_the_region_is_what_was_said(moto, folder, how, environment, monkeypatch):
    given = {}
    if how == "option":
        given["region_name"] = "eu-west-3"
    elif how == "environment":
        monkeypatch.setenv("AWS_REGION", "eu-west-3")
        monkeypatch.setenv("S3_REGION", "eu-west-9")
    elif how == "tensorflow":
        monkeypatch.setenv("S3_REGION", "eu-west-3")
    else:
        write_files(environment, "[default]\nregion = eu-west-3\n")
    grow(moto, folder, {"endpoint_url": moto.url, "key": "k", "secret": "s"}, **given)
    assert all("/eu-west-3/s3/" in request.headers["authorization"] for request in moto.requests)


def test_path_style_names_the_bucket_in_the_path(moto, folder):
    options = {**moto.options, "endpoint_url": moto.url.replace("127.0.0.1", "localhost")}
    options["config_kwargs"]["s3"] = {"addressing_style": "path"}
    grow(moto, folder, options)
    assert all(request.path.startswith("/bucket/") for request in moto.requests)


def test_a_folder_may_have_any_name():
    assert bucket_and_prefix("s3://bucket") == ("bucket", "")
    assert bucket_and_prefix("s3://bucket/") == ("bucket", "")
    assert bucket_and_prefix("s3://bucket/a/b/") == ("bucket", "a/b/")
    assert bucket_and_prefix("s3://bucket/run#1/lr=0.1?x&y z") == ("bucket", "run#1/lr=0.1?x&y z/")


def test_a_name_with_anything_in_it_is_written_and_read(moto):
    folder = "s3://bucket/run#1/lr=0.1 ?x&y/ü+%41"
    key = grow(moto, folder, moto.options)
    assert moto.server.client().head_object(Bucket="bucket", Key=key)["ContentLength"] > 4096


def test_requests_have_their_deadlines_and_are_repeated_once():
    pytest.importorskip("botocore")
    config = make_client({"key": "k", "secret": "s"}).meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 20)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}
    changed = make_client({"key": "k", "secret": "s", "config_kwargs": {"read_timeout": 3}})
    assert changed.meta.config.read_timeout == 3


# Credentials that expire, or are not there yet.


@pytest.mark.parametrize("fault", ["expired", None])
def test_new_credentials_are_found_without_a_restart(moto, folder, environment, fault, monkeypatch):
    def refuse_old(request):
        return fault if "OLD/" in request.headers["authorization"] else None

    monkeypatch.setattr(moto, "next_fault", refuse_old)
    if fault:
        write_files(environment, credentials=profile("default", "OLD"))
    options = {"endpoint_url": moto.url}
    errors = []
    with Writer(folder, storage_options=options, on_error=errors.append) as writer:
        writer.add_scalar("loss", 1.0, 0)
        assert not writer.flush()
        assert ("has expired" if fault else "there are no credentials") in str(errors[0])
        write_files(environment, credentials=profile("default", "NEW"))
        while not writer.flush(force=True):
            pass
        assert writer.stats().rows_dropped == 0
    assert signed_by(moto) == ({"OLD", "NEW"} if fault else {"NEW"})


def test_a_profile_that_there_is_not_is_named(moto, folder, caplog):
    options = {"endpoint_url": moto.url, "profile": "nobody"}
    writer = Writer(folder, storage_options=options)
    writer.add_scalar("loss", 1.0, 0)
    assert not writer.flush()
    assert "there is no such profile in the shared configuration" in caplog.text
    assert "nobody" in caplog.text
    [job] = writer._pipeline._sinks[0]._uploads._stores[0]._queue.jobs()
    writer._pipeline._sinks[0]._uploads._stores[0]._queue._jobs.clear()
    job.file.delete()
    writer.close()


# Secrets.


@pytest.mark.parametrize("fault", ["403", "expired", "reset"])
def test_secrets_are_nowhere(moto, folder, spool_folder, caplog, fault):
    caplog.set_level(logging.DEBUG, "sm_tblog")
    moto.plan = repeat(fault)
    errors = []
    options = {
        **moto.options,
        **SECRETS,
        "client_kwargs": {"aws_session_token": "hush-token"},
        "s3_additional_kwargs": {
            "SSECustomerKey": "hush-hush-hush-hush-hush-hush-hu",
            "SSECustomerAlgorithm": "AES256",
        },
    }
    writer = Writer(folder, storage_options=options, on_error=errors.append)
    writer.add_scalar("loss", 1.0, 0)
    assert not writer.flush()
    everything = [caplog.text, repr(writer), repr(writer.stats()), repr(writer._pipeline)]
    everything += [line for error in errors for line in traceback.format_exception(error)]
    [path] = spool_folder.iterdir()
    everything.append(repr(path.read_bytes()))
    assert errors
    assert not any("hush" in text for text in everything)
    moto.begin()
    assert writer.close()


def test_what_a_later_upload_needs_is_noted_without_secrets(monkeypatch):
    options = {
        **SECRETS,
        "endpoint_url": "http://x",
        "region_name": "eu-west-3",
        "profile": "mine",
        "requester_pays": True,
        "s3_additional_kwargs": {"ServerSideEncryption": "AES256", "SSECustomerKey": "hush"},
        "config_kwargs": {"s3": {"addressing_style": "path"}, "proxies": {"http": "u:hush@p"}},
    }
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name)
    assert public(options) == {
        "endpoint_url": "http://x",
        "region_name": "eu-west-3",
        "profile": "mine",
        "requester_pays": True,
        "s3_additional_kwargs": {"ServerSideEncryption": "AES256"},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("sftp://me:hush@host/x: no", "sftp://me@host/x: no"),
        ("abfss://box@account.net/x", "abfss://box@account.net/x"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_passwords_in_urls_are_left_out(text, without):
    assert urls.without_password(text) == without


def test_a_password_in_a_url_is_not_spooled(tmp_path, monkeypatch):
    from sm_tblog.storage.object_store import notes_of

    assert notes_of("sftp://me:hush@host/x", {"password": "hush"}) == {"url": "sftp://me@host/x"}
    spool.create(tmp_path, **notes_of("sftp://me:hush@host/x", {}), name="n").delete()


class ClientError(Exception):
    def __init__(self, code, message=""):
        self.response = {"Error": {"Code": code, "Message": message}}


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ClientError("NoSuchBucket", "gone"), RefusedError, "create it or correct the URL"),
        (ClientError("AccessDenied", "arn:x may not y"), RefusedError, "arn:x may not y"),
        (ClientError("SlowDown"), StoreError, "fewer requests"),
        (ClientError("InternalError", "x" * 999), StoreError, "the upload failed (InternalError"),
        (TimeoutError("late"), StoreError, "the upload failed (TimeoutError: late)"),
    ],
)
def test_an_error_says_what_to_do_and_what_the_server_said(error, kind, said):
    found = as_store_error(error, "s3://bucket/x")
    assert type(found) is kind
    assert said in str(found)
    assert len(str(found)) < 450
    assert found.__cause__ is error
