"""A TensorBoard process watches ``s3://`` while it is written despite faults."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import islice
from random import Random

import pytest
from s3_servers import FAULTS, KEY, SECRET, free_port, wait_for

from sm_tblog import Writer
from sm_tblog.storage import s3, upload_queue

PATIENCE = 60.0
"""Seconds after which TensorBoard is considered stuck."""

SCALARS = "/data/plugin/scalars/scalars?run=.&tag=loss"

pytestmark = pytest.mark.slow


class TensorBoard:
    """A running TensorBoard that reloads every second."""

    def __init__(self, logdir, server, errors):
        pytest.importorskip("boto3", reason="TensorBoard reads s3:// by boto3")
        self.url = f"http://127.0.0.1:{free_port()}"
        host, port = self.url.removeprefix("http://").split(":")
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir]
        command += ["--host", host, "--port", port, "--reload_interval", "1"]
        command += ["--samples_per_plugin", "scalars=100000", "--load_fast", "false"]
        secrets = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        environment = {**os.environ, **secrets, "S3_ENDPOINT": server.url}
        self.process = subprocess.Popen(command, env=environment, stdout=errors, stderr=errors)

    def steps(self):
        """Return the steps of all points shown, in their order."""
        try:
            with urllib.request.urlopen(self.url + SCALARS, timeout=PATIENCE) as reply:
                return [step for _, step, _ in json.load(reply)]
        except urllib.error.HTTPError:
            return []  # it does not know the tag yet

    def steps_when_as_many(self, count):
        """Return the steps as soon as there are ``count`` of them."""
        deadline = time.monotonic() + PATIENCE
        while len(steps := self.steps()) < count and time.monotonic() < deadline:
            time.sleep(0.1)  # it reloads once a second
        return steps


@pytest.fixture
def look_on(tmp_path):
    """``look_on(logdir, server)``: a ``TensorBoard`` and the file with its output."""
    started = []

    def start(logdir, server):
        said = (tmp_path / "tensorboard.log").open("wb")
        started.append((TensorBoard(logdir, server, said), said))
        wait_for(started[-1][0].url, started[-1][0].process)
        return started[-1][0]

    yield start
    for board, said in started:
        board.process.terminate()
        board.process.wait()
        said.close()


@pytest.mark.parametrize(
    ("server", "roll"), [("moto_server", s3.MAX_OBJECT_SIZE), ("ceph_gateway", 5_320_000)]
)
def test_every_barrier_is_seen_by_one_who_looks_on(
    request, server, roll, fault_proxies, look_on, tmp_path, monkeypatch
):
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.05,))
    monkeypatch.setattr(s3, "MAX_REPEATED_BYTES", 100_000)
    monkeypatch.setattr(s3, "MAX_OBJECT_SIZE", roll)
    proxy = fault_proxies(request.getfixturevalue(server))
    proxy.server.make_bucket()
    folder = f"s3://bucket/live-{roll}"
    generator = Random(13)
    faults = islice(iter(lambda: generator.choice([*[None] * 20, *FAULTS]), ""), 200)
    with Writer(folder, storage_options=proxy.options, on_error=lambda _: None) as writer:
        board = None
        for part in range(6):
            for step in range(part * 1000, part * 1000 + 1000):
                writer.add_scalar("loss", step / 8, step)
            while not writer.flush(force=True):
                pass
            board = board or look_on(folder, proxy.server)
            count = part * 1000 + 1000
            assert board.steps_when_as_many(count) == list(range(count))
            proxy.plan = faults
    assert proxy.count("UploadPartCopy") > 2
    assert proxy.faults
    listed = proxy.server.client().list_objects_v2(Bucket="bucket", Prefix=f"live-{roll}/")
    assert listed["KeyCount"] > 1 or roll == 64 << 20
    assert b"Traceback" not in (tmp_path / "tensorboard.log").read_bytes()
