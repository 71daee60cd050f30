"""Traces of PyTorch's profiler as sessions of the Profile tab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.sinks.base import File
from sm_tblog.writer.profiling import ProfilingMethods

if TYPE_CHECKING:
    from sm_tblog._types import PathLike

__all__ = ["TraceMethods"]


class TraceMethods(ProfilingMethods):
    """Methods that convert traces to sessions."""

    def add_trace(
        self,
        trace: PathLike | Any,
        name: str | None = None,
        *,
        keep_trace: bool = False,
        max_events: int = 1_000_000,
    ) -> str:
        """Log a trace of PyTorch's profiler as a session for the Profile tab.

        A damaged or truncated trace is converted as far as it can be read, with a warning.

        Args:
            trace: a file written by the profiler, ``*.pt.trace.json``, optionally compressed with
                gzip; it is read before the call returns. Or a stopped ``torch.profiler.profile``,
                which the worker thread converts.
            name: the session's name; by default taken from the file's name, or as in ``profile``.
            keep_trace: keep the trace beside the session, compressed. Perfetto can open it.
            max_events: the maximum number of events in the session, as in ``profile``.

        Returns:
            The session's name.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: the file is not a trace, or none of its events can be read, and
                where; or the profiler has not recorded anything.
            OSError: the file cannot be read.
        """
        from sm_tblog.profile import names, traces

        names.check_name(name)
        if not self._enabled:
            return name or ""
        if not hasattr(trace, "export_chrome_trace"):
            read = traces.read_trace(trace, keep_trace=keep_trace, max_events=max_events)
            used = [key for key in self._sessions if key.endswith(f"/{read.stem}")]
            session = read.session(name, self._location, [key.rpartition("/")[0] for key in used])
            # Traces with other file names may still be added to this session.
            self._sessions.append(f"{session}/{read.stem}")
            args: tuple[Any, ...] = read.files(session), read.warning
            self._put(f"profile {session}", _as_files, args, None, None, len(read.data))
            return session
        results = getattr(trace, "profiler", None)
        if getattr(results, "kineto_results", None) is None:
            message = "add_trace: this profiler has no recorded data yet; stop it first"
            raise InvalidValueError(message)
        step = getattr(trace, "step_num", 0) or None
        preferred = names.session_name(name, step, len(self._sessions) + 1)
        session = names.free_name(preferred, self._location, self._sessions)
        self._sessions.append(session)
        args = session, results, keep_trace, max_events
        self._put(f"profile {session}", _build_from_results, args, None, None)
        return session


def _as_files(_tag: str, files: dict[str, bytes], warning: str) -> tuple[list[File], str]:
    return [File("", name, data) for name, data in files.items()], warning


def _build_from_results(
    tag: str, session: str, results: Any, keep_trace: bool, max_events: int
) -> tuple[list[File], str]:
    from sm_tblog.profile import names, traces
    from sm_tblog.profile.engines.torch import add_results
    from sm_tblog.profile.formats.xspace import Space

    stem = names.file_stem()
    space = Space(0, max_events=max_events)
    space.hostname = stem
    space.begin_ns, kept = add_results(results, space, keep_trace=keep_trace)
    files = traces.files_of(session, stem, space.encode(), kept)
    return _as_files(tag, files, "; ".join(space.warnings))
