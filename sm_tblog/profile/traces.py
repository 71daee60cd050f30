"""Sessions created from traces of PyTorch's profiler, existing or new."""

from __future__ import annotations

import gzip
import logging
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

logger = logging.getLogger("sm_tblog")

KEPT = ".pt.trace.json.gz"
"""The suffix of a kept trace's file name, the same as that of PyTorch's own handler."""


def torch_trace_handler(writer: Any, *, keep_trace: bool = False) -> Callable[[Any], None]:
    """Return a function for ``torch.profiler.profile``: ``on_trace_ready=torch_trace_handler(w)``.

    It replaces ``torch.profiler.tensorboard_trace_handler(folder)`` and converts the results to a
    session that the Profile tab shows. The conversion runs in the background, and the session is
    stored with the writer's other files. Kineto, the recorder inside PyTorch, can write its results
    only once: use ``keep_trace`` instead of also calling ``export_chrome_trace``.

    Args:
        writer: a ``Writer``.
        keep_trace: whether to keep the profiler's own trace beside the session, compressed with
            gzip, for Perfetto.

    Raises:
        InvalidTypeError: ``writer`` is not a ``Writer``.
    """
    if not hasattr(writer, "add_trace"):
        message = f"torch_trace_handler: writer must be a Writer, got {writer!r:.60}"
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
    """Convert a trace that PyTorch's profiler has written to a session for the Profile tab.

    A damaged or truncated trace is converted as far as it can be read: events that are not valid
    JSON, such as one with a quotation mark in its name, are repaired if possible and left out
    otherwise. A warning in the session and in the log says how many.

    Args:
        writer_or_logdir: a ``Writer``, or a log directory as a path or URL.
        path: the trace, ``*.pt.trace.json``, optionally compressed with gzip.
        name: the name of the session; by default that of the trace. Traces of several ranks that
            you import under one name form one session. If a session of that name already contains
            a file of this trace's name, the name gets a numeric suffix.
        keep_trace: whether to keep a compressed copy of the trace beside the session, for Perfetto.
        max_events: the maximum number of events in the session. A viewer can handle about a
            million.
        storage_options: passed to the store of a log directory; not used with a writer, which has
            its own.

    Returns:
        The name of the session.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: the file is not a trace, or none of its events can be read. The message
            gives the position.
        OSError: the trace cannot be read.
        StoreError: the session cannot be stored in the log directory.
    """
    if hasattr(writer_or_logdir, "add_trace"):
        found: str = writer_or_logdir.add_trace(
            path, name, keep_trace=keep_trace, max_events=max_events
        )
        return found
    if not isinstance(writer_or_logdir, (str, os.PathLike)):
        message = f"import_trace: expected a Writer or log directory, got {writer_or_logdir!r:.60}"
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
    if trace.warning:
        logger.warning("profile %s: %s", session, trace.warning)
    return session


class Trace(NamedTuple):
    """A converted trace: the contents of a session's files.

    Attributes:
        title: the name of the trace, the default name of the session.
        stem: the name of the files in the session's folder, without their suffixes.
        data: the contents of the session's file.
        kept: the trace, compressed with gzip; None if it is not kept.
        warning: warnings about the conversion; "" if there are none.
    """

    title: str
    stem: str
    data: bytes
    kept: bytes | None
    warning: str

    def session(self, name: str | None, logdir: str, taken: Any) -> str:
        """Return a free name for the session."""
        return names.free_name(name or self.title, logdir, taken, f"{self.stem}.xplane.pb")

    def files(self, session: str) -> dict[str, bytes]:
        """Return the files by their paths relative to the log directory."""
        return files_of(session, self.stem, self.data, self.kept)


def files_of(session: str, stem: str, data: bytes, kept: bytes | None) -> dict[str, bytes]:
    """Return a session's files by their paths relative to the log directory."""
    base = f"{names.FOLDER}/{session}/{stem}"
    files = {f"{base}.xplane.pb": data}
    return files if kept is None else {**files, base + KEPT: kept}


def read_trace(path: PathLike, *, keep_trace: bool, max_events: int) -> Trace:
    """Read a trace from a file and convert it.

    Raises:
        InvalidTypeError: ``path`` is not a path.
        InvalidValueError: the file is not a trace, or none of its events can be read. The message
            gives the position.
        OSError: the file cannot be read.
    """
    from sm_tblog.profile.formats.kineto import convert_trace  # imports protobuf and the schema
    from sm_tblog.profile.formats.xspace import Space

    try:
        source = Path(path)
    except TypeError as error:
        message = f"expected the path of a trace, or a profiler of PyTorch; got {path!r:.60}"
        raise InvalidTypeError(message) from error
    title = re.sub(r"(\.pt)?(\.trace)?(\.json)?(\.gz)?$", "", source.name)
    title = (
        re.sub(r"[^\w.-]+", "_", title, flags=re.ASCII).strip("._-")[:100].rstrip(".") or "trace"
    )
    space = Space(0, max_events=max_events)
    with source.open("rb") as file:
        extent = convert_trace(file, str(source), space)
    if not extent.events:
        message = f"trace {source}: it contains no events"
        raise InvalidValueError(message)
    space.begin_ns = extent.begin_ns
    space.hostname = title
    kept = None
    if keep_trace:
        kept = source.read_bytes()
        if not kept.startswith(b"\x1f\x8b"):
            kept = gzip.compress(kept)
    return Trace(title, title, space.encode(), kept, "; ".join(space.warnings))
