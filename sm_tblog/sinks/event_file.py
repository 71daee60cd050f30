"""Write event files, which TensorBoard reads.

Each writer has one event file per run, opened when there is something to write. Its first record
holds the format version. If a resumed run supersedes its earlier points, a ``SessionLog.START`` at
that step follows.

A file is named ``events.out.tfevents.<seconds>.<host>.<process>.<counter>.<random><suffix>``; see
``storage.file_names`` for the order of names.

Side files, which plugins read beside the event files, are written in order, after the events of
the same batch. Data that a store does not accept is kept and retried. A run with only side files
also gets an event file, which holds only the version: without it, TensorBoard does not find the
run.
"""

from __future__ import annotations

import struct
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._types import as_utf8
from sm_tblog.format import schema
from sm_tblog.format.records import frame
from sm_tblog.format.scalars import encode_scalars, encode_varint
from sm_tblog.sinks.pending_uploads import PendingUploads
from sm_tblog.sinks.side_files import SideFiles
from sm_tblog.storage.base import (
    Appender,
    InvalidNameError,
    NotUploadedError,
    open_store,
    scheme_of,
)
from sm_tblog.storage.file_names import new_name
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog._types import Value
    from sm_tblog.sinks.base import Batch
    from sm_tblog.storage.base import Store

__all__ = ["EventFileSink", "event_file_name"]

MAX_OPEN_FILES = 64
"""Files that a sink keeps open, one per run; a process may open only some hundreds in total."""

_DOUBLE = struct.Struct("<d")


def event_file_name(suffix: str = "") -> str:
    """Return a unique event file name, which sorts after those made before."""
    return new_name("events.out.tfevents", as_utf8(suffix))


def encode_value(value: Value) -> bytes:
    """Return a built value as one record: an ``Event`` whose ``Summary`` holds this value."""
    summary = b"\x0a" + encode_varint(len(value.data)) + value.data
    return frame(
        b"".join(
            (
                b"\x09",
                _DOUBLE.pack(value.wall_time),
                b"\x10" + encode_varint(value.step) if value.step else b"",
                b"\x2a",
                encode_varint(len(summary)),
                summary,
            )
        )
    )


