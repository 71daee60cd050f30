"""The tensors of one log step of a PyTorch model: gradients, parameters and updates.

Each optimizer's step contributes its own parameters, and the log step is sent when all have. An
update is computed from a copy made before it, so memory for copies is needed during a step only.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.watch.collector import PendingTensor
from sm_tblog.watch.recorder import add
from sm_tblog.watch.statistics import MAX_UPDATE_SAMPLE, evenly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sm_tblog.watch.collector import StatisticsCollector
    from sm_tblog.watch.recorder import Recorder
    from sm_tblog.watch.torch_steps import OptimizerState

__all__ = ["Contribution", "LogStep", "Parameter", "copies"]


class Parameter(NamedTuple):
    """A watched parameter.

    Attributes:
        name: the name of the parameter.
        tensor: the parameter.
        role: see ``ObservedTensor``.
    """

    name: str
    tensor: Any
    role: str


class LogStep:
    """The tensors of one log step.

    Args:
        recorder: logs them.
        collector: the collector, which may already have the layer outputs.
        parameters: all watched parameters of the model, by id, in the order of the model.
        number: the round in which it began.
        is_partial: whether it has the parameters of one optimizer that no log step waits for.

    Attributes:
        updated: the ids of the parameters that optimizers have updated since it began.
        contributors: the optimizers that have made a step.
        awaited: the optimizers that it waits for.
        step: the step to log at; None until the first contribution.
    """

    def __init__(
        self,
        recorder: Recorder,
        collector: StatisticsCollector,
        parameters: dict[int, Parameter],
        number: int,
        *,
        is_partial: bool = False,
    ) -> None:
        self.collector = collector
        self.parameters = parameters
        self.number = number
        self.is_partial = is_partial
        self.updated: set[int] = set()
        self.contributors: set[OptimizerState] = set()
        self.awaited: set[OptimizerState] = set()
        self.step: int | None = None
        self._recorder = recorder
        self._found: dict[tuple[str, str], PendingTensor] = {}

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of arrays to record."""
        return self._recorder.kinds

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return all(state.ids <= self.updated for state in self.awaited - self.contributors)

    def add(
        self,
        kind: str,
        parameter: Parameter,
        values: Any,
        skip: Callable[[], float] | None = None,
    ) -> None:
        """Record a gradient or parameter; one of the same name is replaced."""
        entries: list[PendingTensor] = []
        add(entries, self.collector, kind, parameter.name, values, parameter.role)
        for entry in entries:
            self._found[kind, parameter.name] = entry._replace(skip=skip)

    def compare(self, before: Iterable[_Before], skip: Callable[[], float] | None = None) -> None:
        """Record the updates, given copies made before them."""
        torch = sys.modules["torch"]
        for (name, tensor, role), old in before:
            flat = _flat(tensor)
            now = None if flat is None else evenly(flat, MAX_UPDATE_SAMPLE)
            if now is not None and now.shape == old.shape and now.device == old.device:
                # Differences of 16-bit floats need float32 to be exact.
                exact_dtype = old.dtype if old.element_size() > 2 else torch.float32
                change = self.collector.compare(
                    old, now.to(exact_dtype) - old.to(exact_dtype), name
                )
                self._found["updates", name] = PendingTensor(
                    "updates", name, tensor.ndim, role, change=change, skip=skip
                )

    def send(self, outputs: Sequence[PendingTensor] = ()) -> None:
        """Log everything, in the order of the model.

        Args:
            outputs: the layer outputs.
        """
        names = [parameter.name for parameter in self.parameters.values()]
        found = (
            self._found.get((kind, name))
            for kind in ("gradients", "parameters", "updates")
            for name in names
        )
        entries = [*outputs, *(entry for entry in found if entry is not None)]
        self._recorder.end(self.collector, entries, self.step, is_partial=self.is_partial)


class Contribution:
    """What an outer step adds to a log step.

    Args:
        log_step: the log step.
        has_closure: whether the gradients are computed during the step.
    """

    def __init__(self, log_step: LogStep, *, has_closure: bool) -> None:
        self.log_step = log_step
        self._has_closure = has_closure
        self._skip: Callable[[], float] | None = None
        self._ids: dict[int, None] = {}
        self._with_gradient: set[int] = set()
        self._before: dict[int, _Before] = {}

    def begin(self, optimizer: Any, ids: Iterable[int], *, is_nested: bool) -> None:
        """Record the parameters of an optimizer before its update, and its gradients.

        The gradients of a nested step replace those of the step around it, which may have changed
        them. What is known of a parameter otherwise is kept.
        """
        log_step = self.log_step
        new = [each for each in ids if each in log_step.parameters]
        self._ids.update(dict.fromkeys(new))
        if is_nested or not self._has_closure:
            self._record_gradients(optimizer, new)
        missing = [
            log_step.parameters[each]
            for each in new
            if each not in self._before and log_step.parameters[each].tensor.requires_grad
        ]
        if "parameters" in log_step.kinds:
            for parameter in missing:
                log_step.add("parameters", parameter, parameter.tensor)
        if "updates" in log_step.kinds:
            self._before.update((id(copy.parameter.tensor), copy) for copy in copies(missing))
        log_step.collector.pack()

    def end(self, optimizer: Any, state: OptimizerState) -> None:
        """Record the updates."""
        log_step = self.log_step
        if self._has_closure:
            left = [each for each in self._ids if each not in self._with_gradient]
            self._record_gradients(optimizer, left)
        log_step.compare(self._before.values(), self._skip)
        log_step.collector.pack()
        log_step.updated.update(self._ids)
        log_step.contributors.add(state)

    def _record_gradients(self, optimizer: Any, ids: Iterable[int]) -> None:
        log_step = self.log_step
        if "gradients" not in log_step.kinds:
            return
        # A fused optimizer accepts scaled gradients and unscales them itself.
        scale = getattr(optimizer, "grad_scale", None)
        found = getattr(optimizer, "found_inf", None)
        if found is not None:
            self._skip = log_step.collector.fetch_number(found.detach().reshape(1).float())
        for each in ids:
            parameter = log_step.parameters[each]
            gradient = parameter.tensor.grad
            if gradient is not None and parameter.tensor.requires_grad:
                if scale is not None:
                    gradient = gradient / scale.to(gradient.device, non_blocking=True)
                log_step.add("gradients", parameter, gradient, self._skip)
                self._with_gradient.add(each)


class _Before(NamedTuple):
    """A parameter before an update.

    Attributes:
        parameter: the parameter.
        values: a copy of its elements, or of an evenly spaced sample of them.
    """

    parameter: Parameter
    values: Any


def copies(parameters: Iterable[Parameter]) -> list[_Before]:
    """Return copies of parameters, to compare with them after an update."""
    found = ((parameter, _flat(parameter.tensor)) for parameter in parameters)
    return [
        _Before(parameter, evenly(flat, MAX_UPDATE_SAMPLE).clone())
        for parameter, flat in found
        if flat is not None
    ]


def _flat(parameter: Any) -> Any:
    """Return the local values of a parameter as a flat tensor; None if there are none."""
    from sm_tblog.watch.torch_statistics import readable

    tensor = readable(parameter)
    return None if tensor is None or not tensor.numel() else tensor.reshape(-1)
