"""Turn named arrays into scalars and histograms; independent of any framework.

The calling thread makes a ``PendingTensor`` for each array. The worker thread reads them, makes an
``Observation``, logs its numbers and histograms, and evaluates the rules on it.

======================================  ======================================================
``<kind>/<name>/<statistic>``           curves
``<kind>/<name>``                       histograms
``<kind>/all/norm``                     of all arrays of a kind together
``rules/<rule>``, ``alerts/<rule>``     see ``rules.engine``
======================================  ======================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError
from sm_tblog._types import Scalar
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
"""What can be logged of an array."""

_BY_DEFAULT = {
    "gradients": ("norm", "abs_mean", "zeros"),
    "parameters": ("norm",),
    "updates": ("ratio",),
    "activations": ("mean", "std", "zeros", "inactive"),
}


class Layer(NamedTuple):
    """What is at hand of one parameter, as arrays of any library; None for what is not.

    Attributes:
        name: of the parameter.
        weight: its values before the update.
        gradient: of the loss.
        update: what was added to the weight; of its shape.
    """

    name: str
    weight: Any = None
    gradient: Any = None
    update: Any = None


class Recorder:
    """Logs what is known of arrays.

    Args:
        put: has the worker build something, as ``put(tag, build, args, step, nbytes)``.
        log: kinds of arrays that are logged; others are only looked at for the rules.
        engine: the rules.
        statistics: names of ``STATISTICS`` to log; by default a few that suit the kind.
        histograms: at every so many records histograms are logged too; 0 for none.
        clean: applied to every name, None to take them as they are.
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
        self._clean = clean or str
        self._records = 0
        self._norms: dict[str, tuple[int, float]] = {}  # of parameters, and at which step
        self.engine = engine

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of arrays that are wanted."""
        return self._log | self.engine.needs

    def begin(self) -> StatisticsCollector:
        """Return a collector for the next record."""
        histograms = self._histograms > 0 and self._records % self._histograms == 0
        return StatisticsCollector(histograms=histograms, spreads=self.engine.wants_spreads)

    def end(
        self,
        collector: StatisticsCollector,
        entries: Sequence[PendingTensor],
        step: Any,
        skip: Any = None,
    ) -> None:
        """Have the worker log what a collector has found.

        Args:
            collector: sealed here.
            entries: with the collector's pending statistics.
            step: the step.
            skip: tells, on the worker, whether the optimizer left out the step; None if not.
        """
        collector.send()
        self._records += 1
        self._put("watch", self._build, (step, entries, skip), step, collector.nbytes)

    def record(self, layers: Iterable[Layer], step: Any) -> None:
        """Log what is at hand of parameters.

        Raises:
            InvalidTypeError: something is not an array of numbers.
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

    # The worker's side.

    def _build(self, tag: str, step: int, entries: Sequence[PendingTensor], skip: Any) -> list[Any]:  # noqa: ARG002 - as all builders are called
        if skip is not None and skip() > 0:  # a scaler of gradients found some too large
            entries = [e for e in entries if e.kind not in ("gradients", "updates")]
        made: list[Any] = []
        tensors: list[ObservedTensor] = []
        for calls in _by_name(entries):
            tensor = self._related(_tensor(calls), step)
            tensors.append(tensor)
            if tensor.kind in self._log:
                made += self._scalars(tensor)
                made += self._histogram(calls[0])
        made += self._totals(tensors)
        return made + self.engine.evaluate(Observation(step, tensors))

    def _related(self, tensor: ObservedTensor, step: int) -> ObservedTensor:
        """Return a tensor; an update that came without its weight with what is known of that."""
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
        by_default = _BY_DEFAULT[tensor.kind]
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
        made = []
        for kind in ("gradients", "parameters"):
            norms = [t.statistics.norm for t in tensors if t.kind == kind and t.statistics]
            if norms and kind in self._log:
                made.append(Scalar(f"{kind}/all/norm", math.hypot(*norms)))
        changes = [t.change for t in tensors if t.change is not None]
        if changes and "updates" in self._log:
            update = math.hypot(*(change.norm for change in changes))
            of = math.hypot(*(change.of for change in changes))
            made.append(Scalar("updates/all/ratio", update / of if of else 0.0))
        return made


def add(
    entries: list[PendingTensor],
    collector: StatisticsCollector,
    kind: str,
    name: str,
    values: Any,
    role: str = "",
) -> None:
    """Look at an array, and add an entry if it has numbers."""
    pending = collector.collect(values, name)
    if pending is not None:
        entries.append(PendingTensor(kind, name, _ndim(values), role, pending))


def _ndim(values: Any) -> int:
    return len(getattr(values, "shape", ()))


def _by_name(entries: Sequence[PendingTensor]) -> list[list[PendingTensor]]:
    """Return entries, those of one array that was computed several times together."""
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
        _together(each) if each else None,
        first.change() if first.change else None,
        sum(inactive) / len(inactive) if inactive else None,
        first.samples,
        spread_of(sample()) if sample else None,
    )


def _together(each: Sequence[Statistics]) -> Statistics:
    if len(each) == 1:
        return each[0]
    rows = [[*one[:7], one.zeros * one.size, one.nan, one.inf] for one in each if one.size]
    return as_statistics(np.array(rows, np.float64).reshape(-1, 10))


def check_statistics(statistics: Any) -> tuple[str, ...] | None:
    """Return the names of statistics to log.

    Raises:
        InvalidValueError: there is no such statistic.
    """
    if statistics is None:
        return None
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    for name in names:
        if name not in STATISTICS:
            message = f"statistics: there are {', '.join(STATISTICS)}; not {name!r}"
            raise InvalidValueError(message)
    return names
