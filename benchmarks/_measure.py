"""Interleaved measurement, medians and confidence intervals."""

from __future__ import annotations

import gc
import math
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Figure", "Target", "figure", "interleave", "less_than_the_best"]


class Target(NamedTuple):
    """The target for a result.

    Attributes:
        bound: the limit, in the result's unit.
        at_least: whether higher is better.
    """

    bound: float
    at_least: bool

    def is_met_by(self, result: float) -> bool:
        """Return whether the result is as good as the bound."""
        return result >= self.bound if self.at_least else result <= self.bound


class Figure(NamedTuple):
    """The result of one measurement.

    Attributes:
        name: what was measured.
        unit: the unit of ``medians``.
        medians: absolute figures, by contestant or condition.
        result: the ratio or other number that the target applies to.
        result_unit: the unit of ``result``; "x" for a ratio.
        interval: the 95 % confidence interval of ``result``.
        target: None if the figure only explains another one.
        note: details that have no column in the table.
    """

    name: str
    unit: str
    medians: Mapping[str, float]
    result: float
    result_unit: str
    interval: tuple[float, float]
    target: Target | None = None
    note: str = ""


def interleave(
    contestants: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Return each contestant's results, by round.

    Each round begins with a different contestant, so that none is always first.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            samples[name].append(contestants[name]())
    return samples


def interval_of_median(samples: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median: two of the samples, by rank.

    It makes no assumption about the distribution. Below six samples, it is their full range.
    """
    ordered = sorted(samples)
    count = len(ordered)
    low = max(math.floor(count / 2 - 0.98 * math.sqrt(count)), 0)
    return ordered[low], ordered[count - 1 - low]


def figure(
    name: str,
    samples: Mapping[str, Sequence[float]],
    unit: str,
    results: Sequence[float],
    result_unit: str = "x",
    target: Target | None = None,
    note: str = "",
) -> Figure:
    """Return a figure from absolute samples and from the result of each round."""
    return Figure(
        name,
        unit,
        {who: median(figures) for who, figures in samples.items()},
        median(results),
        result_unit,
        interval_of_median(results),
        target,
        note,
    )


def less_than_the_best(
    name: str,
    samples: Mapping[str, Sequence[float]],
    unit: str,
    ours: str,
    target: Target | None = None,
) -> Figure:
    """Return how many times less ours is than the best of the others, compared round by round."""
    best = min((who for who in samples if who != ours), key=lambda who: median(samples[who]))
    ratios = [theirs / own for theirs, own in zip(samples[best], samples[ours], strict=True)]
    return figure(name, samples, unit, ratios, "x", target)
