"""Find which kind of data each tag of a run holds, without reading whole files.

A writer that continues a run keeps the names under which the run's earlier files hold their data.
A tag usually first appears near the beginning of a file, so only that is read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from sm_tblog.readers.base import is_event_file
from sm_tblog.readers.columns import Columns
from sm_tblog.readers.event_stream import EventStream

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
    columns = Columns()
    with contextlib.suppress(OSError, ValueError):  # a ValueError is about a NUL or a surrogate
        paths = sorted(path for path in Path(logdir, run).iterdir() if is_event_file(path.name))
        for path in paths[:MAX_FILES]:
            with contextlib.suppress(OSError), path.open("rb") as file:
                EventStream(path.name, columns).feed(file.read(HEAD_SIZE))
    return {tag: kind for tag, kind in columns.tags.items() if kind not in ("", "tensors")}
