"""Loss rules: judge scalars that a script logs anyway, selected by their tags.

A curve is a training loss if its name contains "loss", and a validation loss if the name also
contains "val", "valid", "validation", "test" or "eval". The name is the tag, preceded by the run if
there is one. A validation loss belongs to the training loss whose name is the same without those
words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sm_tblog._errors import InvalidValueError
from sm_tblog.rules.base import Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sm_tblog.rules.base import Action

__all__ = [
    "LossNotDecreasing",
    "LossRule",
    "Overfit",
    "Overtraining",
    "StalledTraining",
    "is_loss",
    "loss_rules",
    "without_split",
]

_LOSS = re.compile("loss", re.IGNORECASE)
_VALIDATION = re.compile(r"(?<![a-z])(val|valid|validation|test|eval)(?![a-z])", re.IGNORECASE)
_TRAINING = re.compile(r"(?<![a-z])(train|training)(?![a-z])", re.IGNORECASE)


def is_loss(name: str, *, validation: bool) -> bool:
    """Return whether a curve is a validation loss or, without ``validation``, a training loss."""
    return bool(_LOSS.search(name)) and bool(_VALIDATION.search(name)) == validation


def without_split(name: str) -> str:
    """Return the name of a curve without the words for training and validation."""
    rest = _TRAINING.sub("", _VALIDATION.sub("", name))
    return "/".join(filter(None, (part.strip("_-. ") for part in rest.split("/"))))


class LossRule(Rule):
    """A rule that judges scalars."""

    def wants(self, name: str) -> bool:
        """Return whether the rule judges this curve."""
        raise NotImplementedError

    def feed(self, name: str, value: float) -> Iterator[Finding | None]:
        """Add a point, in logging order; if it can be judged, yield a finding or None."""
        raise NotImplementedError


@dataclass(kw_only=True)
class LossNotDecreasing(LossRule):
    """Over ``steps`` points a loss falls by less than ``fall``, or rises by more than ``rise``.

    The mean of ``steps`` points is compared with the mean of the ``steps`` points before, to reduce
    the noise of single batches. If a loss is logged for every batch, set ``steps`` to about one
    epoch.

    Args:
        tag: the tag of the loss; by default every training loss.
        steps: the number of points per mean.
        fall: the smallest healthy decrease, as a share of the loss: 0.001 for 0.1 %.
        rise: the largest tolerated increase, as a share of the loss.
    """

    advice: ClassVar[str] = (
        "Change the learning rate: lower it if the loss rises. Check whether data and labels "
        "belong together, whether gradients arrive (writer.watch), and whether the model can "
        "memorize a small sample. If the loss is low enough, stop."
    )
    tag: str = ""
    steps: int = 10
    fall: float = 0.001
    rise: float = 0.05

    def __post_init__(self) -> None:
        """Initialize the history of the losses."""
        super().__post_init__()
        _check_positive(self, "steps", self.steps)
        self._points: dict[str, list[float]] = {}
        self._before: dict[str, float] = {}

    def wants(self, name: str) -> bool:
        """Return whether this curve is the loss."""
        return name == self.tag if self.tag else is_loss(name, validation=False)

    def feed(self, name: str, value: float) -> Iterator[Finding | None]:
        """Judge the loss once there are enough points."""
        points = self._points.setdefault(name, [])
        points.append(value)
        if len(points) < self.steps:
            return
        mean = float(np.mean(points))
        points.clear()
        before = self._before.get(name)
        self._before[name] = mean
        if before is not None:
            fall = (before - mean) / max(abs(before), 1e-12)
            if -fall > self.rise:
                yield Finding(
                    name, -fall, self.rise, f"relative rise of the mean over {self.steps} points"
                )
            elif not fall >= self.fall:
                yield Finding(
                    name, fall, self.fall, f"relative fall of the mean over {self.steps} points"
                )
            else:
                yield None


class _Pair(LossRule):
    """A rule that compares a training loss with its validation loss."""

    training: str
    validation: str

    def __post_init__(self) -> None:
        """Check the tags."""
        super().__post_init__()
        if bool(self.training) != bool(self.validation):
            message = f"{self.name}: pass both training and validation, or neither"
            raise InvalidValueError(message)

    def wants(self, name: str) -> bool:
        """Return whether this curve is one of the two losses."""
        if self.training and self.validation:
            return name in (self.training, self.validation)
        return bool(_LOSS.search(name))

    def _is_validation(self, name: str) -> bool:
        if self.training and self.validation:
            return name == self.validation
        return is_loss(name, validation=True)

    def _pair_of(self, name: str) -> str:
        return "" if self.training and self.validation else without_split(name)


@dataclass(kw_only=True)
class Overfit(_Pair):
    """A validation loss is above its training loss by more than ``ratio`` times the training loss.

    The training loss is the mean of its points since the previous point of the validation loss.

    Args:
        training: the tag of the training loss; by default every loss that has a validation loss.
        validation: the tag of the validation loss.
        ratio: the largest tolerated (validation - training) / training.
    """

    advice: ClassVar[str] = (
        "Use more data or augmentation, a smaller model, weight decay or dropout, or stop at the "
        "lowest validation loss. If only the training loss is computed with dropout or "
        "augmentation, some difference is normal."
    )
    training: str = ""
    validation: str = ""
    ratio: float = 0.1
    patience: int = 1

    def __post_init__(self) -> None:
        """Initialize the history of the losses."""
        super().__post_init__()
        self._points: dict[str, list[float]] = {}
        self._last: dict[str, float] = {}

    def feed(self, name: str, value: float) -> Iterator[Finding | None]:
        """Judge the pair at each point of the validation loss."""
        pair = self._pair_of(name)
        if not self._is_validation(name):
            self._points.setdefault(pair, []).append(value)
            return
        points = self._points.pop(pair, None)
        if points:
            self._last[pair] = float(np.mean(points))
        training = self._last.get(pair)
        if training is None:
            return
        above = (value - training) / max(abs(training), 1e-12)
        what = "(validation loss - training loss) / training loss"
        yield Finding(name, above, self.ratio, what) if above > self.ratio else None


@dataclass(kw_only=True)
class Overtraining(_Pair):
    """Neither loss improves by ``delta`` any more, so further training has no effect.

    The training loss has not improved for ``patience_train`` of its points, and the validation loss
    has not improved for ``patience_validation`` of its points.

    Args:
        training: the tag of the training loss; by default every loss that has a validation loss.
        validation: the tag of the validation loss.
        patience_train: the number of points of the training loss without improvement.
        patience_validation: the number of points of the validation loss without improvement.
        delta: how far a loss must be below its lowest value to count as improved.
    """

    advice: ClassVar[str] = (
        "Stop, and keep the weights of the lowest validation loss; or lower the learning rate, "
        "which often reduces both losses further."
    )
    training: str = ""
    validation: str = ""
    patience_train: int = 5
    patience_validation: int = 10
    delta: float = 0.01

    def __post_init__(self) -> None:
        """Initialize the history of the losses."""
        super().__post_init__()
        self._best: dict[str, float] = {}
        self._since: dict[tuple[str, bool], int] = {}

    def feed(self, name: str, value: float) -> Iterator[Finding | None]:
        """Judge the pair at each point of the validation loss."""
        validation = self._is_validation(name)
        key = self._pair_of(name), validation
        best = self._best.get(name)
        if best is None or value < best - self.delta:
            self._best[name] = value
            self._since[key] = 0
        else:
            self._since[key] += 1
        training = self._since.get((key[0], False))
        if validation and training is not None:
            since = self._since[key]
            is_over = since >= self.patience_validation and training >= self.patience_train
            what = "points since the validation loss last improved"
            yield Finding(name, since, self.patience_validation, what) if is_over else None


@dataclass(kw_only=True)
class StalledTraining(Rule):
    """Nothing has been logged at a new step for ``seconds``, although the writer is open.

    Args:
        seconds: the time without a new step; measured from the first step on.
    """

    advice: ClassVar[str] = (
        "Find out where the script hangs, with py-spy dump --pid PID or faulthandler. Often it "
        "waits for a data loader, for another rank, or for a long validation that logs nothing."
    )
    seconds: float = 1800.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        _check_positive(self, "seconds", self.seconds)


def _check_positive(rule: Rule, argument: str, value: float) -> None:
    if not value > 0:
        message = f"{rule.name}: {argument} must be greater than 0, got {value!r}"
        raise InvalidValueError(message)


def loss_rules(action: Action = "warn") -> list[Rule]:
    """Return the default rules of ``writer.watch_rules``, all with the same action."""
    kinds: list[type[Rule]] = [LossNotDecreasing, Overfit, Overtraining, StalledTraining]
    return [kind(action=action) for kind in kinds]
