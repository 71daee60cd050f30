"""``add_scalar``: caller's time, processor time and sustained rate."""

from __future__ import annotations

from functools import partial
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks._measure import Target, figure, interleave, less_than_the_best
from benchmarks._writers import (
    OURS,
    PEERS,
    check_records,
    log_rows,
    make_rows,
    open_writer,
    temporary_folder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks._measure import Figure

    Rows: TypeAlias = list[tuple[str, float, int]]

__all__ = ["caller_time", "processor_time", "sustained_rate"]

_CALLER_TARGETS = {1: Target(150, at_least=True), 50: Target(100, at_least=True)}
_PROCESSOR_TARGETS = {1: Target(60, at_least=True), 50: Target(40, at_least=True)}
_RATE_TARGETS = {1: Target(1_000_000, at_least=True), 50: None}


def caller_time(
    bursts: int = 31, calls: int = 5_000, tight_rounds: int = 5, tight_calls: int = 200_000
) -> list[Figure]:
    """Return the caller's time per call of ``add_scalar``.

    A burst resembles a training loop: some seconds' worth of calls, then a pause in which the rows
    are written, which is not timed. The targets apply to bursts. In a tight loop, the worker thread
    runs at the same time and takes its share of the interpreter. The time per call of the other
    writers does not depend on the number of calls, so they make a tenth of them in the tight loop.
    """
    figures = []
    for tags, target in _CALLER_TARGETS.items():
        samples = _caller_samples(bursts, dict.fromkeys((OURS, *PEERS), make_rows(calls, tags)))
        name = f"add_scalar, caller's time, {_tags(tags)}, bursts of {calls:,}"
        figures.append(less_than_the_best(name, samples, "µs", OURS, target))
    for tags in _CALLER_TARGETS:
        fewer = make_rows(tight_calls // 10, tags)
        rows = {OURS: make_rows(tight_calls, tags), **dict.fromkeys(PEERS, fewer)}
        samples = _caller_samples(tight_rounds, rows)
        name = f"add_scalar, caller's time, {_tags(tags)}, tight loop of {tight_calls:,}"
        figures.append(less_than_the_best(name, samples, "µs", OURS))
    return figures


def _caller_samples(rounds: int, rows: Mapping[str, Rows]) -> dict[str, list[float]]:
    """Return microseconds per call, by writer and round; the writers stay open throughout."""

    def burst(writer: Any, rows: Rows) -> float:
        begun = perf_counter()
        log_rows(writer, rows)
        took = perf_counter() - begun
        writer.flush()
        return took / len(rows) * 1e6

    with temporary_folder() as folder:
        writers = {name: open_writer(name, f"{folder}/{name}") for name in rows}
        contestants = {name: partial(burst, writer, rows[name]) for name, writer in writers.items()}
        interleave(contestants, 1)  # a writer's first call does extra work
        samples = interleave(contestants, rounds)
        for name, writer in writers.items():
            writer.close()
            check_records(f"{folder}/{name}", (rounds + 1) * len(rows[name]))
    return samples


def processor_time(
    rounds: int = 7, calls: int = 50_000, bursts: int = 25, burst_calls: int = 2_000
) -> list[Figure]:
    """Return the processor time per scalar, from the call to the closed file, in all threads.

    The targets apply to ``calls`` scalars at once. The other figures flush every ``burst_calls``
    scalars, which resembles the pace of a training loop: about that many rows arrive between two
    ticks of the worker thread, so a batch's fixed costs are spread over no more.
    """
    figures = []
    for tags, target in _PROCESSOR_TARGETS.items():
        samples = _processor_samples(rounds, make_rows(calls, tags), 1)
        name = f"add_scalar, all processor time, {_tags(tags)}, {calls:,} at once"
        figures.append(less_than_the_best(name, samples, "µs", OURS, target))
    for tags in _PROCESSOR_TARGETS:
        samples = _processor_samples(rounds, make_rows(burst_calls, tags), bursts)
        name = f"add_scalar, all processor time, {_tags(tags)}, flushed every {burst_calls:,}"
        figures.append(less_than_the_best(name, samples, "µs", OURS))
    return figures


def _processor_samples(rounds: int, rows: Rows, bursts: int) -> dict[str, list[float]]:
    """Return microseconds of processor time per scalar, by writer and round."""
    count = bursts * len(rows)

    def write(name: str) -> float:
        with temporary_folder() as folder:
            writer = open_writer(name, folder)
            begun = process_time()
            for _ in range(bursts):
                log_rows(writer, rows)
                writer.flush()
            writer.close()
            used = process_time() - begun
            check_records(folder, count)
        return used / count * 1e6

    contestants = {name: partial(write, name) for name in (OURS, *PEERS)}
    interleave(contestants, 1)  # imports
    return interleave(contestants, rounds)


def sustained_rate(
    rounds: int = 5, calls: int = 2_000_000, peer_calls: int = 20_000
) -> list[Figure]:
    """Return how many scalars per second a tight loop can write, up to the closed file.

    The rate of the other writers does not depend on the number of scalars, so they write fewer.
    """
    figures = []
    for tags, target in _RATE_TARGETS.items():
        fewer = make_rows(peer_calls, tags)
        rows = {OURS: make_rows(calls, tags), **dict.fromkeys(PEERS, fewer)}
        contestants = {name: partial(_rate, name, rows[name]) for name in rows}
        samples = interleave(contestants, rounds)
        name = f"sustained rate, {_tags(tags)}, {calls:,} scalars"
        figures.append(figure(name, samples, "/s", samples[OURS], "/s", target))
    return figures


def _rate(name: str, rows: Rows) -> float:
    with temporary_folder() as folder:
        writer = open_writer(name, folder)
        begun = perf_counter()
        log_rows(writer, rows)
        writer.close()
        took = perf_counter() - begun
        check_records(folder, len(rows))
    return len(rows) / took


def _tags(count: int) -> str:
    return "1 tag" if count == 1 else f"{count} tags"
