"""S3: an object that grows by copying itself.

S3 cannot append, and rewriting the whole object at every flush uploads a hundred times the logged
bytes. But a multipart upload can include a part that the server copies from an existing object. So
each flush replaces the object with a server-side copy of itself plus the new bytes. Every part
except the last must have at least 5 MiB. A smaller object is rewritten whole; once this would have
uploaded more than 1 MiB repeatedly, the object is padded once to 5 MiB, with a record that readers
skip.

Writes are verified. Every body is sent with its MD5. Every write names the object that it replaces
by its entity tag, so that a delayed write cannot undo a later one. The result of the first copy is
checked, because some servers treat the copy as an empty part. After any failure, the size of the
object is queried. The object never becomes shorter.

If copying does not work, or the bucket keeps every version, objects are rewritten whole and a new
one is started at 256 KiB.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import StoreError
from sm_tblog.storage.s3_bucket import (
    DENIED,
    MISSING,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Bucket,
    code_of,
    content_md5,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["S3Folder", "S3Object"]

MIN_PART_SIZE = 5 << 20
"""Minimum size in bytes of every part except the last."""

MAX_REPEATED_BYTES = 1 << 20
"""Repeatedly uploaded bytes after which an object is padded so that it can be copied."""

MAX_OBJECT_SIZE = 64 << 20
"""Size in bytes at which a new object is started."""

MAX_REWRITTEN_SIZE = 256 << 10
"""The same for an object that can only be rewritten whole."""

_CONDITION_FAILED = (*PRECONDITION_FAILED, *NOT_IMPLEMENTED)
_COPY_REFUSED = (*NOT_IMPLEMENTED, *DENIED, "InvalidRequest", "InvalidArgument")

_EMPTY_MD5 = hashlib.md5(b"", usedforsecurity=False).hexdigest()


class S3Folder(Bucket):
    """A folder of a bucket, as a ``remote.RemoteFolder``."""

    def open_object(self, name: str, *, is_new: bool) -> S3Object:
        """Return the object with this name, which nobody else writes."""
        return S3Object(self, self.prefix + name, is_new=is_new)

    def put(self, name: str, data: bytes) -> None:
        """Write a complete object."""
        self._put(name, data, {})

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace the content of an object by ``change(content)``.

        If the server supports conditional writes, concurrent writes of other processes are not
        lost. ``change`` may be called again, even with its own previous result.
        """
        refused: str | None = ""
        while True:
            before, tag = self._get(name)
            condition = self.condition("PutObject", tag)
            try:
                self._put(name, bytes(change(before)), condition)
            except StoreError as error:
                if not condition or code_of(error) not in _CONDITION_FAILED:
                    raise
                if tag == refused or code_of(error) in NOT_IMPLEMENTED:
                    self.weaken_conditions()
                refused = tag
            else:
                return

    def get(self, name: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""
        return self._get(name)[0]

    def _put(self, name: str, data: bytes, condition: dict[str, str]) -> None:
        md5 = content_md5(data)
        self.call("PutObject", Key=self.prefix + name, Body=data, ContentMD5=md5, **condition)

    def _get(self, name: str) -> tuple[bytes | None, str | None]:
        """Return the content of an object and its entity tag, or two None if it does not exist."""
        try:
            reply, data = self.read(self.prefix + name)
        except StoreError as error:
            if code_of(error) in MISSING:
                return None, None
            raise
        return data, reply["ETag"]


class S3Object:
    """An object that grows.

    Attributes:
        committed: number of bytes that the store has acknowledged.
        max_size: see ``remote.AppendableObject``.
    """

    def __init__(self, folder: S3Folder, key: str, *, is_new: bool = True) -> None:
        self._folder = folder
        self._key = key
        self.committed = 0
        self.max_size = MAX_OBJECT_SIZE
        self._tag: str | None = None
        self._repeated = 0
        self._is_synced = is_new  # whether ``committed`` and ``_tag`` match the object
        self._can_copy = True  # whether the store can append by copying
        self._copy_verified = False
        self._readable = True  # whether the credentials may read the object
        self._may_condition = True  # whether they may make a write depend on its entity tag
        self._upload_id: str | None = None  # of an upload that may be unfinished
        self._has_unknown_uploads = not is_new  # whether others may be unfinished at the store

    def padding(self, size: int) -> int:
        """Return the number of padding bytes to append to an object of this size before upload."""
        repeated = self._repeated + self.committed
        if not self._can_copy or size > MIN_PART_SIZE or repeated <= MAX_REPEATED_BYTES:
            return 0
        return max(MIN_PART_SIZE - size, 64)

    def commit(self, file: SpoolFile, size: int) -> None:
        """Store the first ``size`` bytes of ``file`` in the object.

        Raises:
            StoreError: the upload failed; the object has its previous content or the new one.
        """
        self._abort()  # first, so that a delayed append finds nothing to complete
        if not self._is_synced:
            self._refresh()
        self._is_synced = False  # until the end: after any failure, query the object again
        if self._can_copy and MIN_PART_SIZE <= self.committed < size:
            self._append(file, size)
        if self.committed < size:
            self._write(file, size)
        self._is_synced = True

    def close(self) -> None:
        """Abort the uploads that failed appends may have left unfinished."""
        with contextlib.suppress(StoreError):
            self._abort()

    def _refresh(self) -> None:
        """Query the size and entity tag of the object.

        GET is used because a failed HEAD does not report the reason.
        """
        if not self._readable:
            return
        try:
            reply, _ = self._folder.read(self._key, Range="bytes=0-0")
        except StoreError as error:
            code = code_of(error)
            if code in DENIED and self.committed:
                self._readable = False
                self._disable_copying()
            elif code in (*MISSING, *DENIED):
                # Without the permission to list, a missing object is also answered by "denied".
                self.committed, self._tag = 0, None
            else:
                raise
        else:
            _, _, length = reply.get("ContentRange", "").rpartition("/")
            self.committed, self._tag = int(length or reply["ContentLength"]), reply["ETag"]
            self._note_version(reply)

    def _note_version(self, reply: Mapping[str, Any]) -> None:
        if reply.get("VersionId", "null") not in ("null", ""):
            self._disable_copying()  # each append would keep a version of the whole object

    def _disable_copying(self) -> None:
        self._can_copy = False
        self.max_size = MAX_REWRITTEN_SIZE

    # Rewriting the object.

    def _write(self, file: SpoolFile, size: int) -> None:
        body = file.body(0, size)
        condition = self._condition("PutObject")
        try:
            reply = self._folder.call(
                "PutObject", Key=self._key, Body=body, ContentMD5=content_md5(body), **condition
            )
        except StoreError as error:
            if not condition or not self._resolve_condition(code_of(error)):
                raise
            if self.committed < size:
                self._write(file, size)
            return
        self._folder.has_met_conditions |= "IfMatch" in condition
        self._repeated += self.committed
        self.committed, self._tag = size, reply.get("ETag")
        self._note_version(reply)

    def _resolve_condition(self, code: str) -> bool:
        """Find out why a conditional write failed; return whether to write again."""
        if code in DENIED and not self._readable:
            self._may_condition = False  # AWS lets only those who may read an object use IfMatch
            return True
        if code not in _CONDITION_FAILED:
            return False
        # Either a reply was lost, or the server does not support conditions.
        before = self._tag
        self._refresh()
        if not self._readable and self._folder.has_met_conditions:
            self._tag = None  # a reply was lost, and the new entity tag cannot be queried
        elif self._tag == before or code in NOT_IMPLEMENTED:
            self._folder.weaken_conditions()
        return True

    def _condition(self, operation: str, name: str = "IfMatch") -> dict[str, str]:
        """Return the condition that the object is unchanged since the last request."""
        if not self._may_condition or (self.committed and self._tag is None):
            return {}
        return self._folder.condition(operation, self._tag, name)

    # Appending to the object.

    def _append(self, file: SpoolFile, size: int) -> None:
        """Append by copying. If the store cannot, ``committed`` stays below ``size``."""
        try:
            reply = self._copy_and_complete(file, size)
        except StoreError as error:
            if code_of(error) in _COPY_REFUSED:
                self._disable_copying()
                return
            if code_of(error) in PRECONDITION_FAILED:
                before = self._tag
                self._refresh()
                if self._tag == before and self._folder.weaken_conditions():
                    self.commit(file, size)
                    return
            raise
        if reply is None:
            self._disable_copying()
            return
        self._upload_id = None
        self.committed, self._tag = size, reply.get("ETag") or None
        if not self._tag or not self._copy_verified:
            self._refresh()
            self._copy_verified = True
            if self.committed != size:
                self._disable_copying()  # and rewrite it at once

    def _copy_and_complete(self, file: SpoolFile, size: int) -> Any:
        """Replace the object by its copy and the new bytes; return None if the copy is empty."""
        self._has_unknown_uploads = True
        created = self._folder.call("CreateMultipartUpload", Key=self._key)
        self._upload_id, self._has_unknown_uploads = created["UploadId"], False
        upload = {"Key": self._key, "UploadId": self._upload_id}
        copied = self._folder.call(
            "UploadPartCopy",
            **upload,
            PartNumber=1,
            CopySource={"Bucket": self._folder.bucket, "Key": self._key},
            CopySourceRange=f"bytes=0-{self.committed - 1}",
            **self._condition("UploadPartCopy", "CopySourceIfMatch"),
        )
        first = copied.get("CopyPartResult", {}).get("ETag", "")
        if first.strip('"') in ("", _EMPTY_MD5):
            return None
        tail = file.body(self.committed, size)
        md5 = content_md5(tail)
        second = self._folder.call("UploadPart", **upload, PartNumber=2, Body=tail, ContentMD5=md5)
        parts = [{"ETag": first, "PartNumber": 1}, {"ETag": second["ETag"], "PartNumber": 2}]
        accepts_size = self._folder.supports("CompleteMultipartUpload", "MpuObjectSize")
        return self._folder.call(
            "CompleteMultipartUpload",
            **upload,
            MultipartUpload={"Parts": parts},
            **({"MpuObjectSize": size} if accepts_size else {}),
            **self._condition("CompleteMultipartUpload"),
        )

    def _abort(self) -> None:
        """Abort the last upload if it may be unfinished, so that it cannot complete later."""
        if self._has_unknown_uploads:
            self._abort_unknown_uploads()
        if self._upload_id is not None:
            self._abort_upload(self._upload_id)
            self._upload_id = None

    def _abort_unknown_uploads(self) -> None:
        try:
            listed = self._folder.call("ListMultipartUploads", Prefix=self._key)
        except StoreError as error:
            if code_of(error) not in (*DENIED, *NOT_IMPLEMENTED, *MISSING):
                raise
            listed = {}  # the bucket's lifecycle rule for incomplete uploads removes them
        for one in listed.get("Uploads", []):
            if one["Key"] == self._key:
                self._abort_upload(one["UploadId"])
        self._has_unknown_uploads = False

    def _abort_upload(self, upload: str) -> None:
        try:
            self._folder.call("AbortMultipartUpload", Key=self._key, UploadId=upload)
        except StoreError as error:
            if code_of(error) not in (*MISSING, *DENIED, "NoSuchUpload"):
                raise
