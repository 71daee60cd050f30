"""Find which kind of data each tag of a run holds, without reading whole files.

A writer that continues a run keeps the names under which the run's earlier files hold their data.
A tag usually first appears near the beginning of a file, so only that is read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from google.protobuf.message import DecodeError

from sm_tblog._errors import CorruptRecordError
from sm_tblog.format import schema
from sm_tblog.format.records import Unframer

__all__ = ["find_kinds"]

HEAD_SIZE = 1 << 17
"""Bytes read of each file."""

MAX_FILES = 64
"""Files read, the earliest ones."""


def find_kinds(logdir: str, run: str) -> dict[str, str]:
    """Return the plugin that shows each tag in the earlier event files of a run.

    Files that cannot be read are left out: this is no reason to stop logging.

    Args:
        logdir: a local log directory.
        run: the folder below it, "" for the log directory itself.
    """
    kinds: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):  # a ValueError is about a NUL or a surrogate
        for path in sorted(Path(logdir, run).glob("*tfevents*"))[:MAX_FILES]:
            with contextlib.suppress(OSError):
                _add_kinds(kinds, path)
    return kinds


def _add_kinds(kinds: dict[str, str], path: Path) -> None:
    """Add the tags at the beginning of a file, up to the first damage."""
    records = Unframer()
    with path.open("rb") as file:
        records.feed(file.read(HEAD_SIZE))
    with contextlib.suppress(CorruptRecordError, DecodeError, UnicodeDecodeError):
        for _, data in records:
            for value in schema.Event.FromString(data).summary.value:
                if plugin := schema.maybe_plugin(value):
                    kinds.setdefault(value.tag, plugin)
