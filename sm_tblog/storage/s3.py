"""S3: an object that grows by copying itself.

S3 cannot append, and rewriting the whole object at every flush uploads a hundred times the logged
bytes. But a multipart upload can include a part that the server copies from an existing object. So
each flush replaces the object with a server-side copy of itself plus the new bytes. Every part
except the last must have at least 5 MiB. A smaller object is rewritten whole; once this would have
uploaded more than 1 MiB repeatedly, the object is padded once to 5 MiB, with a record that readers
skip. New bytes that are more than the copy become several parts of its size, because some servers
require all parts except the last to be equally long.

Writes are verified. Every body is sent with its MD5. Every write names the object that it replaces
by its entity tag, so that a delayed write cannot undo a later one. The result of the first copy is
checked, because some servers treat the copy as an empty part. After any failure, the size of the
object is queried. The object never becomes shorter.

If the bucket keeps every version, or the server refuses to append but accepts the whole object,
objects are rewritten whole and a new one is started at 256 KiB. The spool file has all bytes of an
object until it is finished, so nothing has to be read back for this. Refusals are remembered for
the bucket.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import StoreError
from sm_tblog.storage.file_names import prefix_of
from sm_tblog.storage.s3_bucket import (
    DENIED,
    GENERAL,
    MISSING,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Bucket,
    code_of,
    content_md5,
)
from sm_tblog.storage.s3_options import identity
from sm_tblog.storage.s3_parts import MAX_PARTS, MultipartUpload
from sm_tblog.storage.s3_refusals import has_reply, is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog.storage.spool import Section, SpoolFile

__all__ = ["S3Folder", "S3Object"]

logger = logging.getLogger("sm_tblog")

MIN_PART_SIZE = 5 << 20
"""Minimum size in bytes of every part except the last."""

MAX_REPEATED_BYTES = 1 << 20
"""Repeatedly uploaded bytes after which an object is padded so that it can be copied."""

MAX_OBJECT_SIZE = 64 << 20
"""Size in bytes at which a new object is started."""

MAX_REWRITTEN_SIZE = 256 << 10
"""The same for an object that can only be rewritten whole."""

MAX_PART_SIZE = 4 << 30
"""Maximum size in bytes of a request or a copied part; 5 GB or 5 GiB, depending on the server."""

MAX_FAILED_APPENDS = 3
"""Failed appends in a row after which the whole object is tried, whatever the error."""

_CONDITION_FAILED = (*PRECONDITION_FAILED, *NOT_IMPLEMENTED)


class S3Folder(Bucket):
    """A folder of a bucket, as a ``remote.RemoteFolder``.

    Args:
        url: ``s3://bucket/folder``.
        options: see ``s3_options.OPTIONS``.
        refusals: why appends do not work, by bucket; shared by folders that find it out together.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        refusals: dict[tuple[str, str], str] | None = None,
    ) -> None:
        super().__init__(url, options)
        self._refusals = {} if refusals is None else refusals
        self._refusals_key = (identity(options), self.bucket)

    @property
    def appends(self) -> bool:
        """Whether the server can append, as far as is known."""
        return self._refusals_key not in self._refusals

    def note_refusal(self, reason: str) -> None:
        """Append to no object of the bucket any more; warn once."""
        if self._refusals.setdefault(self._refusals_key, reason) is reason:
            logger.warning(
                "%s: the store does not append to objects (%s), but accepts whole ones. Nothing is "
                "lost: until this process ends, objects in this bucket are uploaded whole, and a "
                "new one is started at %d KiB, which uploads more bytes%s",
                self.url,
                reason,
                MAX_REWRITTEN_SIZE >> 10,
                "; grant s3:GetObject to append" if any(one in reason for one in DENIED) else "",
            )

    _can_list = True

    def open_object(self, name: str, *, is_new: bool) -> S3Object:
        """Return the object with this name, which nobody else writes."""
        return S3Object(self, self.prefix + name, is_new=is_new)

    def names_after(self, name: str) -> list[str]:
        """Return the names in the folder after this one that start like it, if they can be listed.

        One request, as there are none if all clocks are right.

        Raises:
            StoreError: the store accepts no request at all at present.
        """
        if not self._can_list:
            return []
        try:
            return self.names_below(prefix_of(name), after=name)
        except StoreError as error:
            if code_of(error) in GENERAL:
                raise
            self._can_list = False  # most likely, it is not allowed
        return []

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

    def write(self, key: str, body: bytes | Section, condition: dict[str, str]) -> Any:
        """Write a complete object; without the condition if it is the condition that is refused.

        Raises:
            StoreError: the upload failed, or the condition is not met.
        """
        request = {"Key": key, "Body": body, "ContentMD5": content_md5(body)}
        try:
            return self.call("PutObject", **request, **condition)
        except StoreError as error:
            if not condition or code_of(error) in (*_CONDITION_FAILED, *DENIED):
                raise
            if not is_refusal(error):
                raise
            if not isinstance(body, bytes):
                body.seek(0)
            try:
                reply = self.call("PutObject", **request)
            except StoreError:
                raise error  # noqa: B904 - the second refusal says no more than the first
            while self.weaken_conditions():
                pass
            return reply

    def _put(self, name: str, data: bytes, condition: dict[str, str]) -> None:
        self.write(self.prefix + name, data, condition)

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
    """

    def __init__(self, folder: S3Folder, key: str, *, is_new: bool = True) -> None:
        self._folder = folder
        self._key = key
        self.committed = 0
        self._tag: str | None = None
        self._repeated = 0
        self._is_synced = is_new  # whether ``committed`` and ``_tag`` match the object
        self._may_copy = True  # whether this object can grow by copying itself
        self._copy_verified = False
        self._failed_appends = 0  # in a row
        self._readable = True  # whether the credentials may read the object
        self._may_condition = True  # whether they may make a write depend on its entity tag
        self._upload = MultipartUpload(folder, key, may_exist=not is_new)

    @property
    def max_size(self) -> int:
        """Size in bytes at which a new object is started."""
        return MAX_OBJECT_SIZE if self._can_copy else MAX_REWRITTEN_SIZE

    @property
    def _can_copy(self) -> bool:
        return self._may_copy and self._folder.appends

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
        self._upload.abort()  # first, so that a delayed append finds nothing to complete
        if not self._is_synced:
            self._refresh()
        self._is_synced = False  # until the end: after any failure, query the object again
        refusal = None
        if self._can_append(size):
            refusal = self._append(file, size)
        if self.committed < size:
            self._write(file, size)
        if refusal is not None:
            self._may_copy = False
            if refusal:
                self._folder.note_refusal(refusal)
        self._failed_appends = 0
        self._is_synced = True

    def close(self) -> None:
        """Abort the uploads that failed appends may have left unfinished."""
        with contextlib.suppress(StoreError):
            self._upload.abort()

    def _refresh(self) -> None:
        """Query the size and entity tag of the object."""
        if not self._readable:
            return
        try:
            reply = self._read_head()
        except StoreError as error:
            if not is_refusal(error):
                raise
            if self.committed and code_of(error) not in MISSING:
                self._readable = self._may_copy = False
            else:
                # Without the permission to list, a missing object is also answered by "denied".
                self.committed, self._tag = 0, None
        else:
            _, _, length = reply.get("ContentRange", "").rpartition("/")
            self.committed, self._tag = int(length or reply["ContentLength"]), reply.get("ETag")
            self._note_version(reply)

    def _read_head(self) -> Mapping[str, Any]:
        """Return the reply with the object's properties.

        GET is used because a failed HEAD does not report the reason. HEAD is also accepted for an
        empty object, which has no range, and for an archived one.
        """
        try:
            return self._folder.read(self._key, Range="bytes=0-0")[0]
        except StoreError as error:
            if has_reply(error) and code_of(error) not in (*MISSING, *DENIED):
                with contextlib.suppress(StoreError):
                    reply: Mapping[str, Any] = self._folder.call("HeadObject", Key=self._key)
                    return reply
            raise

    def _note_version(self, reply: Mapping[str, Any]) -> None:
        if reply.get("VersionId", "null") not in ("null", ""):
            self._may_copy = False  # each append would keep a version of the whole object

    # Rewriting the object.

    def _write(self, file: SpoolFile, size: int) -> None:
        self._upload.abort()
        condition = self._condition("PutObject")
        try:
            if size > MAX_PART_SIZE:
                reply = self._upload.write(file, size, self._condition)
            else:
                reply = self._folder.write(self._key, file.body(0, size), condition)
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

    def _can_append(self, size: int) -> bool:
        fits = MIN_PART_SIZE <= self.committed <= MAX_PART_SIZE
        return self._can_copy and fits and self.committed < size <= self.committed * MAX_PARTS

    def _append(self, file: SpoolFile, size: int) -> str | None:
        """Append by copying; after a refusal of that, ``committed`` stays below ``size``.

        Returns:
            None, or why the server cannot append; "" if other objects may be appended to.

        Raises:
            StoreError: the append failed, and may work later.
        """
        before = self.committed, self._tag
        try:
            reply = self._upload.write(file, size, self._condition, copied=self.committed)
        except StoreError as error:
            return self._resolve_append(error, before, file, size)
        if reply is None:
            return "UploadPartCopy copies nothing"
        self.committed, self._tag = size, reply.get("ETag") or None
        if not self._tag or not self._copy_verified:
            self._refresh()
            self._copy_verified = True
            if self.committed != size:
                return f"an object has {self.committed:,} bytes and not {size:,}"
        return None

    def _resolve_append(
        self, error: StoreError, before: tuple[int, str | None], file: SpoolFile, size: int
    ) -> str | None:
        """Find out why an append failed; return what ``_append`` returns, or raise the error."""
        code, refused = code_of(error), is_refusal(error)
        self._failed_appends += 1
        is_last_resort = self._failed_appends % MAX_FAILED_APPENDS == 0
        if not refused and not is_last_resort and code not in PRECONDITION_FAILED:
            raise error
        self._refresh()
        if self.committed >= size:
            return None  # only the reply was lost
        is_same = (self.committed, self._tag) == before
        if code in PRECONDITION_FAILED and is_same and self._folder.weaken_conditions():
            self.commit(file, size)
            return None
        # An upload may be missing because another process has aborted it.
        if is_last_resort or (refused and is_same and code != "NoSuchUpload"):
            return f"{code} at {self._upload.operation}" if refused else ""
        if self._can_append(size):
            raise error
        return None  # for example because the object was deleted
