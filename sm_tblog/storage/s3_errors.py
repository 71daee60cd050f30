"""Translates botocore's errors to ``StoreError`` with advice.

An error is looked up by its S3 code or, if there is none, by the name of its class and of those
that it derives from. An error that lasts until the user does something is a ``RefusedError``, so
that ``close()`` does not wait for it.
"""

from __future__ import annotations

from sm_tblog._errors import StoreError
from sm_tblog.storage.base import RefusedError, UnreachableError
from sm_tblog.storage.urls import without_password

__all__ = ["READING", "STALE_CREDENTIALS", "advice_on", "as_store_error", "error_code"]

READING = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
}
"""The permission that each operation of a reader needs."""


_CLOCK = "this machine's clock is off by more than 15 minutes; correct it"
_CONFIGURATION = "the shared configuration is invalid; correct it, or set AWS_CONFIG_FILE"
_EXPIRED = (
    "the session token has expired; credentials are looked up again, so renew them where they "
    "come from, or use a role or profile that renews them"
)
_LOGIN = "the sign-in has expired; run: aws login"
_MFA = (
    "the profile's role requires an MFA code, and a background thread cannot ask for one; get "
    "temporary credentials first: aws configure export-credentials --profile NAME --format env"
)
_NETWORK = "the store cannot be reached; check the network and endpoint_url"
_NOT_S3 = "what answers at this URL is not an S3 server; check endpoint_url"
_OPTIONS = "correct storage_options"
_PROVIDER = (
    "the credentials could not be retrieved; check what provides them, such as the profile's "
    "credential_process or a token file"
)
_REGION = "the bucket is in another region; set region_name"
_ROLE = "the role cannot be assumed; check its trust policy and the profile"
_SSO = "the sign-in to IAM Identity Center has expired; run: aws sso login"
_UNKNOWN_KEY = "the server does not know the access key; check the credentials and endpoint"

_WAITS = {
    "SlowDown": "the store asks for fewer requests; uploads are retried less often",
    "EndpointConnectionError": _NETWORK,
    "ConnectTimeoutError": _NETWORK,
    "ProxyConnectionError": "the proxy cannot be reached; check HTTPS_PROXY and NO_PROXY",
    "ReadTimeoutError": "the store does not respond",
}
"""Advice on errors that may end on their own."""

_REFUSED = {
    "NoSuchBucket": "there is no such bucket; create it or correct the URL",
    "AccessDenied": "the credentials do not allow writing there; grant s3:PutObject, and for cheap "
    "appends s3:GetObject and s3:AbortMultipartUpload",
    "AllAccessDisabled": "the account has no access to the bucket",
    "AccountProblem": "the account has no access to the bucket",
    "AccessControlListNotSupported": "the bucket does not support ACLs; leave the ACL out of "
    "s3_additional_kwargs",
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "UnrecognizedClientException": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": "the secret access key does not match the access key",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": "the session token is invalid; check the credentials",
    "InvalidIdentityToken": "the web identity token is invalid; check AWS_WEB_IDENTITY_TOKEN_FILE",
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "RequestInTheFuture": _CLOCK,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "InvalidRegionError": "the region's name is invalid; correct region_name or AWS_REGION",
    "InvalidObjectState": "the object is archived; restore it first",
    "InvalidStorageClass": "there is no such storage class; see s3_additional_kwargs",
    "KMS.DisabledException": "the KMS key is disabled",
    "KMS.NotFoundException": "there is no such KMS key",
    "InvalidBucketName": "the bucket name is invalid; correct the URL",
    "NoCredentialsError": "there are no credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or give the job a role",
    "PartialCredentialsError": "the credentials are incomplete",
    "CredentialRetrievalError": _PROVIDER,
    "RefreshWithMFAUnsupportedError": _MFA,
    "SSOError": _SSO,
    "TokenRetrievalError": _SSO,
    "NoAuthTokenError": _SSO,
    "LoginError": _LOGIN,
    "ProfileNotFound": "there is no such profile in the shared configuration",
    "ConfigParseError": _CONFIGURATION,
    "ConfigNotFound": _CONFIGURATION,
    "InvalidConfigError": _CONFIGURATION,
    "UnknownCredentialError": _CONFIGURATION,
    "NoRegionError": "no region is set; set AWS_REGION or region_name",
    "SSLError": "the server's certificate is not trusted; set AWS_CA_BUNDLE to a file with the "
    "certificates of the authority that issued it",
    "ResponseParserError": _NOT_S3,
    "MissingDependencyException": "another package is needed; pip install 'botocore[crt]'",
    "UnsupportedS3AccesspointConfigurationError": "the access point does not fit the region, "
    "endpoint or options; correct them",
    "UnsupportedS3ArnError": "the ARN is not that of an access point; correct the URL",
    "EndpointProviderError": "the URL, region and endpoint do not fit together; correct them",
    "ParamValidationError": "S3 does not allow this; correct the URL or s3_additional_kwargs",
    "InvalidProxiesConfigError": _OPTIONS,
    "InvalidRetryConfigurationError": _OPTIONS,
    "InvalidS3AddressingStyleError": _OPTIONS,
    "UnknownSignatureVersionError": _OPTIONS,
    "JSONDecodeError": "what provides the credentials returned no valid JSON; run it by hand",
    "FileNotFoundError": _PROVIDER,
    "PermissionError": _PROVIDER,
    "InvalidValueError": _OPTIONS,
    "TypeError": _OPTIONS,
    "ValueError": _OPTIONS,
}
"""Advice on errors that last until the user does something."""

