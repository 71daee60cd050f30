"""What logging to S3 will cost: the algorithm itself, run on a store that only counts.

Prices are S3 Standard's in us-east-1 (aws.amazon.com/s3/pricing): 0.005 USD for a thousand PUT,
COPY, POST or LIST requests, 0.0004 USD for a thousand of the others. Uploading is free; storage is
not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

from sm_tblog.format.records import padding
from sm_tblog.storage.s3 import S3Object

__all__ = ["DEAR", "Estimate", "estimate"]

DEAR = 0.005 / 1000
"""USD for a request that writes or lists."""

CHEAP = 0.0004 / 1000
"""USD for any other request."""

RELOAD_SECS = 5.0
"""Seconds between two looks of TensorBoard, by default."""

_WRITES = {
    "PutObject",
    "CreateMultipartUpload",
    "UploadPartCopy",
    "UploadPart",
    "CompleteMultipartUpload",
}


class Estimate(NamedTuple):
    """What a run costs.

    Attributes:
        logged: bytes of records.
        uploaded: bytes of request bodies.
        requests: how many, by the operation's name.
        objects: how many there are in the end.
        writing_usd: for those requests.
        watching_usd: for TensorBoard processes that look on.
    """

    logged: int
    uploaded: int
    requests: dict[str, int]
    objects: int
    writing_usd: float
    watching_usd: float


def estimate(
    seconds: float,
    bytes_per_second: float,
    flush_secs: float = 10.0,
    *,
    copies: bool = True,
    watchers: int = 0,
) -> Estimate:
    """Return what a run of so many seconds costs.

    Args:
        seconds: how long the run is.
        bytes_per_second: of records; a scalar has about 45.
        flush_secs: between two uploads.
        copies: whether the bucket allows an object to grow by a copy; one that keeps versions does
            not.
        watchers: TensorBoard processes that look at the run all the time.
    """
    place = _CountingFolder(copies)
    spooled, growing = _Zeros(), S3Object(place, "key")  # type: ignore[arg-type]
    logged = objects = 0
    for tick in range(1, math.ceil(seconds / flush_secs) + 1):
        more = round(bytes_per_second * min(tick * flush_secs, seconds)) - logged
        if not more:
            continue
        logged += more
        if spooled.size >= growing.roll_bytes:
            spooled, growing = _Zeros(), S3Object(place, "key")  # type: ignore[arg-type]
        objects += not spooled.size
        spooled.size += more
        if missing := growing.padding(spooled.size):
            spooled.size += len(padding(missing))
        place.size = spooled.size
        growing.commit(spooled, spooled.size)  # type: ignore[arg-type]
    writes = sum(n for operation, n in place.requests.items() if operation in _WRITES)
    reads = place.requests.total() - writes
    looks = watchers * seconds / RELOAD_SECS
    return Estimate(
        logged,
        place.uploaded,
        dict(place.requests),
        objects,
        writes * DEAR + reads * CHEAP,
        looks * (4 * DEAR + 2 * CHEAP),  # measured with one idle run: 4 LIST, a GET and a HEAD
    )


class _Zeros:
    """A spool file of nothing but zeros."""

    size = 0

    def body(self, begin: int, end: int) -> bytes:
        return bytes(end - begin)


class _CountingFolder:
    """A bucket that takes everything and keeps nothing."""

    bucket = "bucket"

    def __init__(self, copies: bool) -> None:
        self._version = {} if copies else {"VersionId": "1"}
        self.requests: Counter[str] = Counter()
        self.uploaded = 0
        self.size = 0

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        self.requests[operation] += 1
        self.uploaded += len(parameters.get("Body", b""))
        return {
            "ETag": '"1"',
            "UploadId": "1",
            "CopyPartResult": {"ETag": '"1"'},
            **self._version,
        }

    def read(self, key: str, **parameters: Any) -> tuple[dict[str, Any], bytes]:
        reply = self.call("GetObject", Key=key, **parameters)
        return {**reply, "ContentRange": f"bytes 0-0/{self.size}"}, b""

    def knows(self, operation: str, parameter: str) -> bool:  # noqa: ARG002 - as S3Folder has it
        return False

    def condition(self, operation: str, tag: str | None, name: str) -> dict[str, str]:  # noqa: ARG002 - as S3Folder has it
        return {}
