"""Watches a PyTorch model: what passes through its layers, and what each optimizer step does.

Nothing is asked of the training loop. PyTorch calls a hook before and after every optimizer's
step; one that has parameters of the model is counted, and at every so many of its steps

1. hooks of the layers look at their outputs in the forward pass before it, the first of several;
2. before the update gradients and parameters are looked at: accumulated, reduced over all ranks,
   clipped and unscaled as the optimizer takes them;
3. after it, how the update has changed each parameter, of which a copy was kept till then;
4. all of that travels to the host at once.

In between there are no hooks in the model, and the two of the optimizer count.
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
from sm_tblog.watch.statistics import SAMPLE, evenly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sm_tblog.watch.collector import StatisticsCollector
    from sm_tblog.watch.recorder import Recorder

__all__ = ["TorchWatch", "is_torch_model"]

logger = logging.getLogger("sm_tblog")

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What stands in the names of parameters because of how a model is run."""


def is_torch_model(model: Any) -> bool:
    """Return whether a model is a module of PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


class _Counted:
    """What is known of an optimizer."""

    def __init__(self) -> None:
        self.groups = -1
        self.is_ours = False
        self.steps = 0
        self.is_due = False


class _Before(NamedTuple):
    """A parameter before an update.

    Attributes:
        name: of the parameter.
        parameter: itself.
        role: see ``observation.Tensor``.
        values: a copy of its elements, or of evenly spaced ones.
    """

    name: str
    parameter: Any
    role: str
    values: Any


class _Step:
    """What is kept from before an update until after it."""

    def __init__(self) -> None:
        self.entries: list[PendingTensor] = []
        self.before: list[_Before] = []
        self.skip: Callable[[], float] | None = None
        self.by_closure = False


class TorchWatch(Watch):
    """A watch of a ``torch.nn.Module``.

    Args:
        model: kept alive by others; the watch ends with it.
        recorder: logs what is found.
        every: optimizer steps from one log step to the next; the first is one.
        wanted: tells whether the name of a parameter or layer is.
        step_of: returns the step to log at, given the count of optimizer steps before.
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
        self._optimizers: weakref.WeakKeyDictionary[Any, _Counted] = weakref.WeakKeyDictionary()
        self._by_hand = _Counted()
        self._is_by_hand = False
        self._kept: _Step | None = None
        self._survey: StatisticsCollector | None = None
        self._hooks = ActivationHooks(recorder, wanted) if "activations" in recorder.kinds else None
        self._handles = [
            optimizer.register_optimizer_step_pre_hook(self._before),
            optimizer.register_optimizer_step_post_hook(self._after),
        ]
        self._arm()

    def remove(self) -> None:
        """End the watch: take every hook away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._hooks is not None:
            self._hooks.remove()
        self._kept = self._survey = None
        super().remove()

    def step(self, step: int | None = None) -> None:
        """Say that an update has been made without an optimizer of PyTorch.

        Call it after the update, before gradients are set to zero. From the first call on,
        optimizers are not listened to.

        Args:
            step: the step to log at; by default ``writer.step``, or the count of calls.

        Raises:
            RuleViolationError: a rule with the action ``"stop"`` has fired.
        """
        self.check()
        if not self._handles:
            return
        self._is_by_hand = True
        count = self._by_hand
        if count.steps % self._every == 0:
            before = [] if self._kept is None else self._kept.before
            self._safely(self._record_by_hand, before, count.steps, step)
        count.steps += 1
        self._kept = None
        if count.steps % self._every == 0:
            self._safely(self._keep_by_hand)
            self._arm()

    # The hooks of optimizers.

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Look at gradients and parameters. May raise, before the update, because of a rule."""
        if is_compiling() or self._is_by_hand:
            return
        count = self._count_of(optimizer)
        if not count.is_ours:
            return
        self.check()
        count.is_due = count.steps % self._every == 0
        if count.is_due:
            kept = self._kept = _Step()
            # The arguments are those of the method, with the optimizer.
            kept.by_closure = any(callable(one) for one in (*args[1:], kwargs.get("closure")))
            self._safely(self._look_before, optimizer, kept)

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002 - as PyTorch calls it
        """Look at what the update has done, and send all."""
        if is_compiling() or self._is_by_hand:
            return
        count = self._count_of(optimizer)
        if not count.is_ours:
            return
        kept, self._kept = self._kept, None
        if count.is_due and kept is not None:
            self._safely(self._look_after, optimizer, kept, count.steps)
        count.is_due = False
        count.steps += 1
        if count.steps % self._every == 0:
            self._arm()

    def _count_of(self, optimizer: Any) -> _Counted:
        count = self._optimizers.get(optimizer)
        if count is None:
            count = self._optimizers[optimizer] = _Counted()
        if count.groups != len(optimizer.param_groups):
            count.groups = len(optimizer.param_groups)
            count.is_ours = any(True for _ in self._parameters(_ids(optimizer)))
        return count

    def _parameters(self, ids: frozenset[int] | None) -> Iterator[tuple[str, Any, str]]:
        """Yield name, parameter and role of what can learn, of those with such ids."""
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

    def _look_before(self, optimizer: Any, kept: _Step) -> None:
        collector = self._surveyed()
        parameters = list(self._parameters(_ids(optimizer)))
        if not kept.by_closure:
            self._look_at_gradients(collector, kept, parameters, optimizer)
        if "parameters" in self._recorder.kinds:
            for name, parameter, role in parameters:
                add(kept.entries, collector, "parameters", name, parameter, role)
        if "updates" in self._recorder.kinds:
            kept.before = _copies(parameters)
        collector.pack()

    def _look_after(self, optimizer: Any, kept: _Step, steps: int) -> None:
        collector = self._surveyed()
        if kept.by_closure:  # which has made the gradients in the meantime
            self._look_at_gradients(
                collector, kept, list(self._parameters(_ids(optimizer))), optimizer
            )
        self._compare(collector, kept)
        self._send(collector, kept, self._step_of(steps))

    def _record_by_hand(self, before: list[_Before], steps: int, step: int | None) -> None:
        kept = _Step()
        kept.before = before
        collector = self._surveyed()
        parameters = list(self._parameters(None))
        self._look_at_gradients(collector, kept, parameters, None)
        if "parameters" in self._recorder.kinds:
            for name, parameter, role in parameters:
                add(kept.entries, collector, "parameters", name, parameter, role)
        self._compare(collector, kept)
        self._send(collector, kept, self._step_of(steps) if step is None else step)

    def _keep_by_hand(self) -> None:
        if "updates" in self._recorder.kinds:
            self._kept = _Step()
            self._kept.before = _copies(self._parameters(None))

    def _look_at_gradients(
        self,
        collector: StatisticsCollector,
        kept: _Step,
        parameters: Iterable[tuple[str, Any, str]],
        optimizer: Any,
    ) -> None:
        if "gradients" not in self._recorder.kinds:
            return
        # A fused optimizer takes scaled gradients, and takes the scale away itself.
        scale = getattr(optimizer, "grad_scale", None)
        found = getattr(optimizer, "found_inf", None)
        if found is not None:
            kept.skip = collector.share(found.detach().reshape(1).float())
        for name, parameter, role in parameters:
            gradient = parameter.grad
            if gradient is not None:
                if scale is not None:
                    gradient = gradient / scale.to(gradient.device, non_blocking=True)
                add(kept.entries, collector, "gradients", name, gradient, role)

    def _compare(self, collector: StatisticsCollector, kept: _Step) -> None:
        torch = sys.modules["torch"]
        for name, parameter, role, before in kept.before:
            flat = _flat(parameter)
            now = None if flat is None else evenly(flat, SAMPLE)
            if now is not None and now.shape == before.shape and now.device == before.device:
                # Differences of small numbers are exact in a float32.
                wide = before.dtype if before.element_size() > 2 else torch.float32
                change = collector.compare(before, now.to(wide) - before.to(wide), name)
                kept.entries.append(
                    PendingTensor("updates", name, parameter.ndim, role, change=change)
                )

    def _send(self, collector: StatisticsCollector, kept: _Step, step: int) -> None:
        entries = kept.entries
        if self._hooks is not None:
            entries = [*self._hooks.collected(), *entries]
        self._survey = None
        self._recorder.end(collector, entries, step, kept.skip)

    def _surveyed(self) -> StatisticsCollector:
        """Return the collector of this log step, which has what layers have shown so far."""
        if self._survey is None:
            self._survey = self._recorder.begin()
        return self._survey

    def _arm(self) -> None:
        """Have the layers show what passes through them until the next step."""
        model = self._model()
        self._survey = None
        if self._hooks is not None and model is not None and self._handles:
            self._hooks.enable(model, self._surveyed())

    def _safely(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function; if it fails, say so once and give this step up: training goes on."""
        torch = sys.modules["torch"]
        try:
            with torch.no_grad():
                function(*args)
        except Exception:
            self._survey = self._kept = None
            if not getattr(self, "_has_failed", False):
                self._has_failed = True
                logger.exception("watch: a step could not be looked at; training goes on")


def clean_name(name: str) -> str:
    """Return a parameter's name without what stands in it because of how the model is run."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _unwrapped(model: Any) -> Any:
    """Return the model that was wrapped to run in parallel, or compiled."""
    from torch.nn import parallel

    while True:
        if isinstance(model, (parallel.DistributedDataParallel, parallel.DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # noqa: SLF001 - what torch.compile has compiled
        else:
            return model


def _ids(optimizer: Any) -> frozenset[int]:
    return frozenset(id(p) for group in optimizer.param_groups for p in group["params"])


def _flat(parameter: Any) -> Any:
    """Return a parameter's numbers, this process's part, as a flat tensor; None if it has none."""
    from sm_tblog.watch.torch_statistics import readable

    tensor = readable(parameter)
    return None if tensor is None or not tensor.numel() else tensor.reshape(-1)


def _copies(parameters: Iterable[tuple[str, Any, str]]) -> list[_Before]:
    found = ((name, parameter, role, _flat(parameter)) for name, parameter, role in parameters)
    return [
        _Before(name, parameter, role, evenly(flat, SAMPLE).clone())
        for name, parameter, role, flat in found
        if flat is not None
    ]
