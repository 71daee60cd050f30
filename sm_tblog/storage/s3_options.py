"""The ``storage_options`` of ``s3://`` URLs, and S3 errors translated to advice.

The options are those of s3fs, so that one dictionary serves pandas, fsspec and this library.
Anything they leave out comes from botocore's usual sources: the environment, the shared
configuration, the role of a container or instance. Credentials are refreshed when they expire.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError
from sm_tblog.storage.base import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "STALE_CREDENTIALS",
    "as_store_error",
    "bucket_and_prefix",
    "check",
    "error_code",
    "identity",
    "make_client",
    "operation_parameters",
    "public",
    "without_password",
]

OPTIONS = {
    "anon": "send no credentials",
    "key": "the access key's id",
    "secret": "the secret access key",
    "token": "the session token",
    "username": "an alias of key",
    "password": "an alias of secret",
    "profile": "a profile of the shared configuration; one with role_arn assumes the role",
    "endpoint_url": "the server's URL, if it is not AWS",
    "region_name": "the bucket's region",
    "use_ssl": "False for plain HTTP",
    "requester_pays": "True if the uploader pays for requests",
    "client_kwargs": "passed to botocore's create_client",
    "config_kwargs": "passed to botocore.config.Config",
    "s3_additional_kwargs": "passed to every request that accepts them: ServerSideEncryption, "
    "SSEKMSKeyId, ACL, Tagging, StorageClass, …",
}

CONNECT_TIMEOUT = 5
"""Seconds to establish a connection."""

READ_TIMEOUT = 20
"""Seconds without a byte of the reply."""

_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it or correct the URL",
    "AccessDenied": "the credentials do not allow writing there; grant s3:PutObject, and for cheap "
    "appends s3:GetObject and s3:AbortMultipartUpload",
    "AllAccessDisabled": "the account has no access to the bucket",
    "InvalidAccessKeyId": "the server does not know the access key; check the credentials and "
    "endpoint",
    "SignatureDoesNotMatch": "the secret access key does not match the access key",
    "ExpiredToken": "the session token has expired; credentials are looked up again",
    "ExpiredTokenException": "the session token has expired; credentials are looked up again",
    "TokenRefreshRequired": "the session token has expired; credentials are looked up again",
    "InvalidToken": "the session token is invalid; check the credentials",
    "RequestTimeTooSkewed": "this machine's clock is off by more than 15 minutes; correct it",
    "PermanentRedirect": "the bucket is in another region; set region_name",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set region_name",
    "IllegalLocationConstraintException": "the bucket is in another region; set region_name",
    "SlowDown": "the store asks for fewer requests; uploads are retried less often",
    "InvalidStorageClass": "there is no such storage class; see s3_additional_kwargs",
    "KMS.DisabledException": "the KMS key is disabled",
    "KMS.NotFoundException": "there is no such KMS key",
    "InvalidBucketName": "the bucket name is invalid; correct the URL",
    "NoCredentialsError": "there are no credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or give the job a role",
    "PartialCredentialsError": "the credentials are incomplete",
    "ProfileNotFound": "there is no such profile in the shared configuration",
    "NoRegionError": "no region is set; set AWS_REGION or region_name",
    "EndpointConnectionError": "the store cannot be reached; check the network and endpoint_url",
    "ConnectTimeoutError": "the store cannot be reached; check the network and endpoint_url",
    "ReadTimeoutError": "the store does not respond",
    "InvalidValueError": "correct storage_options",
}

_REFUSED = frozenset(_ADVICE) - {
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "SlowDown",
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
}

STALE_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoCredentialsError",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Errors after which credentials are looked up again: they may have been replaced."""

_PUBLIC = ("anon", "profile", "region_name", "use_ssl", "requester_pays")
"""Options that contain no secrets."""


def check(url: str, options: Mapping[str, Any]) -> None:
    """Raise an error if a package is missing, an option is unknown, or the URL has no bucket.

    Raises:
        MissingDependencyError: botocore is not installed.
        InvalidValueError: an option is unknown, or the URL contains no bucket name.
    """
    if find_spec("botocore") is None:
        message = f"{url}: botocore is needed to write to S3; pip install 'sm-tblog[s3]'"
        raise MissingDependencyError(message)
    if unknown := set(options) - set(OPTIONS):
        message = (
            f"unknown storage_options for {url}: {', '.join(sorted(unknown))}; "
            f"known options: {', '.join(OPTIONS)}, spool"
        )
        raise InvalidValueError(message)
    if not bucket_and_prefix(url)[0]:
        message = f"{url!r} contains no bucket name; use s3://bucket/folder"
        raise InvalidValueError(message)


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return the bucket's name, and the prefix of the folder's keys in it."""
    bucket, _, folder = url.partition("://")[2].partition("/")
    folder = folder.strip("/")
    return bucket, f"{folder}/" if folder else ""


def public(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a later upload needs, without secrets and ready for JSON."""
    kept = {name: options[name] for name in _PUBLIC if name in options}
    if style := (options.get("config_kwargs") or {}).get("s3"):
        kept["config_kwargs"] = {"s3": style}
    if more := options.get("s3_additional_kwargs"):
        kept["s3_additional_kwargs"] = {k: v for k, v in more.items() if "SSECustomer" not in k}
    return {**kept, "endpoint_url": _endpoint(options)}


