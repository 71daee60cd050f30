"""Watch a PyTorch model: its layer outputs, gradients, parameters and updates.

The training loop needs no changes. PyTorch calls a global hook before and after every optimizer
step. Steps of optimizers that have parameters of the model are counted. At a log step, every
``every`` steps:

1. forward hooks record the layer outputs in the first forward pass before the step;
2. before the update, gradients and parameters are recorded as the optimizer uses them:
   accumulated, reduced over all ranks, clipped and unscaled;
3. after the update, the change of each parameter is computed from a copy made before it;
4. all results are copied to the host in one transfer.

Between log steps, the model has no hooks, and the two optimizer hooks only count.
"""

from __future__ import annotations

import logging
import sys
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.watch.activations import ActivationHooks, is_compiling
from sm_tblog.watch.collector import PendingTensor
from sm_tblog.watch.handle import Watch
from sm_tblog.watch.recorder import add
from sm_tblog.watch.statistics import MAX_UPDATE_SAMPLE, evenly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sm_tblog.watch.collector import StatisticsCollector
    from sm_tblog.watch.recorder import Recorder

__all__ = ["TorchWatch", "is_torch_model"]

logger = logging.getLogger("sm_tblog")

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Prefixes that wrappers add to the names of parameters."""


def is_torch_model(model: Any) -> bool:
    """Return whether ``model`` is a PyTorch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


class _StepCount:
    """The step count of an optimizer, and whether the optimizer is watched."""

    def __init__(self) -> None:
        self.groups = -1
        self.is_ours = False
        self.steps = 0
        self.is_due = False


class _Before(NamedTuple):
    """A parameter before an update.

    Attributes:
        name: the name of the parameter.
        parameter: the parameter.
        role: see ``ObservedTensor``.
        values: a copy of its elements, or of an evenly spaced sample of them.
    """

    name: str
    parameter: Any
    role: str
    values: Any


class _PendingUpdate:
    """What is recorded before an update and completed after it."""

    def __init__(self) -> None:
        self.entries: list[PendingTensor] = []
        self.before: list[_Before] = []
        self.skip: Callable[[], float] | None = None
        self.has_closure = False


