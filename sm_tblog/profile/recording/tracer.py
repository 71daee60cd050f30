"""A tracing profiler: every call of a Python function, in every thread.

Python 3.12 and later use ``sys.monitoring``, which is faster and does not interfere with other
tools. Older versions use ``sys.setprofile``, which covers only the thread that opens the session
and the threads that start after that. Each call takes 0.3 to 0.7 µs longer, so small functions
appear to take more time than they do. Use the sampler to find out which functions matter, and the
tracer to see which functions call which, and how often.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.profile.formats.xspace import HOST_PLANE
from sm_tblog.profile.recording.sampler import OWN_FILES, Call, add_calls
from sm_tblog.profile.recording.ticker import OWN_THREADS

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from sm_tblog.profile.formats.xspace import Line, Space

__all__ = ["Tracer"]

_clock = time.perf_counter_ns


class _ThreadCalls(threading.local):
    """The calls of one thread.

    ``rows`` is a flat list: a function and the time of its start, or None and the time of an end.

    ``sys.monitoring`` reports calls of a thread before ``threading`` has registered it. At that
    moment ``threading.current_thread()`` would create a dummy thread, so the thread is looked up in
    ``threading.enumerate()``.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.rows: list[Any] = []
        self.skipped = 0  # open calls that were not recorded
        self.is_recorded = False
        self.is_identified = False
        self._tracer = tracer
        self._lookups_left = 100  # a thread that Python did not start is never found

    def identify(self) -> None:
        """Find out which thread this is, and whether to record it."""
        ident = threading.get_ident()
        names = [thread.name for thread in threading.enumerate() if thread.ident == ident]
        self._lookups_left -= 1
        if names or not self._lookups_left:
            name = names[0] if names else f"thread {ident}"
            self.is_identified = True
            self.is_recorded = not name.startswith(OWN_THREADS)
            self._tracer.threads.append((name, self.rows))


class Tracer:
    """An engine that records every call of a Python function.

    Args:
        max_events: the maximum number of calls per thread.

    Attributes:
        threads: the name and the rows of each thread.
    """

    name = "the tracer"

    def __init__(self, max_events: int) -> None:
        self.threads: list[tuple[str, list[Any]]] = []
        # The start and the end of a call make two list entries each.
        self._limit = 4 * max_events
        self._dropped = 0
        self._calls = _ThreadCalls(self)
        self._offset = 0
        self._end = 0
        self._is_recording = False
        self._hooks = (
            _MonitoringHooks(self) if sys.version_info >= (3, 12) else _SetProfileHooks(self)
        )

    def start(self) -> None:
        """Start recording calls.

        Raises:
            InvalidValueError: another profiler is running, and this one would replace it.
        """
        self._offset = time.time_ns() - _clock()
        self._is_recording = True
        self._hooks.install()

    def stop(self) -> None:
        """Stop recording calls."""
        self._is_recording = False
        self._hooks.remove()
        self._end = _clock()

    def reset_after_fork(self) -> None:
        """Remove the hooks in a forked child."""
        self.stop()

    def record_begin(self, code: CodeType, *_: Any) -> None:
        """Record that a function has started or resumed."""
        calls = self._calls
        if not self._is_recording or code.co_filename.startswith(OWN_FILES):
            return
        if not calls.is_identified:
            calls.identify()
        if not calls.is_recorded:
            return
        if len(calls.rows) < self._limit:
            calls.rows += (code, _clock())
        else:
            calls.skipped += 1
            self._dropped += 1

    def record_end(self, code: CodeType, *_: Any) -> None:
        """Record that a function has returned, raised or yielded."""
        calls = self._calls
        is_recorded = self._is_recording and calls.is_recorded
        if not is_recorded or code.co_filename.startswith(OWN_FILES):
            return
        if calls.skipped:
            calls.skipped -= 1
        else:
            calls.rows += (None, _clock())

    def export(self, space: Space) -> None:
        """Add the calls of each thread on a separate line next to its spans."""
        plane = space.plane(HOST_PLANE)
        for name, rows in self.threads:
            if rows:
                self._add_thread(rows, plane.line(f"{name} (Python)"))
        if self._dropped:
            space.warnings.append(f"{self._dropped:,} calls of Python functions were left out")

    def _add_thread(self, rows: list[Any], line: Line) -> None:
        calls: list[tuple[CodeType, int]] = []  # open
        ended: list[Call] = []

        def end(at: int) -> None:
            code, started = calls.pop()
            name = str(getattr(code, "co_qualname", code.co_name))  # since Python 3.11
            source = f"{code.co_filename}:{code.co_firstlineno}"
            ended.append(Call(name, source, started + self._offset, at + self._offset))

        rows = rows[: len(rows) // 2 * 2]  # a thread may be adding one
        for code, at in zip(rows[0::2], rows[1::2], strict=True):
            if code is not None:
                calls.append((code, at))
            elif calls:  # otherwise the call started before the session
                end(at)
        while calls:
            end(self._end)
        add_calls(line, ended)


class _SetProfileHooks:
    """The hooks for Python versions before 3.12.

    Args:
        tracer: the tracer to notify.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._is_installed = False

    def install(self) -> None:
        """Install the hooks in this thread and in threads that start later."""
        running = sys.getprofile()
        if running is not None:
            message = f"profile: another profiler is running, {running!r:.60}; stop it first"
            raise InvalidValueError(message)
        self._is_installed = True
        threading.setprofile(self._handle)
        sys.setprofile(self._handle)

    def remove(self) -> None:
        """Remove the hooks. Other threads remove theirs at their next call."""
        self._is_installed = False
        sys.setprofile(None)
        threading.setprofile(None)

    def _handle(self, frame: FrameType, event: str, _: Any) -> None:
        if not self._is_installed:
            sys.setprofile(None)
        elif event == "call":
            self._tracer.record_begin(frame.f_code)
        elif event == "return":
            self._tracer.record_end(frame.f_code)


class _MonitoringHooks:
    """The hooks for Python 3.12 and later.

    Args:
        tracer: the tracer to notify.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._tool = -1
        self._callbacks: dict[int, Any] = {}

    def install(self) -> None:
        """Install the hooks in all threads."""
        monitoring = sys.monitoring  # type: ignore[attr-defined] # since 3.12
        free = [tool for tool in (monitoring.PROFILER_ID, 3, 4) if not monitoring.get_tool(tool)]
        if not free:
            message = "profile: three other tools are using sys.monitoring; stop one first"
            raise InvalidValueError(message)
        self._tool = free[0]
        monitoring.use_tool_id(self._tool, "sm_tblog")
        events = monitoring.events
        for event in (events.PY_START, events.PY_RESUME, events.PY_THROW):
            self._callbacks[event] = self._tracer.record_begin
        for event in (events.PY_RETURN, events.PY_YIELD, events.PY_UNWIND):
            self._callbacks[event] = self._tracer.record_end
        for event, callback in self._callbacks.items():
            monitoring.register_callback(self._tool, event, callback)
        monitoring.set_events(self._tool, sum(self._callbacks))

    def remove(self) -> None:
        """Remove the hooks."""
        monitoring = sys.monitoring  # type: ignore[attr-defined] # since 3.12
        monitoring.set_events(self._tool, 0)
        for event in self._callbacks:
            monitoring.register_callback(self._tool, event, None)
        monitoring.free_tool_id(self._tool)
