"""What a script marks: spans, and counters. Steps are in ``steps``.

A span costs the script two looks at a clock and one ``extend`` of a flat list, ``(mark, begun,
ended)``, of the thread that it is on. There is no lock, and no object is made: a thread has one for
each name and kind, used again and again. When nothing is recorded, neither in a session nor for a
step's scalars, a span is an object shared by all threads that does next to nothing.

Time by kind is exclusive: what a span of another kind inside takes is that one's alone, so that the
kinds of a step add up to no more than the step.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from sm_tblog._errors import InvalidTypeError
from sm_tblog.pipeline import lifecycle
from sm_tblog.profile.recording.marks import ThreadRows, as_mark, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from sm_tblog.profile.recording.marks import CounterMark, Recording, SpanMark

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Recorder", "Span", "ThreadRecorder"]

MOST_NAMES = 10_000
"""Names of spans that a table keeps: names with a number in them would never end."""

_UNREAD = 3000
"""How long a list becomes that nobody reads."""


class OpenStep(Protocol):
    """The step that a thread is in.

    Attributes:
        number: the step's.
        begun: when it began, by ``clock``.
    """

    number: int
    begun: int


class Sum:
    """Nanoseconds of one kind, in one thread.

    Attributes:
        total: since the step began.
        logged: of the steps whose scalars are not logged yet.
    """

    __slots__ = ("logged", "total")

    def __init__(self) -> None:
        self.total = self.logged = 0


class ThreadRecorder(dict[tuple[str, "str | None"], "ThreadSpan"]):
    """One thread's spans by name and kind, and where they record.

    Attributes:
        recorder: whose it is.
        recording: the session that it belongs to, if it does to one.
        rows: flat, three entries to a row. Where there is no session, nobody reads them.
        limit: how long that may be.
        inner: nanoseconds of all spans with a kind that have ended in this thread.
        sums: time by kind.
        step: the step that the thread is in.
        steps: how many there were since scalars were last logged.
        step_ns: their time.
        examples: their examples; None if that is not known.
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
        self.limit = _UNREAD
        self.inner = 0
        self.sums: dict[str, Sum] = {}
        self.step: OpenStep | None = None
        self.steps = self.step_ns = 0
        self.examples: int | None = 0

    def __missing__(self, key: tuple[str, str | None]) -> ThreadSpan:
        """Make a span."""
        if len(self) >= MOST_NAMES:
            self.clear()
        mark = as_mark(*key)
        of_kind = None if mark.kind is None else self.sums.setdefault(mark.kind, Sum())
        span = self[key] = ThreadSpan(self, mark, of_kind)
        return span

    def attach(self, recording: Recording | None) -> None:
        """Record for this session from now on, for none if there is none."""
        self.recording = recording
        self.rows = []
        self.limit = _UNREAD
        if recording is not None:
            self.limit = recording.limit
            thread = threading.current_thread()
            rows = ThreadRows(thread.name, threading.get_native_id(), self.rows)
            recording.threads.append(rows)

    def add(self, mark: Any, begun: int, ended: float) -> None:
        """Take a row."""
        self.rows += (mark, begun, ended)
        if len(self.rows) > self.limit:
            self.cut()

    def cut(self) -> None:
        """Take the last row back, which was one too many, and count it."""
        if self.recording is None:
            self.rows.clear()
        else:
            del self.rows[-3:]
            self.recording.count_dropped()


