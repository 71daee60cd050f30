"""Sessions made of traces that PyTorch's profiler has written, or is about to."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.profile import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sm_tblog._types import PathLike

__all__ = ["KEPT", "Trace", "files_of", "import_trace", "read_trace", "torch_trace_handler"]

KEPT = ".pt.trace.json.gz"
"""What the name of a kept trace ends with, as PyTorch's own handler has it."""


def torch_trace_handler(writer: Any, *, keep_trace: bool = False) -> Callable[[Any], None]:
    """Return a function for ``torch.profiler.profile``: ``on_trace_ready=torch_trace_handler(w)``.

    It stands where ``torch.profiler.tensorboard_trace_handler(folder)`` does, and makes a session
    of what was recorded, which the Profile tab shows. That is done in the background, and goes
    where the writer's files go. Kineto writes its results once: have the trace kept instead of
    calling ``export_chrome_trace`` as well.

    Args:
        writer: a ``Writer``.
        keep_trace: keep the profiler's own trace beside the session, compressed, for Perfetto.

    Raises:
        InvalidTypeError: ``writer`` is no ``Writer``.
    """
    if not hasattr(writer, "add_trace"):
        message = f"torch_trace_handler: a Writer is needed, got {writer!r:.60}"
        raise InvalidTypeError(message)

    def handle(profile: Any) -> None:
        writer.add_trace(profile, keep_trace=keep_trace)

    return handle


def import_trace(
    writer_or_logdir: Any,
    path: PathLike,
    name: str | None = None,
    *,
    keep_trace: bool = False,
    max_events: int = 1_000_000,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Make a session for the Profile tab of a trace that PyTorch's profiler has written.

    Args:
        writer_or_logdir: a ``Writer``, or a log folder, as a path or URL.
        path: the trace, ``*.pt.trace.json`` or compressed by gzip.
        name: the session's; by default what the trace is called. Traces of several ranks that are
            given one name are one session. If a session of that name has such a file already, the
            name gets a number.
        keep_trace: keep a compressed copy of the trace beside the session, for Perfetto.
        max_events: how many events the session may have. A viewer takes about a million.
        storage_options: passed to the store of a log folder; a writer has its own.

    Returns:
        The session's name.

    Raises:
        InvalidTypeError: an argument is of the wrong kind.
        InvalidValueError: the file is no trace, damaged, or cut off; says where.
        OSError: the trace cannot be read.
        StoreError: the session cannot be stored in the log folder.
    """
    if hasattr(writer_or_logdir, "add_trace"):
        found: str = writer_or_logdir.add_trace(
            path, name, keep_trace=keep_trace, max_events=max_events
        )
        return found
    if not isinstance(writer_or_logdir, (str, os.PathLike)):
        message = f"import_trace: a Writer or a log folder is needed, got {writer_or_logdir!r:.60}"
        raise InvalidTypeError(message)
    from sm_tblog.storage.base import open_store

    logdir = os.fsdecode(os.fspath(writer_or_logdir))
    names.check_name(name)
    trace = read_trace(path, keep_trace=keep_trace, max_events=max_events)
    session = trace.session(name, logdir, ())
    store = open_store(logdir, "unused", **(storage_options or {}))
    try:
        for file, data in trace.files(session).items():
            store.put(file, data)
    finally:
        store.close()
    return session


class Trace(NamedTuple):
    """A trace that was read, as the files of a session.

    Attributes:
        title: what the trace is called.
        stem: what its files are called in the session's folder, without their endings.
        data: the session's file.
        kept: the trace, if it is to be kept.
        remark: what is to be said of it.
    """

    title: str
    stem: str
    data: bytes
    kept: bytes | None
    remark: str

    def session(self, name: str | None, logdir: str, taken: Any) -> str:
        """Return a name for the session that is free."""
        return names.free_name(name or self.title, logdir, taken, f"{self.stem}.xplane.pb")

    def files(self, session: str) -> dict[str, bytes]:
        """Return the files by their names below the log folder."""
        return files_of(session, self.stem, self.data, self.kept)


def files_of(session: str, stem: str, data: bytes, kept: bytes | None) -> dict[str, bytes]:
    """Return a session's files by their names below the log folder."""
    place = f"{names.FOLDER}/{session}/{stem}"
    files = {f"{place}.xplane.pb": data}
    return files if kept is None else {**files, place + KEPT: kept}


def read_trace(path: PathLike, *, keep_trace: bool, max_events: int) -> Trace:
    """Read a trace from a file.

    Raises:
        InvalidTypeError: the path is none.
        InvalidValueError: the file is no trace, damaged, or cut off; says where.
        OSError: the file cannot be read.
    """
    from sm_tblog.profile.formats.kineto import convert_trace  # with protobuf and the schema
    from sm_tblog.profile.formats.xspace import Space

    try:
        source = Path(path)
    except TypeError as error:
        message = f"a trace's path is needed, or a profiler of PyTorch; got {path!r:.60}"
        raise InvalidTypeError(message) from error
    title = re.sub(r"(\.pt)?(\.trace)?(\.json)?(\.gz)?$", "", source.name)
    title = (
        re.sub(r"[^\w.-]+", "_", title, flags=re.ASCII).strip("._-")[:100].rstrip(".") or "trace"
    )
    space = Space(0, max_events=max_events)
    with source.open("rb") as file:
        extent = convert_trace(file, str(source), space)
    if not extent.events:
        message = f"trace {source}: there is no event in it"
        raise InvalidValueError(message)
    space.begin_ns = extent.begin_ns
    space.hostname = title
    kept = None
    if keep_trace:
        kept = source.read_bytes()
        if not kept.startswith(b"\x1f\x8b"):
            kept = gzip.compress(kept)
    return Trace(title, title, space.encode(), kept, "; ".join(space.warnings))
