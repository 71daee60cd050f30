"""Splits the URLs of folders in buckets, and removes passwords from URLs.

In place of a bucket's name, S3 accepts the ARN of an access point, which contains colons and
slashes: ``s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/NAME/folder``. An alias of an access
point and the name of a directory bucket look like the name of any other bucket.
"""

from __future__ import annotations

import re

from sm_tblog._errors import InvalidValueError

__all__ = [
    "S3_SCHEMES",
    "bucket_and_prefix",
    "check_bucket",
    "is_s3",
    "key_of",
    "resource_pattern",
    "server_of",
    "without_password",
]

S3_SCHEMES = ("s3", "s3a")

_ACCESS_POINT = re.compile(
    r"arn:[^:/]+:s3-outposts:[^:/]*:\d*:outpost[:/][^:/]+[:/]accesspoint[:/][^:/]+"
    r"|arn:[^:/]+:s3[^:/]*:[^:/]*:\d*:accesspoint[:/][^:/]+"
)
"""The ARN of an access point: of one region or several, of Object Lambda, or on an outpost."""

_BUCKET_ARN = re.compile(r"arn:[^:/]+:s3:::(?=[^/])")
"""What comes before the name in the ARN of a bucket."""


def is_s3(url: str) -> bool:
    """Return whether a URL names a folder in S3."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme.lower() in S3_SCHEMES


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return the bucket's name or an access point's ARN, and the prefix of the folder's keys."""
    where = url.partition("://")[2]
    if found := _BUCKET_ARN.match(where):
        where = where[found.end() :]
    if found := _ACCESS_POINT.match(where):
        bucket, folder = found[0], where[found.end() :]
    else:
        bucket, _, folder = where.partition("/")
    folder = folder.strip("/")
    return bucket, f"{folder}/" if folder else ""


def check_bucket(url: str) -> None:
    """Raise an error if an S3 URL names no bucket.

    Raises:
        InvalidValueError: it does not.
    """
    bucket, _ = bucket_and_prefix(url)
    if not bucket:
        message = f"{url!r} contains no bucket name; use s3://bucket/folder"
        raise InvalidValueError(message)
    if bucket.startswith("arn:") and not _ACCESS_POINT.fullmatch(bucket):
        message = (
            f"{url!r} contains no ARN of an access point; use "
            "s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/folder"
        )
        raise InvalidValueError(message)


def resource_pattern(url: str) -> str:
    """Return the resource that a policy names to allow access to a folder's objects."""
    bucket, prefix = bucket_and_prefix(url)
    if bucket.startswith("arn:"):
        return f"{bucket}/object/{prefix}*"
    return f"arn:aws:s3:::{bucket}/{prefix}*"


def key_of(url: str, name: str) -> str:
    """Return the key of an object in a folder."""
    if is_s3(url):
        return f"{bucket_and_prefix(url)[1]}{name}"
    return "/".join([*url.split("/")[3:], name])


def server_of(url: str) -> str:
    """Return the part of a URL that names the bucket or the server."""
    if is_s3(url):
        return f"{url.partition('://')[0]}://{bucket_and_prefix(url)[0]}"
    return "/".join(url.split("/")[:3])


def without_password(text: str) -> str:
    """Return a text without the passwords of the URLs in it."""
    return re.sub(r"(?<=://)([^/:@\s]*):[^/@\s]*@", r"\1@", text)
