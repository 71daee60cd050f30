"""Steps of a training loop, and the scalars that tell how long they took and on what.

====================================  =============================================================
``profile/step_time_ms``              the time of a step
``profile/<kind>_ms``                 the step's time in spans of a kind, for each kind that
                                      occurred: ``profile/input_ms`` is the wait for data
``profile/examples_per_s``            throughput, where it is known how many examples a step has;
``profile/steps_per_s``               else this
====================================  =============================================================

They are logged whether a session is open or not, and are all that a dashboard needs to show that a
loop waits for its input. Each costs what ``add_scalar`` costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

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


class StepSpan:
    """A step of the training loop; a context manager, for one ``with`` block.

    Within a step of the same thread it is a span like any other: the validation within a training
    step is a part of that step.

    Args:
        recorder: the writer's.
        log: called with scalars by tag, and the step's number.
        number: of the step.
        examples: how many examples it trains with; None if that is not known.
        log_every: how many steps a point of the scalars is the mean of.
    """

    __slots__ = ("_examples", "_log", "_log_every", "_recorder", "_thread", "begun", "number")

    def __init__(
        self,
        recorder: Recorder,
        log: Log,
        number: int,
        examples: int | None = None,
        log_every: int = 1,
    ) -> None:
        self.number = number
        self.begun = 0
        self._recorder = recorder
        self._log = log
        self._examples = examples
        self._log_every = log_every
        self._thread: ThreadRecorder | None = None

    def __enter__(self) -> Self:
        """Begin."""
        recorder = self._recorder
        recorder.count_step(1)
        self._thread = thread = recorder.thread()
        if thread.step is None:
            thread.step = self
            recorder.next_step = self.number + 1
            for of_kind in thread.sums.values():
                of_kind.total = 0
        self.begun = clock()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """End, and log the scalars."""
        now = clock()
        thread = self._leave()
        if thread is None:
            return
        if thread.step is not self:
            thread.add(_NESTED, self.begun, now)
            return
        thread.step = None
        thread.add(self.number, self.begun, now)
        scalars = _scalars(thread, now - self.begun, self._examples, self._log_every)
        if scalars:
            self._log(scalars, self.number)

    def cancel(self) -> None:
        """End as if there had been no step."""
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
    thread: ThreadRecorder, took: int, examples: int | None, log_every: int
) -> dict[str, float]:
    """Count a step; return the means over the last ones, if there are so many, and begin anew."""
    thread.steps += 1
    thread.step_ns += took
    known = examples is not None and thread.examples is not None
    thread.examples = thread.examples + examples if known else None  # type: ignore[operator] # known
    for of_kind in thread.sums.values():
        of_kind.logged += of_kind.total
    if thread.steps < log_every:
        return {}
    steps, total = thread.steps, max(thread.step_ns, 1)
    scalars = {"profile/step_time_ms": total / steps / 1e6}
    for kind, of_kind in thread.sums.items():
        scalars[f"profile/{kind}_ms"] = of_kind.logged / steps / 1e6
        of_kind.logged = 0
    if thread.examples is None:
        scalars["profile/steps_per_s"] = steps / total * 1e9
    else:
        scalars["profile/examples_per_s"] = thread.examples / total * 1e9
    thread.steps = thread.step_ns = 0
    thread.examples = 0
    return scalars


class Tracked(Generic[T]):
    """A loop's batches, of which each makes a step: the wait for it, and what the loop does then.

    Args:
        batches: anything that can be iterated over, as often as this is.
        begin_step: returns the next step, begun.
        wait: returns the span of the wait.
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
        """Return how many batches there are, if their source knows."""
        return len(self._batches)  # type: ignore[arg-type] # raises what it raises

    def __iter__(self) -> Iterator[T]:
        """Iterate over the batches."""
        source: Iterator[T] | None = None
        while True:
            step = self._begin_step()
            try:
                with self._wait():
                    # Making the iterator may start processes: it is part of the first wait.
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
            finally:  # also where the loop is left by break, return or an exception
                step.__exit__(None, None, None)
