"""Every call of a Python function, in every thread.

On Python 3.12 and later by ``sys.monitoring``, which leaves the code faster and other tools alone;
before by ``sys.setprofile``, which sees the thread that opens the session and those that begin
after. A call costs 0.3 to 0.7 µs more, so that small functions look larger than they are: for the
question which of them counts, the sampler is better; for what calls what, and how often, this is.
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


class _Calls(threading.local):
    """One thread's calls: flat, a function and the time it began; None and the time it ended.

    ``sys.monitoring`` sees a thread before ``threading`` knows it, and to ask for the current one
    would make another then: so it is looked for among those that there are.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.rows: list[Any] = []
        self.skipped = 0  # calls that are under way and were not recorded
        self.is_recorded = False
        self.is_known = False
        self._tracer = tracer
        self._looks = 100  # a thread that is not Python's is never known

    def look(self) -> None:
        """Find out whose calls these are."""
        ident = threading.get_ident()
        names = [thread.name for thread in threading.enumerate() if thread.ident == ident]
        self._looks -= 1
        if names or not self._looks:
            name = names[0] if names else f"thread {ident}"
            self.is_known = True
            self.is_recorded = not name.startswith(OWN_THREADS)
            self._tracer.threads.append((name, self.rows))


class Tracer:
    """An engine: every call of a Python function.

    Args:
        max_events: how many calls of a thread are kept.

    Attributes:
        threads: the name of each thread, and its calls.
    """

    name = "the tracer"

    def __init__(self, max_events: int) -> None:
        self.threads: list[tuple[str, list[Any]]] = []
        self._limit = 4 * max_events  # entries: two when a call begins, two when it ends
        self._dropped = 0
        self._calls = _Calls(self)
        self._offset = 0
        self._end = 0
        self._is_on = False
        self._hooks = _Monitoring(self) if sys.version_info >= (3, 12) else _SetProfile(self)

    def start(self) -> None:
        """Begin to record calls.

        Raises:
            InvalidValueError: another profiler runs, which this would displace.
        """
        self._offset = time.time_ns() - _clock()
        self._is_on = True
        self._hooks.set()

    def stop(self) -> None:
        """End."""
        self._is_on = False
        self._hooks.remove()
        self._end = _clock()

    def reset_after_fork(self) -> None:
        """Take the hooks off in a forked child."""
        self.stop()

    def began(self, code: CodeType, *_: Any) -> None:
        """Record that a function runs, or runs on."""
        calls = self._calls
        if not self._is_on or code.co_filename.startswith(OWN_FILES):
            return
        if not calls.is_known:
            calls.look()
        if not calls.is_recorded:
            return
        if len(calls.rows) < self._limit:
            calls.rows += (code, _clock())
        else:
            calls.skipped += 1
            self._dropped += 1

    def ended(self, code: CodeType, *_: Any) -> None:
        """Record that a function has returned, raised, or rests at a yield."""
        calls = self._calls
        if not self._is_on or not calls.is_recorded or code.co_filename.startswith(OWN_FILES):
            return
        if calls.skipped:
            calls.skipped -= 1
        else:
            calls.rows += (None, _clock())

    def export(self, space: Space) -> None:
        """Draw each thread's calls on a line of its own, beside its spans."""
        plane = space.plane(HOST_PLANE)
        for name, rows in self.threads:
            if rows:
                self._draw(rows, plane.line(f"{name} (Python)"))
        if self._dropped:
            space.warnings.append(f"{self._dropped:,} calls of Python functions were left out")

    def _draw(self, rows: list[Any], line: Line) -> None:
        calls: list[tuple[CodeType, int]] = []  # under way
        ended: list[Call] = []

        def end(at: int) -> None:
            code, begun = calls.pop()
            name = str(getattr(code, "co_qualname", code.co_name))  # the longer one since 3.11
            source = f"{code.co_filename}:{code.co_firstlineno}"
            ended.append(Call(name, source, begun + self._offset, at + self._offset))

        rows = rows[: len(rows) // 2 * 2]  # a thread may be about to add one
        for code, at in zip(rows[0::2], rows[1::2], strict=True):
            if code is not None:
                calls.append((code, at))
            elif calls:  # else it was under way when the session began
                end(at)
        while calls:
            end(self._end)
        add_calls(line, ended)


class _SetProfile:
    """The hooks before Python 3.12.

    Args:
        tracer: told what happens.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._is_set = False

    def set(self) -> None:
        """Put them on, in this thread and in those that begin from now on."""
        if sys.getprofile() is not None:
            message = f"profile: another profiler runs, {sys.getprofile()!r:.60}; end it first"
            raise InvalidValueError(message)
        self._is_set = True
        threading.setprofile(self._call)
        sys.setprofile(self._call)

    def remove(self) -> None:
        """Take them off. Other threads take theirs off at their next call."""
        self._is_set = False
        sys.setprofile(None)
        threading.setprofile(None)

    def _call(self, frame: FrameType, event: str, _: Any) -> None:
        if not self._is_set:
            sys.setprofile(None)
        elif event == "call":
            self._tracer.began(frame.f_code)
        elif event == "return":
            self._tracer.ended(frame.f_code)


class _Monitoring:
    """The hooks from Python 3.12 on.

    Args:
        tracer: told what happens.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._tool = -1
        self._callbacks: dict[int, Any] = {}

    def set(self) -> None:
        """Put them on, in all threads."""
        monitoring = sys.monitoring  # type: ignore[attr-defined] # where there is one
        free = [tool for tool in (monitoring.PROFILER_ID, 3, 4) if not monitoring.get_tool(tool)]
        if not free:
            message = "profile: three other tools use sys.monitoring; end one first"
            raise InvalidValueError(message)
        self._tool = free[0]
        monitoring.use_tool_id(self._tool, "sm_tblog")
        events = monitoring.events
        for event in (events.PY_START, events.PY_RESUME, events.PY_THROW):
            self._callbacks[event] = self._tracer.began
        for event in (events.PY_RETURN, events.PY_YIELD, events.PY_UNWIND):
            self._callbacks[event] = self._tracer.ended
        for event, callback in self._callbacks.items():
            monitoring.register_callback(self._tool, event, callback)
        monitoring.set_events(self._tool, sum(self._callbacks))

    def remove(self) -> None:
        """Take them off."""
        monitoring = sys.monitoring  # type: ignore[attr-defined] # where there is one
        monitoring.set_events(self._tool, 0)
        for event in self._callbacks:
            monitoring.register_callback(self._tool, event, None)
        monitoring.free_tool_id(self._tool)
