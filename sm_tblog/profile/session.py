"""Sessions: each records for a period of time and creates one file for the Profile tab.

A session starts its engines and the recording of spans. When it ends, it stops them, and the
writer's worker thread builds the file and writes it once, through the writer's store. Only one
session can be open in a process, because most engines are global to the process.

An open session is written even if an exception leaves its ``with`` block or the process exits. In a
forked child, the session is dropped; the parent writes it.
"""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.pipeline import lifecycle
from sm_tblog.profile import names
from sm_tblog.profile.recording.marks import Recording
from sm_tblog.sinks.base import File

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from sm_tblog.profile.engine import Engine
    from sm_tblog.profile.recording.spans import Recorder

    Deliver = Callable[[str, Callable[..., Any], tuple[Any, ...]], None] | None

__all__ = ["Session", "end_open"]


class Session:
    """A session; a context manager, for one ``with`` block.

    Args:
        recorder: the writer's recorder.
        engines: the required engines. If one cannot start, opening the session fails.
        optional: the optional engines. If one cannot start, it is left out with a warning.
        find_name: returns the name of the session; called when the session is opened.
        deliver: hands a job to the worker thread. Called with a name for messages, a function that
            returns files and a warning, and its arguments. None for a session that does nothing.
        max_events: the maximum number of events in the file.
        log_dir: the writer's log directory.

    Attributes:
        log_dir: the writer's log directory.
        name: the name of the session and of its folder; "" before the session is opened.
    """

    def __init__(
        self,
        recorder: Recorder,
        engines: Sequence[Engine],
        optional: Sequence[Engine],
        find_name: Callable[[], str],
        deliver: Deliver,
        max_events: int,
        log_dir: str = "",
    ) -> None:
        self.name = ""
        self.log_dir = log_dir
        self._recorder = recorder
        self._engines = engines
        self._optional = optional
        self._find_name = find_name
        self._deliver = deliver
        self._max_events = max_events
        self._started: list[Engine] = []
        self._recording: Recording | None = None
        self._warnings: list[str] = []

    def __enter__(self) -> Self:
        """Open the session.

        Raises:
            InvalidValueError: another session is open in this process.
            TBLogError: an engine cannot start.
        """
        self.begin()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the session, and let the worker thread write it."""
        self.end()

    def warm_up(self) -> None:
        """Start the engines that need a warm-up. Raises the same errors as ``begin``.

        If the session does not begin, ``end`` stops them.
        """
        if self._deliver is None:
            return
        self._acquire()
        self._start([one for one in self._all_engines() if getattr(one, "warms_up", False)])

    def begin(self) -> None:
        """Open the session. Raises the same errors as ``__enter__``."""
        if self._deliver is None:
            return
        self._acquire()
        self._start([one for one in self._all_engines() if one not in self._started])
        self.name = self._find_name()
        self._recording = Recording(self._max_events)
        self._recorder.begin(self._recording)

    def end(self) -> None:
        """Close the session, and let the worker thread write it. Do nothing if it is not open."""
        if self._deliver is None or not _release(self):
            return
        recording = self._recording
        if recording is not None:
            self._recorder.end()
        self._stop()
        if recording is not None:
            args = self.name, recording, self._started, self._warnings, self._max_events
            self._deliver(f"profile {self.name}", _build_files, args)

    def reset_after_fork(self) -> None:
        """Remove the engines' hooks in a forked child."""
        for engine in self._started:
            if hasattr(engine, "reset_after_fork"):
                engine.reset_after_fork()

    def _acquire(self) -> None:
        if self._recording is not None:
            message = f"profile: session {self.name!r} has been opened before; create another"
            raise InvalidValueError(message)
        _acquire(self)

    def _all_engines(self) -> list[Engine]:
        return [*self._engines, *self._optional]

    def _start(self, engines: Sequence[Engine]) -> None:
        for engine in engines:
            warning = self._try("start", engine, engine.start, is_optional=engine in self._optional)
            if not warning:
                self._started.append(engine)

    def _stop(self) -> None:
        for engine in reversed(self._started):
            self._try("stop", engine, engine.stop, is_optional=True)

    def _try(
        self, what: str, engine: Engine, method: Callable[[], None], *, is_optional: bool
    ) -> str:
        """Call a method of an engine; return a warning if it fails, "" otherwise."""
        try:
            method()
        except Exception as error:
            if not is_optional:
                _release(self)
                self._stop()
                raise
            self._warnings.append(f"{_name_of(engine)} did not {what}: {error}")
            return self._warnings[-1]
        return ""


def _build_files(
    _tag: str,
    name: str,
    recording: Recording,
    engines: Sequence[Engine],
    warnings: list[str],
    max_events: int,
) -> tuple[list[File], str]:
    """Return the files of a session and a warning. Called on the worker thread."""
    from sm_tblog.profile.formats.xspace import Space
    from sm_tblog.profile.recording.timeline import add_marks  # imports protobuf and the schema

    stem = names.file_stem()
    space = Space(recording.begin_ns, max_events=max_events)
    space.hostname = stem
    space.warnings += warnings
    add_marks(recording, space)
    files: dict[str, bytes] = {}
    for engine in engines:
        try:
            files.update(engine.export(space) or {})
        except Exception as error:  # noqa: BLE001, PERF203 - the others' records stay
            space.warnings.append(
                f"{_name_of(engine)} was left out: {type(error).__name__}: {error}"
            )
    files[f"{stem}.xplane.pb"] = space.encode()
    folder = f"{names.FOLDER}/{name}"
    made = [File("", f"{folder}/{file}", data) for file, data in files.items()]
    return made, "; ".join(space.warnings)


def _name_of(engine: Engine) -> str:
    return str(getattr(engine, "name", type(engine).__name__))


_lock = threading.RLock()
_open: Session | None = None
"""The session that is open or warming up in this process."""


def _acquire(session: Session) -> None:
    """Make a session the open one.

    Raises:
        InvalidValueError: another session is open.
    """
    global _open  # noqa: PLW0603 - most engines are global, too
    with _lock:
        if _open is not None and _open is not session:
            message = (
                f"profile: a session is already open in this process: {_open.name or 'warming up'};"
                f" only one can be open at a time, so end it first"
            )
            raise InvalidValueError(message)
        _open = session


def _release(session: Session) -> bool:
    """Mark a session as closed; return whether it was the open one."""
    global _open  # noqa: PLW0603 - most engines are global, too
    with _lock:
        was_open = _open is session
        if was_open:
            _open = None
    return was_open


def end_open(log_dir: str | None = None) -> None:
    """End the open session, if any; only that of a writer to ``log_dir`` unless it is None."""
    session = _open
    if session is not None and log_dir in (None, session.log_dir):
        session.end()


class _Forks:
    """Drops the open session in a forked child."""

    def reset_after_fork(self) -> None:
        """Leave the open session to the parent."""
        global _open, _lock
        session, _open, _lock = _open, None, threading.RLock()
        if session is not None:
            session.reset_after_fork()


_forks = _Forks()
lifecycle.register_for_forks(_forks)
atexit.register(end_open)  # runs before the pipelines are closed: last registered, first called
