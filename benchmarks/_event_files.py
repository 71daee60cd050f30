"""Event files of the shapes that users report, written by several writers."""

from __future__ import annotations

import math
import shutil
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks._writers import OURS, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["WRITERS", "Shape", "write_images", "write_shape"]

_TENSORFLOW = "TensorFlow 2"
WRITERS = (OURS, "torch", _TENSORFLOW)


class Shape(NamedTuple):
    """How many scalars there are, and where.

    Attributes:
        runs: number of runs.
        tags: number of tags of each run.
        steps: number of points of each tag.
        files: number of event files of each run, which share the steps.
    """

    runs: int
    tags: int
    steps: int
    files: int = 1

    @property
    def points(self) -> int:
        """Number of scalars."""
        return self.runs * self.tags * self.steps

    def __str__(self) -> str:
        """Return the numbers as text."""
        files = f" in {self.runs * self.files:,} files" if self.files > 1 else ""
        runs = f"{self.runs:,} run{'s' if self.runs > 1 else ''}"
        return f"{runs}, {self.tags:,} tags, {self.steps:,} steps{files}"


def write_shape(folder: Path, writer: str, shape: Shape) -> None:
    """Write the event files of a shape; all runs have the same contents."""
    first = folder / "run_0"
    per_file = math.ceil(shape.steps / shape.files)
    for file in range(shape.files):
        scratch = folder.parent / "scratch"
        log = _open_tensorflow(scratch) if writer == _TENSORFLOW else _open(writer, scratch)
        steps = range(file * per_file, min((file + 1) * per_file, shape.steps))
        names = [f"layer_{i % 24}/metric_{i}" for i in range(shape.tags)]
        for step in steps:
            for name in names:
                log(name, step * 0.1, step)
        log.close()
        first.mkdir(parents=True, exist_ok=True)
        (written,) = scratch.iterdir()
        written.rename(first / f"events.out.tfevents.{file:010}.host.1.{file}")
        scratch.rmdir()
    for run in range(1, shape.runs):
        shutil.copytree(first, folder / f"run_{run}")


class _Log:
    """Calls a function for each scalar, and another one at the end."""

    def __init__(
        self, add: Callable[[str, float, int], object], close: Callable[[], object]
    ) -> None:
        self._add = add
        self.close = close

    def __call__(self, tag: str, value: float, step: int) -> None:
        """Log a scalar."""
        self._add(tag, value, step)


def _open(writer: str, folder: Path) -> _Log:
    opened = open_writer(writer, str(folder))
    return _Log(opened.add_scalar, opened.close)


def _open_tensorflow(folder: Path) -> _Log:
    """Return a log that writes what ``tf.summary.scalar`` writes: each scalar as a tensor.

    TensorFlow itself is not needed: TensorBoard has its own copies of the messages.
    """
    from tensorboard.compat.proto import event_pb2
    from tensorboard.plugins.scalar.metadata import create_summary_metadata
    from tensorboard.summary.writer.record_writer import RecordWriter

    metadata = create_summary_metadata("", "")
    folder.mkdir(parents=True)
    file = (folder / "events.out.tfevents.v2").open("wb")
    records = RecordWriter(file)
    version = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
    records.write(version.SerializeToString())

    def add(tag: str, value: float, step: int) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step)
        added = event.summary.value.add(tag=tag, metadata=metadata)
        added.tensor.dtype = 1  # DT_FLOAT
        added.tensor.tensor_shape.SetInParent()
        added.tensor.tensor_content = struct.pack("<f", value)
        records.write(event.SerializeToString())

    return _Log(add, file.close)


def write_images(folder: Path, size: int, image_size: int) -> int:
    """Write a run of about ``size`` bytes of which nearly all are images.

    Args:
        folder: the run.
        size: bytes of all images.
        image_size: bytes of an image.

    Returns:
        Number of scalars.
    """
    import os

    from sm_tblog.format import schema
    from sm_tblog.format.records import frame

    folder.mkdir(parents=True)
    image: dict[str, Any] = {"height": 512, "width": 512, "colorspace": 3}
    image["encoded_image_string"] = os.urandom(image_size)
    count = 0
    with (folder / "events.out.tfevents.0.host").open("wb") as file:
        for step in range(max(size // image_size, 1)):
            values: list[dict[str, Any]] = [{"tag": "samples", "image": image}]
            values_by_event = [values]
            values_by_event += [[{"tag": f"loss_{i}", "simple_value": step}] for i in range(10)]
            for found in values_by_event:
                event = schema.Event(wall_time=time.time(), step=step, summary={"value": found})
                file.write(frame(event.SerializeToString()))
            count += 10
    return count
