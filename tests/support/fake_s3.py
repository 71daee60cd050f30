"""An S3 server inside the process, with the rules and refusals of different servers.

It answers the requests of botocore's clients before they are sent, so requests are built, and
replies parsed, by botocore's own code.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from functools import cache
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

from urllib3.response import HTTPResponse

_numbers = itertools.count()


@cache
def client():
    """Return a client whose requests are answered by the newest ``FakeS3``."""
    from sm_tblog.storage.s3_options import make_client

    made = make_client(FakeS3().options)

    def answer(**sent):
        return FakeS3.newest.answer(**sent)

    made.meta.events.register("before-send.s3", answer)
    return made


class Refusal(NamedTuple):
    """An error reply; ``status`` 200 is an error in a reply that begins as a success,
    as copies and completed uploads may have."""

    status: int
    code: str


class RefusedError(Exception):
    """The request gets this error reply."""


class FakeS3:
    """A bucket.

    Attributes:
        objects: the content of the objects by key.
        sizes: the sizes that each object has had, in order.
        requests: the operations called and the bytes of their bodies, in order.
        refusals: the ``Refusal`` of each operation, for as long as it is there.
        drops: operations that the server never receives.
        plan: an iterator over the faults of successive requests: a ``Refusal``, "reset" (the
            server does not receive the request), "lost" (the server executes it, and the client
            gets no reply) or None.
        min_part_size: minimum size in bytes of every part except the last.
        equal_parts: whether all parts except the last must have the same size.
        refuses_conditions: the ``Refusal`` of every request with a condition.
        ignores_copies: whether a copied part is taken for an empty one.
    """

    newest = None

    def __init__(self, min_part_size=5 << 20):
        self.objects = {}
        self.sizes = {}
        self.requests = []
        self.refusals = {}
        self.drops = set()
        self.plan = iter(())
        self.min_part_size = min_part_size
        self.equal_parts = False
        self.refuses_conditions = None
        self.ignores_copies = False
        self.uploads = {}
        FakeS3.newest = self
        self.options = {
            "endpoint_url": f"http://fake-{next(_numbers)}.invalid",
            "key": "testkey",
            "secret": "testsecret",
            "config_kwargs": {
                "retries": {"max_attempts": 0},
                "s3": {"addressing_style": "path"},
            },
        }

    def count(self, operation):
        return sum(name == operation for name, _ in self.requests)

    @property
    def uploaded(self):
        return sum(size for _, size in self.requests)

    # Requests.

    def answer(self, request, **kwargs):
        """Return the reply to a request that a client is about to send."""
        from botocore.awsrequest import AWSResponse, HeadersDict
        from botocore.exceptions import ConnectionClosedError

        body = request.body or b""
        body = bytes(body) if isinstance(body, (bytes, bytearray)) else body.read()
        parts = urlsplit(request.url)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        operation = _operation(request.method, query, headers)
        self.requests.append((operation, len(body)))
        fault = next(self.plan, None)
        if fault == "reset" or operation in self.drops:
            raise ConnectionClosedError(endpoint_url=request.url)
        refusal = fault if isinstance(fault, Refusal) else self.refusals.get(operation)
        try:
            key = unquote(parts.path).partition("/bucket/")[2]
            status, reply_headers, reply = self._do(refusal, operation, key, query, headers, body)
        except RefusedError as error:
            [refusal] = error.args
            late = operation in ("UploadPartCopy", "CompleteMultipartUpload")
            status = 400 if refusal.status == 200 and not late else refusal.status
            reply_headers = {}
            reply = f"<Error><Code>{refusal.code}</Code><Message>no</Message></Error>".encode()
        if fault == "lost":
            raise ConnectionClosedError(endpoint_url=request.url)
        if request.method == "HEAD":
            reply_headers.setdefault("Content-Length", "0")
            reply = b""
        reply_headers.setdefault("Content-Length", str(len(reply)))
        raw = HTTPResponse(io.BytesIO(reply), preload_content=False, status=status)
        return AWSResponse(request.url, status, HeadersDict(reply_headers), raw)

    def _do(self, refusal, operation, key, query, headers, body):
        if refusal:
            raise RefusedError(refusal)
        self._check_condition(operation, key, headers)
        return getattr(self, f"_{operation}")(key, query, headers, body)

    def _check_condition(self, operation, key, headers):
        prefix = "x-amz-copy-source-" if operation == "UploadPartCopy" else ""
        wanted = headers.get(f"{prefix}if-match")
        absent = headers.get(f"{prefix}if-none-match")
        if not wanted and not absent:
            return
        if self.refuses_conditions:
            raise RefusedError(self.refuses_conditions)
        exists = key in self.objects
        if (absent and exists) or (wanted and exists and wanted != _tag(self.objects[key])):
            raise RefusedError(Refusal(412, "PreconditionFailed"))
        if wanted and not exists:
            raise RefusedError(Refusal(404, "NoSuchKey"))

    def _store(self, key, body):
        self.objects[key] = body
        self.sizes.setdefault(key, []).append(len(body))
        return _tag(body)

    def _find(self, key):
        if key not in self.objects:
            raise RefusedError(Refusal(404, "NoSuchKey"))
        return self.objects[key]

    def _PutObject(self, key, query, headers, body):  # noqa: N802 - S3's names
        return 200, {"ETag": self._store(key, body)}, b""

    def _GetObject(self, key, query, headers, body):  # noqa: N802
        content = self._find(key)
        if "range" not in headers:
            return 200, {"ETag": _tag(content)}, content
        begin, end = map(int, re.findall(r"\d+", headers["range"]))
        if begin >= len(content):
            raise RefusedError(Refusal(416, "InvalidRange"))
        part = content[begin : end + 1]
        shown = f"bytes {begin}-{begin + len(part) - 1}/{len(content)}"
        return 206, {"ETag": _tag(content), "Content-Range": shown}, part

    def _HeadObject(self, key, query, headers, body):  # noqa: N802
        content = self._find(key)
        return 200, {"ETag": _tag(content), "Content-Length": str(len(content))}, b""

    def _CreateMultipartUpload(self, key, query, headers, body):  # noqa: N802
        upload = f"upload-{next(_numbers)}"
        self.uploads[upload] = key, {}
        return 200, {}, f"<R><UploadId>{upload}</UploadId></R>".encode()

    def _parts(self, query):
        if query["uploadId"] not in self.uploads:
            raise RefusedError(Refusal(404, "NoSuchUpload"))
        return self.uploads[query["uploadId"]][1]

    def _UploadPartCopy(self, key, query, headers, body):  # noqa: N802
        parts = self._parts(query)
        content = self._find(unquote(headers["x-amz-copy-source"]).partition("/")[2])
        begin, end = map(int, re.findall(r"\d+", headers["x-amz-copy-source-range"]))
        if end >= len(content):
            raise RefusedError(Refusal(400, "InvalidArgument"))
        part = b"" if self.ignores_copies else content[begin : end + 1]
        parts[int(query["partNumber"])] = part
        return 200, {}, f"<R><ETag>{_tag(part)}</ETag></R>".encode()

    def _UploadPart(self, key, query, headers, body):  # noqa: N802
        self._parts(query)[int(query["partNumber"])] = body
        return 200, {"ETag": _tag(body)}, b""

    def _CompleteMultipartUpload(self, key, query, headers, body):  # noqa: N802
        parts = self._parts(query)
        root = ET.fromstring(body)
        numbers = [int(one.text) for one in root.iter() if one.tag.endswith("PartNumber")]
        sizes = [len(parts[number]) for number in numbers]
        if len(sizes) > 10_000:
            raise RefusedError(Refusal(400, "InvalidArgument"))
        if any(size < self.min_part_size for size in sizes[:-1]):
            raise RefusedError(Refusal(400, "EntityTooSmall"))
        # On R2, all parts but the last must have the same length.
        if self.equal_parts and (len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]):
            raise RefusedError(Refusal(400, "InvalidPart"))
        del self.uploads[query["uploadId"]]
        tag = self._store(key, b"".join(parts[number] for number in numbers))
        return 200, {}, f"<R><ETag>{tag}</ETag></R>".encode()

    def _AbortMultipartUpload(self, key, query, headers, body):  # noqa: N802
        self._parts(query)
        del self.uploads[query["uploadId"]]
        return 204, {}, b""

    def _ListMultipartUploads(self, key, query, headers, body):  # noqa: N802
        found = "".join(
            f"<Upload><Key>{key}</Key><UploadId>{upload}</UploadId></Upload>"
            for upload, (key, _) in self.uploads.items()
            if key.startswith(query.get("prefix", ""))
        )
        return 200, {}, f"<R>{found}</R>".encode()


def _tag(content):
    return f'"{hashlib.md5(content).hexdigest()}"'


def _operation(method, query, headers):
    if "partNumber" in query:
        return "UploadPartCopy" if "x-amz-copy-source" in headers else "UploadPart"
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
    if "uploads" in query:
        return "ListMultipartUploads"
    names = {"PUT": "PutObject", "HEAD": "HeadObject", "GET": "GetObject"}
    return names.get(method, "AbortMultipartUpload")
