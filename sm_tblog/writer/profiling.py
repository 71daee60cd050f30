"""Profiles: spans, steps, and sessions for the Profile tab."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import as_number, as_step
from sm_tblog.profile.recording.marks import CounterMark
from sm_tblog.profile.recording.spans import Recorder
from sm_tblog.profile.recording.steps import WAIT, StepSpan, Tracked
from sm_tblog.writer.arguments import check_tag
from sm_tblog.writer.scalars import ScalarMethods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sm_tblog.profile.profiler import Profiler
    from sm_tblog.profile.recording.spans import Span, ThreadRecorder, ThreadSpan
    from sm_tblog.profile.schedule import Schedule
    from sm_tblog.profile.session import Session

__all__ = ["ProfilingMethods"]

T = TypeVar("T")


class ProfilingMethods(ScalarMethods):
    """Methods that mark spans and steps, and open sessions."""

    _span_recorder: Recorder

    def _open(self) -> None:
        super()._open()
        self._span_recorder = Recorder(self._purge_step or 0, enabled=self._enabled)
        self._sessions: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, without recorded spans and sessions."""
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("_span_recorder", "_sessions")}

    def span(self, name: str, kind: str | None = None) -> Span | ThreadSpan:
        """Mark a piece of code: ``with writer.span("forward"):``, or ``@writer.span(…)``.

        Spans may be nested, in any thread. In a session, each becomes an event of its thread.
        Within a step, the time in spans of each kind becomes a scalar, ``profile/<kind>_ms``.
        Otherwise a span costs about 0.2 µs.

        Args:
            name: the name shown. Viewers cannot aggregate names that contain a number, such as
                ``f"batch {i}"``.
            kind: what the time is spent on. ``"input"``, the wait for data, is the kind that the
                viewer's input analysis recognizes; any other word gets its own curve.

        Returns:
            A context manager for one ``with`` block: call this method again for another block or
            another thread. Called with a function, it returns a function that is in the span
            whenever and wherever it runs.

        Raises:
            InvalidTypeError: the name or kind is not a str.
        """
        recorder = self._span_recorder  # the rest is Recorder.span, inlined to save a call
        idle = recorder.idle
        if idle is not None:
            return idle[name, kind]
        recording = recorder.recording
        if kind is None and recording is None:
            return recorder.spans[name, kind]
        thread: ThreadRecorder = recorder.local.thread
        if thread.recording is not recording:
            thread = recorder.thread()
        return thread[name, kind]

    def step_span(
        self, step: Any = None, *, examples: int | None = None, log_every: int = 1
    ) -> StepSpan:
        """Mark a step of the training loop: ``with writer.step_span(n):``.

        In a session, the viewer counts it as a step. With or without a session, it logs its time as
        ``profile/step_time_ms``, the time in spans of each kind as ``profile/<kind>_ms``, and
        ``profile/examples_per_s`` or ``profile/steps_per_s``. If a span of another kind is nested
        in a span, its time counts only for the inner kind: the kinds add up to no more than the
        step.

        Within a step of the same thread it is a span and not a step: validation in the middle of a
        training step is a part of that step.

        Args:
            step: any integer; by default the last step plus one, initially ``purge_step`` or 0.
            examples: the number of training examples in the step.
            log_every: the number of steps whose mean makes one point of the scalars.

        Raises:
            InvalidTypeError: a number is not an integer.
            InvalidValueError: ``log_every`` is not positive, or ``examples`` is negative.
        """
        number = self._span_recorder.next_step if step is None else as_step(step, "step_span")
        _check_count("examples", examples, 0)
        _check_count("log_every", log_every, 1)
        return StepSpan(self._span_recorder, self.log, number, examples, log_every)

    def track(
        self,
        batches: Iterable[T],
        *,
        start: Any = None,
        examples: int | None = None,
        log_every: int = 1,
    ) -> Iterable[T]:
        """Iterate over batches and mark each as a step: ``for batch in writer.track(loader):``.

        A step begins with the wait for its batch, which is a span of kind ``"input"``, and ends
        with the loop's body: when the next batch is requested, or the loop is left. It logs what
        ``step_span`` logs.

        Args:
            batches: a data loader, or any other iterable.
            start: the number of the first step; by default the last step plus one, initially
                ``purge_step`` or 0. Steps therefore continue from epoch to epoch.
            examples: the number of examples per batch; by default the ``batch_size`` of
                ``batches``, if it has one.
            log_every: the number of steps whose mean makes one point of the scalars.

        Returns:
            An iterable that can be iterated over as many times as ``batches``, and has its length,
            if it has one.

        Raises:
            InvalidTypeError: ``batches`` is not iterable, or a number is not an integer.
            InvalidValueError: ``log_every`` is not positive, or ``examples`` is negative.
        """
        if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
            message = f"track: batches must be iterable, got {batches!r:.60}"
            raise InvalidTypeError(message)
        if examples is None:
            batch_size = getattr(batches, "batch_size", None)
            examples = batch_size if isinstance(batch_size, int) else None
        _check_count("examples", examples, 0)
        _check_count("log_every", log_every, 1)
        if not self._enabled:
            return batches
        if start is not None:
            self._span_recorder.next_step = as_step(start, "track")
        make_step = partial(self.step_span, examples=examples, log_every=log_every)
        wait = partial(self.span, WAIT, "input")
        return Tracked(batches, lambda: make_step().__enter__(), wait)

    def counter(self, name: str, value: Any) -> None:
        """Record a changing number, such as the length of a queue, in the timeline of a session.

        Without a session, this does nothing. Use ``add_scalar`` for curves over steps.

        Args:
            name: the name of the counter.
            value: a number as in ``add_scalar``; the call waits for one on an accelerator.

        Raises:
            InvalidTypeError: the name is not a str, or the value is not a number.
            InvalidValueError: the value does not have exactly one element.
        """
        recorder = self._span_recorder
        if recorder.recording is not None:
            check_tag(name)
            recorder.count(CounterMark(name), float(as_number(value, name)))

    def profile(
        self,
        name: str | None = None,
        *,
        python: Literal["sample", "trace"] | None = None,
        memory: bool | Literal["python"] = False,
        torch: bool | Literal["auto"] | Mapping[str, Any] = "auto",
        jax: bool | Literal["auto"] | Mapping[str, Any] = "auto",
        tensorflow: bool | Literal["auto"] | Mapping[str, Any] = "auto",
        max_events: int = 1_000_000,
    ) -> Session:
        """Open a session for the Profile tab: ``with writer.profile():``.

        It records the spans, steps and counters of all threads, and the data of the engines. When
        the block ends, also by an exception, the worker thread writes one file where the writer's
        other files are: ``plugins/profile/<session>/<host>.xplane.pb``, below the log directory.
        Every rank of a distributed job writes its own file. The session has the same name on all
        ranks, without communication: the name given here, or one made from the job's name.

        Args:
            name: the session's name; by default the time, or in a distributed job the job's name
                and a number. If the directory already contains that session, a number is appended.
            python: ``"sample"`` samples the stacks of all threads fifty times a second; ``"trace"``
                records every call of a Python function, which slows each call down by 0.3 to 0.7
                µs.
            memory: ``True`` records the memory of the process and of the frameworks' allocators;
                ``"python"`` also that of Python objects, which slows down their allocation.
            torch: record operators and kernels with PyTorch's profiler. ``"auto"`` does so if the
                script has imported PyTorch, and continues without if its profiler cannot start. A
                mapping passes options to the engine, for more detail:
                ``torch={"record_shapes": True}``.
            jax: the same for JAX.
            tensorflow: the same for TensorFlow.
            max_events: the maximum number of events in the file. Viewers can handle about a
                million. The number of omitted events is recorded in the file, and logged to
                ``sm_tblog``.

        Returns:
            A context manager; within the block, its ``name`` is the session's name.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: an option is unknown; or, when the block is entered, another session
                is open in this process, or another profiler is running.
            MissingDependencyError: a requested framework is not installed.
        """
        options = {"python": python, "memory": memory, "max_events": max_events}
        frameworks = {"torch": torch, "jax": jax, "tensorflow": tensorflow}
        return self._make_session(name, frameworks, options, None)

    def profiler(
        self,
        schedule: Schedule,
        name: str | None = None,
        *,
        python: Literal["sample", "trace"] | None = None,
        memory: bool | Literal["python"] = False,
        torch: bool | Literal["auto"] | Mapping[str, Any] = "auto",
        jax: bool | Literal["auto"] | Mapping[str, Any] = "auto",
        tensorflow: bool | Literal["auto"] | Mapping[str, Any] = "auto",
        max_events: int = 1_000_000,
    ) -> Profiler:
        """Open sessions at the scheduled steps of a loop.

        ::

            with writer.profiler(Schedule(wait=10, warmup=1, active=3)) as profiler:
                for batch in writer.track(loader):
                    train(batch)
                    profiler.step()

        Call ``step`` at the end of the loop's body. If neither ``track`` nor ``step_span`` marks
        steps, the code between two calls of ``step`` is a step.

        Args:
            schedule: the steps to profile.
            name: prefix of the sessions' names, which end with the number of the first step. The
                default is as in ``profile``.
            python: as in ``profile``.
            memory: as in ``profile``.
            torch: as in ``profile``.
            jax: as in ``profile``.
            tensorflow: as in ``profile``.
            max_events: as in ``profile``, for each session.

        Returns:
            A context manager with a method ``step()``. Without a ``with`` block, ``close()`` ends
            it.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: an option is unknown. Later failures are logged to ``sm_tblog``, and
                training continues.
            MissingDependencyError: a requested framework is not installed.
        """
        from sm_tblog.profile.profiler import Profiler
        from sm_tblog.profile.schedule import Schedule

        given: Any = schedule
        if not isinstance(given, Schedule):
            message = f"profiler: expected a Schedule, got {schedule!r:.60}"
            raise InvalidTypeError(message)
        options = {"python": python, "memory": memory, "max_events": max_events}
        frameworks = {"torch": torch, "jax": jax, "tensorflow": tensorflow}
        make_session = partial(self._make_session, name, frameworks, options)
        make_session(lambda: 0)  # raises errors of the arguments now instead of at a later step
        return Profiler(schedule, make_session, self._span_recorder, enabled=self._enabled)

    def close(self, timeout: float | None = None) -> bool:
        """End the open session, store everything, close the files and stop the worker thread.

        Logging after this starts new files. The argument, the return value and the exceptions are
        those of ``flush``.
        """
        session = sys.modules.get("sm_tblog.profile.session")
        if session is not None:  # otherwise no session was ever opened
            session.end_open(self._location)
        return super().close(timeout)

    def _make_session(
        self,
        name: str | None,
        frameworks: dict[str, Any],
        options: dict[str, Any],
        first_step: Callable[[], int] | None,
    ) -> Session:
        """Return a session that is not open yet; ``first_step`` is called when it is opened."""
        from sm_tblog.profile import names
        from sm_tblog.profile.engines.choice import choose_engines
        from sm_tblog.profile.session import Session

        names.check_name(name)
        if not self._enabled:
            frameworks = dict.fromkeys(frameworks, False)
        engines, optional = choose_engines(frameworks=frameworks, **options)

        def find_name() -> str:
            step = None if first_step is None else first_step()
            preferred = names.session_name(name, step, len(self._sessions) + 1)
            session = names.free_name(preferred, self._location, self._sessions)
            self._sessions.append(session)
            return session

        return Session(
            self._span_recorder,
            engines,
            optional,
            find_name,
            self._put_session if self._enabled else None,
            options["max_events"],
            self._location,
        )

    def _put_session(self, name: str, build: Any, args: tuple[Any, ...]) -> None:
        # nbytes stays 0: the memory was allocated while the session was open, so that no call needs
        # to wait for the worker thread because of it.
        self._put(name, build, args, None, None)


def _check_count(name: str, value: Any, minimum: int) -> None:
    if value is None and minimum == 0:
        return
    if not isinstance(value, int):
        message = f"{name} must be an integer, got {value!r:.60}"
        raise InvalidTypeError(message)
    if value < minimum:
        message = f"{name} must be at least {minimum}, got {value}"
        raise InvalidValueError(message)
