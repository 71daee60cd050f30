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

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import StoreError
from sm_tblog.storage.s3_bucket import (
    DENIED,
    MISSING,
    UNKNOWN,
    UNMET,
    Bucket,
    code_of,
    content_md5,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog.storage.spool import SpoolFile

__all__ = ["S3Folder", "S3Object"]

LEAST_PART = 5 << 20
"""Bytes that a part must have if it is not the last one."""

REPEATED = 1 << 20
"""Bytes uploaded more than once after which an object is padded so that it can be copied."""

ROLL = 64 << 20
"""Bytes after which another object follows."""

ROLL_WHOLE = 256 << 10
"""The same where an object can only be written whole."""

_CONDITION = (*UNMET, *UNKNOWN)
_NO_COPY = (*UNKNOWN, *DENIED, "InvalidRequest", "InvalidArgument")

_NOTHING = hashlib.md5(b"", usedforsecurity=False).hexdigest()


class S3Folder(Bucket):
    """A folder of a bucket, as a ``queue.RemoteFolder``."""

    def open_object(self, name: str, *, is_new: bool) -> S3Object:
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
                if not condition or code_of(error) not in _CONDITION:
                    raise
                if tag == refused or code_of(error) in UNKNOWN:
                    self.weaken_conditions()
                refused = tag
            else:
                return

    def get(self, name: str) -> bytes | None:
        """Return what an object holds, None where there is none."""
        return self._get(name)[0]

    def _put(self, name: str, data: bytes, condition: dict[str, str]) -> None:
        md5 = content_md5(data)
        self.call("PutObject", Key=self._prefix + name, Body=data, ContentMD5=md5, **condition)

    def _get(self, name: str) -> tuple[bytes | None, str | None]:
        """Return what an object holds, and its entity tag."""
        try:
            reply, data = self.read(self._prefix + name)
        except StoreError as error:
            if code_of(error) in MISSING:
                return None, None
            raise
        return data, reply["ETag"]


class S3Object:
    """One object, while it grows.

    Attributes:
        committed: how many bytes of it the store has acknowledged.
        roll_bytes: see ``queue.AppendableObject``.
    """

    def __init__(self, place: S3Folder, key: str, *, is_new: bool = True) -> None:
        self._folder = place
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
            reply, _ = self._folder.read(self._key, Range="bytes=0-0")
        except StoreError as error:
            code = code_of(error)
            if code in DENIED and self.committed:
                self._readable = False
                self._give_up_copying()
            elif code in (*MISSING, *DENIED):  # denied, where it may not be said what is missing
                self.committed, self._tag = 0, None
            else:
                raise
        else:
            _, _, length = reply.get("ContentRange", "").rpartition("/")
            self.committed, self._tag = int(length or reply["ContentLength"]), reply["ETag"]
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
            reply = self._folder.call(
                "PutObject", Key=self._key, Body=body, ContentMD5=content_md5(body), **condition
            )
        except StoreError as error:
            if not condition or code_of(error) not in _CONDITION:
                raise
            # A lost reply is behind it, or a server that does not know conditions.
            before = self._tag
            self._look()
            if self._tag == before or code_of(error) in UNKNOWN:
                self._folder.weaken_conditions()
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
        return self._folder.condition(operation, self._tag, name)

    # Appending to it.

    def _append(self, file: SpoolFile, size: int) -> None:
        """Append by a copy. If the store cannot, ``committed`` stays below ``size``."""
        try:
            reply = self._copy_and_complete(file, size)
        except StoreError as error:
            if code_of(error) in _NO_COPY:
                self._give_up_copying()
                return
            if code_of(error) in UNMET:
                before = self._tag
                self._look()
                if self._tag == before and self._folder.weaken_conditions():
                    self.commit(file, size)
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
        begun = self._folder.call("CreateMultipartUpload", Key=self._key)
        self._upload, self._strays = begun["UploadId"], False
        upload = {"Key": self._key, "UploadId": self._upload}
        copied = self._folder.call(
            "UploadPartCopy",
            **upload,
            PartNumber=1,
            CopySource={"Bucket": self._folder.bucket, "Key": self._key},
            CopySourceRange=f"bytes=0-{self.committed - 1}",
            **self._condition("UploadPartCopy", "CopySourceIfMatch"),
        )
        first = copied.get("CopyPartResult", {}).get("ETag", "")
        if first.strip('"') in ("", _NOTHING):
            return None
        tail = file.body(self.committed, size)
        md5 = content_md5(tail)
        second = self._folder.call("UploadPart", **upload, PartNumber=2, Body=tail, ContentMD5=md5)
        parts = [{"ETag": first, "PartNumber": 1}, {"ETag": second["ETag"], "PartNumber": 2}]
        knows_size = self._folder.knows("CompleteMultipartUpload", "MpuObjectSize")
        return self._folder.call(
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
            listed = self._folder.call("ListMultipartUploads", Prefix=self._key)
        except StoreError as error:
            if code_of(error) not in (*DENIED, *UNKNOWN, *MISSING):
                raise
            listed = {}  # the bucket's own rule for incomplete uploads removes them
        for one in listed.get("Uploads", []):
            if one["Key"] == self._key:
                self._abort_one(one["UploadId"])
        self._strays = False

    def _abort_one(self, upload: str) -> None:
        try:
            self._folder.call("AbortMultipartUpload", Key=self._key, UploadId=upload)
        except StoreError as error:
            if code_of(error) not in (*MISSING, *DENIED, "NoSuchUpload"):
                raise
