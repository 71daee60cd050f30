"""Spans and sessions: the cost of a span, and how much a session slows down a real loop."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from functools import partial
from threading import Event, Thread
from time import process_time, thread_time_ns
from typing import TYPE_CHECKING, Any

from benchmarks._measure import Target, figure, interleave
from benchmarks._writers import temporary_folder
from benchmarks.training import training_step
from sm_tblog import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks._measure import Figure

__all__ = ["session_overhead", "span_time"]

_RECORDED_TARGET = Target(700, at_least=False)
_IDLE_TARGET = Target(250, at_least=False)
_STEP_TARGET = Target(20, at_least=False)
_SPANS_TARGET = Target(0.5, at_least=False)
_SAMPLER_TARGET = Target(2, at_least=False)

_SESSIONS: dict[str, dict[str, Any]] = {
    "spans": {"torch": False},
    "the sampler": {"torch": False, "python": "sample"},
    "PyTorch's profiler": {"torch": True},
}
"""Arguments of ``profile``."""


def span_time(rounds: int = 31, calls: int = 10_000) -> list[Figure]:
    """Return the nanoseconds of an empty span: recorded, within a step, and idle.

    This is the processor time of the thread that marks the span, because other load on the machine
    would drown out such a short time. The time of an empty loop is subtracted.

    ``torch.profiler.record_function`` is measured too, while no profiler runs. The figure for a
    step is in microseconds, and includes a span for the wait and the step's scalars.
    """
    from torch.profiler import record_function

    with temporary_folder() as folder, Writer(folder) as writer:
        timed = partial(_ns_of_spans, writer, calls)
        contestants: dict[str, Callable[[], float]] = {
            "recorded": lambda: timed(writer.profile(torch=False, jax=False, tensorflow=False)),
            "of a step": lambda: timed(writer.step_span()),
            "idle": lambda: timed(nullcontext()),
            "record_function": partial(_ns_of, lambda: record_function("forward"), calls),
        }
        interleave(contestants, 1)
        samples = interleave(contestants, rounds)
        steps = [_ns_of_steps(writer, calls // 10) / 1e3 for _ in range(rounds)]
    figures = []
    for name, target in (("recorded", _RECORDED_TARGET), ("of a step", None)):
        found = samples[name]
        figures.append(figure(f"span, {name}", {name: found}, "ns", found, "ns", target))
    both = {name: samples[name] for name in ("idle", "record_function")}
    figures.append(figure("span, idle", both, "ns", samples["idle"], "ns", _IDLE_TARGET))
    figures.append(figure("step of track", {"step": steps}, "µs", steps, "µs", _STEP_TARGET))
    return figures


def _ns_of_spans(writer: Any, calls: int, around: AbstractContextManager[Any]) -> float:
    with around:
        return _ns_of(lambda: writer.span("forward", kind="compute"), calls, writer)


def _ns_of(make: Callable[[], Any], calls: int, writer: Any = None) -> float:
    """Return the nanoseconds of an empty ``with`` block, minus those of an empty loop."""
    numbers = range(calls)
    begun = thread_time_ns()
    if writer is None:
        for _ in numbers:
            with make():
                pass
    else:  # as in a script, without an extra call in between
        for _ in numbers:
            with writer.span("forward", kind="compute"):
                pass
    took = thread_time_ns() - begun
    begun = thread_time_ns()
    for _ in numbers:
        pass
    return (took - (thread_time_ns() - begun)) / calls


def _ns_of_steps(writer: Any, steps: int) -> float:
    begun = thread_time_ns()
    for _ in writer.track(range(steps)):
        pass
    took = thread_time_ns() - begun
    writer.flush()
    return took / steps


def session_overhead(rounds: int = 40, steps: int = 150, seconds: float = 1.0) -> list[Figure]:
    """Return by how many percent a session increases the processor time of a PyTorch loop.

    The loop is that of ``training``, with about 7 ms per step. The time covers all threads, from
    before the session is opened until its file is written. Blocks of steps without and with a
    session alternate, and each is compared with its neighbour. A session marks its steps and two
    spans in each. The last figures are less noisy: the processor time of steps and spans alone, as
    a share of the loop's, and the processor time of the sampler.
    """
    step = training_step()
    silent: dict[str, list[float]] = {kind: [] for kind in _SESSIONS}
    recorded: dict[str, list[float]] = {kind: [] for kind in _SESSIONS}
    turns = itertools.count()
    with temporary_folder() as folder, Writer(folder) as writer:
        for kind, options in _SESSIONS.items():  # imports, and a profiler's slow first start
            _with_session(writer, step, 1, options)
            for _ in range(rounds):
                without = partial(_block, step, steps)
                with_it = partial(_with_session, writer, step, steps, options)
                pair = (silent[kind], without), (recorded[kind], with_it)
                for samples, measure in pair if next(turns) % 2 else reversed(pair):
                    samples.append(measure())
        rest = [_sampler_share(writer, seconds) for _ in range(rounds)]
        own = [_with_session(writer, float, 500, _SESSIONS["spans"]) for _ in range(rounds)]
    figures = []
    for kind in _SESSIONS:
        more = [(a / b - 1) * 100 for a, b in zip(recorded[kind], silent[kind], strict=True)]
        both = {"without": silent[kind], "with": recorded[kind]}
        name = f"training loop, session with {kind}: extra processor time"
        figures.append(figure(name, both, "ms per step", more, "%"))
    shares = [a / b * 100 for a, b in zip(own, silent["spans"], strict=True)]
    name = "training loop, spans of a session: their processor time"
    figures.append(figure(name, {"spans": own}, "ms per step", shares, "%", _SPANS_TARGET))
    name = "sampler, share of a core, with idle threads"
    return [*figures, figure(name, {"sampler": rest}, "%", rest, "%", _SAMPLER_TARGET)]


def _sampler_share(writer: Any, seconds: float) -> float:
    """Return the percentage of a core that the sampler uses, with five idle threads."""
    ended = Event()
    threads = [Thread(target=ended.wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    with writer.profile(python="sample", torch=False, jax=False, tensorflow=False):
        begun = process_time()
        ended.wait(seconds)
        used = process_time() - begun
    ended.set()
    for thread in threads:
        thread.join()
    writer.flush()
    return used / seconds * 100


def _block(step: Callable[[], float], steps: int) -> float:
    """Return the milliseconds of processor time per step."""
    begun = process_time()
    for _ in range(steps):
        step()
    return (process_time() - begun) / steps * 1e3


def _with_session(
    writer: Any, step: Callable[[], float], steps: int, options: dict[str, Any]
) -> float:
    """Return the same, with a session around the steps, until its file is written."""
    begun = process_time()
    with writer.profile(jax=False, tensorflow=False, **options):
        for _ in range(steps):
            with writer.step_span():
                with writer.span("wait", kind="input"):
                    pass
                with writer.span("train", kind="compute"):
                    step()
    writer.flush()
    return (process_time() - begun) / steps * 1e3
