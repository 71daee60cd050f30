"""Watch a PyTorch model: its layer outputs, gradients, parameters and updates.

The training loop needs no changes. PyTorch calls a global hook before and after every optimizer
step. ``torch_steps`` defines what these steps mean for the model. At a log step, every ``every``
steps of the model:

1. the layer outputs are recorded in the first forward pass before the step;
2. before the update, gradients and parameters are recorded as the optimizer uses them:
   accumulated, reduced over all ranks, clipped and unscaled;
3. after the update, the change of each parameter is computed from a copy made before it;
4. once every optimizer of the model has made its step, all results are copied to the host in one
   transfer.

Between log steps, the two optimizer hooks only count. The model itself never has hooks.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from sm_tblog._compilation import skip_frames, uncompiled
from sm_tblog.watch.activations import LayerOutputs
from sm_tblog.watch.handle import Watch
from sm_tblog.watch.torch_calls import apart, is_compiling
from sm_tblog.watch.torch_record import Contribution, LogStep, Parameter, copies
from sm_tblog.watch.torch_steps import StepCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

    from sm_tblog.watch.collector import StatisticsCollector
    from sm_tblog.watch.recorder import Recorder
    from sm_tblog.watch.torch_steps import OptimizerState

__all__ = ["TorchWatch", "is_torch_model"]

logger = logging.getLogger("sm_tblog")

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Prefixes that wrappers add to the names of parameters."""