class TorchWatch(Watch):
    """A watch of a ``torch.nn.Module``.

    Args:
        model: the model; only a weak reference is kept, and the watch ends with the model.
        recorder: logs the arrays.
        every: the number of optimizer steps between log steps; the first step is a log step.
        wanted: returns whether the parameter or layer of a given name is watched.
        step_of: returns the step to log at, given the number of previous optimizer steps.
        removed: called when the watch ends.
    """

    def __init__(
        self,
        model: Any,
        recorder: Recorder,
        every: int,
        wanted: Callable[[str], bool],
        step_of: Callable[[int], int],
        removed: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(recorder.engine, removed)
        from torch.optim import optimizer

        root = _unwrapped(model)
        self._model = weakref.ref(root, lambda _: self.remove())
        self._recorder = recorder
        self._every = every
        self._wanted = wanted
        self._step_of = step_of
        self._optimizers: weakref.WeakKeyDictionary[Any, _StepCount] = weakref.WeakKeyDictionary()
        self._manual_count = _StepCount()
        self._is_manual = False
        self._pending: _PendingUpdate | None = None
        self._collector: StatisticsCollector | None = None
        self._hooks = ActivationHooks(recorder, wanted) if "activations" in recorder.kinds else None
        self._handles = [
            optimizer.register_optimizer_step_pre_hook(self._before),
            optimizer.register_optimizer_step_post_hook(self._after),
        ]
        self._enable_hooks()

    def remove(self) -> None:
        """End the watch and remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._hooks is not None:
            self._hooks.remove()
        self._pending = self._collector = None
        super().remove()

    def step(self, step: int | None = None) -> None:
        """Report an update made without a PyTorch optimizer.

        Call it after the update, before gradients are set to zero. From the first call on, the
        steps of optimizers are ignored.

        Args:
            step: the step to log at; by default ``writer.step``, or the number of calls.

        Raises:
            RuleViolationError: a rule with the action ``"stop"`` has fired.
        """
        self.check()
        if not self._handles:
            return
        self._is_manual = True
        count = self._manual_count
        if count.steps % self._every == 0:
            before = [] if self._pending is None else self._pending.before
            self._safely(self._record_manual_update, before, count.steps, step)
        count.steps += 1
        self._pending = None
        if count.steps % self._every == 0:
            self._safely(self._copy_for_manual_update)
            self._enable_hooks()

    # Optimizer hooks.

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record gradients and parameters; raise if a rule with the action ``"stop"`` fired."""
        if is_compiling() or self._is_manual:
            return
        count = self._count_of(optimizer)
        if not count.is_ours:
            return
        self.check()
        count.is_due = count.steps % self._every == 0
        if count.is_due:
            pending = self._pending = _PendingUpdate()
            # args[0] is the optimizer itself.
            pending.has_closure = any(callable(one) for one in (*args[1:], kwargs.get("closure")))
            self._safely(self._record_before, optimizer, pending)

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002 - PyTorch's signature
        """Record the update, and send all results."""
        if is_compiling() or self._is_manual:
            return
        count = self._count_of(optimizer)
        if not count.is_ours:
            return
        pending, self._pending = self._pending, None
        if count.is_due and pending is not None:
            self._safely(self._record_after, optimizer, pending, count.steps)
        count.is_due = False
        count.steps += 1
        if count.steps % self._every == 0:
            self._enable_hooks()

    def _count_of(self, optimizer: Any) -> _StepCount:
        count = self._optimizers.get(optimizer)
        if count is None:
            count = self._optimizers[optimizer] = _StepCount()
        if count.groups != len(optimizer.param_groups):
            count.groups = len(optimizer.param_groups)
            count.is_ours = any(True for _ in self._parameters(_ids(optimizer)))
        return count

    def _parameters(self, ids: frozenset[int] | None) -> Iterator[tuple[str, Any, str]]:
        """Yield the name, parameter and role of watched parameters, optionally only of some ids."""
        torch = sys.modules["torch"]
        model = self._model()
        if model is None:
            return
        embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
        rows = {id(m.weight) for m in model.modules() if isinstance(m, embeddings)}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and (ids is None or id(parameter) in ids):
                clean = clean_name(name)
                if self._wanted(clean):
                    yield clean, parameter, "embedding" if id(parameter) in rows else ""

    def _record_before(self, optimizer: Any, pending: _PendingUpdate) -> None:
        collector = self._open_collector()
        parameters = list(self._parameters(_ids(optimizer)))
        if not pending.has_closure:
            self._record_gradients(collector, pending, parameters, optimizer)
        if "parameters" in self._recorder.kinds:
            for name, parameter, role in parameters:
                add(pending.entries, collector, "parameters", name, parameter, role)
        if "updates" in self._recorder.kinds:
            pending.before = _copies(parameters)
        collector.pack()

    def _record_after(self, optimizer: Any, pending: _PendingUpdate, steps: int) -> None:
        collector = self._open_collector()
        if pending.has_closure:  # the closure has computed the gradients
            self._record_gradients(
                collector, pending, list(self._parameters(_ids(optimizer))), optimizer
            )
        self._compare(collector, pending)
        self._send(collector, pending, self._step_of(steps))

    def _record_manual_update(self, before: list[_Before], steps: int, step: int | None) -> None:
        pending = _PendingUpdate()
        pending.before = before
        collector = self._open_collector()
        parameters = list(self._parameters(None))
        self._record_gradients(collector, pending, parameters, None)
        if "parameters" in self._recorder.kinds:
            for name, parameter, role in parameters:
                add(pending.entries, collector, "parameters", name, parameter, role)
        self._compare(collector, pending)
        self._send(collector, pending, self._step_of(steps) if step is None else step)

    def _copy_for_manual_update(self) -> None:
        if "updates" in self._recorder.kinds:
            self._pending = _PendingUpdate()
            self._pending.before = _copies(self._parameters(None))

    def _record_gradients(
        self,
        collector: StatisticsCollector,
        pending: _PendingUpdate,
        parameters: Iterable[tuple[str, Any, str]],
        optimizer: Any,
    ) -> None:
        if "gradients" not in self._recorder.kinds:
            return
        # A fused optimizer accepts scaled gradients and unscales them itself.
        scale = getattr(optimizer, "grad_scale", None)
        found = getattr(optimizer, "found_inf", None)
        if found is not None:
            pending.skip = collector.fetch_number(found.detach().reshape(1).float())
        for name, parameter, role in parameters:
            gradient = parameter.grad
            if gradient is not None:
                if scale is not None:
                    gradient = gradient / scale.to(gradient.device, non_blocking=True)
                add(pending.entries, collector, "gradients", name, gradient, role)

    def _compare(self, collector: StatisticsCollector, pending: _PendingUpdate) -> None:
        torch = sys.modules["torch"]
        for name, parameter, role, before in pending.before:
            flat = _flat(parameter)
            now = None if flat is None else evenly(flat, MAX_UPDATE_SAMPLE)
            if now is not None and now.shape == before.shape and now.device == before.device:
                # Differences of 16-bit floats need float32 to be exact.
                exact_dtype = before.dtype if before.element_size() > 2 else torch.float32
                change = collector.compare(
                    before, now.to(exact_dtype) - before.to(exact_dtype), name
                )
                pending.entries.append(
                    PendingTensor("updates", name, parameter.ndim, role, change=change)
                )

    def _send(self, collector: StatisticsCollector, pending: _PendingUpdate, step: int) -> None:
        entries = pending.entries
        if self._hooks is not None:
            entries = [*self._hooks.finish(), *entries]
        self._collector = None
        self._recorder.end(collector, entries, step, pending.skip)

    def _open_collector(self) -> StatisticsCollector:
        """Return the collector of this log step, which already has the layer outputs."""
        if self._collector is None:
            self._collector = self._recorder.begin()
        return self._collector

    def _enable_hooks(self) -> None:
        """Record the layer outputs until the next optimizer step."""
        model = self._model()
        self._collector = None
        if self._hooks is not None and model is not None and self._handles:
            self._hooks.enable(model, self._open_collector())

    def _safely(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function; log its first failure, skip this log step and let training continue."""
        torch = sys.modules["torch"]
        try:
            with torch.no_grad():
                function(*args)
        except Exception:
            self._collector = self._pending = None
            if not getattr(self, "_has_failed", False):
                self._has_failed = True
                logger.exception("watch: could not record a step; training continues")


def clean_name(name: str) -> str:
    """Return the name of a parameter without the prefixes of wrappers."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _unwrapped(model: Any) -> Any:
    """Return the model inside wrappers for parallelism or compilation."""
    from torch.nn import parallel

    while True:
        if isinstance(model, (parallel.DistributedDataParallel, parallel.DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # noqa: SLF001 - the model passed to torch.compile
        else:
            return model


def _ids(optimizer: Any) -> frozenset[int]:
    return frozenset(id(p) for group in optimizer.param_groups for p in group["params"])


def _flat(parameter: Any) -> Any:
    """Return the local values of a parameter as a flat tensor; None if there are none."""
    from sm_tblog.watch.torch_statistics import readable

    tensor = readable(parameter)
    return None if tensor is None or not tensor.numel() else tensor.reshape(-1)


def _copies(parameters: Iterable[tuple[str, Any, str]]) -> list[_Before]:
    found = ((name, parameter, role, _flat(parameter)) for name, parameter, role in parameters)
    return [
        _Before(name, parameter, role, evenly(flat, MAX_UPDATE_SAMPLE).clone())
        for name, parameter, role, flat in found
        if flat is not None
    ]
