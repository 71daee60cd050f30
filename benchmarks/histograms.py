"""``add_histogram`` of a million float32: caller's time and processor time."""

from __future__ import annotations

from functools import partial
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._measure import Target, figure, interleave, less_than_the_best
from benchmarks._writers import OURS, PEERS, check_records, open_writer, temporary_folder

if TYPE_CHECKING:
    import numpy.typing as npt

    from benchmarks._measure import Figure

__all__ = ["histogram_time"]

_CALLER_TARGET = Target(1.3, at_least=False)
_PROCESSOR_TARGET = Target(4, at_least=True)


def histogram_time(
    size: int = 1_000_000, caller_rounds: int = 31, rounds: int = 9, calls: int = 5
) -> list[Figure]:
    """Return the caller's time in copies of the array, and the processor time of each writer.

    Processor time covers all threads, from the call to the closed file. The writer is flushed after
    each histogram, as if a loop logged one now and then, so that the next one can reuse its memory.
    """
    values = np.random.default_rng(0).standard_normal(size, np.float32)
    what = f"add_histogram of {size:,} float32"
    samples = _caller_samples(caller_rounds, values)
    copies = [own / one for own, one in zip(*samples.values(), strict=True)]
    name = f"{what}, caller's time, in copies of the array"
    caller = figure(name, samples, "ms", copies, "x", _CALLER_TARGET)

    contestants = {name: partial(_processor_time, name, values, calls) for name in (OURS, *PEERS)}
    interleave(contestants, 1)  # imports
    samples = interleave(contestants, rounds)
    name = f"{what}, all processor time"
    return [caller, less_than_the_best(name, samples, "ms", OURS, _PROCESSOR_TARGET)]


def _caller_samples(rounds: int, values: npt.NDArray[np.float32]) -> dict[str, list[float]]:
    """Return milliseconds of a call and of a copy, by round; the counting is not timed."""

    def copy() -> float:
        begun = perf_counter()
        copied = values.copy()
        took = perf_counter() - begun
        del copied
        return took * 1e3

    with temporary_folder() as folder:
        writer = open_writer(OURS, folder)

        def call() -> float:
            begun = perf_counter()
            writer.add_histogram("weights", values, 0)
            took = perf_counter() - begun
            writer.flush()
            return took * 1e3

        contestants = {OURS: call, "ndarray.copy": copy}
        interleave(contestants, 3)  # the allocator gets its memory from the system
        samples = interleave(contestants, rounds)
        writer.close()
        check_records(folder, rounds + 3)
    return samples


def _processor_time(name: str, values: npt.NDArray[np.float32], calls: int) -> float:
    """Return milliseconds of processor time per histogram."""
    with temporary_folder() as folder:
        writer = open_writer(name, folder)
        begun = process_time()
        for step in range(calls):
            writer.add_histogram("weights", values, step)
            writer.flush()
        writer.close()
        used = process_time() - begun
        check_records(folder, calls)
    return used / calls * 1e3
