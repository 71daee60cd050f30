"""Write JSON lines: one object per scalar, for jq, pandas, or a log collector."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from sm_tblog.format import schema
from sm_tblog.sinks.pending_uploads import PendingUploads
from sm_tblog.storage.base import Appender, open_store
from sm_tblog.storage.file_names import new_name

if TYPE_CHECKING:
    from sm_tblog._types import Value
    from sm_tblog.sinks.base import Batch
    from sm_tblog.storage.base import Store

__all__ = ["JsonLinesSink"]


class JsonLinesSink:
    """Writes ``metrics.<…>.jsonl`` to a log directory.

    A scalar is a line ``{"run", "tag", "step", "wall_time", "value"}``. NaN and infinities are the
    strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as in protobuf's JSON mapping, because
    JSON has no such numbers. Other values have ``"plugin"`` instead of ``"value"``: a text also
    has ``"text"``, and the content of everything else is only in the event file.

    Args:
        logdir: the path or URL of the log directory.
        filename_suffix: inserted before ``.jsonl``.
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
        # Opened to check the arguments: a bad one is the caller's mistake, and raises here.
        self.flush_secs: float = open_store(logdir, "", **self._storage_options).flush_secs
        self._uploads = PendingUploads()
        self._file = self._new_file()

    def __str__(self) -> str:
        """Return the log directory."""
        return self._logdir

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy: the destination, without the open file."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_file", "_uploads")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy, which writes to a file of its own."""
        self.__dict__.update(state)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Leave the parent's file alone and write to a new one."""
        self._uploads = PendingUploads()
        self._file = self._new_file()

    @property
    def pending(self) -> int:
        """Bytes encoded but not yet stored."""
        return self._file.pending

    @property
    def unacknowledged(self) -> int:
        """Bytes accepted by a remote store but not yet uploaded; they are on the local disk."""
        return self._uploads.unacknowledged

    @property
    def spool_files(self) -> list[str]:
        """The local files that hold the bytes not yet uploaded."""
        return self._uploads.spool_files

    def write(self, batch: Batch) -> None:
        """Append a line for each scalar and each value.

        Raises:
            StoreError: the store did not accept the lines, which are kept and retried.
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
        """Write all pending data and flush the store.

        Raises:
            StoreError: the store did not accept all data.
        """
        self._file.flush()

    def close(self) -> None:
        """Write all pending data and close the file. A later ``write`` creates a new one.

        Raises:
            StoreError: the store did not accept all data; the rest is lost.
        """
        file, self._file = self._file, self._new_file()
        file.close()

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait at most ``timeout`` seconds until everything is uploaded; return whether it is.

        Raises:
            NotUploadedError: not everything is uploaded, for a known reason.
        """
        return self._uploads.wait(timeout, force=force)

    def _new_file(self) -> Appender:
        return Appender(self._open)

    def _open(self) -> Store:
        name = new_name("metrics", f"{self._suffix}.jsonl")
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
