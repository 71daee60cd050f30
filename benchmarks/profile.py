"""Spans and sessions: what a span costs, and by how much a session slows a real loop."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from functools import partial
from time import perf_counter, process_time, thread_time_ns
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
_SAMPLER_TARGET = Target(3, at_least=False)


def span_time(rounds: int = 31, calls: int = 10_000) -> list[Figure]:
    """Return nanoseconds of a span with nothing in it: recorded, within a step, and idle.

    They are the processor time of the thread that marks it, for so short a time is soon drowned by
    what else the machine does.

    An empty loop's time is taken off. Beside it ``torch.profiler.record_function``, when no
    profiler runs. Of a step, it is microseconds, with a span for the wait and its scalars.
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
    """Return nanoseconds of an empty ``with`` block, an empty loop's taken off."""
    numbers = range(calls)
    begun = thread_time_ns()
    if writer is None:
        for _ in numbers:
            with make():
                pass
    else:  # as a script writes it, without another call in between
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


def session_overhead(rounds: int = 40, block_seconds: float = 1.0) -> list[Figure]:
    """Return by how many percent sessions slow a PyTorch loop of about 7 ms a step.

    Blocks of steps without and with a session alternate, and each is compared with its neighbour.
    A session marks its steps and three spans in each. It is opened and closed outside of what is
    timed; making its file is the worker's, and is waited for between blocks. The second figure has
    less noise: the processor time of spans and steps by themselves, as a share of the loop's.
    """
    step = training_step()
    kinds: dict[str, dict[str, Any]] = {
        "spans": {"torch": False},
        "sampler": {"torch": False, "python": "sample"},
        "PyTorch's profiler": {"torch": True},
    }
    silent: dict[str, list[float]] = {kind: [] for kind in kinds}
    recorded: dict[str, list[float]] = {kind: [] for kind in kinds}
    turns = itertools.count()
    with temporary_folder() as folder, Writer(folder) as writer:
        for _ in range(rounds):
            for kind, options in kinds.items():
                with_first = next(turns) % 2
                for with_it in (with_first, not with_first):
                    if with_it:
                        found = _recorded_block(writer, step, block_seconds, options)
                        recorded[kind].append(found)
                    else:
                        silent[kind].append(_block(step, block_seconds))
        own = [_own_time(writer) for _ in range(rounds)]
    figures = []
    targets = {"sampler": _SAMPLER_TARGET}
    for kind in kinds:
        slower = [(a / b - 1) * 100 for a, b in zip(recorded[kind], silent[kind], strict=True)]
        samples = {"without": silent[kind], "with": recorded[kind]}
        name = f"training loop, a session with {kind}: slower by"
        figures.append(figure(name, samples, "ms a step", slower, "%", targets.get(kind)))
    shares = [a / b * 100 for a, b in zip(own, silent["spans"], strict=True)]
    name = "training loop, a session's spans: processor time"
    figures.append(figure(name, {"spans": own}, "ms a step", shares, "%", _SPANS_TARGET))
    return figures


def _block(step: Callable[[], float], seconds: float) -> float:
    """Return milliseconds of a step."""
    steps = 0
    begun = now = perf_counter()
    while now < begun + seconds:
        step()
        steps += 1
        now = perf_counter()
    return (now - begun) / steps * 1e3


def _recorded_block(
    writer: Any, step: Callable[[], float], seconds: float, options: dict[str, Any]
) -> float:
    def marked_step() -> float:
        with writer.step_span():
            with writer.span("wait", kind="input"):
                pass
            with writer.span("train", kind="compute"):
                loss = step()
            with writer.span("log"):
                pass
        return loss

    with writer.profile(jax=False, tensorflow=False, **options):
        took = _block(marked_step, seconds)
    writer.flush()
    return took


def _own_time(writer: Any, steps: int = 500) -> float:
    """Return milliseconds of processor time of a step's marks, to the file, in all threads."""
    begun = process_time()
    with writer.profile(torch=False, jax=False, tensorflow=False):
        for _ in range(steps):
            with writer.step_span():
                for _ in range(3):
                    with writer.span("train", kind="compute"):
                        pass
    writer.flush()
    return (process_time() - begun) / steps * 1e3
