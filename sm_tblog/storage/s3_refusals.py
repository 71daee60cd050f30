"""Which errors of S3 servers are refusals: repeating the request cannot help, another method may.

S3 servers differ in what they support and in the codes with which they refuse the rest: 400, 403,
404, 405 or 501, or an error in a reply with status 200. So every definite error is a refusal,
except those that pass on their own or concern every request to the bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.storage.s3_bucket import code_of

if TYPE_CHECKING:
    from sm_tblog._errors import StoreError

__all__ = ["has_reply", "is_refusal"]

_PASSES = frozenset(
    {
        "BadDigest",
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestLimitExceeded",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
"""Codes of errors that pass, whatever their status."""

_CONCERNS_ALL = frozenset(
    {
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "ExpiredTokenException",
        "IllegalLocationConstraintException",
        "InvalidAccessKeyId",
        "InvalidBucketName",
        "InvalidClientTokenId",
        "InvalidToken",
        "NoSuchBucket",
        "PermanentRedirect",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
"""Codes of refusals of every request, whatever its method."""

_REFUSALS = frozenset(
    {
        "AccessDenied",
        "EntityTooSmall",
        "InvalidArgument",
        "InvalidObjectState",
        "InvalidPart",
        "InvalidPartOrder",
        "InvalidRequest",
        "MethodNotAllowed",
        "NoSuchKey",
        "NoSuchUpload",
        "NotImplemented",
        "NotSupported",
    }
)
"""Codes of refusals that may come with status 200, which botocore reports as 500."""

_PASSING_STATUSES = (408, 409, 412, 425, 429)


def has_reply(error: StoreError) -> bool:
    """Return whether the server replied with an error that does not concern every request."""
    return bool(_reply(error)) and code_of(error) not in _CONCERNS_ALL


def is_refusal(error: StoreError) -> bool:
    """Return whether the server refused a request for good, but perhaps not another one."""
    code = code_of(error)
    if not has_reply(error) or code in _PASSES:
        return False
    status = _reply(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    is_definite = 400 <= status < 500 and status not in _PASSING_STATUSES
    return is_definite or status == 501 or code in _REFUSALS


def _reply(error: StoreError) -> dict[str, Any]:
    return getattr(error.__cause__, "response", None) or {}