def is_torch_model(model: Any) -> bool:
    """Return whether ``model`` is a PyTorch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


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
        self._lock = threading.RLock()  # optimizers may run in several threads
        self._steps = StepCounter(every)
        self._log_step: LogStep | None = None
        self._contributions: dict[int, Contribution] = {}  # by thread
        self._has_looked = self._has_failed = False
        self._manual_steps: int | None = None
        self._manual_before: list[Any] = []
        self._collector: StatisticsCollector | None = None
        is_recording = "activations" in recorder.kinds
        self._outputs = LayerOutputs(recorder, wanted) if is_recording else None
        self._handles = [
            optimizer.register_optimizer_step_pre_hook(self._before),
            optimizer.register_optimizer_step_post_hook(self._after),
        ]
        self._begin_outputs()

    def finish(self) -> None:
        """Log what has been recorded for a log step that still waits for an optimizer."""
        with self._lock:
            log_step = self._log_step
            if log_step is not None and log_step.contributors:
                self._safely(self._send, log_step)

    def remove(self) -> None:
        """End the watch and remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.finish()
        if self._outputs is not None:
            self._outputs.remove()
        self._contributions.clear()
        self._log_step = self._collector = None
        super().remove()

    @uncompiled
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
        count = self._manual_steps or 0
        if count % self._every == 0:
            self._safely(self._record_manual_update, count, step)
        self._manual_steps = count + 1
        self._manual_before = []
        if self._manual_steps % self._every == 0:
            self._safely(self._copy_for_manual_update)
            self._begin_outputs()

    # Optimizer hooks.

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record gradients and parameters; raise if a rule with the action ``"stop"`` fired."""
        if is_compiling() or self._manual_steps is not None:
            return
        with self._lock:
            state = self._steps.state_of(optimizer)
            state.refresh(optimizer, self._watched_ids)
            if state.ids:
                frame = sys._getframe(1)  # noqa: SLF001 - it tells nested steps apart
                # args[0] is the optimizer itself.
                has_closure = any(callable(one) for one in (*args[1:], kwargs.get("closure")))
                self._begin_step(optimizer, state, frame, has_closure=has_closure)

    def _begin_step(
        self, optimizer: Any, state: OptimizerState, frame: FrameType, *, has_closure: bool
    ) -> None:
        thread = threading.get_ident()
        if self._steps.is_nested(frame):
            contribution = self._contributions.get(thread)
            if contribution is not None:
                self._safely(contribution.begin, optimizer, state.ids, is_nested=True)
            return
        self.check()
        self._contributions.pop(thread, None)  # of a step that ended with an exception
        self._steps.enter(frame)
        self._steps.count(state)
        log_step = self._log_step_for(state)
        if log_step is not None:
            contribution = Contribution(log_step, has_closure=has_closure)
            self._contributions[thread] = contribution
            self._safely(contribution.begin, optimizer, state.ids, is_nested=False)

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002 - PyTorch's signature
        """Record the update; send all results if the log step is complete."""
        if is_compiling() or self._manual_steps is not None:
            return
        with self._lock:
            state = self._steps.state_of(optimizer)
            if not state.ids or not self._steps.leave(sys._getframe(1)):  # noqa: SLF001
                return
            contribution = self._contributions.pop(threading.get_ident(), None)
            if contribution is not None:
                self._safely(self._end_step, contribution, optimizer, state)
            if self._log_step is not None:
                if self._outputs is not None:
                    self._outputs.pause()
            elif self._steps.may_be_due_next:
                self._begin_outputs()

    def _log_step_for(self, state: OptimizerState) -> LogStep | None:
        """Return the log step to which the step of an optimizer contributes, if any."""
        was_awaited, state.is_awaited = state.is_awaited, True
        log_step = self._log_step
        if (
            log_step is not None
            and self._steps.is_overdue(log_step.number)
            and state not in log_step.awaited - log_step.contributors
        ):
            for missing in log_step.awaited - log_step.contributors:
                missing.is_awaited = False
            self._safely(self._send, log_step)
            self._steps.end_log_step(in_this_round=True)
            log_step = self._log_step
        if log_step is None and self._steps.is_due:
            self._safely(self._open_log_step)
            log_step = self._log_step
        if log_step is not None:
            return None if state in log_step.contributors else log_step
        if was_awaited or (state.steps - 1) % self._every:
            return None
        others = (each.ids for each in self._steps.awaited() if each is not state)
        if not state.ids <= frozenset().union(*others):
            collector = self._recorder.begin()
            parameters = self._parameters()
            number = self._steps.round
            return LogStep(self._recorder, collector, parameters, number, is_partial=True)
        return None

    def _open_log_step(self) -> None:
        parameters = self._parameters()
        log_step = LogStep(self._recorder, self._open_collector(), parameters, self._steps.round)
        self._log_step = log_step
        self._steps.refresh(parameters)
        log_step.awaited = self._steps.awaited()

    def _end_step(self, contribution: Contribution, optimizer: Any, state: OptimizerState) -> None:
        log_step = contribution.log_step
        contribution.end(optimizer, state)
        if log_step.step is None:
            log_step.step = self._step_of(log_step.number)
        if log_step.is_partial:
            log_step.send()
            return
        left = {
            each
            for each, parameter in log_step.parameters.items()
            if parameter.tensor.requires_grad and each not in log_step.updated
        }
        if left and not self._has_looked:
            self._steps.find_optimizers(left, log_step.parameters)
            log_step.awaited |= self._steps.awaited()
        self._has_looked = True
        if log_step.is_complete and log_step is self._log_step:
            self._send(log_step)

    def _send(self, log_step: LogStep) -> None:
        self._log_step = self._collector = None
        self._steps.end_log_step()
        log_step.send(() if self._outputs is None else self._outputs.finish())

    def _watched_ids(self) -> Collection[int]:
        return (self._parameters() if self._log_step is None else self._log_step.parameters).keys()

    def _parameters(self) -> dict[int, Parameter]:
        """Return the watched parameters by id, whether they require gradients or not."""
        torch = sys.modules["torch"]
        model = self._model()
        if model is None:
            return {}
        embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
        rows = {id(m.weight) for m in model.modules() if isinstance(m, embeddings)}
        named = ((clean_name(name), tensor) for name, tensor in model.named_parameters())
        return {
            id(tensor): Parameter(name, tensor, "embedding" if id(tensor) in rows else "")
            for name, tensor in named
            if self._wanted(name)
        }

    # Updates without an optimizer.

    def _record_manual_update(self, count: int, step: int | None) -> None:
        log_step = LogStep(self._recorder, self._open_collector(), self._parameters(), count)
        log_step.step = self._step_of(count) if step is None else step
        for parameter in log_step.parameters.values():
            tensor = parameter.tensor
            for kind, values in (("gradients", tensor.grad), ("parameters", tensor)):
                if kind in log_step.kinds and tensor.requires_grad and values is not None:
                    log_step.add(kind, parameter, values)
        log_step.compare(self._manual_before)
        self._send(log_step)

    def _copy_for_manual_update(self) -> None:
        if "updates" in self._recorder.kinds:
            parameters = self._parameters().values()
            self._manual_before = copies(each for each in parameters if each.tensor.requires_grad)

    def _open_collector(self) -> StatisticsCollector:
        """Return the collector of the next log step, which already has the layer outputs."""
        if self._collector is None:
            self._collector = self._recorder.begin()
        return self._collector

    def _begin_outputs(self) -> None:
        """Record the layer outputs for the next log step."""
        model = self._model()
        self._collector = None
        if self._outputs is not None and model is not None and self._handles:
            self._outputs.begin(model, self._open_collector())

    def _safely(self, function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Call a function; log its first failure, skip this log step and let training continue."""
        try:
            with apart():
                function(*args, **kwargs)
        except Exception:
            if self._log_step is not None:
                self._steps.end_log_step()
            self._log_step = self._collector = None
            self._contributions.clear()
            if not self._has_failed:
                self._has_failed = True
                logger.exception("watch: could not record a step; training continues")


for _hook in (TorchWatch._before, TorchWatch._after):  # noqa: SLF001 - of this module
    skip_frames(_hook)


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
