"""Logging to ``s3://``: bytes, requests, objects and processor time, with a local S3 server.

The server is moto, in a separate process. Traffic is counted where botocore sends it; every writer
here sends through botocore.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import uuid4

from benchmarks._measure import Target, figure, interleave, less_than_the_best
from benchmarks._writers import (
    OURS,
    PEERS,
    count_records,
    log_rows,
    make_rows,
    open_writer,
    temporary_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks._measure import Figure

__all__ = ["object_store_cost"]

_UPLOADED_TARGET = Target(3, at_least=False)
_DAY_TARGET = Target(1.15, at_least=False)
_CALLER_TARGET = Target(1.2, at_least=False)

_DAY_BYTES = 100e6
_DAY_FLUSHES = 8640
_START_SECS = 60.0


def object_store_cost(
    flushes: int = 200, rows: int = 300, caller_rounds: int = 61, calls: int = 5_000
) -> list[Figure]:
    """Return the cost of logging to S3, compared with other writers and a local directory.

    300 rows are about 20 KB. Every writer is flushed after each such batch, ours with
    ``flush(force=True)``, which waits until the server has acknowledged everything.
    """
    with _server() as environment, mock.patch.dict(os.environ, environment):
        _make_bucket()
        runs = {name: _Run(name, flushes, rows) for name in (OURS, *PEERS)}
        samples = _caller_samples(caller_rounds, make_rows(calls, 1))
    what = f"{flushes} flushes of {runs[OURS].logged / flushes / 1e3:.0f} KB to S3"
    share = {name: [run.uploaded / run.logged] for name, run in runs.items()}
    counts = "; ".join(f"{name} {run.counts}" for name, run in runs.items())
    return [
        figure(
            f"{what}, bytes uploaded per byte logged",
            share,
            "x",
            share[OURS],
            target=_UPLOADED_TARGET,
            note=f"{what}: {counts}",
        ),
        _day(),
        less_than_the_best(
            f"{what}, all processor time per flush",
            {name: [run.processor_ms] for name, run in runs.items()},
            "ms",
            OURS,
        ),
        figure(
            "add_scalar to S3, caller's time, in calls to a local directory",
            samples,
            "µs",
            [there / here for there, here in zip(*samples.values(), strict=True)],
            target=_CALLER_TARGET,
        ),
    ]


class _Run:
    """One writer's run, and the traffic that it caused.

    Attributes:
        logged: bytes of records.
        uploaded: bytes of request bodies.
        processor_ms: processor time of all threads per flush, in milliseconds.
        counts: the numbers of requests and objects, as text.
    """

    def __init__(self, name: str, flushes: int, rows: int) -> None:
        folder = f"s3://bench/{uuid4().hex}"
        with _counted() as sent:
            writer = open_writer(name, folder)
            options = {"force": True} if name == OURS else {}
            log_rows(writer, make_rows(rows, 1))
            writer.flush(**options)  # imports modules and finds credentials
            begun = process_time()
            for number in range(1, flushes):
                log_rows(writer, make_rows(rows, 1, begin=number * rows))
                writer.flush(**options)
            self.processor_ms = (process_time() - begun) / max(flushes - 1, 1) * 1e3
            writer.close()
        self.uploaded = sent["bytes"]
        with temporary_folder() as local:
            objects = _download(folder, local)
            padding = count_records(local) - flushes * rows  # a record without content
        if padding not in (0, int(name == OURS)):
            message = f"{folder} holds {padding} more records than were logged"
            raise ValueError(message)
        # The objects' other content, which was not logged, counts as uploaded.
        self.logged = writer.stats().bytes_stored if name == OURS else sum(objects)
        self.counts = f"{sent['requests']} requests, {len(objects)} objects"


def _day() -> Figure:
    """Return the same for a day; for the other writers it follows from re-uploading everything."""
    from sm_tblog.storage.estimate import estimate

    cost = estimate(86_400, _DAY_BYTES / 86_400, 86_400 / _DAY_FLUSHES)
    again = [(_DAY_FLUSHES + 1) / 2]
    share = {OURS: [cost.uploaded / cost.logged], **dict.fromkeys(PEERS, again)}
    name = "a day of 100 MB to S3, a flush every 10 s, bytes uploaded per byte logged"
    requests = sum(cost.requests.values())
    note = (
        f"the day is simulated: for {OURS} the real upload code runs against a counting store "
        f"({requests:,} requests, {cost.objects} objects, {cost.writing_usd:.2f} USD); for the "
        f"others it is calculated as {_DAY_FLUSHES:,} uploads of everything logged before"
    )
    return figure(name, share, "x", share[OURS], target=_DAY_TARGET, note=note)


def _caller_samples(rounds: int, rows: list[tuple[str, float, int]]) -> dict[str, list[float]]:
    """Return microseconds per call, by destination and round."""

    def burst(writer: Any) -> float:
        begun = perf_counter()
        log_rows(writer, rows)
        took = perf_counter() - begun
        writer.flush()
        return took / len(rows) * 1e6

    with temporary_folder() as local:
        places = {"S3": f"s3://bench/{uuid4().hex}", "local": local}
        writers = {place: open_writer(OURS, folder) for place, folder in places.items()}
        contestants = {place: partial(burst, writer) for place, writer in writers.items()}
        interleave(contestants, 3)
        samples = interleave(contestants, rounds)
        for writer in writers.values():
            writer.close()
    return samples


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Count requests and the bytes of their bodies."""
    from botocore.httpsession import URLLib3Session

    sent: Counter[str] = Counter()
    send = URLLib3Session.send

    def count_and_send(session: Any, request: Any) -> Any:
        sent["requests"] += 1
        sent["bytes"] += int(request.headers.get("Content-Length") or 0)
        return send(session, request)

    with mock.patch.object(URLLib3Session, "send", count_and_send):
        yield sent


@contextmanager
def _server() -> Iterator[dict[str, str]]:
    """Run an S3 server; yield the environment variables that point clients to it."""
    if find_spec("moto") is None:
        message = "the S3 benchmark needs a server: pip install 'moto[server]' boto3"
        raise ImportError(message)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    nowhere = subprocess.DEVNULL
    with (
        temporary_folder() as spool,
        subprocess.Popen(command, stdout=nowhere, stderr=nowhere) as process,
    ):
        try:
            _wait_for(port, process)
            yield {
                "S3_ENDPOINT": f"http://127.0.0.1:{port}",
                # TensorBoard reads the former at import time, which may have been earlier.
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_DEFAULT_REGION": "us-east-1",
                "SM_TBLOG_SPOOL": spool,
            }
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    message = "the moto server did not start"
    raise RuntimeError(message)


def _client() -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])


def _make_bucket() -> None:
    _client().create_bucket(Bucket="bench")


def _download(folder: str, local: str) -> list[int]:
    """Download the objects of a folder; return their sizes in bytes."""
    client, prefix = _client(), folder.removeprefix("s3://bench/")
    listed = client.list_objects_v2(Bucket="bench", Prefix=prefix)["Contents"]
    for one in listed:
        if one["Key"].endswith("/"):  # some writers create an object for the folder
            continue
        client.download_file("bench", one["Key"], f"{local}/{one['Key'].rpartition('/')[2]}")
    return [one["Size"] for one in listed]
