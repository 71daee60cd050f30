"""What ``storage_options`` mean for ``s3://``, and what an S3 error means for a person.

The options are s3fs', so that one dictionary serves pandas, fsspec and this library. What they do
not say comes from where botocore looks: the environment, the shared configuration, the role of a
container or instance, with credentials refreshed as they expire.
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
    "STALE",
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

STALE = frozenset(
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
"""Errors after which credentials are looked for anew: somebody may have put others in place."""

_PUBLIC = ("anon", "profile", "region_name", "use_ssl", "requester_pays")
"""Options that hold no secret."""


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
    if not bucket_and_prefix(url)[0]:
        message = f"{url!r} names no bucket; a URL is s3://bucket/folder"
        raise InvalidValueError(message)


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return the bucket's name, and what stands before a folder's names in it."""
    bucket, _, folder = url.partition("://")[2].partition("/")
    folder = folder.strip("/")
    return bucket, f"{folder}/" if folder else ""


def public(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a later upload needs and that hold no secret, as JSON has them."""
    kept = {name: options[name] for name in _PUBLIC if name in options}
    if style := (options.get("config_kwargs") or {}).get("s3"):
        kept["config_kwargs"] = {"s3": style}
    if more := options.get("s3_additional_kwargs"):
        kept["s3_additional_kwargs"] = {k: v for k, v in more.items() if "SSECustomer" not in k}
    return {**kept, "endpoint_url": _endpoint(options)}


def identity(options: Mapping[str, Any]) -> str:
    """Return what tells clients apart: the options, and what else botocore looks at."""
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
        "retries": {"mode": "standard", "total_max_attempts": 2},  # the queue tries on, and says so
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
        message = f"s3_additional_kwargs: S3's PutObject takes no {', '.join(sorted(unknown))}"
        raise InvalidValueError(message)
    return client


def _endpoint(options: Mapping[str, Any]) -> str | None:
    """Return the server's URL, if it is not AWS. ``S3_ENDPOINT`` is where TensorBoard looks."""
    given = (options.get("client_kwargs") or {}).get("endpoint_url") or options.get("endpoint_url")
    names = ["S3_ENDPOINT"]
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        names += ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
    return given or next((os.environ[name] for name in names if os.environ.get(name)), None)


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
    said = (getattr(error, "response", None) or {}).get("Error", {}).get("Message") or str(error)
    said = said[:300].strip()
    advice = _ADVICE.get(code, "the upload failed")
    kind = RefusedError if code in _REFUSED else StoreError
    ours = kind(without_password(f"{url}: {advice} ({code}: {said})"))
    ours.__cause__ = error
    return ours


def without_password(text: str) -> str:
    """Return a text with the passwords left out of the URLs in it."""
    return re.sub(r"(?<=://)([^/:@\s]*):[^/@\s]*@", r"\1@", text)
