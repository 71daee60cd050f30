"""``add_embedding`` of labelled points: caller's time, processor time and bytes on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks._measure import Target, interleave, less_than_the_best
from benchmarks._writers import OURS, PEERS, open_writer, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from benchmarks._measure import Figure

__all__ = ["embedding_time"]


class _Cost(NamedTuple):
    """The cost of one embedding.

    Attributes:
        caller: milliseconds that the call takes.
        processor: milliseconds of processor time in all threads, from the call to the closed file.
        size: megabytes on disk.
    """

    caller: float
    processor: float
    size: float


_FIGURES = {
    "caller": ("caller's time", "ms", Target(100, at_least=True)),
    "processor": ("all processor time", "ms", Target(20, at_least=True)),
    "size": ("bytes on disk", "MB", Target(2, at_least=True)),
}


def embedding_time(
    points: int = 10_000, dimensions: int = 128, rounds: int = 7, calls: int = 3
) -> list[Figure]:
    """Return the cost of an embedding for each writer; the others do all the work in the call.

    The writer is flushed after each embedding, as if a loop logged one now and then.
    """
    matrix = np.random.default_rng(0).standard_normal((points, dimensions), np.float32)
    labels = [f"class {number % 10}" for number in range(points)]
    costs: dict[str, list[_Cost]] = {name: [] for name in (OURS, *PEERS)}

    def log(name: str) -> float:
        costs[name].append(_cost(name, matrix, labels, calls))
        return costs[name][-1].caller

    interleave({name: partial(log, name) for name in costs}, rounds + 1)  # the first round imports
    what = f"add_embedding of {points:,} x {dimensions} float32 with labels"
    return [
        less_than_the_best(
            f"{what}, {title}",
            {name: [getattr(cost, field) for cost in found[1:]] for name, found in costs.items()},
            unit,
            OURS,
            target,
        )
        for field, (title, unit, target) in _FIGURES.items()
    ]


def _cost(name: str, matrix: npt.NDArray[np.float32], labels: Sequence[str], calls: int) -> _Cost:
    in_calls = 0.0
    with temporary_folder() as folder:
        writer = open_writer(name, folder)
        before = process_time()
        for step in range(calls):
            begun = perf_counter()
            writer.add_embedding(matrix, labels, global_step=step)
            in_calls += perf_counter() - begun
            writer.flush()
        writer.close()
        used = process_time() - before
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        _check(folder, len(labels), calls)
    return _Cost(in_calls / calls * 1e3, used / calls * 1e3, size / calls / 1e6)


def _check(folder: str, points: int, calls: int) -> None:
    """Check that a writer has written everything.

    Raises:
        ValueError: An embedding is not listed, or does not have one line per label.
    """
    listed = Path(folder, "projector_config.pbtxt").read_text(encoding="utf-8").count("tensor_name")
    lengths = [path.read_bytes().count(b"\n") for path in Path(folder).rglob("metadata.tsv")]
    if listed != calls or lengths != [points] * calls:
        message = f"{folder} lists {listed} embeddings instead of {calls}, with {lengths} labels"
        raise ValueError(message)
