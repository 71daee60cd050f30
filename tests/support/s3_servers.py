"""S3 servers for tests, and a proxy that injects faults between them and the code under test."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

KEY, SECRET = "testkey", "testsecret"
START_SECS = 90

ERRORS = {
    "500": (500, "InternalError", "We encountered an internal error."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "403": (403, "AccessDenied", "Access Denied"),
    "412": (412, "PreconditionFailed", "A pre-condition you specified did not hold"),
    "412 empty": (412, "PreconditionFailed", ""),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "skew": (403, "RequestTimeTooSkewed", "The difference between the times is too large."),
}

LATE = {"late 1": 1, "late 2": 2, "late 4": 4}

FAULTS = (*ERRORS, *LATE, "reset", "lost", "cut")
"""Faults that can happen to a request, except ``hang``, which lasts until the client times out.

``reset``: the connection breaks before the server receives the request. ``late``: the same, but
the server executes the request after that many more requests. ``lost``: the server executes the
request, and the connection breaks before the reply. ``cut``: the reply breaks off in the middle.
``hang``: no reply until the client gives up.
"""


class Request(NamedTuple):
    """A request that went through the proxy."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    uploaded: int
    status: int
    fault: str | None

    @property
    def operation(self):
        """The S3 name of the operation."""
        if self.method == "PUT" and "partNumber" in self.query:
            copies = "x-amz-copy-source" in self.headers
            return "UploadPartCopy" if copies else "UploadPart"
        if self.method == "POST":
            return "CreateMultipartUpload" if "uploads" in self.query else "CompleteMultipartUpload"
        if "uploads" in self.query:
            return "ListMultipartUploads"
        if "list-type" in self.query:
            return "ListObjectsV2"
        names = {"PUT": "PutObject", "HEAD": "HeadObject", "GET": "GetObject"}
        return names.get(self.method, "AbortMultipartUpload")


