"""Statistics of a model's arrays at one step: the input of rules, and what is logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EPSILON", "KINDS", "Observation", "ObservedTensor", "Statistics", "UpdateStatistics"]

EPSILON = 1e-9
"""Added to a norm before dividing by it."""

KINDS = ("gradients", "parameters", "updates", "activations")
"""The kinds of arrays that can be watched."""


class Statistics(NamedTuple):
    """Statistics of the values of an array.

    Attributes:
        size: the number of values.
        mean: the mean.
        std: the population standard deviation.
        abs_mean: the mean of the magnitudes.
        norm: the square root of the sum of the squares.
        min: the smallest value.
        max: the largest value.
        zeros: the share of values that are zero, 0 to 1.
        nan: the number of NaNs.
        inf: the number of infinities.
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
    """Statistics of an update of an array.

    Attributes:
        norm: the norm of the update.
        of: the norm of the array before the update.
        changed: the share of elements that the update changes, 0 to 1. An element is unchanged if
            the values before and after it are equal as defined by ``numpy.isclose``.
    """

    norm: float
    of: float
    changed: float

    @property
    def ratio(self) -> float:
        """The norm of the update divided by the norm of the array."""
        return self.norm / (self.of + EPSILON)


class ObservedTensor(NamedTuple):
    """One array of a model at one step.

    Attributes:
        kind: one of ``KINDS``.
        name: the name of the parameter, or of the layer for an output.
        ndim: the number of dimensions.
        role: ``"embedding"`` for a parameter of an embedding; ``"weighted"``, ``"relu"``,
            ``"tanh"`` or ``"sigmoid"`` for an output of such a layer; "" if unknown.
        statistics: the statistics of the values; None for an update compared with its weight.
        change: the statistics of an update; None for all other arrays.
        inactive: the share of a layer's units that are hardly ever active, 0 to 1; None if unknown.
        samples: the number of values per unit from which ``inactive`` was computed.
        spread: the distance between the 5th and the 95th percentile; None if no rule needs it.
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
        """Whether this is a matrix or kernel, or its gradient or update, but not an embedding.

        Zeros and missing gradients are normal for biases and normalization scales: for example, a
        bias before a normalization has no effect.
        """
        return self.kind != "activations" and self.ndim > 1 and self.role != "embedding"


class Observation(NamedTuple):
    """The tensors of a model at one step.

    Attributes:
        step: the step.
        tensors: the tensors: parameters, gradients and updates in the order of the layers,
            activations in the order in which they were computed.
    """

    step: int
    tensors: Sequence[ObservedTensor]

    def of(self, *kinds: str) -> list[ObservedTensor]:
        """Return the tensors of the given kinds."""
        return [tensor for tensor in self.tensors if tensor.kind in kinds]
