"""``add_figure`` of a typical figure: caller's time, processor time and bytes on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks._measure import Target, interleave, less_than_the_best
from benchmarks._writers import OURS, PEERS, check_records, open_writer, temporary_folder

if TYPE_CHECKING:
    from benchmarks._measure import Figure

__all__ = ["figure_time"]

_CALLER_TARGET = Target(1.2, at_least=True)
_PROCESSOR_TARGET = Target(1.05, at_least=True)
_BYTES_TARGET = Target(0.9, at_least=True)


def figure_time(rounds: int = 15, calls: int = 4) -> list[Figure]:
    """Return the three costs for each writer, per figure of 640 by 480 pixels.

    Creating the figure is not counted. Drawing it is; all writers draw during the call. Processor
    time covers all threads, from the call to the closed file.
    """
    _samples("call", 1, calls)  # imports, fonts
    return [
        less_than_the_best(name, _samples(what, turns, calls), unit, OURS, target)
        for name, what, turns, unit, target in (
            ("add_figure, caller's time", "call", rounds, "ms", _CALLER_TARGET),
            ("add_figure, all processor time", "processor", rounds, "ms", _PROCESSOR_TARGET),
            ("add_figure, bytes on disk", "bytes", 1, "bytes", _BYTES_TARGET),
        )
    ]


class _Cost(NamedTuple):
    """The cost of a figure: milliseconds of the call and of processor time, and bytes."""

    call: float
    processor: float
    bytes: float


def _samples(what: str, rounds: int, calls: int) -> dict[str, list[float]]:
    def measure(name: str) -> float:
        cost: float = getattr(_cost(name, calls), what)
        return cost

    return interleave({name: partial(measure, name) for name in (OURS, *PEERS)}, rounds)


def _cost(name: str, calls: int) -> _Cost:
    """Return the average cost of a figure over ``calls`` calls."""
    figures = [_make_figure(seed) for seed in range(calls)]
    with temporary_folder() as folder:
        writer = open_writer(name, folder)
        begun, processor = perf_counter(), process_time()
        for step, figure in enumerate(figures):
            writer.add_figure("figure", figure, step)
        called = perf_counter() - begun
        writer.close()
        used = process_time() - processor
        check_records(folder, calls)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return _Cost(called / calls * 1e3, used / calls * 1e3, size / calls)


def _make_figure(seed: int) -> Any:
    """Return two curves with a grid, a legend and titles."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    noise = np.random.default_rng(seed).normal(0, 0.05, (2, 200))
    x = np.linspace(0, 10, 200)
    figure, axes = plt.subplots()
    axes.plot(x, np.exp(-x / 3) + noise[0], label="train")
    axes.plot(x, np.exp(-x / 4) + 0.1 + noise[1], label="validation")
    axes.set(title="Loss", xlabel="epoch", ylabel="cross entropy")
    axes.grid(visible=True)
    axes.legend()
    return figure
