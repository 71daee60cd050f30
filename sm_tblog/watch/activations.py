"""The hooks that look at the outputs of a PyTorch model's layers.

They are in the model only while a log step is due, and look at the first of its forward passes in
training: gradients are wanted, the layer is in training mode, no backward pass has begun.

A hook survives in copies of the model as a function of the standard library that does nothing; so
models can be copied, pickled and saved at any time. Code that is being compiled or traced finds
none that does anything, so there are no breaks in its graph, and nothing is seen there.
"""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from sm_tblog.rules.layers import DeadRelu, SaturatedActivation
from sm_tblog.watch.collector import PendingTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sm_tblog.watch.collector import StatisticsCollector
    from sm_tblog.watch.recorder import Recorder

__all__ = ["ActivationHooks", "is_compiling"]

logger = logging.getLogger("sm_tblog")

MOST_CALLS = 64
"""Calls of one layer that are looked at in a step: a recurrent cell has many."""

MANY_PASSES = 1000
"""Forward passes without an optimizer's step that are not accumulation any more."""

_ROLES = {
    **dict.fromkeys(("ReLU", "ReLU6"), "relu"),
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    **dict.fromkeys(("Linear", "Bilinear", "LazyLinear"), "weighted"),
    **dict.fromkeys((f"Conv{n}d" for n in "123"), "weighted"),
    **dict.fromkeys((f"ConvTranspose{n}d" for n in "123"), "weighted"),
}
"""What a layer is, by the name of its class in ``torch.nn``."""