_CERTIFICATES = {
    "WRONG_VERSION_NUMBER": "the server does not use TLS; use http:// in endpoint_url, or "
    "S3_USE_HTTPS=0",
    "RECORD_LAYER_FAILURE": "the server does not use TLS; use http:// in endpoint_url, or "
    "S3_USE_HTTPS=0",
    "ostname": "the server's certificate is for another host; check endpoint_url",
    "IP address mismatch": "the server's certificate is for another host; check endpoint_url",
    "has expired": "the server's certificate has expired; renew it, or correct the clock",
    "not yet valid": "the server's certificate is not valid yet; correct the clock",
}
"""Advice on TLS errors, by a part of their message."""

_CREDENTIALS_FROM = {
    **dict.fromkeys(("AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"), _ROLE),
    "GetRoleCredentials": "the user may not have the profile's role in IAM Identity Center; check "
    "sso_account_id and sso_role_name",
}
"""Advice on the refusal of an operation that gives temporary credentials."""

_UNREACHABLE = ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError")

STALE_CREDENTIALS = frozenset(
    {
        "CredentialRetrievalError",
        "ExpiredToken",
        "ExpiredTokenException",
        "FileNotFoundError",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "JSONDecodeError",
        "LoginError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "PermissionError",
        "RefreshWithMFAUnsupportedError",
        "SSLError",
        "SSOError",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "TokenRetrievalError",
        "UnrecognizedClientException",
    }
)
"""Errors after which credentials and certificates are read again: they may have been replaced."""


def error_code(error: BaseException) -> str:
    """Return the S3 code of an error, or the name of its class or of one it derives from.

    A class is named by the first name that there is advice on.
    """
    response = getattr(error, "response", None) or {}
    if code := response.get("Error", {}).get("Code"):
        return str(code)
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((name for name in names if name in _REFUSED or name in _WAITS), names[0])


def as_store_error(error: Exception, url: str, operation: str = "") -> StoreError:
    """Return a botocore error as a ``StoreError`` with advice and without secrets.

    Args:
        error: what botocore raised.
        url: the folder, for the message.
        operation: the S3 operation that failed.
    """
    code = error_code(error)
    detail = (getattr(error, "response", None) or {}).get("Error", {}).get("Message") or str(error)
    advice, kind = _advise(error, code, detail, operation)
    detail = detail[:300].strip()
    name = code if getattr(error, "response", None) else type(error).__name__
    store_error = kind(without_password(f"{url}: {advice} ({name}: {detail})"))
    store_error.__cause__ = error
    return store_error


def advice_on(error: Exception) -> str:
    """Return the advice on an error of finding credentials; "" if there is none."""
    code = error_code(error)
    known = code in _REFUSED or code in _WAITS or hasattr(error, "operation_name")
    return _advise(error, code, str(error), "")[0] if known else ""


def _advise(
    error: Exception, code: str, detail: str, operation: str
) -> tuple[str, type[StoreError]]:
    asked = getattr(error, "operation_name", operation)  # S3, or what gives the credentials
    if asked in _CREDENTIALS_FROM and (code == "AccessDenied" or code not in _REFUSED):
        return _CREDENTIALS_FROM[asked], RefusedError
    if code == "SSLError":
        found = (advice for part, advice in _CERTIFICATES.items() if part in detail)
        return next(found, _REFUSED[code]), RefusedError
    if code in ("AccessDenied", "403"):
        return _advise_on_denial(detail, operation), RefusedError
    if code.startswith("KMS."):
        return _REFUSED.get(code, "the bucket's KMS key cannot be used"), RefusedError
    if code in _REFUSED:
        return _REFUSED[code], RefusedError
    general = "reading failed" if operation in READING else "the upload failed"
    if operation in READING and code in ("404", "NoSuchKey"):
        general = "there is no such object any more"
    kind = UnreachableError if code in _UNREACHABLE else StoreError
    return _WAITS.get(code, general), kind


def _advise_on_denial(detail: str, operation: str) -> str:
    if "kms:" in detail:
        return (
            "the credentials do not allow using the KMS key; grant kms:GenerateDataKey and "
            "kms:Decrypt"
        )
    if operation in READING:
        return f"the credentials do not allow reading there; grant {READING[operation]}"
    if "explicit deny" in detail:
        return (
            "a policy denies writing there; it may require s3_additional_kwargs such as "
            "ServerSideEncryption, SSEKMSKeyId or ACL"
        )
    return _REFUSED["AccessDenied"]
