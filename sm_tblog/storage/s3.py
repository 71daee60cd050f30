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
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import StoreError
from sm_tblog.storage.s3_options import (
    STALE,
    as_store_error,
    bucket_and_prefix,
    error_code,
    make_client,
    operation_parameters,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog.storage.spool import Section, SpoolFile

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

_MISSING = ("404", "NoSuchKey")
_UNMET = ("412", "PreconditionFailed")
_UNKNOWN = ("501", "NotImplemented")
_DENIED = ("403", "AccessDenied")
_NO_COPY = (*_UNKNOWN, *_DENIED, "InvalidRequest", "InvalidArgument")

_CONDITIONS = ("quoted", "bare", "none")
"""How a server takes the entity tag in a condition; Ceph's gateway takes it without its quotes."""

_clients: dict[str, Any] = {}  # by their options: making one takes a good part of a second
_clients_lock = threading.Lock()


class S3Place:
    """A folder of a bucket.

    Args:
        url: ``s3://bucket/folder``.
        options: see ``s3_options.OPTIONS``.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self.bucket, self._prefix = bucket_and_prefix(url)
        self._options = options
        self._given = repr(sorted(options.items()))
        self._conditions = list(_CONDITIONS)

    def grow(self, name: str, *, is_new: bool) -> S3Object:
        """Return the object of this name, which nobody else writes."""
        return S3Object(self, self._prefix + name, is_new=is_new)

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole."""
        self._put(name, data, {})

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Have an object hold what ``change`` makes of what it holds.

        What another process writes in between is not lost, where the server knows conditions.
        ``change`` may be called again, also with what it has made itself.
        """
        refused: str | None = ""
        while True:
            before, tag = self._get(name)
            condition = self.condition("PutObject", tag)
            try:
                self._put(name, bytes(change(before)), condition)
            except StoreError as error:
                if not condition or not is_about_condition(error):
                    raise
                if tag == refused or error_code(cause(error)) in _UNKNOWN:
                    self.weaken_conditions()
                refused = tag
            else:
                return

    def get(self, name: str) -> bytes | None:
        """Return what an object holds, None where there is none."""
        return self._get(name)[0]

    def call(self, operation: str, **parameters: Any) -> Any:
        """Call an operation on the bucket, with the options that it knows.

        Raises:
            StoreError: it failed; ``__cause__`` is botocore's error.
        """
        client = None
        try:
            client = self._client()
            parameters |= operation_parameters(client, operation, self._options)
            method = getattr(client, re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())
            return method(Bucket=self.bucket, **parameters)
        except Exception as error:
            if error_code(error) in STALE:
                with _clients_lock:
                    if _clients.get(self._given) is client:
                        _clients.pop(self._given, None)
            raise as_store_error(error, self.url) from error

    def read(self, key: str, **parameters: Any) -> tuple[Mapping[str, Any], bytes]:
        """Read an object; return the reply, and what the object holds."""
        reply = self.call("GetObject", Key=key, **parameters)
        try:
            return reply, reply["Body"].read()
        except Exception as error:
            raise as_store_error(error, self.url) from error

    def knows(self, operation: str, parameter: str) -> bool:
        """Return whether this release of botocore knows a parameter."""
        model = self._client().meta.service_model.operation_model(operation)
        return parameter in model.input_shape.members

    def condition(self, operation: str, tag: str | None, name: str = "IfMatch") -> dict[str, str]:
        """Return the condition that an object has this entity tag, or None, is not there."""
        if tag is None:
            name = "IfNoneMatch"
        if self._conditions[0] == "none" or not self.knows(operation, name):
            return {}
        if tag is None:
            return {name: "*"}
        return {name: tag if self._conditions[0] == "quoted" else tag.strip('"')}

    def weaken_conditions(self) -> None:
        """Take note that the server refuses a condition that is met."""
        if len(self._conditions) > 1:
            self._conditions.pop(0)

    def _put(self, name: str, data: bytes, condition: dict[str, str]) -> None:
        md5 = content_md5(data)
        self.call("PutObject", Key=self._prefix + name, Body=data, ContentMD5=md5, **condition)

    def _get(self, name: str) -> tuple[bytes | None, str | None]:
        """Return what an object holds, and its entity tag."""
        try:
            reply, data = self.read(self._prefix + name)
        except StoreError as error:
            if error_code(cause(error)) in _MISSING:
                return None, None
            raise
        return data, reply["ETag"]

    def _client(self) -> Any:
        with _clients_lock:
            if self._given not in _clients:
                _clients[self._given] = make_client(self._options)
            return _clients[self._given]


def _begin_in_child() -> None:
    """Make other clients in a forked child: two processes must not share a connection."""
    global _clients_lock  # noqa: PLW0603 - a fork may have happened while it was held
    _clients_lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


class S3Object:
    """One object, while it grows.

    Attributes:
        committed: how many bytes of it the store has acknowledged.
        roll_bytes: see ``lane.Growing``.
    """

    def __init__(self, place: S3Place, key: str, *, is_new: bool = True) -> None:
        self._place = place
        self._key = key
        self.committed = 0
        self.roll_bytes = ROLL
        self._tag: str | None = None
        self._repeated = 0
        self._known = is_new  # whether ``committed`` and ``_tag`` are what is there
        self._copies = True  # whether the store can append by a copy
        self._checked = False  # whether a copy has been looked at
        self._readable = True  # whether the credentials may look at the object
        self._upload: str | None = None  # begun, and perhaps not ended
        self._strays = not is_new  # whether there may be others, of which only the store knows

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
        self._abort()  # first, so that an append that comes late finds nothing to complete
        if not self._known:
            self._look()
        self._known = False  # until the end: whatever fails, the object is looked at again
        if self._copies and LEAST_PART <= self.committed < size:
            self._append(file, size)
        if self.committed < size:
            self._write(file, size)
        self._known = True

    def close(self) -> None:
        """Abort what failed appends may have left."""
        with contextlib.suppress(StoreError):
            self._abort()

    def _look(self) -> None:
        """Find out how long the object is.

        Not by HEAD: that does not say why it fails.
        """
        if not self._readable:
            return
        try:
            reply, _ = self._place.read(self._key, Range="bytes=0-0")
        except StoreError as error:
            code = error_code(cause(error))
            if code in _DENIED and self.committed:
                self._readable = False
                self._give_up_copying()
            elif code in (*_MISSING, *_DENIED):  # denied, where it may not be said what is missing
                self.committed, self._tag = 0, None
            else:
                raise
        else:
            length = reply["ContentRange"].rpartition("/")[2]
            self.committed, self._tag = int(length), reply["ETag"]
            self._note_version(reply)

    def _note_version(self, reply: Mapping[str, Any]) -> None:
        if reply.get("VersionId", "null") not in ("null", ""):
            self._give_up_copying()  # each append would keep the whole object as a version

    def _give_up_copying(self) -> None:
        self._copies = False
        self.roll_bytes = ROLL_WHOLE

    # Writing it whole.

    def _write(self, file: SpoolFile, size: int) -> None:
        body = file.body(0, size)
        condition = self._condition("PutObject")
        try:
            reply = self._place.call(
                "PutObject", Key=self._key, Body=body, ContentMD5=content_md5(body), **condition
            )
        except StoreError as error:
            if not condition or not is_about_condition(error):
                raise
            # A lost reply is behind it, or a server that does not know conditions.
            before = self._tag
            self._look()
            if self._tag == before or error_code(cause(error)) in _UNKNOWN:
                self._place.weaken_conditions()
            if self.committed < size:
                self._write(file, size)
            return
        self._repeated += self.committed
        self.committed, self._tag = size, reply.get("ETag")
        self._note_version(reply)

    def _condition(self, operation: str, name: str = "IfMatch") -> dict[str, str]:
        """Return the condition that the object be what it is known to be."""
        if not self._readable or (self.committed and self._tag is None):
            return {}
        return self._place.condition(operation, self._tag, name)

    # Appending to it.

    def _append(self, file: SpoolFile, size: int) -> None:
        """Append by a copy. If the store cannot, ``committed`` stays below ``size``."""
        try:
            reply = self._copy_and_complete(file, size)
        except StoreError as error:
            code = error_code(cause(error))
            if code in _UNMET:
                before = self._tag
                self._look()
                if self._tag == before:
                    self._place.weaken_conditions()
            elif code in _NO_COPY:
                self._give_up_copying()
                return
            raise
        if reply is None:
            self._give_up_copying()
            return
        self._upload = None
        self.committed, self._tag = size, reply.get("ETag") or None
        if not self._tag or not self._checked:
            self._look()
            self._checked = True
            if self.committed != size:
                self._give_up_copying()  # and write it whole, at once

    def _copy_and_complete(self, file: SpoolFile, size: int) -> Any:
        """Make the object of itself and the rest of the file; None if a copy is no copy."""
        self._strays = True
        begun = self._place.call("CreateMultipartUpload", Key=self._key)
        self._upload, self._strays = begun["UploadId"], False
        upload = {"Key": self._key, "UploadId": self._upload}
        copied = self._place.call(
            "UploadPartCopy",
            **upload,
            PartNumber=1,
            CopySource={"Bucket": self._place.bucket, "Key": self._key},
            CopySourceRange=f"bytes=0-{self.committed - 1}",
            **self._condition("UploadPartCopy", "CopySourceIfMatch"),
        )
        first = copied.get("CopyPartResult", {}).get("ETag", "")
        if first.strip('"') in ("", _NOTHING):
            return None
        tail = file.body(self.committed, size)
        md5 = content_md5(tail)
        second = self._place.call("UploadPart", **upload, PartNumber=2, Body=tail, ContentMD5=md5)[
            "ETag"
        ]
        parts = [{"ETag": first, "PartNumber": 1}, {"ETag": second, "PartNumber": 2}]
        knows_size = self._place.knows("CompleteMultipartUpload", "MpuObjectSize")
        return self._place.call(
            "CompleteMultipartUpload",
            **upload,
            MultipartUpload={"Parts": parts},
            **({"MpuObjectSize": size} if knows_size else {}),
            **self._condition("CompleteMultipartUpload"),
        )

    def _abort(self) -> None:
        """Abort the last upload, if it may not have ended, so that it cannot end later."""
        if self._strays:
            self._abort_strays()
        if self._upload is not None:
            self._abort_one(self._upload)
            self._upload = None

    def _abort_strays(self) -> None:
        try:
            listed = self._place.call("ListMultipartUploads", Prefix=self._key)
        except StoreError as error:
            if error_code(cause(error)) not in (*_DENIED, *_UNKNOWN, *_MISSING):
                raise
            listed = {}  # the bucket's own rule for incomplete uploads removes them
        for one in listed.get("Uploads", []):
            if one["Key"] == self._key:
                self._abort_one(one["UploadId"])
        self._strays = False

    def _abort_one(self, upload: str) -> None:
        try:
            self._place.call("AbortMultipartUpload", Key=self._key, UploadId=upload)
        except StoreError as error:
            if error_code(cause(error)) not in (*_MISSING, *_DENIED, "NoSuchUpload"):
                raise


def content_md5(data: bytes | Section) -> str:
    """Return the value of the header that has a server check a body."""
    md5 = hashlib.md5(usedforsecurity=False)
    if isinstance(data, bytes):
        md5.update(data)
    else:
        while piece := data.read(1 << 20):
            md5.update(piece)
        data.seek(0)
    return base64.b64encode(md5.digest()).decode()


def is_about_condition(error: StoreError) -> bool:
    """Return whether a condition was not met, or not understood."""
    return error_code(cause(error)) in (*_UNMET, *_UNKNOWN)


def cause(error: StoreError) -> Exception:
    """Return botocore's error."""
    return error.__cause__ if isinstance(error.__cause__, Exception) else error
