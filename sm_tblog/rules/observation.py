"""What is known of a model at one step: what rules judge, and what is logged of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EPSILON", "KINDS", "Observation", "ObservedTensor", "Statistics", "UpdateStatistics"]

EPSILON = 1e-9
"""Added to a norm that is divided by."""

KINDS = ("gradients", "parameters", "updates", "activations")
"""What can be watched."""


class Statistics(NamedTuple):
    """What is said of an array.

    Attributes:
        size: how many values it has.
        mean: of them.
        std: their standard deviation, of the population.
        abs_mean: the mean of their magnitudes.
        norm: the square root of the sum of their squares.
        min: the smallest.
        max: the largest.
        zeros: the share of them that is zero, 0 to 1.
        nan: how many are NaN.
        inf: how many are infinite.
    """

    size: int
    mean: float
    std: float
    abs_mean: float
    norm: float
    min: float
    max: float
    zeros: float
    nan: int
    inf: int


class UpdateStatistics(NamedTuple):
    """What an update does to an array.

    Attributes:
        norm: of the update.
        of: the norm of what it is added to.
        changed: the share of the elements that it changes, 0 to 1. An element counts as
            unchanged where ``numpy.isclose`` says so.
    """

    norm: float
    of: float
    changed: float

    @property
    def ratio(self) -> float:
        """The update's norm by the array's."""
        return self.norm / (self.of + EPSILON)


class ObservedTensor(NamedTuple):
    """One array of a model at one step.

    Attributes:
        kind: one of ``KINDS``.
        name: of the parameter, or of the layer whose output it is.
        ndim: how many dimensions it has.
        role: what it is, as far as that is known: ``"embedding"``, of a parameter; ``"weighted"``,
            ``"relu"``, ``"tanh"``, ``"sigmoid"``, of an output.
        statistics: of its values; None of an update.
        change: what an update does; None of anything else.
        inactive: the share of a layer's units that are hardly ever active, 0 to 1; None where that
            is not known.
        samples: how many values of each unit that was told from.
        spread: the distance between the 5th and the 95th percentile; None where no rule asks.
    """

    kind: str
    name: str
    ndim: int
    role: str
    statistics: Statistics | None
    change: UpdateStatistics | None = None
    inactive: float | None = None
    samples: int = 0
    spread: float | None = None

    @property
    def is_weight(self) -> bool:
        """Whether it is, or belongs to, a matrix or kernel of a layer that is always used.

        Biases and scales of normalization may rightly be zero, or have no gradient: one before a
        normalization has no effect.
        """
        return self.kind != "activations" and self.ndim > 1 and self.role != "embedding"


class Observation(NamedTuple):
    """What is known at one step.

    Attributes:
        step: the step.
        tensors: parameters, gradients and updates in the order of the layers, activations in the
            order in which they were computed.
    """

    step: int
    tensors: Sequence[ObservedTensor]

    def of(self, *kinds: str) -> list[ObservedTensor]:
        """Return the tensors of some kinds."""
        return [tensor for tensor in self.tensors if tensor.kind in kinds]
