"""Sessions that a training loop opens and closes by counting its steps."""

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
    """What opens and closes sessions as a schedule says; a context manager.

    Args:
        schedule: which steps are profiled.
        make_session: returns a session, not open yet; called with a function that returns the
            number of its first step, when that begins.
        recorder: the writer's.
    """

    def __init__(
        self,
        schedule: Schedule,
        make_session: Callable[[Callable[[], int]], Session],
        recorder: Recorder,
    ) -> None:
        self._schedule = schedule
        self._make_session = make_session
        self._recorder = recorder
        self._session: Session | None = None
        self._phase: Phase | None = None
        self._step = 0
        self._begun = 0

    @property
    def session(self) -> str:
        """The name of the session that is open, "" if none is."""
        return "" if self._session is None else self._session.name

    def __enter__(self) -> Self:
        """Begin the first step."""
        self._begin_step()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the session that is open, if one is."""
        self.close()

    def step(self) -> None:
        """Say that a step has ended, as the last thing in the loop.

        What goes wrong does not stop the training: a session that cannot be opened is left out,
        and that is said.
        """
        if self._phase is None:  # there was no with block
            self._begin_step()
        self._mark()
        self._step += 1
        self._begin_step()

    def close(self) -> None:
        """Close the session that is open, if one is. The steps that it has are written."""
        self._end()

    def _begin_step(self) -> None:
        phase = self._schedule.phase(self._step)
        if phase != self._phase:
            if self._phase is not None and self._phase.cycle != phase.cycle:
                self._end()
            self._phase = phase
            try:
                self._change(phase)
            except Exception as error:  # noqa: BLE001 - any profiler's fault costs no training
                self._session = None
                logger.warning("steps from %d on are not profiled: %s", self._number(), error)
        self._begun = clock()

    def _change(self, phase: Phase) -> None:
        if phase.is_warm_up:
            self._session = self._make_session(self._number)
            self._session.warm_up()
        elif phase.is_active:
            if self._session is None:
                self._session = self._make_session(self._number)
            self._session.begin()

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.end()

    def _number(self) -> int:
        """Return the number of the step that begins: the script's, if it marks steps."""
        return max(self._recorder.next_step, self._step)

    def _mark(self) -> None:
        if self._recorder.recording is not None:
            self._recorder.thread().add(ProfilerMark(self._step), self._begun, clock())
