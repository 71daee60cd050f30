"""Step-driven sessions: a training loop counts steps, and a schedule opens and closes sessions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sm_tblog.profile.recording.marks import ProfilerMark, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from sm_tblog.profile.recording.spans import Recorder
    from sm_tblog.profile.schedule import Phase, Schedule
    from sm_tblog.profile.session import Session

__all__ = ["Profiler"]

logger = logging.getLogger("sm_tblog")


class Profiler:
    """Opens and closes sessions according to a schedule; a context manager.

    Args:
        schedule: the steps to profile.
        make_session: returns a session that is not open yet. Its argument is a function that
            returns the number of the session's first step, once that step begins.
        recorder: the writer's recorder.
        enabled: whether the writer is enabled; otherwise sessions do nothing.
    """

    def __init__(
        self,
        schedule: Schedule,
        make_session: Callable[[Callable[[], int]], Session],
        recorder: Recorder,
        *,
        enabled: bool,
    ) -> None:
        self._schedule = schedule
        self._make_session = make_session
        self._recorder = recorder
        self._session: Session | None = None
        self._phase: Phase | None = None
        self._step = 0
        self._step_started = 0
        self._is_idle = enabled

    @property
    def session(self) -> str:
        """The name of the open session; "" if no session is open."""
        return "" if self._session is None else self._session.name

    def __enter__(self) -> Self:
        """Begin the first step."""
        self._begin_step()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the open session, if any."""
        self._is_idle &= error is None  # the loop has not come to its end
        self.close()

    def step(self) -> None:
        """End a step. Call this at the end of the loop's body.

        Errors do not interrupt training: a session that cannot be opened is skipped, with a
        warning.
        """
        if self._phase is None:  # not used as a context manager
            self._begin_step()
        self._record_step()
        self._step += 1
        self._is_idle &= self._step <= self._schedule.first_active
        self._begin_step()

    def close(self) -> None:
        """Close the open session, if any. The steps recorded so far are written.

        A warning says if ``step`` was never called, or not often enough to record a step.
        """
        self._end()
        if self._is_idle:
            self._is_idle = False
            reason = (
                f"step() was called {self._step:,} times, and the schedule records from step "
                f"{self._schedule.first_active:,} on"
                if self._step
                else "step() was never called, so the schedule remained at step 0"
            )
            remedy = (
                "call step() at the end of the loop's body, and choose a schedule that it reaches"
            )
            logger.warning("profiler: %s: %s", reason, remedy)

    def _begin_step(self) -> None:
        phase = self._schedule.phase(self._step)
        if phase != self._phase:
            if self._phase is not None and self._phase.cycle != phase.cycle:
                self._end()
            self._phase = phase
            try:
                self._enter_phase(phase)
            except Exception as error:  # noqa: BLE001 - must not interrupt training
                self._session = None
                logger.warning("steps from %d on are not profiled: %s", self._step_number(), error)
        self._step_started = clock()

    def _enter_phase(self, phase: Phase) -> None:
        if phase.is_warm_up:
            self._session = self._make_session(self._step_number)
            self._session.warm_up()
        elif phase.is_active:
            if self._session is None:
                self._session = self._make_session(self._step_number)
            self._session.begin()

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.end()

    def _step_number(self) -> int:
        """Return the number of the step that begins: the script's number, if it marks steps."""
        return max(self._recorder.next_step, self._step)

    def _record_step(self) -> None:
        if self._recorder.recording is not None:
            self._recorder.thread().add(ProfilerMark(self._step), self._step_started, clock())
