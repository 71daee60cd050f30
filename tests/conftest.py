"""What the tests share: reading with TensorBoard's own code, and running a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def _run_script(source, *args, timeout=SCRIPT_TIMEOUT, **options):
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


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
def run_script():
    """``run_script(source, *args)``: run Python source in a process of its own, to its end.

    Returns ``subprocess.CompletedProcess`` with text output. Further keywords go to
    ``subprocess.run``.
    """
    return _run_script