class EventFileSink:
    """Writes event files to a log directory, one per run.

    Args:
        logdir: the path or URL of the log directory.
        filename_suffix: appended to every file name.
        purge_step: start each run's first file with a mark that supersedes the points of earlier
            files of the run at this step and later.
        storage_options: passed to the store.
    """

    def __init__(
        self,
        logdir: str,
        *,
        filename_suffix: str = "",
        purge_step: int | None = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self._logdir = logdir
        self._suffix = filename_suffix
        self._purge_step = purge_step
        self._storage_options = storage_options or {}
        # Opened to check the arguments: a bad one is the caller's mistake, and raises here.
        self.flush_secs: float = open_store(logdir, "", **self._storage_options).flush_secs
        self._files: dict[str, Appender] = {}
        self._started: dict[str, list[str]] = {}  # the paths or URLs of every run's files
        self._open_files: dict[str, Appender] = {}  # the least recently used one is the first
        self._side_files: dict[str, SideFiles] = {}
        self._uploads = PendingUploads()
        self._purged: set[str] = set()
        self._impossible_runs: set[str] = set()
        self._dropped = 0  # rows and values of these, and side files that are closed
        self._closed_bytes = 0

    def __str__(self) -> str:
        """Return the log directory."""
        return self._logdir

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy: the destination, without the open files.

        A copy does not supersede earlier points, because those include what the original wrote.
        """
        fresh: dict[str, Any] = {
            "_files": {},
            "_started": {},
            "_open_files": {},
            "_side_files": {},
            "_uploads": PendingUploads(),
            "_impossible_runs": set(),
            "_dropped": 0,
            "_purge_step": None,
            "_purged": set(),
            "_closed_bytes": 0,
        }
        return {**self.__dict__, **fresh}

    def reset_after_fork(self) -> None:
        """Leave the parent's files alone; open new ones when needed, which supersede nothing."""
        self.__dict__.update(self.__getstate__())

    @property
    def pending(self) -> int:
        """Bytes encoded but not yet stored."""
        return sum(one.pending for one in self._parts())

    @property
    def stored(self) -> int:
        """Bytes stored."""
        accepted = self._closed_bytes + sum(one.stored for one in self._parts())
        return max(accepted - self.unacknowledged, 0)  # they may include padding

    @property
    def dropped(self) -> int:
        """Rows, values and side files lost for good."""
        return self._dropped + sum(files.dropped for files in list(self._side_files.values()))

    @property
    def unacknowledged(self) -> int:
        """Bytes accepted by remote stores but not yet uploaded; they are on the local disk."""
        return self._uploads.unacknowledged

    @property
    def spool_files(self) -> list[str]:
        """The local files that hold the bytes not yet uploaded."""
        return self._uploads.spool_files

    def event_files(self, run: str) -> list[str]:
        """Return the paths or URLs of a run's files, in the order in which they were started.

        Files of the process that this one was forked from, and of a copy, are not included.
        """
        return list(self._started.get(run, ()))

    def write(self, batch: Batch) -> None:
        """Encode the batch and append it to the files of its runs.

        With a ``purge_step``, the first batch creates the main run's file even if it is empty.

        Raises:
            StoreError: a store did not accept the data, which is kept and retried.
            InvalidNameError: a run's name is impossible. Its data is dropped, now and later.
        """
        known = set(self._impossible_runs)
        if known:
            batch = self._without(known, batch)
        try:
            self._write(batch)
        finally:
            for run in self._impossible_runs - known:
                self._files[run].discard()
                self._dropped += _count(batch._replace(files=[]), run)  # SideFiles counts those

    def _write(self, batch: Batch) -> None:
        blocks: dict[str, list[bytes]] = {}
        if self._purge_step is not None and "" not in self._purged:
            blocks[""] = []  # write the mark even if nothing is logged
        for run, block in self._encode_scalars(batch):
            blocks.setdefault(run, []).append(block)
        for value in batch.values:
            blocks.setdefault(value.run, []).append(encode_value(value))
        for event in batch.events:
            blocks.setdefault(event.run, []).extend([frame(event.data)] if event.data else [])
        for file in batch.files:
            if file.run not in self._files:
                blocks.setdefault(file.run, [])  # creates the run's event file
            self._side_files_of(file.run).add(file)
        actions: list[Callable[[], None]] = []
        for run, parts in blocks.items():
            if run in self._impossible_runs:
                continue
            actions.append(partial(self._make_room, run))
            actions.append(partial(self._append, run, b"".join(parts)))
        self._run_all([*actions, *(files.write_pending for files in self._side_files.values())])

    def flush(self) -> None:
        """Write all pending data and flush the stores.

        Raises:
            StoreError: a store did not accept all data.
        """
        files, side_files = self._files.values(), self._side_files.values()
        self._run_all([*(one.flush for one in files), *(one.write_pending for one in side_files)])

    def close(self) -> None:
        """Write all pending data and close the files. A later ``write`` creates new ones.

        Raises:
            StoreError: a store did not accept all data; the rest is lost.
        """
        parts = self._parts()
        self._dropped = self.dropped
        self._files, self._open_files, self._side_files = {}, {}, {}
        try:
            self._run_all([one.close for one in parts])
        finally:
            self._closed_bytes += sum(one.stored for one in parts)

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait at most ``timeout`` seconds until everything is uploaded; return whether it is.

        Called by the thread that waits at a barrier; see ``RemoteStore.wait``.

        Raises:
            NotUploadedError: not everything is uploaded, for a known reason.
        """
        return self._uploads.wait(timeout, force=force)

    def _parts(self) -> list[Appender | SideFiles]:
        return [*self._files.values(), *self._side_files.values()]

    @staticmethod
    def _run_all(actions: list[Any]) -> None:
        """Run every action, then raise the first failure, so that runs do not affect each other.

        A ``NotUploadedError`` is raised only if there is no other failure. An ``InvalidNameError``
        comes before all others, because it does not occur again.
        """
        failure: Exception | None = None
        names: list[str] = []
        for action in actions:
            try:
                action()
            except InvalidNameError as error:  # noqa: PERF203
                names.append(str(error))
            except Exception as error:  # noqa: BLE001 - a store may raise anything
                if failure is None or isinstance(failure, NotUploadedError):
                    failure = error
        if names:
            raise InvalidNameError("; ".join(names)) from failure
        if failure is not None:
            raise failure

    @staticmethod
    def _encode_scalars(batch: Batch) -> list[tuple[str, bytes]]:
        if not len(batch.codes):
            return []
        runs = [series.run for series in batch.series]
        if len(set(runs)) == 1:
            columns = batch.codes, batch.steps, batch.wall_times, batch.scalars
            return [(runs[0], encode_scalars(batch.series, *columns))]
        blocks = []
        for run in dict.fromkeys(runs):
            in_run = np.array([r == run for r in runs])[batch.codes]
            block = encode_scalars(
                batch.series,
                batch.codes[in_run],
                batch.steps[in_run],
                batch.wall_times[in_run],
                batch.scalars[in_run],
            )
            blocks.append((run, block))
        return blocks

    def _make_room(self, run: str) -> None:
        """Release the least recently used file, if this run's file is to be opened besides."""
        if run not in self._open_files and len(self._open_files) >= MAX_OPEN_FILES:
            self._open_files.pop(next(iter(self._open_files))).release()

    def _append(self, run: str, data: bytes) -> None:
        """Append to a run's file, and mark it as the most recently used."""
        if run not in self._files:
            self._files[run] = Appender(
                lambda: self._open(run, event_file_name(self._suffix)),
                partial(self._preamble, run),
            )
        self._open_files.pop(run, None)
        self._open_files[run] = self._files[run]
        try:
            self._files[run].append(data)
        except InvalidNameError:
            self._impossible_runs.add(run)
            raise

    def _without(self, runs: set[str], batch: Batch) -> Batch:
        """Return a batch without the data of some runs, which is counted as dropped."""
        self._dropped += sum(_count(batch, run) for run in runs)
        kept = np.array([series.run not in runs for series in batch.series], bool)[batch.codes]
        return batch._replace(
            codes=batch.codes[kept],
            steps=batch.steps[kept],
            wall_times=batch.wall_times[kept],
            scalars=batch.scalars[kept],
            values=[one for one in batch.values if one.run not in runs],
            events=[one for one in batch.events if one.run not in runs],
            files=[one for one in batch.files if one.run not in runs],
        )

    def _side_files_of(self, run: str) -> SideFiles:
        if run not in self._side_files:
            self._side_files[run] = SideFiles(lambda: self._open(run, ""))
        return self._side_files[run]

    def _open(self, run: str, name: str) -> Store:
        folder = f"{self._logdir.rstrip('/')}/{run}" if run else self._logdir
        store = open_store(folder, name, **self._storage_options)
        self._uploads.add(store)
        if name:
            is_local = scheme_of(folder) == "file"
            path = str(local_path(folder) / name) if is_local else f"{folder.rstrip('/')}/{name}"
            self._started.setdefault(run, []).append(path)
        return store

    def _preamble(self, run: str) -> bytes:
        now = time.time()
        version = schema.Event(wall_time=now, file_version=schema.FILE_VERSION)
        version.source_metadata.writer = "sm_tblog"
        records = [frame(version.SerializeToString())]
        if self._purge_step is not None and run not in self._purged:
            self._purged.add(run)
            start = schema.Event(wall_time=now, step=self._purge_step)
            start.session_log.status = schema.SessionLog.START
            # Twice: TensorBoard's plugin_event_accumulator treats a run's first mark as the start
            # of the run, which supersedes nothing; its event_accumulator applies every mark.
            records += [frame(start.SerializeToString())] * 2
        return b"".join(records)


def _count(batch: Batch, run: str) -> int:
    """Return the number of rows and values that a batch has of a run."""
    in_run = np.array([series.run == run for series in batch.series], bool)
    runs = [one.run for one in batch.values]
    runs += [one.run for one in batch.events]
    runs += [one.run for one in batch.files]
    return int(in_run[batch.codes].sum()) + runs.count(run)
