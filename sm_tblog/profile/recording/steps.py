"""Steps of a training loop, and the scalars that show where their time goes.

====================================  =============================================================
``profile/step_time_ms``              the duration of a step
``profile/<kind>_ms``                 the step's time in spans of a kind, for each kind that
                                      occurred: ``profile/input_ms`` is the wait for data
``profile/examples_per_s``            the throughput, if the number of examples per step is known
``profile/steps_per_s``               the throughput otherwise
====================================  =============================================================

They are logged whether or not a session is open. They are enough for a dashboard to show that a
loop waits for its input. Each costs as much as ``add_scalar``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sm_tblog._compilation import uncompiled
from sm_tblog.profile.recording.marks import SpanMark, clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

    from sm_tblog.profile.recording.spans import Recorder, ThreadRecorder

    Log = Callable[[dict[str, float], int], None]

__all__ = ["StepSpan", "Tracked"]

T = TypeVar("T")

WAIT = "wait for input"
"""The name of the span in which ``track`` waits for a batch."""

_NESTED = SpanMark("step", None)


@uncompiled
class StepSpan:
    """A step of the training loop; a context manager, for one ``with`` block.

    Within another step of the same thread it is an ordinary span: validation within a training step
    is part of that step.

    Args:
        recorder: the writer's recorder.
        log: called with the scalars by tag and the step number.
        number: the step number.
        examples: the number of examples in the step; None if unknown.
        log_every: the number of steps whose mean makes one point of the scalars.
    """

    __slots__ = ("_examples", "_log", "_log_every", "_recorder", "_thread", "number", "started")

    def __init__(
        self,
        recorder: Recorder,
        log: Log,
        number: int,
        examples: int | None = None,
        log_every: int = 1,
    ) -> None:
        self.number = number
        self.started = 0
        self._recorder = recorder
        self._log = log
        self._examples = examples
        self._log_every = log_every
        self._thread: ThreadRecorder | None = None

    def __enter__(self) -> Self:
        """Begin the step."""
        recorder = self._recorder
        recorder.count_step(1)
        self._thread = thread = recorder.thread()
        if thread.step is None:
            thread.step = self
            recorder.next_step = self.number + 1
            for kind_sum in thread.sums.values():
                kind_sum.total = 0
        self.started = clock()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """End the step, and log the scalars."""
        now = clock()
        thread = self._leave()
        if thread is None:
            return
        if thread.step is not self:
            thread.add(_NESTED, self.started, now)
            return
        thread.step = None
        thread.add(self.number, self.started, now)
        scalars = _scalars(thread, now - self.started, self._examples, self._log_every)
        if scalars:
            self._log(scalars, self.number)

    def cancel(self) -> None:
        """End the step and discard it."""
        thread = self._leave()
        if thread is not None and thread.step is self:
            thread.step = None
            self._recorder.next_step = self.number

    def _leave(self) -> ThreadRecorder | None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._recorder.count_step(-1)
        return thread


def _scalars(
    thread: ThreadRecorder, duration: int, examples: int | None, log_every: int
) -> dict[str, float]:
    """Count a step. Every ``log_every`` steps, return their means and reset the counts."""
    thread.steps += 1
    thread.step_ns += duration
    known = examples is not None and thread.examples is not None
    thread.examples = thread.examples + examples if known else None  # type: ignore[operator] # known
    for kind_sum in thread.sums.values():
        kind_sum.pending += kind_sum.total
    if thread.steps < log_every:
        return {}
    steps, total = thread.steps, max(thread.step_ns, 1)
    scalars = {"profile/step_time_ms": total / steps / 1e6}
    for kind, kind_sum in thread.sums.items():
        scalars[f"profile/{kind}_ms"] = kind_sum.pending / steps / 1e6
        kind_sum.pending = 0
    if thread.examples is None:
        scalars["profile/steps_per_s"] = steps / total * 1e9
    else:
        scalars["profile/examples_per_s"] = thread.examples / total * 1e9
    thread.steps = thread.step_ns = 0
    thread.examples = 0
    return scalars


@uncompiled
class Tracked(Generic[T]):
    """An iterable of batches that marks steps: the wait for a batch, and the loop's body.

    Args:
        batches: an iterable. This object can be iterated over as many times as ``batches``.
        begin_step: begins the next step and returns it.
        wait: returns the span for the wait.
    """

    def __init__(
        self,
        batches: Iterable[T],
        begin_step: Callable[[], StepSpan],
        wait: Callable[[], Any],
    ) -> None:
        self._batches = batches
        self._begin_step = begin_step
        self._wait = wait

    def __len__(self) -> int:
        """Return the number of batches, if ``batches`` has a length."""
        return len(self._batches)  # type: ignore[arg-type] # its TypeError is wanted

    def __iter__(self) -> Iterator[T]:
        """Iterate over the batches."""
        source: Iterator[T] | None = None
        while True:
            step = self._begin_step()
            try:
                with self._wait():
                    # Creating the iterator may start processes: it is part of the first wait.
                    source = iter(self._batches) if source is None else source
                    batch = next(source)
            except StopIteration:
                step.cancel()
                return
            except BaseException:
                step.cancel()
                raise
            try:
                yield batch
            finally:  # also if break, return or an exception ends the loop
                step.__exit__(None, None, None)