def identity(options: Mapping[str, Any]) -> str:
    """Return the key of a client: the options and the environment that botocore reads."""
    known = (name for name in sorted(os.environ) if name.startswith(("AWS_", "S3_")))
    return repr((sorted(options.items()), [(name, os.environ[name]) for name in known]))


def make_client(options: Mapping[str, Any]) -> Any:
    """Return a botocore client for S3."""
    import botocore
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session(profile=options.get("profile"))
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        # Few, because the queue retries and reports it.
        "retries": {"mode": "standard", "total_max_attempts": 2},
        "tcp_keepalive": True,
    }
    # Not every server supports checksums as trailers; all support Content-MD5.
    if "request_checksum_calculation" in Config.OPTION_DEFAULTS:
        settings["request_checksum_calculation"] = "when_required"
        settings["response_checksum_validation"] = "when_required"
    if options.get("anon"):
        settings["signature_version"] = botocore.UNSIGNED
    settings.update(options.get("config_kwargs") or {})
    arguments: dict[str, Any] = {
        "aws_access_key_id": options.get("key") or options.get("username"),
        "aws_secret_access_key": options.get("secret") or options.get("password"),
        "aws_session_token": options.get("token"),
        "region_name": options.get("region_name") or _region(session),
        "endpoint_url": _endpoint(options),
        "use_ssl": options.get("use_ssl", True),
    }
    arguments.update(options.get("client_kwargs") or {})
    config = Config(**settings)
    if given := arguments.pop("config", None):
        config = config.merge(given)
    client = session.create_client("s3", config=config, **arguments)
    known = client.meta.service_model.operation_model("PutObject").input_shape.members
    if unknown := set(options.get("s3_additional_kwargs") or {}) - set(known):
        message = (
            f"s3_additional_kwargs: S3's PutObject has no parameter {', '.join(sorted(unknown))}"
        )
        raise InvalidValueError(message)
    return client


def _endpoint(options: Mapping[str, Any]) -> str | None:
    """Return the server's URL, None for AWS. TensorBoard reads ``S3_ENDPOINT``."""
    given = (options.get("client_kwargs") or {}).get("endpoint_url") or options.get("endpoint_url")
    names = ["S3_ENDPOINT"]
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        names += ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
    return given or next((os.environ[name] for name in names if os.environ.get(name)), None)


def _region(session: Any) -> str:
    """Return the configured region; a server other than AWS accepts any."""
    found = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return str(found or "us-east-1")


def operation_parameters(client: Any, operation: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation's parameters from ``s3_additional_kwargs`` and ``requester_pays``."""
    wanted = dict(options.get("s3_additional_kwargs") or {})
    if options.get("requester_pays"):
        wanted["RequestPayer"] = "requester"
    if operation == "UploadPartCopy":  # the source was written with the same key
        wanted |= {f"CopySource{k}": v for k, v in wanted.items() if k.startswith("SSECustomer")}
    known = client.meta.service_model.operation_model(operation).input_shape.members
    return {key: value for key, value in wanted.items() if key in known}


def error_code(error: Exception) -> str:
    """Return the S3 code of an error, or the name of its type."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(error).__name__)


def as_store_error(error: Exception, url: str) -> StoreError:
    """Return a botocore error as a ``StoreError`` with advice and without secrets."""
    code = error_code(error)
    detail = (getattr(error, "response", None) or {}).get("Error", {}).get("Message") or str(error)
    detail = detail[:300].strip()
    advice = _ADVICE.get(code, "the upload failed")
    kind = RefusedError if code in _REFUSED else StoreError
    store_error = kind(without_password(f"{url}: {advice} ({code}: {detail})"))
    store_error.__cause__ = error
    return store_error


def without_password(text: str) -> str:
    """Return a text without the passwords of the URLs in it."""
    return re.sub(r"(?<=://)([^/:@\s]*):[^/@\s]*@", r"\1@", text)
