"""Turn named arrays into scalars and histograms; independent of any framework.

The calling thread creates a ``PendingTensor`` for each array. The worker thread reads them, builds
an ``Observation``, logs its numbers and histograms, and evaluates the rules on it.

======================================  ======================================================
``<kind>/<name>/<statistic>``           curves
``<kind>/<name>``                       histograms
``<kind>/all/norm``                     curve for all arrays of a kind together
``rules/<rule>``, ``alerts/<rule>``     see ``rules.engine``
======================================  ======================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError
from sm_tblog._types import Scalar, as_utf8
from sm_tblog.rules.observation import Observation, ObservedTensor, Statistics, UpdateStatistics
from sm_tblog.summary import builder
from sm_tblog.watch.collector import PendingTensor, StatisticsCollector
from sm_tblog.watch.statistics import ABSOLUTE, as_statistics, spread_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sm_tblog.rules.engine import RuleEngine

__all__ = ["STATISTICS", "Layer", "Recorder", "check_statistics"]

_histogram_value = builder("histogram.histogram_value")

STATISTICS = (*Statistics._fields[1:], "ratio", "changed", "inactive")
"""Names of the statistics that can be logged."""

_DEFAULT_STATISTICS = {
    "gradients": ("norm", "abs_mean", "zeros"),
    "parameters": ("norm",),
    "updates": ("ratio",),
    "activations": ("mean", "std", "zeros", "inactive"),
}


class Layer(NamedTuple):
    """The arrays of one parameter, of any library; None for those that are not available.

    Attributes:
        name: the name of the parameter.
        weight: the values before the update.
        gradient: the gradient of the loss.
        update: the difference that the update added, with the shape of the weight.
    """

    name: str
    weight: Any = None
    gradient: Any = None
    update: Any = None


class Recorder:
    """Logs statistics and histograms of arrays.

    Args:
        put: queues a build on the worker thread, as ``put(tag, build, args, step, nbytes)``.
        log: the kinds of arrays that are logged; other kinds are collected only for the rules.
        engine: the rule engine.
        statistics: the names from ``STATISTICS`` to log; by default a few that suit the kind.
        histograms: the number of records per record with histograms; 0 for no histograms.
        clean: applied to every name; None to use names unchanged.
    """

    def __init__(
        self,
        put: Callable[[str, Any, tuple[Any, ...], Any, int], None],
        log: Sequence[str],
        engine: RuleEngine,
        statistics: Sequence[str] | None = None,
        histograms: int = 0,
        clean: Callable[[str], str] | None = None,
    ) -> None:
        self._put = put
        self._log = frozenset(log)
        self._statistics = statistics
        self._histograms = histograms
        self._clean = clean or as_utf8
        self._records = 0
        self._norms: dict[str, tuple[int, float]] = {}  # by parameter: the step and the norm
        self.engine = engine

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of arrays to collect."""
        return self._log | self.engine.needs

    def begin(self) -> StatisticsCollector:
        """Return the collector for the next record."""
        histograms = self._histograms > 0 and self._records % self._histograms == 0
        return StatisticsCollector(histograms=histograms, spreads=self.engine.wants_spreads)

    def end(
        self,
        collector: StatisticsCollector,
        entries: Sequence[PendingTensor],
        step: Any,
        *,
        is_partial: bool = False,
    ) -> None:
        """Send a collector, and queue its arrays for logging on the worker thread.

        Args:
            collector: the collector; nothing can be added to it afterwards.
            entries: the tensors, with pending statistics of the collector.
            step: the step.
            is_partial: whether the tensors are only some of those usually recorded, so that values
                for all of them together are not logged.
        """
        collector.send()
        self._records += not is_partial
        self._put("watch", self._build, (step, entries, is_partial), step, collector.nbytes)

    def record(self, layers: Iterable[Layer], step: Any) -> None:
        """Log the arrays of parameters.

        Raises:
            InvalidTypeError: one of them is not an array of numbers.
        """
        collector = self.begin()
        entries: list[PendingTensor] = []
        for name, weight, gradient, update in layers:
            role = "embedding" if "embed" in name.lower() else ""
            given = {"gradients": gradient, "parameters": weight, "updates": update}
            if weight is not None and update is not None and "updates" in self.kinds:
                change = collector.compare(weight, update, name)
                entries.append(PendingTensor("updates", name, _ndim(weight), role, change=change))
                del given["updates"]
            for kind, values in given.items():
                if values is not None and kind in self.kinds:
                    add(entries, collector, kind, name, values, role)
        self.end(collector, entries, step)

    # On the worker thread.

    def _build(
        self,
        tag: str,  # noqa: ARG002 - the signature of all builders
        step: int,
        entries: Sequence[PendingTensor],
        is_partial: bool,
    ) -> list[Any]:
        # A gradient scaler may have found infinities.
        entries = [each for each in entries if each.skip is None or each.skip() <= 0]
        results: list[Any] = []
        tensors: list[ObservedTensor] = []
        for calls in _grouped(entries):
            tensor = self._with_ratio(_tensor(calls), step)
            tensors.append(tensor)
            if tensor.kind in self._log:
                results += self._scalars(tensor)
                results += self._histogram(calls[0])
        if not is_partial:
            results += self._totals(tensors)
        return results + self.engine.evaluate(Observation(step, tensors))

    def _with_ratio(self, tensor: ObservedTensor, step: int) -> ObservedTensor:
        """Return a tensor; add the ratio to an update if its weight was logged at the same step."""
        if tensor.kind == "parameters" and tensor.statistics:
            self._norms[tensor.name] = step, tensor.statistics.norm
        if tensor.kind != "updates" or tensor.statistics is None:
            return tensor
        at, norm = self._norms.get(tensor.name, (None, 0.0))
        if at != step:
            return tensor
        found = tensor.statistics
        is_nothing = max(abs(found.min), abs(found.max)) <= ABSOLUTE
        changed = 0.0 if is_nothing else 1 - found.zeros
        return tensor._replace(change=UpdateStatistics(found.norm, norm, changed))

    def _scalars(self, tensor: ObservedTensor) -> list[Scalar]:
        prefix = f"{tensor.kind}/{self._clean(tensor.name)}/"
        known: dict[str, float | None] = {"inactive": tensor.inactive}
        if tensor.statistics is not None:
            known.update(tensor.statistics._asdict())
        if tensor.change is not None:
            known.update(ratio=tensor.change.ratio, changed=tensor.change.changed)
            known.update(norm=tensor.change.norm)
        by_default = _DEFAULT_STATISTICS[tensor.kind]
        if tensor.kind == "updates" and tensor.change is None:
            by_default = ("norm",)
        wanted = list(self._statistics or by_default)
        wanted += [name for name in ("nan", "inf") if known.get(name) and name not in wanted]
        return [
            Scalar(prefix + name, float(value))
            for name in wanted
            if (value := known.get(name)) is not None
        ]

    def _histogram(self, entry: PendingTensor) -> list[Any]:
        if entry.pending is None or entry.pending.counted is None:
            return []
        counted = entry.pending.counted()
        return [_histogram_value(f"{entry.kind}/{self._clean(entry.name)}", counted)[0]]

    def _totals(self, tensors: Sequence[ObservedTensor]) -> list[Scalar]:
        results = []
        for kind in ("gradients", "parameters"):
            norms = [t.statistics.norm for t in tensors if t.kind == kind and t.statistics]
            if norms and kind in self._log:
                results.append(Scalar(f"{kind}/all/norm", math.hypot(*norms)))
        changes = [t.change for t in tensors if t.change is not None]
        if changes and "updates" in self._log:
            update = math.hypot(*(change.norm for change in changes))
            of = math.hypot(*(change.of for change in changes))
            results.append(Scalar("updates/all/ratio", update / of if of else 0.0))
        return results


