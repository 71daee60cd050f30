"""Evaluate rules and carry out their actions.

A rule returns findings, each at a place: a layer, parameter or curve. A rule *fires* at a place
when it has found something there more times in a row than its patience allows, and until it finds
nothing there. The places where it has just started to fire form one alert for the rule and step.
The curve ``rules/<rule>`` counts the places where the rule fires. All of this runs on the worker
thread, except ``check``: the training thread calls it, because it raises.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError, RuleViolationError
from sm_tblog._types import Scalar, Series, Value
from sm_tblog.rules.base import Alert, Finding, LayerRule, Rule
from sm_tblog.rules.layers import PoorWeightInitialization
from sm_tblog.rules.losses import LossRule
from sm_tblog.summary import builder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.rules.losses import StalledTraining
    from sm_tblog.rules.observation import Observation
    from sm_tblog.sinks.base import Batch

__all__ = ["RuleEngine", "StallTimer", "as_rules", "stall_timer"]

logger = logging.getLogger("sm_tblog")

_text_value = builder("text.text_value")

MAX_ALERTS = 1000
"""Number of alerts kept in ``alerts``."""

MAX_FINDINGS = 20
"""Number of findings listed in the text of an alert."""


def as_rules(rules: Any, default: Callable[[Any], Sequence[Rule]]) -> list[Rule]:
    """Return rules that are not shared with any other watch.

    Args:
        rules: rules, which are copied; or an action for the default rules: "scalar", "warn",
            "stop" or a function that accepts an alert. None means no rules.
        default: returns the default rules with the given action.

    Raises:
        InvalidTypeError: ``rules`` is none of these.
        InvalidValueError: two rules have the same name.
    """
    if isinstance(rules, str) or (callable(rules) and not isinstance(rules, type)):
        chosen: list[Any] = list(default(rules))
    else:
        try:
            chosen = [copy.deepcopy(rule) for rule in rules or ()]
        except TypeError as error:
            message = f"rules must be a sequence of rules, an action or None, got {rules!r:.60}"
            raise InvalidTypeError(message) from error
    names: set[str] = set()
    for rule in chosen:
        if not isinstance(rule, Rule):
            message = f"a rule must be an instance of a class in sm_tblog.rules, got {rule!r:.60}"
            raise InvalidTypeError(message)
        if rule.name in names:
            message = f"two rules are called {rule.name!r}; set name= to rename one of them"
            raise InvalidValueError(message)
        names.add(rule.name)
    return chosen


class RuleEngine:
    """The rules of one watch.

    Args:
        rules: the rules; not shared with another engine.

    Attributes:
        alerts: the most recent alerts, newest last; at most ``MAX_ALERTS``.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.alerts: deque[Alert] = deque(maxlen=MAX_ALERTS)
        self.rules = tuple(rules)
        self._layer_rules = [rule for rule in rules if isinstance(rule, LayerRule)]
        self._loss_rules = [rule for rule in rules if isinstance(rule, LossRule)]
        self._streaks: dict[str, dict[tuple[str, str], int]] = {}
        self._rules_by_series: dict[Series, list[LossRule]] = {}
        self._stop: Alert | None = None
        self._logged: set[str] = set()
        self._lock = threading.Lock()  # stalled training is detected on a separate thread

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of arrays that the rules need."""
        return frozenset(kind for rule in self._layer_rules for kind in rule.kinds)

    @property
    def layer_rule_names(self) -> list[str]:
        """The names of the rules that judge layers."""
        return [rule.name for rule in self._layer_rules]

    @property
    def judges_losses(self) -> bool:
        """Whether any rule judges scalars."""
        return bool(self._loss_rules)

    @property
    def wants_spreads(self) -> bool:
        """Whether any rule still needs percentiles of gradients."""
        return any(
            rule.wants_spreads
            for rule in self._layer_rules
            if isinstance(rule, PoorWeightInitialization)
        )

    def check(self) -> None:
        """Raise if a rule with the action ``"stop"`` has fired since the last call.

        Raises:
            RuleViolationError: such a rule has fired.
        """
        alert, self._stop = self._stop, None
        if alert is not None:
            message = f"{alert.message}. {alert.advice}"
            raise RuleViolationError(message, alert)

    def evaluate(self, observation: Observation) -> list[Any]:
        """Judge an observation; return what to log: ``Scalar`` objects and ``Summary.Value``."""
        results: list[Any] = []
        for rule in self._layer_rules:
            if not any(tensor.kind in rule.kinds for tensor in observation.tensors):
                continue
            try:
                findings = [found for found in rule.check(observation) if rule.judges(found)]
            except Exception:  # noqa: BLE001 - user code; logged with its traceback
                self._log_once(rule, logging.ERROR, f"the rule {rule.name} failed", traceback=True)
                continue
            before = self._streaks.get(rule.name, {})
            seen = {(kind, t.name) for t in observation.tensors for kind in (t.kind, "")}
            streaks = {place: count for place, count in before.items() if place not in seen}
            streaks.update({_place(found): before.get(_place(found), 0) + 1 for found in findings})
            self._streaks[rule.name] = streaks
            results.append(Scalar(f"rules/{rule.name}", float(_count_firing(rule, streaks))))
            new = [found for found in findings if streaks[_place(found)] == rule.patience + 1]
            results += self._alert(rule, observation.step, new)
        return results

    def __call__(self, batch: Batch) -> Batch:
        """Judge the scalars of a batch; return the batch with the results added."""
        if not self._loss_rules:
            return batch
        rules_of = {
            code: rules
            for code, series in enumerate(batch.series)
            if (rules := self._rules_for(series))
        }
        if not rules_of:
            return batch
        is_wanted = np.zeros(len(batch.series), bool)
        is_wanted[list(rules_of)] = True
        added: list[tuple[int, str, float]] = []
        values: list[Value] = []
        for row in np.flatnonzero(is_wanted[batch.codes]).tolist():
            code, value = int(batch.codes[row]), float(batch.scalars[row])
            for rule in rules_of[code]:
                for part in self._feed(rule, batch.series[code], int(batch.steps[row]), value):
                    if isinstance(part, Scalar):
                        added.append((row, part.tag, part.value))
                    else:
                        values.append(_as_value(part, batch, row))
        return _with_results(batch, added, values)

    def _rules_for(self, series: Series) -> list[LossRule]:
        if series not in self._rules_by_series:
            name = _name(series)
            self._rules_by_series[series] = [
                rule
                for rule in self._loss_rules
                if not name.startswith("rules/") and rule.wants(name)
            ]
        return self._rules_by_series[series]

    def _feed(self, rule: LossRule, series: Series, step: int, value: float) -> list[Any]:
        results: list[Any] = []
        for found in rule.feed(_name(series), value):
            streaks = self._streaks.setdefault(rule.name, {})
            place = ("", _name(series))
            if found is None or not rule.judges(found):
                streaks.pop(place, None)
                new = []
            else:
                streaks[place] = streaks.get(place, 0) + 1
                new = [found] if streaks[place] == rule.patience + 1 else []
            results.append(Scalar(f"rules/{rule.name}", float(_count_firing(rule, streaks))))
            results += self._alert(rule, step, new)
        return results

    def fire(self, rule: Rule, step: int, finding: Finding) -> list[Any]:
        """Fire a rule that was evaluated elsewhere; return what to log."""
        return [Scalar(f"rules/{rule.name}", 1.0), *self._alert(rule, step, [finding])]

    def _alert(self, rule: Rule, step: int, findings: list[Finding]) -> list[Any]:
        if not findings or rule.action == "scalar":
            return []
        first, *others = findings
        and_others = f", and at {len(others)} more" if others else ""
        message = (
            f"{rule.name} at step {step}: {first.where}: {first.what} = {first.value:.4g} "
            f"(threshold {first.threshold:.4g}){and_others}"
        )
        alert = Alert(rule.name, step, tuple(findings), message, rule.advice)
        with self._lock:
            self.alerts.append(alert)
            if rule.action == "stop" and self._stop is None:
                self._stop = alert
        self._log_once(rule, logging.WARNING, f"{message}. {rule.advice}")
        if callable(rule.action):
            try:
                rule.action(alert)
            except Exception:
                logger.exception("the action of the rule %s failed", rule.name)
        return [_text_value(f"alerts/{rule.name}", _markdown(alert))]

    def _log_once(self, rule: Rule, level: int, message: str, *, traceback: bool = False) -> None:
        if rule.name not in self._logged:
            self._logged.add(rule.name)
            logger.log(level, "%s", message, exc_info=traceback)


def _place(found: Finding) -> tuple[str, str]:
    return found.kind, found.where


def _count_firing(rule: Rule, streaks: dict[tuple[str, str], int]) -> int:
    return sum(count > rule.patience for count in streaks.values())


def _name(series: Series) -> str:
    return f"{series.run}/{series.tag}" if series.run else series.tag


def _markdown(alert: Alert) -> str:
    lines = [f"**{alert.rule}** at step {alert.step}", "", "| where | what | value | threshold |"]
    lines.append("|---|---|---|---|")
    for found in alert.findings[:MAX_FINDINGS]:
        what = found.what.replace("|", r"\|")
        lines.append(f"| `{found.where}` | {what} | {found.value:.4g} | {found.threshold:.4g} |")
    if len(alert.findings) > MAX_FINDINGS:
        lines.append(f"| … and {len(alert.findings) - MAX_FINDINGS} more | | | |")
    return "\n".join([*lines, "", alert.advice])


def _as_value(message: Any, batch: Batch, row: int) -> Value:
    plugin = message.metadata.plugin_data.plugin_name
    step, wall_time = int(batch.steps[row]), float(batch.wall_times[row])
    return Value("", step, wall_time, message.SerializeToString(), message.tag, plugin)


def _with_results(batch: Batch, added: list[tuple[int, str, float]], values: list[Value]) -> Batch:
    """Return a batch with more values, and with rows added at the steps of existing rows."""
    tags = list(dict.fromkeys(tag for _, tag, _ in added))
    rows = np.array([row for row, _, _ in added], np.intp)
    codes = np.array([len(batch.series) + tags.index(tag) for _, tag, _ in added], np.intp)
    numbers = np.array([number for _, _, number in added], np.float64)
    return batch._replace(
        series=[*batch.series, *map(Series, tags)],
        codes=np.concatenate((batch.codes, codes)),
        steps=np.concatenate((batch.steps, batch.steps[rows])),
        wall_times=np.concatenate((batch.wall_times, batch.wall_times[rows])),
        scalars=np.concatenate((batch.scalars, numbers)),
        values=[*batch.values, *values],
    )


def stall_timer(engine: RuleEngine, rule: StalledTraining, put: Callable[..., None]) -> StallTimer:
    """Return a timer that fires a rule when no new step is logged.

    Args:
        engine: the engine that contains the rule.
        rule: the rule.
        put: queues a build on the worker thread, as in ``Recorder``.
    """

    def stalled(step: int) -> None:
        finding = Finding("training", rule.seconds, rule.seconds, "seconds without a new step")
        put("watch", _parts, (engine.fire(rule, step, finding),), step, 0)

    return StallTimer(rule.seconds, stalled)


def _parts(tag: str, parts: list[Any]) -> list[Any]:  # noqa: ARG001 - the signature of all builders
    return parts


class StallTimer:
    """A batch processor that tracks steps, with a thread that detects when they stop.

    System metrics, ``system/…``, are ignored: they continue when training does not.

    Args:
        seconds: the time without a new step after which training has stalled.
        stalled: called with the last step, on that thread.
    """

    def __init__(self, seconds: float, stalled: Callable[[int], object]) -> None:
        self._seconds = seconds
        self._stalled = stalled
        self._condition = threading.Condition()
        self._last_step: int | None = None
        self._last_step_at = 0.0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def __call__(self, batch: Batch) -> Batch:
        """Record whether a batch has a new step."""
        counts = np.array([not s.tag.startswith(("system/", "rules/")) for s in batch.series], bool)
        steps = batch.steps[counts[batch.codes]]
        last = int(steps.max()) if len(steps) else None
        if last is not None and (self._last_step is None or last > self._last_step):
            with self._condition:
                self._last_step = last
                self._last_step_at = time.monotonic()
                if self._thread is None and not self._stopped:
                    self._thread = threading.Thread(
                        target=self._run, name="sm_tblog stall", daemon=True
                    )
                    self._thread.start()
        return batch

    def _run(self) -> None:
        reported_at = -1.0
        while True:
            with self._condition:
                now, last_step_at, last = time.monotonic(), self._last_step_at, self._last_step
                is_new = last_step_at != reported_at
                timeout = last_step_at + self._seconds - now if is_new else self._seconds
                if timeout > 0 and self._condition.wait_for(lambda: self._stopped, timeout):
                    return
                stalled = is_new and self._last_step_at == last_step_at
            if stalled:
                reported_at = last_step_at
                self._stalled(last or 0)

    def stop(self) -> None:
        """Stop the thread."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