_UNSATURATED = {"tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}
"""Between what bounds the input of an activation has a gradient; SageMaker Debugger's."""


class ActivationHooks:
    """The hooks of one watch.

    Args:
        recorder: asks what is wanted.
        wanted: tells whether a layer's name is.
    """

    def __init__(self, recorder: Recorder, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._activity = {
            "relu": _activity(recorder, DeadRelu),
            "tanh": _activity(recorder, SaturatedActivation),
            "sigmoid": _activity(recorder, SaturatedActivation),
        }
        self._hooks: list[_Hook] = []
        self._entries: list[PendingTensor] = []
        self._survey: StatisticsCollector | None = None
        self._in_backward = False
        self._marks = False
        self._channels_first = False
        self._has_failed = False
        self._idle = 0

    def enable(self, model: Any, collector: StatisticsCollector) -> None:
        """Put hooks where there are none, and begin a new step."""
        self._survey = collector
        self._entries = []
        self._in_backward = self._marks = False
        there = {hook.module for hook in self._hooks}
        for hook in self._hooks:
            hook.calls = 0
        for name, module in _layers(model):
            if module not in there and self._wanted(name):
                self._hooks.append(_Hook(self, name, module))

    def collected(self) -> list[PendingTensor]:
        """Return what was seen, and take hooks away.

        Those that were never called stay: they are in code that is compiled, which would have to
        be compiled again without them, or in layers that are not used.
        """
        self._survey = None
        self._idle = 0
        kept = [hook for hook in self._hooks if not hook.is_called]
        for hook in self._hooks:
            if hook.is_called:
                hook.handle.remove()
        self._hooks = kept
        entries, self._entries = self._entries, []
        return entries

    def remove(self) -> None:
        """Take all hooks away."""
        self._survey = None
        for hook in self._hooks:
            hook.handle.remove()
        self._hooks = []

    def look(self, hook: _Hook, module: Any, inputs: Any, output: Any) -> None:
        """Look at an output, if it is one of those to be looked at."""
        torch = sys.modules["torch"]
        if self._survey is None or torch.jit.is_tracing():
            return
        hook.is_called = True
        recomputing = _in_backward()
        if not (torch.is_grad_enabled() and module.training) or hook.calls >= MOST_CALLS:
            return
        # A backward pass computes again what was not kept: seen before, unless without gradients.
        if hook.calls if recomputing else self._in_backward:
            self._count_idle(hook)
            return
        tensor = _first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return
        if getattr(module, "_is_replica", False) and not hook.is_at_home(tensor):
            return
        hook.calls += 1
        if not self._marks and tensor.requires_grad and not recomputing:
            self._marks = True
            tensor.register_hook(self._begin_backward)
        try:
            with torch.no_grad():
                self._add(hook, module, inputs, tensor)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception("watch: the output of %r could not be looked at", hook.name)

    def _count_idle(self, hook: _Hook) -> None:
        """Say once that there are forward and backward passes, but no steps of an optimizer."""
        if hook is self._hooks[0]:
            self._idle += 1
            if self._idle == MANY_PASSES:
                logger.warning(
                    "watch: %d forward passes and no step of an optimizer that has parameters of "
                    "the model: nothing is logged. Where weights are updated without a "
                    "torch.optim.Optimizer, call step() of what writer.watch returned after each",
                    MANY_PASSES,
                )

    def _begin_backward(self, gradient: Any) -> None:  # noqa: ARG002 - as PyTorch calls it
        self._in_backward = True

    def _add(self, hook: _Hook, module: Any, inputs: Any, tensor: Any) -> None:
        from sm_tblog.watch.torch_statistics import inactive_share

        collector: Any = self._survey
        pending = collector.collect(tensor, hook.name)
        if pending is None:
            return
        inactive = None
        samples = 0
        active = _active(hook.role, inputs, tensor)
        if active is not None and active.ndim > 1:
            axis = 1 if self._channels_first or active.ndim > 3 else -1
            samples = active.numel() // max(active.shape[axis], 1)
            inactive = collector.share(inactive_share(active, axis, self._activity[hook.role]))
        collector.pack()
        self._entries.append(
            PendingTensor(
                "activations", hook.name, tensor.ndim, hook.role, pending, None, inactive, samples
            )
        )
        kind = type(module).__name__
        if kind.startswith(("Conv", "BatchNorm", "InstanceNorm", "GroupNorm")):
            self._channels_first = True
        elif kind.startswith(("Linear", "LayerNorm", "Embedding")):
            self._channels_first = False


class _Hook:
    """The hook of one layer."""

    def __init__(self, hooks: ActivationHooks, name: str, module: Any) -> None:
        self._hooks = hooks
        self.name = name
        self.module = module
        self.role = _ROLES.get(type(module).__name__, "")
        self.calls = 0
        self.is_called = False
        self.handle = module.register_forward_hook(self)

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        """Look at the output, unless this is being compiled."""
        if not is_compiling():
            self._hooks.look(self, module, inputs, output)

    def is_at_home(self, tensor: Any) -> bool:
        """Return whether a tensor is on the device of the module that was copied."""
        first = next(self.module.parameters(), None)
        return first is None or bool(first.device == tensor.device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be, in a copy of the model, a function that takes anything and returns None."""
        return getattr, (nullcontext(), "__exit__")


def is_compiling() -> bool:
    """Return whether code is being compiled; the compiler takes that for a constant."""
    compiler = getattr(sys.modules["torch"], "compiler", None)
    return bool(getattr(compiler, "is_compiling", bool)())


def _in_backward() -> bool:
    return bool(sys.modules["torch"]._C._current_graph_task_id() != -1)  # noqa: SLF001 - there is no public name


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the layers in which something is computed, but none that are compiled."""
    torch = sys.modules["torch"]
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        return
    if isinstance(model, torch.jit.ScriptModule):
        return
    children = list(model.named_children())
    if not children or any(True for _ in model.parameters(recurse=False)):
        yield prefix or type(model).__name__, model
    for name, child in children:
        if name != "parametrizations":
            yield from _layers(child, f"{prefix}.{name}" if prefix else name)


def _activity(recorder: Recorder, kind: type[DeadRelu | SaturatedActivation]) -> float:
    """Return what a rule takes for active, by default what the rule does by default."""
    rules = [rule for rule in recorder.engine.rules if isinstance(rule, kind)]
    return rules[0].activity if rules else kind.activity


def _first_tensor(output: Any) -> Any | None:
    """Return the first tensor in what a layer returns."""
    torch = sys.modules["torch"]
    if isinstance(output, torch.Tensor):
        return output
    parts: Any = ()
    if isinstance(output, (list, tuple)):
        parts = output
    elif hasattr(output, "values") and callable(output.values):
        parts = output.values()
    found = (_first_tensor(part) for part in parts)
    return next((tensor for tensor in found if tensor is not None), None)


def _active(role: str, inputs: Any, output: Any) -> Any | None:
    """Return which elements of an activation's output are active; None of other layers."""
    if role == "relu":
        return output > 0
    given = inputs[0] if inputs else None
    if role not in _UNSATURATED or given is None or not hasattr(given, "is_floating_point"):
        return None
    low, high = _UNSATURATED[role]
    return (given >= low) & (given <= high)
