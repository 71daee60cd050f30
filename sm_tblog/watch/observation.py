"""What is known of a model at one step: what rules judge, and what is logged of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog._errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from sm_tblog.watch.statistics import Change, Statistics
    from sm_tblog.watch.survey import Reading

__all__ = ["KINDS", "Entry", "Observation", "Tensor", "as_filter", "check_kinds", "spread_of"]

KINDS = ("gradients", "parameters", "updates", "activations")
"""What can be watched."""


class Tensor(NamedTuple):
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
    change: Change | None = None
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
    tensors: Sequence[Tensor]

    def of(self, *kinds: str) -> list[Tensor]:
        """Return the tensors of some kinds."""
        return [tensor for tensor in self.tensors if tensor.kind in kinds]


class Entry(NamedTuple):
    """A ``Tensor`` that the worker will know.

    Attributes:
        kind: as in ``Tensor``.
        name: the same.
        ndim: the same.
        role: the same.
        reading: of its values.
        change: tells what an update does.
        inactive: tells the share of inactive units.
        samples: how many values of each unit there are.
    """

    kind: str
    name: str
    ndim: int
    role: str = ""
    reading: Reading | None = None
    change: Callable[[], Change] | None = None
    inactive: Callable[[], float] | None = None
    samples: int = 0


def check_kinds(log: Any) -> tuple[str, ...]:
    """Return what is to be watched.

    Raises:
        InvalidTypeError: it is no str and no sequence of such.
        InvalidValueError: one of them is none of ``KINDS``.
    """
    if log == "all":
        return KINDS
    kinds = (log,) if isinstance(log, str) else log
    try:
        kinds = tuple(kinds)
    except TypeError as error:
        message = f"log is a sequence of {', '.join(KINDS)}, got {log!r}"
        raise InvalidTypeError(message) from error
    for kind in kinds:
        if kind not in KINDS:
            message = f"log: what can be watched are {', '.join(KINDS)}; not {kind!r}"
            raise InvalidValueError(message)
    return kinds


def as_filter(include: Any, exclude: Any) -> Callable[[str], bool]:
    """Return what tells whether a name is wanted.

    Args:
        include: a regular expression that is found in the name, or several; None for every name.
        exclude: the same, for what is not wanted after all.

    Raises:
        InvalidTypeError: one is no str and no sequence of such.
        InvalidValueError: one is no regular expression.
    """
    wanted, unwanted = _patterns("include", include), _patterns("exclude", exclude)

    def is_wanted(name: str) -> bool:
        found = include is None or any(pattern.search(name) for pattern in wanted)
        return found and not any(pattern.search(name) for pattern in unwanted)

    return is_wanted


def _patterns(argument: str, given: Any) -> list[re.Pattern[str]]:
    given = () if given is None else (given,) if isinstance(given, (str, re.Pattern)) else given
    try:
        return [re.compile(pattern) for pattern in given]
    except re.error as error:
        message = f"{argument}: {error.pattern!r} is no regular expression: {error}"
        raise InvalidValueError(message) from error
    except TypeError as error:
        message = f"{argument} is a regular expression or a sequence of such, got {given!r:.60}"
        raise InvalidTypeError(message) from error


def spread_of(sample: npt.NDArray[Any] | Iterable[float]) -> float:
    """Return the distance between the 5th and the 95th percentile."""
    import numpy as np

    low, high = np.percentile(np.asarray(sample, np.float64), [5, 95])
    return float(high - low)
