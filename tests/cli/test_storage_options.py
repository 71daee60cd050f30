"""The storage options of ``sm-tblog upload`` and ``sm-tblog doctor``: those of a writer."""

import datetime as dt
import ipaddress
import os
import ssl
import subprocess
import sys

import pytest
from s3_servers import KEY, SECRET, FaultProxy
from sagemaker_tree import clean_environment

from sm_tblog.format.records import frame
from sm_tblog.storage import object_store, spool
from sm_tblog.storage.s3_options import ENVIRONMENT, make_client, make_session, public

pytest.importorskip("typer")
pytest.importorskip("botocore", reason="needs botocore: pip install 'sm-tblog[s3]'")

KEYS = f"[mine]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
HEADERS = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "alias/mine",
    "x-amz-acl": "bucket-owner-full-control",
    "x-amz-storage-class": "STANDARD_IA",
    "x-amz-request-payer": "requester",
}
DEMANDED = [
    *("--option", "ServerSideEncryption=aws:kms", "--option", "SSEKMSKeyId=alias/mine"),
    *("--option", "ACL=bucket-owner-full-control", "--option", "StorageClass=STANDARD_IA"),
    *("--option", "requester_pays=true"),
]


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "REQUESTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    return tmp_path


@pytest.fixture
def command(tmp_path):
    """``command(*arguments, **variables)``: what ``sm-tblog`` prints, and its exit code."""

    def run(*arguments, **variables):
        base = {"SAGEMAKER_BASE_DIR": str(tmp_path / "none"), "TERM": "dumb"}
        done = subprocess.run(
            [sys.executable, "-m", "sm_tblog", *arguments],
            env=clean_environment(tmp_path, **base, **variables),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return done.stdout + done.stderr, done.returncode

    return run


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The file with a certificate for 127.0.0.1 that no authority has signed, and its key."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(path)


@pytest.fixture
def secure(moto_server, authority):
    """A proxy that speaks TLS, with a certificate that is not trusted by default."""
    moto_server.make_bucket()
    proxy = FaultProxy(moto_server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    proxy._server.socket = context.wrap_socket(proxy._server.socket, server_side=True)
    proxy.url = proxy.url.replace("http:", "https:")
    with proxy:
        yield proxy


def leave(url, options):
    """Leave a spool file behind, as a process does that is killed."""
    notes = object_store.notes_of(url, options)
    file = spool.create(spool.default_folder(), name="left.tfevents", **notes)
    file.append(frame(b""))
    file.release()


# What a process that has ended had been given.


@pytest.mark.parametrize("how", ["environment", "tensorflow", "options", "command line"])
def test_an_upload_trusts_the_authority_that_its_process_trusted(
    command, secure, authority, tmp_path, how, monkeypatch
):
    options, arguments = {"endpoint_url": secure.url}, []
    if how == "environment":
        monkeypatch.setenv("AWS_CA_BUNDLE", authority)
    elif how == "tensorflow":
        monkeypatch.setenv("S3_CA_FILE", authority)
    elif how == "options":
        options["client_kwargs"] = {"verify": authority}
    else:
        arguments = ["--ca-bundle", authority]
    leave(f"s3://bucket/{tmp_path.name}", options)
    spooled = str(tmp_path / "spool")
    variables = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    said, code = command("upload", *arguments, SM_TBLOG_SPOOL=spooled, **variables)
    assert "  uploaded" in said
    assert code == 0


def test_without_the_authority_an_upload_says_how_to_name_it(command, secure, tmp_path):
    leave(f"s3://bucket/{tmp_path.name}", {"endpoint_url": secure.url})
    spooled = str(tmp_path / "spool")
    variables = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    said, code = command("upload", SM_TBLOG_SPOOL=spooled, **variables)
    assert "certificate is not trusted; set AWS_CA_BUNDLE" in said
    assert code == 1


@pytest.mark.parametrize("how", ["environment", "options", "command line"])
def test_an_upload_uses_the_profile_of_its_process(
    command, moto_server, tmp_path, how, monkeypatch
):
    moto_server.make_bucket()
    (tmp_path / "keys").write_text(KEYS)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("S3_ENDPOINT", moto_server.url.removeprefix("http://"))
    monkeypatch.setenv("S3_USE_HTTPS", "0")
    if how == "environment":
        monkeypatch.setenv("AWS_PROFILE", "mine")
    leave(f"s3://bucket/{tmp_path.name}", {"profile": "mine"} if how == "options" else {})
    arguments = ["--profile", "mine"] if how == "command line" else []
    said, code = command("upload", *arguments, SM_TBLOG_SPOOL=str(tmp_path / "spool"))
    assert "  uploaded" in said
    assert code == 0


def test_the_environment_of_the_upload_comes_before_a_recorded_one(tmp_path, monkeypatch):
    (tmp_path / "keys").write_text(KEYS + KEYS.replace("[mine]", "[theirs]"))
    (tmp_path / "ca.pem").write_text("")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    recorded = {
        "AWS_PROFILE": "mine",
        "AWS_CA_BUNDLE": "/not/on/this/machine.pem",
        "AWS_REGION": "eu-west-3",
        "S3_VERIFY_SSL": "0",
    }
    options = {ENVIRONMENT: recorded}
    assert make_session(options).get_config_variable("profile") == "mine"
    assert make_client(options).meta.region_name == "eu-west-3"
    assert make_client(options)._endpoint.http_session._verify is False
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("S3_VERIFY_SSL", "1")
    monkeypatch.setenv("AWS_PROFILE", "theirs")
    assert make_session(options).get_config_variable("profile") == "theirs"
    assert make_client(options).meta.region_name == "eu-west-1"
    assert make_client(options)._endpoint.http_session._verify is True
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    assert make_session(options).get_config_variable("profile") is None
    assert make_session({ENVIRONMENT: {"AWS_PROFILE": "nobody"}}).profile is None


def test_what_is_recorded_has_absolute_paths_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", "ca.pem")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("S3_ENDPOINT", "http://me:hush@minio:9000")
    kwargs = {"verify": "other.pem", "aws_session_token": "hush", "region_name": "eu-west-3"}
    options = {
        "client_kwargs": kwargs,
        "s3_additional_kwargs": {"ObjectLockRetainUntilDate": dt.date(2030, 1, 2)},
    }
    assert public(options) == {
        "client_kwargs": {"verify": str(tmp_path / "other.pem")},
        "region_name": "eu-west-3",
        "s3_additional_kwargs": {"ObjectLockRetainUntilDate": "2030-01-02"},
        "endpoint_url": "http://me@minio:9000",
        "environment": {"AWS_CA_BUNDLE": str(tmp_path / "ca.pem")},
    }


def test_that_requests_are_not_signed_is_recorded():
    import botocore

    options = {"config_kwargs": {"signature_version": botocore.UNSIGNED}}
    assert public(options) == {"anon": True, "config_kwargs": {}, "endpoint_url": None}
    options = {"config_kwargs": {"signature_version": "s3v4"}}
    assert public(options) == {**options, "endpoint_url": None}


# What a bucket's policy demands.


def test_doctor_can_be_given_what_the_buckets_policy_demands(
    command, secure, authority, tmp_path, monkeypatch
):
    def refuse_bare(request):
        lacks = [name for name in HEADERS if request.headers.get(name) != HEADERS[name]]
        return "403" if request.operation == "PutObject" and lacks else None

    monkeypatch.setattr(secure, "next_fault", refuse_bare)
    (tmp_path / "keys").write_text(KEYS)
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys")}
    server = ["--endpoint-url", secure.url, "--ca-bundle", authority, "--profile", "mine"]
    url = "s3://bucket/demands"
    said, code = command("doctor", url, "--timeout", "5", *server, **variables)
    assert "AccessDenied" in said
    assert code == 1
    said, code = command("doctor", url, "--timeout", "5", *server, *DEMANDED, **variables)
    assert f"{url} is writable" in said
    assert "reading back returned the same content" in said
    assert "credentials from the shared credentials file" in said
    assert code == 0
    said, code = command("doctor", url, "--timeout", "5", *server[:2], *server[4:], **variables)
    assert "certificate is not trusted" in said
    assert code == 1


def test_doctor_says_what_is_wrong_with_credentials(command, tmp_path):
    sso = (
        "[profile sso]\nsso_region = us-east-1\nsso_start_url = https://x.invalid/start\n"
        "sso_account_id = 123456789012\nsso_role_name = r\n"
        "[profile mfa]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = mine\n"
        "mfa_serial = arn:aws:iam::123456789012:mfa/me\n"
    )
    (tmp_path / "config").write_text(sso)
    (tmp_path / "keys").write_text(KEYS)
    variables = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys"),
    }
    arguments = ["s3://bucket/x", "--endpoint-url", "http://127.0.0.1:9", "--timeout", "1"]
    for profile, advice in (("sso", "Run: aws sso login"), ("mfa", "requires an MFA code")):
        said, code = command("doctor", *arguments, "--profile", profile, **variables)
        assert advice.lower() in said.lower()
        assert "credentials cannot be loaded" in said
        assert code == 1


@pytest.mark.parametrize("name", ["doctor", "upload"])
def test_an_option_without_a_value_or_with_invalid_json_is_refused(command, name, tmp_path):
    leave("s3://bucket/x", {"endpoint_url": "http://127.0.0.1:9"})
    where = ["s3://bucket/x"] if name == "doctor" else [str(tmp_path / "spool")]
    for option in ("ACL", "=x", "client_kwargs={"):
        said, code = command(name, *where, "--option", option)
        assert "--option" in said
        assert option in said
        assert code == 2


def test_a_parameter_that_there_is_not_is_named(command):
    said, code = command("doctor", "s3://bucket/x", "--option", "Encryption=AES256")
    assert "PutObject has no parameter Encryption" in said
    assert code == 1