def add(
    entries: list[PendingTensor],
    collector: StatisticsCollector,
    kind: str,
    name: str,
    values: Any,
    role: str = "",
) -> None:
    """Collect an array; add an entry if it has readable values."""
    pending = collector.collect(values, name)
    if pending is not None:
        entries.append(PendingTensor(kind, name, _ndim(values), role, pending))


def _ndim(values: Any) -> int:
    return len(getattr(values, "shape", ()))


def _grouped(entries: Sequence[PendingTensor]) -> list[list[PendingTensor]]:
    """Group the entries by array: a layer that is called several times has several."""
    found: dict[tuple[str, str], list[PendingTensor]] = {}
    for entry in entries:
        found.setdefault((entry.kind, entry.name), []).append(entry)
    return list(found.values())


def _tensor(calls: Sequence[PendingTensor]) -> ObservedTensor:
    first = calls[0]
    each = [entry.pending.statistics for entry in calls if entry.pending is not None]
    inactive = [entry.inactive() for entry in calls if entry.inactive is not None]
    sample = first.pending.sample if first.pending and first.kind == "gradients" else None
    return ObservedTensor(
        first.kind,
        first.name,
        first.ndim,
        first.role,
        _combined(each) if each else None,
        first.change() if first.change else None,
        sum(inactive) / len(inactive) if inactive else None,
        first.samples,
        spread_of(sample()) if sample else None,
    )


def _combined(each: Sequence[Statistics]) -> Statistics:
    if len(each) == 1:
        return each[0]
    rows = [[*one[:7], one.zeros * one.size, one.nan, one.inf] for one in each if one.size]
    return as_statistics(np.array(rows, np.float64).reshape(-1, 10))


def check_statistics(statistics: Any) -> tuple[str, ...] | None:
    """Return the names of the statistics to log.

    Raises:
        InvalidValueError: there is no statistic of a given name.
    """
    if statistics is None:
        return None
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    for name in names:
        if name not in STATISTICS:
            message = f"statistics must be among {', '.join(STATISTICS)}; got {name!r}"
            raise InvalidValueError(message)
    return names
