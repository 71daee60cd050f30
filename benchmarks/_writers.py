"""The writers under comparison, and a count of the records that they wrote."""

from __future__ import annotations

import itertools
import shutil
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "OURS",
    "PEERS",
    "TAGS",
    "check_records",
    "log_rows",
    "make_rows",
    "open_writer",
    "temporary_folder",
]

OURS = "sm_tblog"
PEERS = ("torch", "tensorboardX")
TAGS = tuple(f"train/layer_{i}/gradient_norm" for i in range(50))

_LENGTH = struct.Struct("<Q")
_FRAME = 16
"""Bytes of a record besides its data: the length and two checksums."""


def open_writer(name: str, folder: str) -> Any:
    """Return a new writer with its defaults."""
    if name == OURS:
        from sm_tblog import Writer

        return Writer(folder)
    if name == "torch":
        from torch.utils.tensorboard import SummaryWriter as TorchWriter

        return TorchWriter(folder)
    from tensorboardX import SummaryWriter

    return SummaryWriter(folder)


def make_rows(count: int, tags: int, begin: int = 0) -> list[tuple[str, float, int]]:
    """Return ``count`` rows of tag, value and step: tags in turn, steps from ``begin`` on."""
    return [
        (tag, number * 0.1, begin + number // tags)
        for number, tag in zip(range(count), itertools.cycle(TAGS[:tags]), strict=False)
    ]


def log_rows(writer: Any, rows: Iterable[tuple[str, float, int]]) -> None:
    """Call ``add_scalar`` for each row, as a training loop does."""
    for tag, value, step in rows:
        writer.add_scalar(tag, value, step)


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Create a directory on the local disk, and remove it with its contents afterwards."""
    folder = tempfile.mkdtemp(prefix="sm-tblog-benchmark-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def count_records(folder: str) -> int:
    """Return the number of records in the directory's event files, without the first of each.

    Raises:
        ValueError: A file ends in the middle of a record.
    """
    count = 0
    for path in Path(folder).rglob("*tfevents*"):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            at += _LENGTH.unpack_from(data, at)[0] + _FRAME
            count += 1
        if at != len(data):
            message = f"{path} ends in the middle of a record"
            raise ValueError(message)
        count -= 1
    return count


def check_records(folder: str, expected: int) -> None:
    """Check that a writer has written everything.

    Raises:
        ValueError: There are more or fewer records than ``expected``.
    """
    found = count_records(folder)
    if found != expected:
        message = f"{folder} holds {found} records instead of {expected}"
        raise ValueError(message)
