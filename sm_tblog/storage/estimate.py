"""Estimates the cost of logging to S3 by running the upload code on a store that only counts.

Prices are those of S3 Standard in us-east-1 (aws.amazon.com/s3/pricing): 0.005 USD for a thousand
PUT, COPY, POST or LIST requests, 0.0004 USD for a thousand of any other requests. Uploading is
free; storage is not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

from sm_tblog.format.records import padding
from sm_tblog.storage.s3 import S3Object

__all__ = ["WRITE_PRICE", "Estimate", "estimate"]

WRITE_PRICE = 0.005 / 1000
"""USD for a request that writes or lists."""

READ_PRICE = 0.0004 / 1000
"""USD for any other request."""

RELOAD_SECS = 5.0
"""Default interval at which TensorBoard reloads its data, in seconds."""

_WRITES = {
    "PutObject",
    "CreateMultipartUpload",
    "UploadPartCopy",
    "UploadPart",
    "CompleteMultipartUpload",
}


class Estimate(NamedTuple):
    """The cost of a run.

    Attributes:
        logged: bytes of records.
        uploaded: bytes of request bodies.
        requests: number of requests by the operation's name.
        objects: number of objects at the end of the run.
        writing_usd: cost of ``requests``, in USD.
        watching_usd: cost of the TensorBoard processes that watch the run, in USD.
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
    """Return the estimated cost of a run.

    Args:
        seconds: duration of the run.
        bytes_per_second: bytes of records per second; a scalar has about 45 bytes.
        flush_secs: seconds between two uploads.
        copies: whether objects can grow by copying themselves; in a bucket with versioning they
            cannot.
        watchers: number of TensorBoard processes that watch the run all the time.
    """
    folder = _CountingFolder(copies)
    spooled, remote_object = _Zeros(), S3Object(folder, "key")  # type: ignore[arg-type]
    logged = objects = 0
    for tick in range(1, math.ceil(seconds / flush_secs) + 1):
        new_bytes = round(bytes_per_second * min(tick * flush_secs, seconds)) - logged
        if not new_bytes:
            continue
        logged += new_bytes
        if spooled.size >= remote_object.max_size:
            spooled, remote_object = _Zeros(), S3Object(folder, "key")  # type: ignore[arg-type]
        objects += not spooled.size
        spooled.size += new_bytes
        if missing := remote_object.padding(spooled.size):
            spooled.size += len(padding(missing))
        folder.size = spooled.size
        remote_object.commit(spooled, spooled.size)  # type: ignore[arg-type]
    writes = sum(n for operation, n in folder.requests.items() if operation in _WRITES)
    reads = folder.requests.total() - writes
    reloads = watchers * seconds / RELOAD_SECS
    return Estimate(
        logged,
        folder.uploaded,
        dict(folder.requests),
        objects,
        writes * WRITE_PRICE + reads * READ_PRICE,
        # Measured with one idle run: 4 LIST, 1 GET and 1 HEAD for each reload.
        reloads * (4 * WRITE_PRICE + 2 * READ_PRICE),
    )


class _Zeros:
    """A spool file that contains only zeros."""

    size = 0

    def body(self, begin: int, end: int) -> bytes:
        return bytes(end - begin)


class _CountingFolder:
    """A bucket that accepts every request and stores nothing."""

    bucket = "bucket"
    appends = True
    has_met_conditions = False

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

    def write(self, key: str, body: bytes, condition: dict[str, str]) -> dict[str, Any]:
        return self.call("PutObject", Key=key, Body=body, **condition)

    def supports(self, operation: str, parameter: str) -> bool:  # noqa: ARG002 - the interface of Bucket
        return False

    def condition(self, operation: str, tag: str | None, name: str) -> dict[str, str]:  # noqa: ARG002 - the interface of Bucket
        return {}
