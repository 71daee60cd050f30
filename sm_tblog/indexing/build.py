"""Writes an index of the runs in a log directory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.indexing import manifest
from sm_tblog.indexing.engine import execute
from sm_tblog.indexing.entries import Contents, fingerprint, states_of
from sm_tblog.indexing.folder import open_folder
from sm_tblog.indexing.manifest import Manifest, maybe_read_manifest
from sm_tblog.indexing.merge import Origin, merge
from sm_tblog.indexing.opened import Index, default_folder
from sm_tblog.indexing.parts import PART, tasks_for
from sm_tblog.readers.event_stream import Damage
from sm_tblog.readers.events import as_url, find_runs
from sm_tblog.readers.run import check_count
from sm_tblog.readers.tables import require
from sm_tblog.storage.base import scheme_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sm_tblog._types import PathLike
    from sm_tblog.indexing.entries import FileState, RunEntry
    from sm_tblog.indexing.folder import IndexFolder, Listed
    from sm_tblog.readers.runs import Progress

__all__ = ["index"]

MAX_AGE = 7 * 24 * 3600
"""Seconds after which a file is removed that an interrupted process left."""


def index(
    logdir: PathLike,
    to: PathLike | None = None,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    shard: tuple[int, int] | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Index:
    """Write an index of the runs in a log directory, or bring it up to date.

    ::

        index = sm_tblog.index("runs")
        duckdb.sql(f"SELECT run, min(value) FROM '{index.scalars}' WHERE tag = 'loss' GROUP BY run")

    Only runs that are new or have changed are read. If indexing is interrupted, the next call
    continues. Event files are not touched. Readers of an earlier index are not disturbed.

    Args:
        logdir: the log directory, a path or URL.
        to: the folder of the index, a path or URL; by default ``sm_tblog_index`` in ``logdir``.
        workers: number of processes that read event files. With more than one, a script needs
            ``if __name__ == "__main__":``, as for every pool of processes.
        scheduler: the address of a Dask scheduler, whose workers then read the event files. They
            need access to ``logdir`` and ``to``.
        shard: ``(i, n)``: read only the i-th of n parts of the runs, from 1 on, and do not complete
            the index. When all n parts have been read, on any machines, call ``index`` without
            ``shard`` to complete it. Each run belongs to the same part on every machine.
        progress: called with the number of runs that are read and the number of runs to read.
        storage_options: as for a writer; for other URLs than S3's, passed to the file system.

    Returns:
        The index. Runs that could not be read are in ``failed``.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: an argument has an unusable value, ``logdir`` does not exist or is a
            file, or there is no file system for a URL.
        MissingDependencyError: a package is not installed.
        StoreError: ``logdir`` cannot be listed, or the index cannot be written.
    """
    check_count("workers", workers, 1)
    _check_shard(shard)
    require("pyarrow", "index", "parquet")
    root = as_url(logdir)
    where = default_folder(root) if to is None else as_url(to)
    options = dict(storage_options or {})
    folder = open_folder(where, options)
    # Parts are listed before the runs, so that parts of other states are known to be outdated.
    state = _State.read(folder)
    found, failed = _list(root, options)
    entries = state.current(found)
    missing = {name: files for name, files in found.items() if name not in entries}
    if shard is not None:
        number, count = shard
        missing = {
            name: files
            for name, files in missing.items()
            if crc32(name.encode()) % count == number - 1
        }
    if "memory" in (scheme_of(root), scheme_of(where)):
        workers = 1  # other processes do not see this one's memory
    done, total = 0, len(missing)
    for converted in execute(tasks_for(root, where, missing, options), workers, scheduler):
        failed.update(converted.failed)
        done += converted.runs
        if progress is not None:
            progress(done, total)
    if shard is None:
        _complete(folder, found, state)
    return Index(where, options, failed)


def _check_shard(shard: object) -> None:
    if shard is None:
        return
    if (
        not isinstance(shard, tuple)
        or len(shard) != 2
        or not all(isinstance(number, int) for number in shard)
    ):
        message = f"shard must be a pair of numbers (i, n), got {shard!r:.60}"
        raise InvalidTypeError(message)
    if not 1 <= shard[0] <= shard[1]:
        message = f"shard must be (i, n) with 1 <= i <= n, got {shard}"
        raise InvalidValueError(message)


class _State(NamedTuple):
    """What is in the folder of an index.

    Attributes:
        manifest: the current generation, if there is one.
        base: its runs.
        parts: the runs of each part, by the name of the part.
        listed: all files.
    """

    manifest: Manifest | None
    base: Contents | None
    parts: Mapping[str, Contents]
    listed: Mapping[str, Listed]

    @classmethod
    def read(cls, folder: IndexFolder, known: Mapping[str, Contents] | None = None) -> _State:
        """Read the state; ``known`` are parts that have been read before."""
        listed = folder.names()
        found = maybe_read_manifest(folder) if manifest.NAME in listed else None
        base = None
        if found is not None:
            base = Contents.decode(folder.get(found.files["runs"][0]) or b"")
        parts = {}
        for file in sorted(listed):
            name, dot, kind = file.partition(".")
            if name.startswith(PART) and kind == "json.gz" and f"{name}{dot}parquet" in listed:
                contents = (known or {}).get(name) or Contents.decode(folder.get(file) or b"")
                if contents is not None:
                    parts[name] = contents
        return cls(found, base, parts, listed)

    def current(self, runs: Mapping[str, tuple[FileState, ...]]) -> dict[str, RunEntry]:
        """Return the runs whose files are as they were when they were read."""
        found: dict[str, RunEntry] = {}
        for contents in (self.base, *self.parts.values()):
            for name, entry in contents.entries.items() if contents is not None else ():
                if runs.get(name) == entry.files:
                    found.setdefault(name, entry)
        return found


def _list(
    root: str, options: Mapping[str, Any]
) -> tuple[dict[str, tuple[FileState, ...]], dict[str, tuple[Damage, ...]]]:
    """Return the states of the files of each run, and what cannot be indexed."""
    found: dict[str, tuple[FileState, ...]] = {}
    failed: dict[str, tuple[Damage, ...]] = {}
    for run in find_runs(root, options, is_deep=True):
        if run.files and run.files[0].path == root:
            message = f"an index is of the runs in a log directory, but {root!r} is a file"
            raise InvalidValueError(message)
        states = states_of(run)
        if run.damages:
            failed[run.name] = run.damages
        elif states is None:
            failed[run.name] = (Damage(run.path, 0, 0, "its files have no known size"),)
        elif not _is_text(run.name):
            failed[run.name] = (Damage(run.path, 0, 0, "its name is not valid Unicode"),)
        else:
            found[run.name] = states
    return found, failed


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _complete(
    folder: IndexFolder, found: Mapping[str, tuple[FileState, ...]], before: _State
) -> None:
    """Write a generation with all runs that have been read, and remove what it supersedes.

    If another process completes a generation at the same time, it may remove parts that are being
    read here. This one is then completed from the other.
    """
    state = _State.read(folder, before.parts)
    while True:
        entries = state.current(found)
        generation = fingerprint({name: entry.files for name, entry in entries.items()})
        if state.manifest is None or state.manifest.generation != generation:
            try:
                _write(folder, state, entries, generation)
            except OSError:
                latest = _State.read(folder, state.parts)
                if latest.manifest == state.manifest:
                    raise
                state = latest
                continue
        _clean(folder, state, before, entries)
        return


def _write(
    folder: IndexFolder, state: _State, entries: Mapping[str, RunEntry], generation: str
) -> None:
    files = {kind: f"{kind}-{generation}{end}" for kind, end in manifest.KINDS.items()}
    sizes = {}
    with folder.scratch() as scratch:
        merged = merge(_origins(folder, state, entries, scratch), entries, scratch)
        for kind in ("scalars", "summary", "hparams"):
            path: Path = getattr(merged, kind)
            sizes[kind] = path.stat().st_size
            folder.put_file(files[kind], path)
    runs = Contents(entries, merged.groups).encode()
    sizes["runs"] = len(runs)
    folder.put(files["runs"], runs)
    last = maybe_read_manifest(folder)
    new = Manifest(generation, {kind: (files[kind], sizes[kind]) for kind in files})
    previous = last.names - new.names if last is not None else frozenset()
    folder.put(manifest.NAME, replace(new, previous=tuple(sorted(previous))).encode())
    if last is not None:
        for name in set(last.previous) - new.names - previous:
            folder.remove(name)


def _origins(
    folder: IndexFolder, state: _State, entries: Mapping[str, RunEntry], scratch: Path
) -> list[Origin]:
    """Return from which file each run is taken: from the generation before, if it is there."""
    files = []
    if state.manifest is not None and state.base is not None:
        files.append((state.manifest.files["scalars"][0], state.base))
    files += [(f"{name}.parquet", contents) for name, contents in state.parts.items()]
    origins = []
    taken: set[str] = set()
    for file, contents in files:
        runs = {
            name
            for name, entry in contents.entries.items()
            if name not in taken and name in entries and entries[name].files == entry.files
        }
        taken |= runs
        if runs:
            origins.append(Origin(folder.fetch(file, scratch), contents.groups, frozenset(runs)))
    return origins


def _clean(
    folder: IndexFolder, state: _State, before: _State, entries: Mapping[str, RunEntry]
) -> None:
    """Remove parts that are in the generation, outdated parts, and old leftovers."""
    latest = maybe_read_manifest(folder)
    kept = {manifest.NAME}
    if latest is not None:
        kept |= latest.names | set(latest.previous)
    for name, contents in state.parts.items():
        is_merged = all(
            run in entries and entries[run].files == entry.files
            for run, entry in contents.entries.items()
        )
        if is_merged or name in before.parts:
            folder.remove(f"{name}.json.gz")
            folder.remove(f"{name}.parquet")
    for name, listed in state.listed.items():
        if name not in kept and listed.age > MAX_AGE:
            folder.remove(name)
