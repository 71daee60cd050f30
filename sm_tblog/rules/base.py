"""The base classes of rules, and the findings and alerts that rules produce."""

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
    """A problem that a rule found at one step.

    Attributes:
        where: the name of the layer, parameter or curve.
        value: the value that is out of bounds.
        threshold: the bound.
        what: a description of the value.
        kind: the kind of array, see ``observation.KINDS``; "" if the finding is not about an array.
    """

    where: str
    value: float
    threshold: float
    what: str
    kind: str = ""


class Alert(NamedTuple):
    """A report that a rule has fired.

    Attributes:
        rule: the name of the rule.
        step: the step at which it fired.
        findings: the new findings.
        message: a summary in one sentence.
        advice: how to fix the problem.
    """

    rule: str
    step: int
    findings: tuple[Finding, ...]
    message: str
    advice: str


@dataclass(kw_only=True)
class Rule:
    """The base class of all rules.

    Args:
        action: what happens when the rule fires. ``"scalar"`` only updates the curve
            ``rules/<name>``, which counts the places where the rule fires. ``"warn"`` also logs a
            text ``alerts/<name>`` and, the first time, a warning to the logger ``sm_tblog``. A
            function does the same and is also called with the ``Alert``, on the worker thread.
            ``"stop"`` does the same and also raises ``RuleViolationError`` in the training thread,
            see ``writer.watch``.
        patience: how many findings in a row are tolerated at a place before the rule fires.
        include: a regular expression; only places whose name matches it are judged.
        name: the name of the rule; by default the name of its class.
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
                f"{self.name}: action must be 'scalar', 'warn', 'stop' or a function of an alert, "
                f"got {self.action!r}"
            )
            raise InvalidValueError(message)
        for argument, value in vars(self).items():
            default = getattr(type(self), argument, None)
            if isinstance(default, (int, float)) and not isinstance(value, (int, float)):
                message = f"{self.name}: {argument} must be a number, got {value!r}"
                raise InvalidTypeError(message)
        try:
            self._includes = re.compile(self.include)
        except (re.error, TypeError) as error:
            message = f"{self.name}: include must be a regular expression, got {self.include!r}"
            raise InvalidValueError(message) from error

    def judges(self, finding: Finding) -> bool:
        """Return whether the rule applies to the place of a finding."""
        return self._includes.search(finding.where) is not None


class LayerRule(Rule):
    """A rule that judges the arrays of a model.

    Attributes:
        kinds: the kinds of arrays that the rule needs, from ``observation.KINDS``.
    """

    kinds: ClassVar[tuple[str, ...]] = ()

    def check(self, observation: Observation) -> Iterable[Finding]:
        """Return the findings at a step. Called on the worker thread for each logged step."""
        raise NotImplementedError
