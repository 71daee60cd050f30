"""Errors of credentials, certificates and servers: advice, no prompt, and no minute's wait."""

import getpass
import os
import sys
import threading
from importlib.util import find_spec

import pytest

import sm_tblog
from sm_tblog import StoreError
from sm_tblog.storage import upload_queue
from sm_tblog.storage.base import RefusedError, UnreachableError
from sm_tblog.storage.object_store import ObjectStore
from sm_tblog.storage.s3_errors import as_store_error

botocore = pytest.importorskip("botocore.exceptions")

LONG = 600.0
"""A timeout in seconds that no barrier may reach: pytest ends a test long before."""

NOWHERE = "http://127.0.0.1:9"
KEYS = {"key": "k", "secret": "s"}
SSO = "sso_region = us-east-1\nsso_start_url = https://x.invalid/start\n"
SSO_ROLE = "sso_account_id = 123456789012\nsso_role_name = r\n"
ROLE = "role_arn = arn:aws:iam::123456789012:role/logger\nsource_profile = default\n"


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """Only the test's own credentials and configuration: the folder of both files."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "REQUESTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.0,))
    return tmp_path


@pytest.fixture
def give_up(environment):
    """``give_up(url, options)``: the error with which a closed store gives an upload up."""
    stores = []

    def run(url="s3://bucket/run", options=None):
        store = ObjectStore(url, "tfevents", **(options or {}))
        stores.append(store)
        store.append(b"x")
        store.close()
        assert not store.wait(LONG)
        return store.error

    yield run
    for store in stores:
        for job in store._queue.jobs():
            job.file.delete()
        store._queue._jobs.clear()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[default]\ncredential_process = COMMAND fails\n", "credential_process"),
        ("[default]\ncredential_process = /no/such/program\n", "credential_process"),
        ("[default]\ncredential_process = COMMAND junk\n", "no valid JSON"),
        (f"[default]\nsso_session = x\n{SSO_ROLE}[sso-session x]\n{SSO}", "run: aws sso login"),
        (f"[default]\n{SSO_ROLE}{SSO}", "run: aws sso login"),
        ("[default]\nrole_arn = x\ncredential_source = Strange\n", "configuration is invalid"),
        ("nonsense [\n", "configuration is invalid"),
        ("[default]\naws_access_key_id = k\n", "the credentials are incomplete"),
        ("", "there are no credentials"),
    ],
)
def test_credentials_that_cannot_be_had_end_the_wait_with_advice(
    environment, give_up, config, said
):
    program = environment / "credentials.py"
    program.write_text(
        "import sys\nif sys.argv[1] == 'fails': sys.exit('boom')\nprint('no JSON')\n"
    )
    config = config.replace("COMMAND", f"{sys.executable} {program}")
    (environment / "config").write_text(config)
    options = {"endpoint_url": NOWHERE}
    error = give_up(options=options)
    assert isinstance(error, RefusedError)
    assert said in str(error)
    with pytest.raises(StoreError) as caught:
        sm_tblog.read("s3://bucket/run", storage_options=options)
    assert said in str(caught.value)


@pytest.mark.parametrize("chained", [False, True])
def test_nobody_is_asked_for_an_mfa_code(environment, give_up, chained, monkeypatch):
    from botocore import credentials

    def ask(*_args, **_kwargs):
        raise AssertionError("prompts")

    for kind in (credentials.AssumeRoleProvider, credentials.AssumeRoleCredentialFetcher):
        defaults = kind.__init__.__defaults__
        found = tuple(ask if value is getpass.getpass else value for value in defaults)
        monkeypatch.setattr(kind.__init__, "__defaults__", found)
    config = f"[profile mine]\n{ROLE}mfa_serial = arn:aws:iam::123456789012:mfa/me\n"
    if chained:
        config += f"[profile outer]\n{ROLE.replace('default', 'mine')}"
    (environment / "config").write_text(config)
    keys = "[default]\naws_access_key_id = k\naws_secret_access_key = s\n"
    (environment / "credentials").write_text(keys)
    options = {"endpoint_url": NOWHERE, "profile": "outer" if chained else "mine"}
    error = give_up(options=options)
    assert isinstance(error, RefusedError)
    assert "requires an MFA code" in str(error)
    assert "aws configure export-credentials" in str(error)


def test_a_web_identity_without_its_token_ends_the_wait(give_up, monkeypatch):
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/file")
    assert "a token file" in str(give_up(options={"endpoint_url": NOWHERE}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint_url": NOWHERE}, "check the network and endpoint_url"),
        ({"endpoint_url": "http://"}, "correct storage_options"),
        ({"region_name": "no region"}, "correct region_name or AWS_REGION"),
        ({"client_kwargs": {"strange": 1}}, "correct storage_options"),
        ({"config_kwargs": {"strange": 1}}, "correct storage_options"),
        (
            {"endpoint_url": NOWHERE, "config_kwargs": {"proxies": {"http": NOWHERE}}},
            "check HTTPS_PROXY and NO_PROXY",
        ),
    ],
)
def test_a_server_or_option_that_is_wrong_ends_the_wait(give_up, options, said):
    assert said in str(give_up(options={**KEYS, **options}))


def test_an_access_point_of_several_regions_says_what_to_install(give_up):
    url = "s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap/x"
    if find_spec("awscrt"):
        pytest.skip("awscrt is installed")
    assert "pip install 'botocore[crt]'" in str(give_up(url, KEYS))


@pytest.mark.parametrize("fault", ["expired", "skew", "403"])
def test_a_refusal_of_the_credentials_ends_the_wait(give_up, moto_server, fault_proxies, fault):
    proxy = fault_proxies(moto_server)
    proxy.server.make_bucket()
    proxy.fail("PutObject", [fault])
    assert isinstance(give_up(options=proxy.options), RefusedError)
    assert proxy.count("PutObject") >= upload_queue.MAX_FAILURES


# How an error is judged.


def client_error(code, message="", operation="PutObject"):
    return botocore.ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (client_error("AccessDenied", operation="AssumeRole"), "check its trust policy"),
        (client_error("ExpiredToken", operation="AssumeRole"), "session token has expired"),
        (client_error("InvalidClientTokenId", operation="AssumeRole"), "not know the access key"),
        (client_error("ForbiddenException", operation="GetRoleCredentials"), "sso_role_name"),
        (client_error("InvalidIdentityToken", "x", "AssumeRoleWithWebIdentity"), "web identity"),
        (client_error("RequestExpired"), "clock"),
        (client_error("AccessDenied", "not authorized to perform: kms:GenerateDataKey"), "kms:D"),
        (client_error("AccessDenied", "with an explicit deny in a policy"), "SSEKMSKeyId or ACL"),
        (client_error("AccessControlListNotSupported"), "leave the ACL out"),
        (client_error("KMS.InvalidStateException"), "KMS key cannot be used"),
        (botocore.UnauthorizedSSOTokenError(), "run: aws sso login"),
        (botocore.TokenRetrievalError(provider="sso", error_msg="x"), "run: aws sso login"),
        (botocore.NoAuthTokenError(), "run: aws sso login"),
        (botocore.NoRegionError(), "set AWS_REGION"),
        (botocore.SSLError(endpoint_url="https://x", error="self-signed"), "AWS_CA_BUNDLE"),
        (botocore.SSLError(endpoint_url="x", error="WRONG_VERSION_NUMBER"), "use http://"),
        (botocore.SSLError(endpoint_url="x", error="Hostname mismatch"), "for another host"),
        (botocore.SSLError(endpoint_url="x", error="certificate has expired"), "renew it"),
        (botocore.InfiniteLoopConfigError(source_profile="a", visited_profiles=["a"]), "invalid"),
    ],
)
def test_what_the_user_must_mend_is_refused_with_advice(error, said):
    found = as_store_error(error, "s3://bucket/x", "PutObject")
    assert type(found) is RefusedError
    assert said in str(found)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (botocore.EndpointConnectionError(endpoint_url="x"), UnreachableError),
        (botocore.ConnectTimeoutError(endpoint_url="x"), UnreachableError),
        (botocore.ProxyConnectionError(proxy_url="x"), UnreachableError),
        (botocore.ReadTimeoutError(endpoint_url="x"), StoreError),
        (botocore.ConnectionClosedError(endpoint_url="x"), StoreError),
        (client_error("SlowDown"), StoreError),
        (client_error("InternalError"), StoreError),
    ],
)
def test_what_may_end_on_its_own_is_not_refused(error, kind):
    assert type(as_store_error(error, "s3://bucket/x", "PutObject")) is kind


def test_a_store_that_was_reached_before_is_waited_for(moto_server, fault_proxies):
    """Only an address that has never been right may be wrong."""
    proxy = fault_proxies(moto_server)
    proxy.server.make_bucket()
    store = ObjectStore("s3://bucket/reached", "tfevents", use_ssl=False, **proxy.options)
    store.append(b"x")
    assert store.wait(LONG, force=True), store.error
    failed, enough = [], threading.Event()
    queue = store._queue
    upload = queue._upload

    def fail_then_upload():
        failed.append(1)
        if len(failed) <= 2 * upload_queue.MAX_FAILURES:
            raise UnreachableError("down for a while")
        enough.set()
        upload()

    queue._upload = fail_then_upload
    store.append(b"y")
    store.close()
    assert store.wait(LONG)
    assert enough.is_set()
