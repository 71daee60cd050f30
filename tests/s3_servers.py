"""S3 servers for tests, and a proxy that fails on purpose between them and what is tested."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

FAULTS = (*ERRORS, "reset", "lost", "cut", "hang")
"""What may happen to a request.

``reset``: the connection breaks before the server has seen it. ``lost``: the server does it, and
the connection breaks before the reply. ``cut``: the reply breaks in the middle. ``hang``: no reply
until the client gives up.
"""


class Request(NamedTuple):
    """What went through the proxy."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    uploaded: int
    status: int
    fault: str | None

    @property
    def operation(self):
        """The request's name, as S3 has it."""
        if self.method == "PUT" and "partNumber" in self.query:
            copies = "x-amz-copy-source" in self.headers
            return "UploadPartCopy" if copies else "UploadPart"
        if self.method == "POST":
            return "CreateMultipartUpload" if "uploads" in self.query else "CompleteMultipartUpload"
        names = {"PUT": "PutObject", "HEAD": "HeadObject", "GET": "GetObject"}
        return names.get(self.method, "AbortMultipartUpload")


class FaultProxy:
    """A proxy before an S3 server.

    Attributes:
        plan: what happens to each request in turn, a fault or None; after its end, nothing.
        only: if set, called with each request; the plan is for those it returns True for.
        requests: what went through.
        after_change: called after the server has changed an object.
    """

    def __init__(self, upstream):
        self._upstream = urlsplit(upstream).netloc
        self.plan = deque()
        self.only = None
        self.requests = []
        self.after_change = None
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def uploaded(self):
        return sum(request.uploaded for request in self.requests)

    def count(self, operation):
        return sum(request.operation == operation for request in self.requests)

    def next_fault(self, request):
        if self.plan and (self.only is None or self.only(request)):
            return self.plan.popleft()
        return None

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
        """Say nothing."""

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
            self.proxy.released.wait(START_SECS)
            self._reset()
            return
        if fault == "reset":
            self.proxy.requests.append(request)
            self._reset()
            return
        try:
            reply, data = self.proxy.forward(self.command, self.path, self.headers, body)
        except OSError:
            self._reset()
            return
        self.proxy.requests.append(request._replace(status=reply.status))
        if self.command in ("PUT", "POST") and reply.status < 300 and self.proxy.after_change:
            self.proxy.after_change(parts.path)
        if fault == "lost":
            self._reset()
            return
        self._answer(reply, data, cut=fault == "cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

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
        """What makes a client of it, as ``storage_options``."""
        return {"endpoint_url": self.url, "key": KEY, "secret": SECRET, "region_name": "us-east-1"}

    def client(self):
        from sm_tblog.storage.s3_options import make_client

        path_style = {"config_kwargs": {"s3": {"addressing_style": "path"}}}
        return make_client({**self.options, **path_style})


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
def running(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
    """Run moto's server."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command) as process:
        wait_for(f"http://127.0.0.1:{port}/moto-api/", process)
        yield Server("moto", f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def rclone(folder):
    """Run ``rclone serve s3``, which takes the copy of a part for an empty one."""
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