class _ThreadLocal(threading.local):
    """Holds each thread's recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self.thread = ThreadRecorder(recorder)


class ThreadSpan:
    """A span of one thread, while something is recorded.

    ``_open`` is None or, while it is open, what ``inner`` was, when it began, and ``_open`` before:
    a span may be within itself.
    """

    __slots__ = ("_mark", "_open", "_sum", "_thread")

    def __init__(self, thread: ThreadRecorder, mark: SpanMark, of_kind: Sum | None) -> None:
        self._thread = thread
        self._mark = mark
        self._sum = of_kind
        self._open: Any = None

    def __enter__(self) -> Self:
        self._open = self._thread.inner, clock(), self._open
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        now = clock()
        thread = self._thread
        before, begun, self._open = self._open
        rows = thread.rows  # and from here on ThreadRecorder.add, without a call
        rows += (self._mark, begun, now)
        if len(rows) > thread.limit:
            thread.cut()
        of_kind = self._sum
        if of_kind is not None:
            took = now - begun
            of_kind.total += took - thread.inner + before
            thread.inner = before + took

    def __call__(self, function: F) -> F:
        return self._thread.recorder.spans[self._mark](function)


class Span:
    """A span while nothing is recorded, for all threads: nothing, but for a decorator."""

    __slots__ = ("_mark", "_recorder")

    def __init__(self, recorder: Recorder, mark: SpanMark) -> None:
        self._recorder = recorder
        self._mark = mark

    # It takes anything and returns nothing true, and unlike a function of Python it makes no frame:
    # that is a sixth of what an idle span costs.
    __enter__: Any = "".format
    __exit__: Any = "".format

    def __call__(self, function: F) -> F:
        """Return a function that is in the span whenever it runs.

        Raises:
            InvalidTypeError: it is not a function, or one with ``yield``, whose body runs when its
                caller wants it to.
        """
        import inspect  # takes as long to import as this package

        given: Any = function
        if not callable(given) or inspect.isgeneratorfunction(function):
            message = (
                f"span {self._mark.name!r} decorates a function, not {function!r:.60}; in one that "
                f"has a yield, write a with block"
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
    """The spans, by name and kind, that threads share."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __missing__(self, key: tuple[str, str | None]) -> Span:
        if len(self) >= MOST_NAMES:
            self.clear()
        span = self[key] = Span(self._recorder, as_mark(*key))
        return span


class Recorder:
    """What a writer records spans with.

    Args:
        next_step: the number of the step that ``track`` marks first.
        enabled: whether anything is ever recorded.

    Attributes:
        idle: ``spans`` while nothing is recorded: no session is open, and no step; else None.
        recording: that of the open session.
        local: has this thread's ``thread``, which may have to join the session yet.
        spans: what threads share.
        next_step: the number of the step that ``track`` marks next.
    """

    def __init__(self, next_step: int = 0, *, enabled: bool = True) -> None:
        self.spans = _Spans(self)
        self._enabled = enabled
        self.next_step = next_step
        self._begin()
        lifecycle.register_for_forks(self)

    def _begin(self) -> None:
        self.idle: _Spans | None = self.spans
        self.recording: Recording | None = None
        self.local = _ThreadLocal(self)
        self._joined: list[ThreadRecorder] = []
        self._open_steps = 0
        # Reentrant: a loop that is left may be ended by the garbage collector, at any time.
        self._lock = threading.RLock()

    def reset_after_fork(self) -> None:
        """Record nothing in a forked child: the session, and an open step, are the parent's."""
        thread = self.local.thread
        thread.attach(None)
        thread.step = None
        self._begin()

    def thread(self) -> ThreadRecorder:
        """Return the recorder of the current thread."""
        thread: ThreadRecorder = self.local.thread
        if thread.recording is not self.recording:
            with self._lock:
                thread.attach(self.recording)
                self._joined.append(thread)
        return thread

    def span(self, name: str, kind: str | None) -> Span | ThreadSpan:
        """Return a span for this thread, now."""
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
        """Record a counter's value."""
        self.thread().add(mark, clock(), value)

    def count_step(self, change: int) -> None:
        """Say that a step begins or ends."""
        with self._lock:
            self._open_steps = max(self._open_steps + change, 0)
            self._look()

    def begin(self, recording: Recording) -> None:
        """Record in a session."""
        with self._lock:
            self.recording = recording
            self._look()

    def end(self) -> None:
        """Record in no session any more. Steps that are open are recorded as far as they went."""
        now = clock()
        with self._lock:
            recording, self.recording = self.recording, None
            self._look()
            if recording is not None:
                recording.end_ns = now + recording.offset_ns
                begun = recording.begin_ns - recording.offset_ns
                for thread in self._joined:
                    if thread.step is not None:
                        thread.add(thread.step.number, max(thread.step.begun, begun), now)
                    thread.attach(None)
            self._joined.clear()

    def _look(self) -> None:
        is_idle = not self._enabled or (self.recording is None and not self._open_steps)
        self.idle = self.spans if is_idle else None
