"""Spans and counters that a script marks. Steps are in ``steps``.

A span costs the script two clock readings and one ``extend`` of its thread's flat list with
``(mark, started, ended)``. It takes no lock and creates no object: each thread reuses one object
per name and kind. While nothing is recorded, neither for a session nor for a step's scalars, all
threads share one object per name and kind, which does next to nothing.

Time by kind is exclusive: the time of a nested span with a kind counts for that kind only, so the
kinds of a step never add up to more than the step.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from sm_tblog._compilation import uncompiled
from sm_tblog._errors import InvalidTypeError
from sm_tblog.pipeline import lifecycle
from sm_tblog.profile.recording.marks import ThreadRows, as_mark, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from sm_tblog.profile.recording.marks import CounterMark, Recording, SpanMark

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Recorder", "Span", "ThreadRecorder"]

MAX_NAMES = 10_000
"""The maximum number of cached spans per table, in case names contain numbers."""

_MAX_UNREAD = 3000
"""The maximum length of a thread's flat list outside a session, when nothing reads it."""


class OpenStep(Protocol):
    """The open step of a thread.

    Attributes:
        number: the number of the step.
        started: the start time, in nanoseconds of ``clock``.
    """

    number: int
    started: int


class Sum:
    """The time that one thread spends in spans of one kind, in nanoseconds.

    Attributes:
        total: the time in the current step.
        pending: the time in finished steps whose scalars have not been logged yet.
    """

    __slots__ = ("pending", "total")

    def __init__(self) -> None:
        self.total = self.pending = 0


class ThreadRecorder(dict[tuple[str, "str | None"], "ThreadSpan"]):
    """The recording state of one thread: a dict of its spans by name and kind, and their rows.

    Attributes:
        recorder: the recorder that this object belongs to.
        recording: the session's recording that the thread is attached to; None outside a session.
        rows: the flat list, three entries per row. Outside a session nothing reads it.
        limit: the maximum length of ``rows``.
        inner: the nanoseconds in finished spans with a kind; nested spans count once.
        sums: the time by kind.
        step: the open step; None between steps.
        steps: the number of finished steps since scalars were last logged.
        step_ns: the total time of these steps, in nanoseconds.
        examples: the number of examples in these steps; None if unknown.
    """

    __slots__ = (
        *("examples", "inner", "limit", "recorder", "recording", "rows"),
        *("step", "step_ns", "steps", "sums"),
    )

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.recording: Recording | None = None
        self.rows: list[Any] = []
        self.limit = _MAX_UNREAD
        self.inner = 0
        self.sums: dict[str, Sum] = {}
        self.step: OpenStep | None = None
        self.steps = self.step_ns = 0
        self.examples: int | None = 0

    def __missing__(self, key: tuple[str, str | None]) -> ThreadSpan:
        """Create the span for a name and kind."""
        if len(self) >= MAX_NAMES:
            self.clear()
        mark = as_mark(*key)
        kind_sum = None if mark.kind is None else self.sums.setdefault(mark.kind, Sum())
        span = self[key] = ThreadSpan(self, mark, kind_sum)
        return span

    def attach(self, recording: Recording | None) -> None:
        """Record to this session from now on, or to none."""
        self.recording = recording
        self.rows = []
        self.limit = _MAX_UNREAD
        if recording is not None:
            self.limit = recording.limit
            thread = threading.current_thread()
            rows = ThreadRows(thread.name, threading.get_native_id(), self.rows)
            recording.threads.append(rows)

    def add(self, mark: Any, started: int, ended: float) -> None:
        """Append a row."""
        self.rows += (mark, started, ended)
        if len(self.rows) > self.limit:
            self.drop_excess()

    def drop_excess(self) -> None:
        """Remove and count the last row, which exceeded the limit; outside a session, all rows."""
        if self.recording is None:
            self.rows.clear()
        else:
            del self.rows[-3:]
            self.recording.count_dropped()


class _ThreadLocal(threading.local):
    """Holds the ``ThreadRecorder`` of each thread."""

    def __init__(self, recorder: Recorder) -> None:
        self.thread = ThreadRecorder(recorder)


@uncompiled
class ThreadSpan:
    """A span of one thread, while something is recorded.

    ``_open`` is None while the span is closed. While it is open, it is a tuple: ``inner`` at the
    start, the start time, and the previous ``_open``, because a span may be nested in itself.
    """

    __slots__ = ("_mark", "_open", "_sum", "_thread")

    def __init__(self, thread: ThreadRecorder, mark: SpanMark, kind_sum: Sum | None) -> None:
        self._thread = thread
        self._mark = mark
        self._sum = kind_sum
        self._open: Any = None

    def __enter__(self) -> Self:
        self._open = self._thread.inner, clock(), self._open
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        now = clock()
        thread = self._thread
        before, started, self._open = self._open
        rows = thread.rows  # ThreadRecorder.add, inlined
        rows += (self._mark, started, now)
        if len(rows) > thread.limit:
            thread.drop_excess()
        kind_sum = self._sum
        if kind_sum is not None:
            duration = now - started
            kind_sum.total += duration - thread.inner + before
            thread.inner = before + duration

    def __call__(self, function: F) -> F:
        return self._thread.recorder.spans[self._mark](function)


