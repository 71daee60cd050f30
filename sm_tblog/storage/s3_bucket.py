"""Requests to a bucket, with the options that each operation accepts and errors that give advice.

A conditional write names the object that it replaces by its entity tag, so that a delayed write
cannot undo a later one. The form that a server accepts is found by trying: Ceph's gateway expects
the tag without its quotes, and some servers do not support conditions.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from typing import TYPE_CHECKING, Any

from sm_tblog.storage.s3_errors import STALE_CREDENTIALS, as_store_error, error_code
from sm_tblog.storage.s3_options import identity, make_client, operation_parameters
from sm_tblog.storage.urls import bucket_and_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog._errors import StoreError
    from sm_tblog.storage.spool import Section

__all__ = [
    "DENIED",
    "GENERAL",
    "MISSING",
    "NOT_IMPLEMENTED",
    "PRECONDITION_FAILED",
    "Bucket",
    "code_of",
    "content_md5",
]

MISSING = ("404", "NoSuchKey")
PRECONDITION_FAILED = ("412", "PreconditionFailed")
NOT_IMPLEMENTED = ("501", "NotImplemented")
DENIED = ("403", "AccessDenied")
"""Error codes; a server in between may answer with the number alone."""

GENERAL = (
    *("ConnectTimeoutError", "EndpointConnectionError", "NoCredentialsError"),
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"),
)
"""Errors that every request gets, whatever it asks for, until something changes."""

_clients: dict[str, Any] = {}  # by ``identity``; creating one takes a large part of a second
_clients_lock = threading.Lock()


class Bucket:
    """A bucket or a folder in it.

    Args:
        url: ``s3://bucket/folder``.
        options: see ``s3_options.OPTIONS``.

    Attributes:
        bucket: the bucket's name, or the ARN of an access point.
        prefix: the prefix of the folder's keys: empty, or ending with a slash.
        has_met_conditions: whether the server has met a condition on an entity tag, so that it
            supports them as they are sent.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self.bucket, self.prefix = bucket_and_prefix(url)
        self._options = options
        self._identity = identity(options)
        self._conditions = ["quoted", "bare", "none"]  # the first is tried
        self.has_met_conditions = False

    def names_below(self, prefix: str, *, after: str) -> list[str]:
        """Return the names below the URL that begin with a prefix and sort after a name.

        Raises:
            StoreError: they cannot be listed.
        """
        found: list[str] = []
        more = {"StartAfter": self.prefix + after}
        while more:
            reply = self.call("ListObjectsV2", Prefix=self.prefix + prefix, **more)
            found += [one["Key"][len(self.prefix) :] for one in reply.get("Contents", ())]
            token = reply.get("NextContinuationToken")
            more = {"ContinuationToken": token} if token else {}
        return found

    def call(self, operation: str, **parameters: Any) -> Any:
        """Call an operation on the bucket, with the options that it accepts.

        Raises:
            StoreError: the operation failed; ``__cause__`` is botocore's error.
        """
        client = None
        try:
            client = self._client()
            parameters |= operation_parameters(client, operation, self._options)
            method = getattr(client, re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())
            return method(Bucket=self.bucket, **parameters)
        except Exception as error:
            if error_code(error) in STALE_CREDENTIALS:
                with _clients_lock:
                    if _clients.get(self._identity) is client:
                        _clients.pop(self._identity, None)
            raise as_store_error(error, self.url, operation) from error

    def read(self, key: str, **parameters: Any) -> tuple[Mapping[str, Any], bytes]:
        """Read an object; return the reply and the content."""
        reply = self.call("GetObject", Key=key, **parameters)
        try:
            return reply, reply["Body"].read()
        except Exception as error:
            raise as_store_error(error, self.url, "GetObject") from error

    def supports(self, operation: str, parameter: str) -> bool:
        """Return whether this release of botocore supports a parameter of an operation."""
        model = self._client().meta.service_model.operation_model(operation)
        return parameter in model.input_shape.members

    def condition(self, operation: str, tag: str | None, name: str = "IfMatch") -> dict[str, str]:
        """Return the condition that an object has this entity tag or, for None, does not exist."""
        if tag is None:
            name = "IfNoneMatch"
        if self._conditions[0] == "none" or not self.supports(operation, name):
            return {}
        if tag is None:
            return {name: "*"}
        return {name: tag if self._conditions[0] == "quoted" else tag.strip('"')}

    def weaken_conditions(self) -> bool:
        """Weaken conditions after the server refused a true one; return whether one was sent."""
        if len(self._conditions) == 1:
            return False
        self._conditions.pop(0)
        return True

    def _client(self) -> Any:
        with _clients_lock:
            if self._identity not in _clients:
                _clients[self._identity] = make_client(self._options)
            return _clients[self._identity]


def _reset_after_fork() -> None:
    """Drop the clients in a forked child: two processes must not share a connection."""
    global _clients_lock  # noqa: PLW0603 - a fork may have happened while it was held
    _clients_lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def content_md5(data: bytes | Section) -> str:
    """Return the value of the header by which the server verifies a body."""
    md5 = hashlib.md5(usedforsecurity=False)
    if isinstance(data, bytes):
        md5.update(data)
    else:
        while chunk := data.read(1 << 20):
            md5.update(chunk)
        data.seek(0)
    return base64.b64encode(md5.digest()).decode()


def code_of(error: StoreError) -> str:
    """Return the code of the botocore error that caused a ``StoreError``."""
    return error_code(error.__cause__ if isinstance(error.__cause__, Exception) else error)
