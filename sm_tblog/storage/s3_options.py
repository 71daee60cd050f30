"""What ``storage_options`` mean for ``s3://``, and what an S3 error means for a person.

The options are s3fs', so that one dictionary serves pandas, fsspec and this library. What they do
not say comes from where botocore looks: the environment, the shared configuration, the role of a
container or instance, with credentials refreshed as they expire.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError
from sm_tblog.storage.base import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["as_store_error", "check", "error_code", "make_client", "operation_parameters"]

OPTIONS = {
    "anon": "send no credentials",
    "key": "the access key's id",
    "secret": "the secret access key",
    "token": "the session token",
    "username": "another name of key",
    "password": "another name of secret",
    "profile": "a profile of the shared configuration; one with role_arn assumes the role",
    "endpoint_url": "the server, if it is not AWS",
    "region_name": "the bucket's region",
    "use_ssl": "False for plain HTTP",
    "requester_pays": "True if whoever uploads pays",
    "client_kwargs": "passed to botocore's create_client",
    "config_kwargs": "passed to botocore.config.Config",
    "s3_additional_kwargs": "passed to every request that knows them: ServerSideEncryption, "
    "SSEKMSKeyId, ACL, Tagging, StorageClass, …",
}

CONNECT_TIMEOUT = 5
"""Seconds."""

READ_TIMEOUT = 20
"""Seconds without a byte of the reply."""

_ADVICE = {
    "NoSuchBucket": "there is no such bucket; make it, or correct the URL",
    "AccessDenied": "the credentials may not write there; s3:PutObject is needed, and s3:GetObject "
    "and s3:AbortMultipartUpload to append cheaply",
    "403": "the credentials may not do this; s3:PutObject and s3:GetObject are needed",
    "AllAccessDisabled": "the account has no access to the bucket",
    "InvalidAccessKeyId": "the access key is not known there; check the credentials and endpoint",
    "SignatureDoesNotMatch": "the secret access key does not fit the access key",
    "ExpiredToken": "the session token has expired; new credentials are looked for",
    "ExpiredTokenException": "the session token has expired; new credentials are looked for",
    "TokenRefreshRequired": "the session token has expired; new credentials are looked for",
    "InvalidToken": "the session token is not valid; check the credentials",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than 15 minutes; set it",
    "PermanentRedirect": "the bucket is in another region; name it with region_name",
    "AuthorizationHeaderMalformed": "the bucket is in another region; name it with region_name",
    "IllegalLocationConstraintException": "the bucket is in another region; name it with "
    "region_name",
    "SlowDown": "the store asks for fewer requests; it is tried again, less often",
    "InvalidStorageClass": "there is no such storage class; see s3_additional_kwargs",
    "KMS.DisabledException": "the KMS key is disabled",
    "KMS.NotFoundException": "there is no such KMS key",
    "InvalidBucketName": "that is no bucket's name; correct the URL",
    "NoCredentialsError": "there are no credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or give the job a role",
    "PartialCredentialsError": "the credentials are not complete",
    "ProfileNotFound": "there is no such profile in the shared configuration",
    "NoRegionError": "name a region: AWS_REGION or region_name",
    "EndpointConnectionError": "the store cannot be reached; check the network and endpoint_url",
    "ConnectTimeoutError": "the store cannot be reached; check the network and endpoint_url",
    "ReadTimeoutError": "the store does not answer",
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

EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken")
"""Errors after which credentials are looked for anew."""


def check(url: str, options: Mapping[str, Any]) -> None:
    """Raise if a client cannot be made for want of a package, or of an option's name.

    Raises:
        MissingDependencyError: botocore is not installed.
        InvalidValueError: there is no such option, or the URL names no bucket.
    """
    if find_spec("botocore") is None:
        message = f"{url}: botocore is needed to write to S3; pip install 'sm-tblog[s3]'"
        raise MissingDependencyError(message)
    if unknown := set(options) - set(OPTIONS):
        message = (
            f"storage_options of {url}: there is no {', '.join(sorted(unknown))}; "
            f"there are: {', '.join(OPTIONS)}, spool"
        )
        raise InvalidValueError(message)
    if not urlsplit(url).netloc:
        message = f"{url!r} names no bucket; a URL is s3://bucket/folder"
        raise InvalidValueError(message)


def make_client(options: Mapping[str, Any]) -> Any:
    """Return a botocore client for S3."""
    import botocore
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session(profile=options.get("profile"))
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "retries": {"mode": "standard", "max_attempts": 2},  # the lane tries again, and says so
        "tcp_keepalive": True,
    }
    # Checksums as trailers are not understood by every server; Content-MD5 is.
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
        "endpoint_url": options.get("endpoint_url") or os.environ.get("S3_ENDPOINT") or None,
        "use_ssl": options.get("use_ssl", True),
    }
    arguments.update(options.get("client_kwargs") or {})
    config = Config(**settings)
    if given := arguments.pop("config", None):
        config = config.merge(given)
    return session.create_client("s3", config=config, **arguments)


def _region(session: Any) -> str:
    """Return the region that is configured; a server that is not AWS takes any."""
    found = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return str(found or "us-east-1")


def operation_parameters(client: Any, operation: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``s3_additional_kwargs`` and ``requester_pays`` mean for an operation."""
    wanted = dict(options.get("s3_additional_kwargs") or {})
    if options.get("requester_pays"):
        wanted["RequestPayer"] = "requester"
    if operation == "UploadPartCopy":  # the object that is copied is the one that was written
        wanted |= {f"CopySource{k}": v for k, v in wanted.items() if k.startswith("SSECustomer")}
    known = client.meta.service_model.operation_model(operation).input_shape.members
    return {key: value for key, value in wanted.items() if key in known}


def error_code(error: Exception) -> str:
    """Return an error's code, as S3 names it, or its type's name."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(error).__name__)


def as_store_error(error: Exception, url: str) -> StoreError:
    """Return an error of botocore's as one that says what to do, and never a secret."""
    code = error_code(error)
    status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {})
    advice = _ADVICE.get(code)
    if advice is None:
        advice = f"the store answers {status.get('HTTPStatusCode', '')} {code}".replace("  ", " ")
    kind = RefusedError if code in _REFUSED else StoreError
    ours = kind(f"{without_secrets(url)}: {advice} ({code})")
    ours.__cause__ = error
    return ours


def without_secrets(url: str) -> str:
    """Return a URL without a user, password or query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
