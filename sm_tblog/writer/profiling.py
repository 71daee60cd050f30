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
    """What marks spans and steps, and opens sessions."""

    _span_recorder: Recorder

    def _open(self) -> None:
        super()._open()
        self._span_recorder = Recorder(self._purge_step or 0, enabled=self._enabled)
        self._sessions: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """Return what the copy needs: not what this one records."""
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("_span_recorder", "_sessions")}

    def span(self, name: str, kind: str | None = None) -> Span | ThreadSpan:
        """Mark what a piece of code is: ``with writer.span("forward"):``, or ``@writer.span(…)``.

        Any thread may be in any number of spans, one within the other. In a session each becomes an
        event of its thread. Within a step, the time in spans of each kind makes a scalar,
        ``profile/<kind>_ms``. Otherwise a span costs about 0.2 µs.

        Args:
            name: what is shown. One that has a number in it, as in ``f"batch {i}"``, cannot be
                summed up by a viewer.
            kind: what the time is spent on. ``"input"``, the wait for data, is what the viewer's
                analysis of the input knows; any other word has a curve of its own.

        Returns:
            A context manager for the ``with`` block that it stands in: for another one, and for
            another thread, call this again. Called with a function, it returns one that is in the
            span whenever and wherever it runs.

        Raises:
            InvalidTypeError: the name or kind is not a str.
        """
        recorder = self._span_recorder  # and from here on Recorder.span, without a call
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

        In a session it is what the viewer counts as a step. Session or not, it logs its time as
        ``profile/step_time_ms``, the time in spans of each kind as ``profile/<kind>_ms``, and
        ``profile/examples_per_s`` or ``profile/steps_per_s``. Of what another kind takes within a
        span, only that is the other's: the kinds add up to no more than the step.

        Within a step of the same thread it is a span, and no step: validation in the middle of a
        training step is a part of that.

        Args:
            step: any integer; by default the one behind the last, or ``purge_step``, or 0.
            examples: how many examples the step trains with.
            log_every: of how many steps each point of the scalars is the mean.

        Raises:
            InvalidTypeError: a number is not an integer.
            InvalidValueError: ``log_every`` is not positive, or ``examples`` negative.
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
        """Iterate over batches, each of which makes a step: ``for batch in writer.track(loader):``.

        A step begins with the wait for its batch, which is a span of kind ``"input"``, and ends
        with the loop's body: when the next batch is asked for, or the loop is left. What
        ``step_span`` logs is logged.

        Args:
            batches: a data loader, or anything else that can be iterated over.
            start: the number of the first step; by default the one behind the last, or
                ``purge_step``, or 0. So the steps of one epoch go on from those of the last.
            examples: how many examples a batch has; by default the ``batch_size`` of ``batches``,
                if it has one.
            log_every: of how many steps each point of the scalars is the mean.

        Returns:
            What iterates, as often as ``batches`` does, and has its length, if it has one.

        Raises:
            InvalidTypeError: ``batches`` cannot be iterated over, or a number is not an integer.
            InvalidValueError: ``log_every`` is not positive, or ``examples`` negative.
        """
        if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
            message = f"track: batches can be iterated over, unlike {batches!r:.60}"
            raise InvalidTypeError(message)
        if examples is None:
            found = getattr(batches, "batch_size", None)
            examples = found if isinstance(found, int) else None
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
        """Record a number that changes, as the length of a queue, for the timeline of a session.

        Without a session it does nothing. For curves over steps there is ``add_scalar``.

        Args:
            name: the curve's.
            value: anything like a number, as in ``add_scalar``; one on an accelerator is waited
                for.

        Raises:
            InvalidTypeError: the name is not a str, or the value is no number.
            InvalidValueError: the value has not one element.
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

        It records the spans, steps and counters of all threads, and what the engines add. When the
        block is left, by an exception too, one file is made of it, in the background, and goes
        where the writer's files go: ``plugins/profile/<session>/<host>.xplane.pb``, below the log
        folder. Every rank of a distributed job writes its own, under a name on which they agree
        without asking each other: the one given here, or else one made of the job's name.

        Args:
            name: the session's; by default the time, or in a distributed job the job's name and a
                number. If there is such a session in the folder already, the name gets a number.
            python: ``"sample"`` looks fifty times a second at what all threads are doing;
                ``"trace"`` records every call of a Python function, which slows each down by 0.3
                to 0.7 µs.
            memory: ``True`` records the memory of the process, and the frameworks' allocators;
                ``"python"`` also that of Python objects, which slows their making down.
            torch: have PyTorch's profiler record operators and kernels; ``"auto"`` does if the
                script has imported PyTorch, and goes without if its profiler cannot start. Options
                of its engine make it more precise: ``torch={"record_shapes": True}``.
            jax: the same for JAX.
            tensorflow: the same for TensorFlow.
            max_events: how many events the file may have. A viewer takes about a million. How many
                were left out is said in the file, and through the logger ``sm_tblog``.

        Returns:
            A context manager; in the block its ``name`` is the session's.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: there is no such option; or, when the block is entered, another
                session is open in this process, or another profiler runs.
            MissingDependencyError: a framework asked for is not installed.
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
        """Open a session at the steps that a schedule names, of a loop that counts its steps.

        ::

            with writer.profiler(Schedule(wait=10, warmup=1, active=3)) as profiler:
                for batch in writer.track(loader):
                    train(batch)
                    profiler.step()

        ``step`` is the last thing in the loop. Where neither ``track`` nor ``step_span`` marks
        steps, what is between two calls of it is a step.

        Args:
            schedule: which steps.
            name: what the sessions' names begin with; each ends with its first step. By default as
                for ``profile``.
            python: as for ``profile``, and so are the others.
            memory: see there.
            torch: see there.
            jax: see there.
            tensorflow: see there.
            max_events: see there, of each session.

        Returns:
            A context manager with ``step()``. Without a ``with`` block, ``close()`` ends it.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: there is no such option. What goes wrong later is said through the
                logger ``sm_tblog``, and the training goes on.
            MissingDependencyError: a framework asked for is not installed.
        """
        from sm_tblog.profile.profiler import Profiler
        from sm_tblog.profile.schedule import Schedule

        given: Any = schedule
        if not isinstance(given, Schedule):
            message = f"profiler: a Schedule is needed, got {schedule!r:.60}"
            raise InvalidTypeError(message)
        options = {"python": python, "memory": memory, "max_events": max_events}
        frameworks = {"torch": torch, "jax": jax, "tensorflow": tensorflow}
        make = partial(self._make_session, name, frameworks, options)
        make(lambda: 0)  # raises now what it would at some step
        return Profiler(schedule, make, self._span_recorder)

    def close(self, timeout: float | None = None) -> bool:
        """End the session that is open, store everything, close the files and end the worker.

        Logging again begins new files.

        Takes, returns and raises what ``flush`` does.
        """
        session = sys.modules.get("sm_tblog.profile.session")
        if session is not None:  # else there never was one
            session.end_open(self._log_dir)
        return super().close(timeout)

    def _make_session(
        self,
        name: str | None,
        frameworks: dict[str, Any],
        options: dict[str, Any],
        first_step: Callable[[], int] | None,
    ) -> Session:
        """Return a session, not open yet; ``first_step`` is asked when it is opened."""
        from sm_tblog.profile import names
        from sm_tblog.profile.engines.choice import choose_engines
        from sm_tblog.profile.session import Session

        names.check_name(name)
        if not self._enabled:
            frameworks = dict.fromkeys(frameworks, False)
        wanted, optional = choose_engines(frameworks=frameworks, **options)

        def find_name() -> str:
            step = None if first_step is None else first_step()
            wish = names.session_name(name, step, len(self._sessions) + 1)
            found = names.free_name(wish, self._log_dir, self._sessions)
            self._sessions.append(found)
            return found

        return Session(
            self._span_recorder,
            wanted,
            optional,
            find_name,
            self._deliver_session if self._enabled else None,
            options["max_events"],
            self._log_dir,
        )

    def _deliver_session(self, name: str, build: Any, args: tuple[Any, ...]) -> None:
        # Its memory was taken while it was open. Nobody waits for the worker because of it.
        self._put(name, build, args, None, None)


def _check_count(name: str, value: Any, least: int) -> None:
    if value is None and least == 0:
        return
    if not isinstance(value, int):
        message = f"{name} is an integer, got {value!r:.60}"
        raise InvalidTypeError(message)
    if value < least:
        message = f"{name} is {least} or more, got {value}"
        raise InvalidValueError(message)
