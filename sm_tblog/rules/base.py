"""What a rule is: how it finds faults, how patient it is, what happens when it fires."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from sm_tblog._errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from sm_tblog.rules.observation import Observation

    Action: TypeAlias = "Literal['scalar', 'warn', 'stop'] | Callable[[Alert], object]"

__all__ = ["Alert", "Finding", "LayerRule", "Rule"]


class Finding(NamedTuple):
    """A fault at one step.

    Attributes:
        where: the layer, parameter or curve.
        value: the number that is out of bounds.
        threshold: the bound.
        what: what the number is, in words.
        kind: of the array, if it is of one; see ``observation.KINDS``.
    """

    where: str
    value: float
    threshold: float
    what: str
    kind: str = ""


class Alert(NamedTuple):
    """What a rule that fires says.

    Attributes:
        rule: its name.
        step: where it fired.
        findings: the faults that are new.
        message: all of it in one sentence.
        advice: what to do.
    """

    rule: str
    step: int
    findings: tuple[Finding, ...]
    message: str
    advice: str


@dataclass(kw_only=True)
class Rule:
    """What all rules have.

    Args:
        action: what happens when the rule fires. ``"scalar"``: only the curve ``rules/<name>``,
            which counts the places where it does. ``"warn"``: also a text ``alerts/<name>``, and,
            the first time, a warning of the logger ``sm_tblog``. A function: also, it is called
            with the ``Alert``, on the background thread. ``"stop"``: also, ``RuleViolationError``
            is raised in the training thread, see ``writer.watch``.
        patience: how many times in a row a fault is let pass at a place before the rule fires.
        include: a regular expression; only places that it is found in are judged.
        name: of the rule; by default that of its class.
    """

    advice: ClassVar[str] = ""

    action: Action = "warn"
    patience: int = 0
    include: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        """Check the arguments."""
        self.name = self.name or type(self).__name__
        if self.action not in ("scalar", "warn", "stop") and not callable(self.action):
            message = (
                f"{self.name}: action is 'scalar', 'warn', 'stop' or a function of an alert, "
                f"not {self.action!r}"
            )
            raise InvalidValueError(message)
        for argument, value in vars(self).items():
            default = getattr(type(self), argument, None)
            if isinstance(default, (int, float)) and not isinstance(value, (int, float)):
                message = f"{self.name}: {argument} is a number, got {value!r}"
                raise InvalidTypeError(message)
        try:
            self._includes = re.compile(self.include)
        except (re.error, TypeError) as error:
            message = f"{self.name}: include is a regular expression, got {self.include!r}"
            raise InvalidValueError(message) from error

    def judges(self, finding: Finding) -> bool:
        """Return whether the place of a finding is one that the rule is for."""
        return self._includes.search(finding.where) is not None


class LayerRule(Rule):
    """A rule of what is watched of a model.

    Attributes:
        kinds: what must be watched for it, of ``observation.KINDS``.
    """

    kinds: ClassVar[tuple[str, ...]] = ()

    def check(self, observation: Observation) -> Iterable[Finding]:
        """Return the faults at a step. Called on the background thread, for each logged step."""
        raise NotImplementedError
