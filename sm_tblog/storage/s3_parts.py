"""Multipart uploads to S3: an object from a copy of itself and new bytes, or in many parts.

All parts except the last have the same size, which Cloudflare R2 requires. A part that is copied
is checked, because some servers treat it as an empty one. An unfinished upload is aborted, so that
a delayed request cannot complete it later and undo what was written in the meantime.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import StoreError
from sm_tblog.storage.s3_bucket import content_md5
from sm_tblog.storage.s3_refusals import has_reply, is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.storage.s3_bucket import Bucket
    from sm_tblog.storage.spool import SpoolFile

__all__ = ["MAX_PARTS", "MultipartUpload"]

PART_SIZE = 64 << 20
"""Size in bytes of the parts of an object that is too large for one request."""

MAX_PARTS = 10_000
"""Maximum number of parts of an upload."""

MAX_FAILED_ABORTS = 10
"""Failed attempts in a row to abort an upload after which the server is left to remove it."""

_EMPTY_MD5 = hashlib.md5(b"", usedforsecurity=False).hexdigest()


class MultipartUpload:
    """The multipart uploads of one object, one after the other.

    Args:
        bucket: the object's bucket.
        key: its key.
        may_exist: whether the server may have unfinished uploads of an earlier process.

    Attributes:
        operation: the last operation called.
    """

    def __init__(self, bucket: Bucket, key: str, *, may_exist: bool) -> None:
        self._bucket = bucket
        self._key = key
        self._id: str | None = None  # of an upload that may be unfinished
        self._has_unknown = may_exist  # whether others may be unfinished at the server
        self._failed_aborts = 0  # in a row
        self.operation = ""

    def write(
        self,
        file: SpoolFile,
        size: int,
        condition: Callable[..., dict[str, str]],
        copied: int = 0,
    ) -> Any:
        """Replace the object by its own first ``copied`` bytes and those of ``file`` from there.

        Args:
            file: the spool file with the object's content.
            size: the new size of the object in bytes.
            condition: returns the condition that the object is unchanged, for an operation.
            copied: the size of the copied part in bytes, 0 for no such part.

        Returns:
            The reply, or None if the server copied nothing.

        Raises:
            StoreError: the upload failed, and may be unfinished.
        """
        self._has_unknown = True
        created = self._call("CreateMultipartUpload")
        self._id, self._has_unknown = created["UploadId"], False
        tags: list[str] = []
        if copied:
            reply = self._call(
                "UploadPartCopy",
                PartNumber=1,
                CopySource={"Bucket": self._bucket.bucket, "Key": self._key},
                CopySourceRange=f"bytes=0-{copied - 1}",
                **condition("UploadPartCopy", "CopySourceIfMatch"),
            )
            tags.append(reply.get("CopyPartResult", {}).get("ETag", ""))
            if tags[0].strip('"') in ("", _EMPTY_MD5):
                return None
        part_size = copied or max(PART_SIZE, -(-size // MAX_PARTS))
        for begin in range(copied, size, part_size):
            body = file.body(begin, min(begin + part_size, size))
            number, md5 = len(tags) + 1, content_md5(body)
            reply = self._call("UploadPart", PartNumber=number, Body=body, ContentMD5=md5)
            tags.append(reply["ETag"])
        parts = [{"ETag": tag, "PartNumber": number} for number, tag in enumerate(tags, 1)]
        accepts_size = self._bucket.supports("CompleteMultipartUpload", "MpuObjectSize")
        reply = self._call(
            "CompleteMultipartUpload",
            MultipartUpload={"Parts": parts},
            **({"MpuObjectSize": size} if accepts_size else {}),
            **condition("CompleteMultipartUpload"),
        )
        self._id = None
        return reply

    def abort(self) -> None:
        """Abort the last upload if it may be unfinished, so that it cannot complete later.

        Where the server refuses that, the bucket's lifecycle rule removes it.

        Raises:
            StoreError: the request failed, and may work later.
        """
        try:
            if self._has_unknown:
                self._abort_unknown()
            if self._id is not None:
                self._abort(self._id)
        except StoreError as error:
            self._failed_aborts += 1
            if not has_reply(error) or self._failed_aborts < MAX_FAILED_ABORTS:
                raise
        else:
            self._failed_aborts = 0
        self._has_unknown, self._id = False, None

    def _abort_unknown(self) -> None:
        try:
            listed = self._bucket.call("ListMultipartUploads", Prefix=self._key)
        except StoreError as error:
            if not is_refusal(error):
                raise
            listed = {}
        for one in listed.get("Uploads", []):
            if one["Key"] == self._key:
                self._abort(one["UploadId"])

    def _abort(self, upload: str) -> None:
        try:
            self._bucket.call("AbortMultipartUpload", Key=self._key, UploadId=upload)
        except StoreError as error:
            if not is_refusal(error):
                raise

    def _call(self, operation: str, **parameters: Any) -> Any:
        self.operation = operation
        if operation != "CreateMultipartUpload":
            parameters["UploadId"] = self._id
        return self._bucket.call(operation, Key=self._key, **parameters)