@uncompiled
class Span:
    """A span while nothing is recorded, shared by all threads. It works only as a decorator."""

    __slots__ = ("_mark", "_recorder")

    def __init__(self, recorder: Recorder, mark: SpanMark) -> None:
        self._recorder = recorder
        self._mark = mark

    # "".format accepts any arguments and returns a false value. Unlike a Python function it creates
    # no frame, which would be a sixth of the cost of an idle span.
    __enter__: Any = "".format
    __exit__: Any = "".format

    def __call__(self, function: F) -> F:
        """Return a function that runs within the span.

        Raises:
            InvalidTypeError: the argument is not a function, or is a generator function, whose body
                runs outside the call.
        """
        import inspect  # importing it takes as long as importing this package

        given: Any = function
        if not callable(given) or inspect.isgeneratorfunction(function):
            message = (
                f"span {self._mark.name!r} decorates a function, not {function!r:.60}; inside a "
                f"generator function, write a with block"
            )
            raise InvalidTypeError(message)
        span, mark = self._recorder.span, self._mark
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with span(*mark):
                    return await function(*args, **kwargs)

            return cast("F", run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with span(*mark):
                return function(*args, **kwargs)

        return cast("F", run)


class _Spans(dict[tuple[str, "str | None"], Span]):
    """The idle spans by name and kind, shared by all threads."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __missing__(self, key: tuple[str, str | None]) -> Span:
        if len(self) >= MAX_NAMES:
            self.clear()
        span = self[key] = Span(self._recorder, as_mark(*key))
        return span


class Recorder:
    """The recorder of a writer: records its spans, steps and counters in all threads.

    Args:
        next_step: the number of the first step that ``track`` marks.
        enabled: whether to record anything at all.

    Attributes:
        idle: ``spans`` while nothing is recorded, that is, while no session and no step is open;
            otherwise None.
        recording: the recording of the open session; None if no session is open.
        local: thread-local; ``local.thread`` is the current thread's ``ThreadRecorder``, which may
            not be attached to the open session yet. ``thread()`` attaches it.
        spans: the idle spans that all threads share.
        next_step: the number of the next step that ``track`` marks.
    """

    def __init__(self, next_step: int = 0, *, enabled: bool = True) -> None:
        self.spans = _Spans(self)
        self._enabled = enabled
        self.next_step = next_step
        self._reset()
        lifecycle.register_for_forks(self)

    def _reset(self) -> None:
        self.idle: _Spans | None = self.spans
        self.recording: Recording | None = None
        self.local = _ThreadLocal(self)
        self._attached: list[ThreadRecorder] = []
        self._open_steps = 0
        # Reentrant: the garbage collector may end the step of an abandoned loop at any time.
        self._lock = threading.RLock()

    def reset_after_fork(self) -> None:
        """Record nothing in a forked child: the session and an open step belong to the parent."""
        thread = self.local.thread
        thread.attach(None)
        thread.step = None
        self._reset()

    def thread(self) -> ThreadRecorder:
        """Return the current thread's recorder, attached to the open session."""
        thread: ThreadRecorder = self.local.thread
        if thread.recording is not self.recording:
            with self._lock:
                thread.attach(self.recording)
                self._attached.append(thread)
        return thread

    def span(self, name: str, kind: str | None) -> Span | ThreadSpan:
        """Return a span for the current thread and the current state."""
        idle = self.idle
        if idle is not None:
            return idle[name, kind]
        recording = self.recording
        if kind is None and recording is None:
            return self.spans[name, kind]
        thread: ThreadRecorder = self.local.thread
        if thread.recording is not recording:
            thread = self.thread()
        return thread[name, kind]

    def count(self, mark: CounterMark, value: float) -> None:
        """Record the value of a counter."""
        self.thread().add(mark, clock(), value)

    def count_step(self, change: int) -> None:
        """Add to the number of open steps: 1 at the start of a step, -1 at its end."""
        with self._lock:
            self._open_steps = max(self._open_steps + change, 0)
            self._update_idle()

    def begin(self, recording: Recording) -> None:
        """Start recording to a session."""
        with self._lock:
            self.recording = recording
            self._update_idle()

    def end(self) -> None:
        """Stop recording to the session. Open steps are recorded up to now."""
        now = clock()
        with self._lock:
            recording, self.recording = self.recording, None
            self._update_idle()
            if recording is not None:
                recording.end_ns = now + recording.offset_ns
                started = recording.begin_ns - recording.offset_ns
                for thread in self._attached:
                    if thread.step is not None:
                        thread.add(thread.step.number, max(thread.step.started, started), now)
                    thread.attach(None)
            self._attached.clear()

    def _update_idle(self) -> None:
        is_idle = not self._enabled or (self.recording is None and not self._open_steps)
        self.idle = self.spans if is_idle else None