class FaultProxy:
    """A proxy in front of an S3 server.

    Attributes:
        plan: an iterator over the fault of each successive request, None for no fault.
        rewrite: a function that takes all headers in lower case and returns headers to replace.
        requests: the requests that went through.
        after_change: called with the path after the server has changed an object.
        arrived: set when a request starts to hang.
        released: set it to release all hanging requests.
    """

    def __init__(self, server):
        self.server = server
        self._upstream = urlsplit(server.url).netloc
        self._lock = threading.Lock()
        self._late = []
        self.released = threading.Event()
        self.begin()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def begin(self):
        """Reset: no faults, no requests."""
        self.released.set()
        self.do_late()
        self.plan = iter(())
        self._plans = {}
        self.rewrite = lambda headers: {}
        self.after_change = None
        self.requests = []
        self.arrived = threading.Event()
        self.released = threading.Event()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def options(self):
        """The ``storage_options`` of a client of the proxy that does not retry."""
        once = {"retries": {"max_attempts": 0}}
        return {**self.server.options, "endpoint_url": self.url, "config_kwargs": once}

    @property
    def uploaded(self):
        return sum(request.uploaded for request in self.requests)

    @property
    def faults(self):
        """The faults that have occurred."""
        return [request.fault for request in self.requests if request.fault]

    def count(self, operation):
        return sum(request.operation == operation for request in self.requests)

    def fail(self, operation, *faults):
        """Make the next requests of this operation fail with these faults, None for no fault.

        If the last one is in a list, it applies to all later requests.
        """
        endless = repeat(*faults[-1]) if isinstance(faults[-1], list) else ()
        self._plans[operation] = chain([f for f in faults if not isinstance(f, list)], endless)

    def next_fault(self, request):
        with self._lock:
            return next(self._plans.get(request.operation, self.plan), None)

    def postpone(self, fault, *request):
        """Delay a request until after others."""
        with self._lock:
            self._late.append([LATE[fault], request])

    def do_late(self, *, all_of_them=True):
        """Execute the delayed requests that are due."""
        with self._lock:
            for one in self._late:
                one[0] -= 1
            due = [one for one in self._late if one[0] <= 0 or all_of_them]
            self._late = [one for one in self._late if one not in due]
        for _, (method, path, headers, body) in due:
            reply, _ = self.forward(method, path, headers, body)
            self.note_change(method, path, reply)

    def note_change(self, method, path, reply):
        if method in ("PUT", "POST") and reply.status < 300 and self.after_change:
            self.after_change(urlsplit(path).path)

    def forward(self, method, path, headers, body):
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in ("connection", "expect", "transfer-encoding"):
                connection.putheader(name, value)
        connection.putheader("Connection", "close")
        connection.endheaders(body or None)
        reply = connection.getresponse()
        data = reply.read()
        connection.close()
        return reply, data


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        """Do not log."""

    def _handle(self):
        body = self._body()
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, query, headers, len(body), 0, None)
        fault = self.proxy.next_fault(request)
        request = request._replace(fault=fault)
        if fault in ERRORS:
            self._answer_error(request, *ERRORS[fault])
            return
        if fault == "hang":
            self.proxy.requests.append(request)
            self.proxy.arrived.set()
            self.proxy.released.wait(START_SECS)
            self._reset()
            return
        if fault == "reset" or fault in LATE:
            self.proxy.requests.append(request)
            if fault in LATE:
                self.proxy.postpone(fault, self.command, self.path, self.headers, body)
            self._reset()
            return
        forwarded = {**dict(self.headers.items()), **self.proxy.rewrite(headers)}
        try:
            reply, data = self.proxy.forward(self.command, self.path, forwarded, body)
        except OSError:
            self._reset()
            return
        self.proxy.requests.append(request._replace(status=reply.status))
        self.proxy.note_change(self.command, self.path, reply)
        self.proxy.do_late(all_of_them=False)
        if fault == "lost":
            self._reset()
            return
        self._answer(reply, data, cut=fault == "cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815 - http.server's names

    def _body(self):
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, reply, data, *, cut):
        self.send_response_only(reply.status, reply.reason)
        length = reply.getheader("Content-Length") if self.command == "HEAD" else len(data)
        for name, value in reply.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if cut:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self._reset()
        else:
            self.wfile.write(data)

    def _answer_error(self, request, status, code, message):
        self.proxy.requests.append(request._replace(status=status))
        text = (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
        data = b"" if self.command == "HEAD" else text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _reset(self):
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


class Server(NamedTuple):
    """A running S3 server."""

    name: str
    url: str

    @property
    def options(self):
        """The ``storage_options`` of a client of the server."""
        return {"endpoint_url": self.url, "key": KEY, "secret": SECRET, "region_name": "us-east-1"}

    @cache  # noqa: B019 - servers live as long as the tests
    def client(self):
        from sm_tblog.storage.s3_options import make_client

        return make_client(self.options)

    def make_bucket(self, name="bucket"):
        """Create a bucket if necessary; return a client."""
        client = self.client()
        if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=name)
        return client


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, process):
    deadline = time.monotonic() + START_SECS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            continue
        return
    raise RuntimeError(f"{process.args[0]} does not answer at {url}")


@contextlib.contextmanager
def running(command, **environment):
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def moto():
    """Run moto's server, which accepts parts of any size; Ceph requires 5 MiB, as S3 does."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, S3_UPLOAD_PART_MIN_SIZE="1") as process:
        wait_for(f"http://127.0.0.1:{port}/moto-api/", process)
        yield Server("moto", f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def rclone(folder):
    """Run ``rclone serve s3``, which treats a copied part as an empty one."""
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which(
        "rclone"
    )
    if program is None:
        yield None
        return
    port = free_port()
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key"]
    command += [f"{KEY},{SECRET}", "--config", "/dev/null", str(folder)]
    with running(command) as process:
        wait_for(f"http://127.0.0.1:{port}/", process)
        yield Server("rclone", f"http://127.0.0.1:{port}")
