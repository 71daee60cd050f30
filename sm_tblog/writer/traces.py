"""Traces of PyTorch's profiler, as sessions for the Profile tab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.sinks.base import File
from sm_tblog.writer.profiling import ProfilingMethods

if TYPE_CHECKING:
    from sm_tblog._types import PathLike

__all__ = ["TraceMethods"]


class TraceMethods(ProfilingMethods):
    """What makes sessions of traces."""

    def add_trace(
        self,
        trace: PathLike | Any,
        name: str | None = None,
        *,
        keep_trace: bool = False,
        max_events: int = 1_000_000,
    ) -> str:
        """Log a trace of PyTorch's profiler as a session for the Profile tab.

        Args:
            trace: a file that the profiler has written, ``*.pt.trace.json``, or compressed by
                gzip, which is read before this returns. Or a ``torch.profiler.profile`` that has
                ended, which the worker makes a session of.
            name: the session's; by default what the file is called, or as for ``profile``.
            keep_trace: keep the trace beside the session, compressed. It opens in Perfetto.
            max_events: how many events the session may have; see ``profile``.

        Returns:
            The session's name.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: the file is no trace, damaged, or cut off, and where; or the profiler
                has not recorded anything.
            OSError: the file cannot be read.
        """
        from sm_tblog.profile import names, traces

        names.check_name(name)
        if not self._enabled:
            return name or ""
        if not hasattr(trace, "export_chrome_trace"):
            read = traces.read_trace(trace, keep_trace=keep_trace, max_events=max_events)
            used = [one for one in self._sessions if one.endswith(f"/{read.stem}")]
            session = read.session(name, self._log_dir, [one.rpartition("/")[0] for one in used])
            self._sessions.append(f"{session}/{read.stem}")  # others may add to the session
            args: tuple[Any, ...] = read.files(session), read.remark
            self._put(f"profile {session}", _pass_on, args, None, None, len(read.data))
            return session
        results = getattr(trace, "profiler", None)
        if getattr(results, "kineto_results", None) is None:
            message = "add_trace: this profiler has not recorded anything yet; stop it first"
            raise InvalidValueError(message)
        step = getattr(trace, "step_num", 0) or None
        wish = names.session_name(name, step, len(self._sessions) + 1)
        session = names.free_name(wish, self._log_dir, self._sessions)
        self._sessions.append(session)
        args = session, results, keep_trace, max_events
        self._put(f"profile {session}", _build_from_results, args, None, None)
        return session


def _pass_on(_tag: str, files: dict[str, bytes], remark: str) -> tuple[list[File], str]:
    return [File("", name, data) for name, data in files.items()], remark


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
    return _pass_on(tag, files, "; ".join(space.warnings))
