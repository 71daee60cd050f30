"""Kineto traces as sessions: the cost of the trace handler and the speed of the conversion."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import process_time, thread_time
from typing import TYPE_CHECKING, Any

from benchmarks._measure import Target, figure, interleave, less_than_the_best
from benchmarks._writers import OURS, temporary_folder
from sm_tblog import Writer, import_trace, torch_trace_handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._measure import Figure

__all__ = ["trace_handler", "trace_import"]

_CALLER_TARGET = Target(50, at_least=True)
_RATE_TARGET = Target(25_000, at_least=True)


def trace_handler(rounds: int = 15, operators: int = 20_000) -> list[Figure]:
    """Return the caller's cost of ``on_trace_ready``, ours and PyTorch's TensorBoard handler.

    This is the processor time of the calling thread, because other threads are busy meanwhile.
    PyTorch's handler writes the trace in the call. Ours leaves it to the worker thread, which also
    converts it. The second figure is the processor time of all threads, until the file is stored.
    """
    from torch.profiler import tensorboard_trace_handler

    caller: dict[str, list[float]] = {OURS: [], "torch": []}
    used: dict[str, list[float]] = {OURS: [], "torch": []}

    def hand_over(name: str) -> float:
        with temporary_folder() as folder, Writer(folder) as writer:
            make = tensorboard_trace_handler
            handler = torch_trace_handler(writer) if name == OURS else make(folder)
            profile = _profiled(operators)
            writer.add_scalar("loss", 1, 0)
            writer.flush()
            before, begun = process_time(), thread_time()
            handler(profile)
            caller[name].append((thread_time() - begun) * 1e3)
            writer.flush()
            used[name].append((process_time() - before) * 1e3)
            _check(folder, "*.xplane.pb" if name == OURS else "*.pt.trace.json", operators)
        return caller[name][-1]

    interleave({name: partial(hand_over, name) for name in caller}, rounds)
    what = f"trace handler, {operators:,} operators"
    ratios = [own / theirs for own, theirs in zip(used[OURS], used["torch"], strict=True)]
    return [
        less_than_the_best(f"{what}, caller's processor time", caller, "ms", OURS, _CALLER_TARGET),
        figure(
            f"{what}, all processor time", used, "ms", ratios, "x",
            note="ours converts the trace for the Profile tab, which cannot read PyTorch's",
        ),
    ]  # fmt: skip


def trace_import(rounds: int = 9, operators: int = 50_000) -> list[Figure]:
    """Return how many events are converted per second of processor time.

    The trace includes input shapes and allocations, which PyTorch only writes on request.
    """
    rates = []
    with temporary_folder() as folder:
        trace = Path(folder, "trace.json")
        _profiled(operators, record_shapes=True, profile_memory=True).export_chrome_trace(
            str(trace)
        )
        events = trace.read_bytes().count(b'"ph":')
        for number in range(rounds):
            before = process_time()
            import_trace(folder, trace, f"session {number}")
            rates.append(events / (process_time() - before))
            _check(folder, "*.xplane.pb", operators)
    named = {OURS: rates}
    name = f"import of a trace with {events:,} events, events per second of processor time"
    return [figure(name, named, "/s", rates, "/s", _RATE_TARGET)]


def _profiled(operators: int, **options: Any) -> Any:
    """Return a profiler that has recorded about this many operators."""
    import torch

    x = torch.ones(4, 4)
    add: Callable[[Any, Any], Any] = torch.add
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, **options) as profile:
        for _ in range(operators):
            add(x, x)
    return profile


def _check(folder: str, pattern: str, operators: int) -> None:
    """Check that a session or trace is complete.

    Raises:
        ValueError: A file is missing, or too small to contain all operators.
    """
    sizes = [path.stat().st_size for path in Path(folder).rglob(pattern)]
    if not sizes or min(sizes) < 10 * operators:
        message = f"{folder} has no session with {operators:,} operators; sizes: {sizes}"
        raise ValueError(message)
