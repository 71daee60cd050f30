"""JSON lines: one object a scalar, for jq, pandas, or a log collector."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from sm_tblog.format import schema
from sm_tblog.sinks.event_file import event_file_name
from sm_tblog.sinks.pending_uploads import PendingUploads
from sm_tblog.storage.base import Appender, open_store

if TYPE_CHECKING:
    from sm_tblog._types import Value
    from sm_tblog.sinks.base import Batch
    from sm_tblog.storage.base import Store

__all__ = ["JsonLinesSink"]


class JsonLinesSink:
    """Writes ``metrics.<…>.jsonl`` in a log folder.

    A scalar is a line ``{"run", "tag", "step", "wall_time", "value"}``; NaN and infinities are the
    strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as in protobuf's JSON mapping, because
    JSON has no such numbers. A text has ``"text"`` instead of ``"value"``; anything else only says
    its ``"plugin"``, its content being in the event file.

    Args:
        logdir: a path or URL.
        filename_suffix: stands before ``.jsonl``.
        storage_options: passed to the store.
    """

    def __init__(
        self,
        logdir: str,
        *,
        filename_suffix: str = "",
        storage_options: dict[str, Any] | None = None,
        **_options: object,
    ) -> None:
        self._logdir = logdir
        self._suffix = filename_suffix
        self._storage_options = storage_options or {}
        # Made for the sake of its arguments: a bad one is the caller's mistake, and raises here.
        self.flush_secs: float = open_store(logdir, "", **self._storage_options).flush_secs
        self._uploads = PendingUploads()
        self._file = self._new_file()

    def __str__(self) -> str:
        """Return the log folder."""
        return self._logdir

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: where to write, nothing of what is open here."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_file", "_uploads")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew, with a file of its own."""
        self.__dict__.update(state)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Leave the parent's file alone."""
        self._uploads = PendingUploads()
        self._file = self._new_file()

    @property
    def pending(self) -> int:
        """Bytes encoded and not stored yet."""
        return self._file.pending

    @property
    def unacknowledged(self) -> int:
        """Bytes that a remote store has taken and not delivered yet; they wait on the disk."""
        return self._uploads.unacknowledged

    @property
    def spool_files(self) -> list[str]:
        """The local files that hold them."""
        return self._uploads.spool_files

    def write(self, batch: Batch) -> None:
        """Append a line for each scalar and each value.

        Raises:
            StoreError: the store did not take them; they are kept and offered again.
        """
        lines = [
            {
                "run": series.run,
                "tag": series.tag,
                "step": step,
                "wall_time": wall_time,
                "value": value if math.isfinite(value) else _non_finite(value),
            }
            for series, step, wall_time, value in batch.rows()
        ]
        lines += [_describe(value) for value in batch.values]
        if lines:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            self._file.append(text.encode(errors="replace"))

    def flush(self) -> None:
        """Deliver what waits and flush the store.

        Raises:
            StoreError: the store did not take all.
        """
        self._file.flush()

    def close(self) -> None:
        """Deliver what waits and close the file. A later ``write`` begins a new one.

        Raises:
            StoreError: the store did not take all; what it refused is lost.
        """
        file, self._file = self._file, self._new_file()
        file.close()

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait for so many seconds until a remote store has all; return whether it has.

        Raises:
            NotUploadedError: it has not, and why is known.
        """
        return self._uploads.wait(timeout, force=force)

    def _new_file(self) -> Appender:
        return Appender(self._open)

    def _open(self) -> Store:
        name = event_file_name(f"{self._suffix}.jsonl").replace("events.out.tfevents", "metrics")
        store = open_store(self._logdir, name, **self._storage_options)
        self._uploads.add(store)
        return store


def _non_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _describe(value: Value) -> dict[str, Any]:
    line: dict[str, Any] = {
        "run": value.run,
        "tag": value.tag,
        "step": value.step,
        "wall_time": value.wall_time,
        "plugin": value.plugin,
    }
    if value.plugin == "text":
        strings = schema.Value.FromString(value.data).tensor.string_val
        texts = [text.decode(errors="replace") for text in strings]
        line["text"] = texts[0] if len(texts) == 1 else texts
    return line
