"""S3: an object that grows by copying itself.

S3 cannot append. Writing the whole object again at every flush uploads a hundred times what was
logged. But an object can be made of parts, and a part be copied from an object that is there, by
the server: so a flush copies what is there and uploads what is new. A part that is not the last
one must have 5 MiB. Until then an object is written whole, and as soon as that would have uploaded
1 MiB again it is padded to 5 MiB, once, with a record that readers pass over.

What is written is checked: every body has its MD5; every write names the object that it replaces,
by its entity tag, so that a write that comes late cannot undo a later one; and the first copy is
looked at, since there are servers that take it for an empty part. After any failure the object
itself is asked how long it is. It never becomes shorter.

Where copying does not work, or the bucket keeps every version, objects are written whole and
followed by another at 256 KiB.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import threading
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sm_tblog._errors import StoreError
from sm_tblog.storage.s3_options import (
    EXPIRED,
    as_store_error,
    error_code,
    make_client,
    operation_parameters,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["S3Object", "S3Place"]

LEAST_PART = 5 << 20
"""Bytes that a part must have if it is not the last one."""

REPEATED = 1 << 20
"""Bytes uploaded more than once after which an object is padded so that it can be copied."""

ROLL = 64 << 20
"""Bytes after which another object follows."""

ROLL_WHOLE = 256 << 10
"""The same where an object can only be written whole."""

_NOTHING = hashlib.md5(b"", usedforsecurity=False).hexdigest()

_MISSING = ("404", "NoSuchKey", "NotFound")
_CONFLICT = ("412", "PreconditionFailed", "409", "ConditionalRequestConflict")
_UNKNOWN = ("501", "NotImplemented")
_DENIED = ("403", "AccessDenied")


class S3Place:
    """A folder of a bucket.

    Args:
        url: ``s3://bucket/folder``.
        options: see ``s3_options.OPTIONS``.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        parts = urlsplit(url)
        self.url = url
        self.bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._options = options

    def grow(self, name: str) -> S3Object:
        """Return the object of this name, which nobody else writes."""
        return S3Object(self, self._key(name))

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole."""
        self.call("PutObject", Key=self._key(name), Body=data, ContentMD5=_md5(data))

    def get(self, name: str) -> bytes | None:
        """Return what an object holds, None where there is none."""
        try:
            reply = self.call("GetObject", Key=self._key(name))
        except StoreError as error:
            if error_code(_cause(error)) in _MISSING:
                return None
            raise
        body: bytes = reply["Body"].read()
        return body

    def call(self, operation: str, **parameters: Any) -> Any:
        """Call an operation on the bucket, with the options that it knows.

        Raises:
            StoreError: it failed; ``__cause__`` is botocore's error.
        """
        try:
            client = _client(self._options)
            parameters |= operation_parameters(client, operation, self._options)
            method = getattr(client, re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())
            return method(Bucket=self.bucket, **parameters)
        except Exception as error:
            if error_code(error) in EXPIRED:
                _forget_clients()  # the next ones look for credentials anew
            raise as_store_error(error, self.url) from error

    def knows(self, operation: str, parameter: str) -> bool:
        """Return whether this release of botocore knows a parameter."""
        model = _client(self._options).meta.service_model.operation_model(operation)
        return parameter in model.input_shape.members

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


@cache
def _clients() -> dict[str, Any]:
    """Return the clients of this process, by their options: making one takes a second."""
    return {}


_clients_lock = threading.Lock()


def _client(options: Mapping[str, Any]) -> Any:
    key = repr(sorted(options.items()))
    with _clients_lock:
        if key not in _clients():
            _clients()[key] = make_client(options)
        return _clients()[key]


def _forget_clients() -> None:
    global _clients_lock  # noqa: PLW0603 - a fork may have happened while it was held
    _clients_lock = threading.Lock()
    _clients.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_clients)


class S3Object:
    """One object, while it grows.

    Attributes:
        committed: how many bytes of it the store has acknowledged.
        roll_bytes: see ``lane.Growing``.
    """

    def __init__(self, place: S3Place, key: str) -> None:
        self._place = place
        self._key = key
        self.committed = 0
        self.roll_bytes = ROLL
        self._tag: str | None = None
        self._repeated = 0
        self._known = True  # whether ``committed`` and ``_tag`` are what is there
        self._copies = True  # whether the store can append by a copy
        self._checked = False  # whether a copy has been looked at
        self._conditional = True  # whether the store takes conditions
        self._readable = True  # whether the credentials may look at the object
        self._uploads: set[str] = set()  # begun and neither completed nor aborted

    def padding(self, size: int) -> int:
        """Return by how many bytes an object of this size should be padded before it is stored."""
        repeated = self._repeated + self.committed
        if not self._copies or size > LEAST_PART or repeated <= REPEATED:
            return 0
        return max(LEAST_PART - size, 64)

    def commit(self, file: SpoolFile, size: int) -> None:
        """Make the object hold the first ``size`` bytes of ``file``.

        Raises:
            StoreError: it failed; the object holds what it held, or these.
        """
        if not self._known:
            self._look(file)
        if self.committed >= size:
            return
        self._known = False  # until the end: whatever fails, the object is looked at again
        for upload in list(self._uploads):
            self._abort(upload)
        if self._copies and self.committed >= LEAST_PART:
            self._append(file, size)
        if self.committed < size:
            self._write(file, size)
        self._known = True

    def close(self) -> None:
        """Abort what failed appends may have left."""
        for upload in list(self._uploads):
            with contextlib.suppress(StoreError):
                self._abort(upload)

    def _look(self, file: SpoolFile) -> None:
        """Find out how long the object is."""
        if not self._readable:
            return
        try:
            reply = self._place.call("HeadObject", Key=self._key)
        except StoreError as error:
            code = error_code(_cause(error))
            if code in _MISSING:
                self.committed, self._tag = 0, None
            elif code in _DENIED and self.committed == 0:
                self._readable = self._copies = self._conditional = False
                self.roll_bytes = ROLL_WHOLE
            else:
                raise
            return
        self.committed, self._tag = int(reply["ContentLength"]), reply["ETag"]
        if self.committed > file.size:
            url = f"s3://{self._place.bucket}/{self._key}"
            message = f"{url} is longer than what was written; somebody else writes to it"
            raise StoreError(message)

    # Writing it whole.

    def _write(self, file: SpoolFile, size: int) -> None:
        body = file.read(0, size)
        condition = self._condition("PutObject")
        try:
            reply = self._place.call(
                "PutObject", Key=self._key, Body=body, ContentMD5=_md5(body), **condition
            )
        except StoreError as error:
            code = error_code(_cause(error))
            if condition and code in (*_CONFLICT, *_UNKNOWN):
                self._write_after_conflict(file, size, code)
                return
            raise
        self._repeated += self.committed
        self.committed, self._tag = size, reply.get("ETag")
        if reply.get("VersionId", "null") not in ("null", ""):
            self._copies = False  # each append would keep the whole object as a version
            self.roll_bytes = ROLL_WHOLE

    def _write_after_conflict(self, file: SpoolFile, size: int, code: str) -> None:
        """Write again: a lost reply is behind it, or a store that knows no conditions."""
        before = self._tag
        self._look(file)
        if self.committed >= size:
            return
        if self._tag == before or code in _UNKNOWN:
            self._conditional = False
        self._write(file, size)

    def _condition(self, operation: str) -> dict[str, str]:
        """Return the condition that the object be what it is known to be."""
        name, value = ("IfNoneMatch", "*") if self._tag is None else ("IfMatch", self._tag)
        if not self._conditional or not self._place.knows(operation, name):
            return {}
        return {name: value}

    # Appending to it.

    def _append(self, file: SpoolFile, size: int) -> None:
        """Append by a copy. If the store cannot, ``committed`` stays below ``size``."""
        tail = file.read(self.committed, size)
        upload = self._place.call("CreateMultipartUpload", Key=self._key)["UploadId"]
        self._uploads.add(upload)
        try:
            copied = self._place.call(
                "UploadPartCopy",
                Key=self._key,
                UploadId=upload,
                PartNumber=1,
                CopySource={"Bucket": self._place.bucket, "Key": self._key},
                CopySourceRange=f"bytes=0-{self.committed - 1}",
                **self._copy_condition(),
            )
            first = copied.get("CopyPartResult", {}).get("ETag", "")
            if first.strip('"') in ("", _NOTHING):
                self._give_up_copying(upload)
                return
            part = {"Key": self._key, "UploadId": upload, "PartNumber": 2}
            second = self._place.call("UploadPart", Body=tail, ContentMD5=_md5(tail), **part)
            parts = [{"ETag": first, "PartNumber": 1}, {"ETag": second["ETag"], "PartNumber": 2}]
            extra = {"MpuObjectSize": size} if self._knows_size() else {}
            reply = self._place.call(
                "CompleteMultipartUpload",
                Key=self._key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **extra,
                **(self._condition("CompleteMultipartUpload") if self._tag else {}),
            )
        except StoreError as error:
            code = error_code(_cause(error))
            with contextlib.suppress(StoreError):
                self._abort(upload)
            if code in _CONFLICT:
                before = self._tag
                self._look(file)
                self._conditional &= self._tag != before
            elif code in (*_UNKNOWN, *_DENIED, "InvalidRequest", "InvalidArgument"):
                self._give_up_copying(None)
                return
            raise
        self._uploads.discard(upload)
        self.committed, self._tag = size, reply.get("ETag") or None
        if not self._tag or not self._checked:
            self._look(file)
            self._check_length(size)

    def _check_length(self, size: int) -> None:
        self._checked = True
        if self.committed != size:  # written whole again, at once
            self._give_up_copying(None)

    def _give_up_copying(self, upload: str | None) -> None:
        if upload is not None:
            self._abort(upload)
        self._copies = False
        self.roll_bytes = ROLL_WHOLE

    def _abort(self, upload: str) -> None:
        """Abort an upload, so that a late completion cannot undo a later write."""
        try:
            self._place.call("AbortMultipartUpload", Key=self._key, UploadId=upload)
        except StoreError as error:
            if error_code(_cause(error)) not in (*_MISSING, "NoSuchUpload"):
                raise
        self._uploads.discard(upload)

    def _copy_condition(self) -> dict[str, str]:
        return {"CopySourceIfMatch": self._tag} if self._conditional and self._tag else {}

    def _knows_size(self) -> bool:
        return self._place.knows("CompleteMultipartUpload", "MpuObjectSize")


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _cause(error: StoreError) -> Exception:
    return error.__cause__ if isinstance(error.__cause__, Exception) else error
