"""Forward hooks that record the outputs of a PyTorch model's layers.

The hooks are in the model only while a log step is due. They record the first training forward pass
of that step: gradients are enabled, the layer is in training mode, and no backward pass has begun.

In a copy of the model, a hook becomes a function of the standard library that does nothing, so
models can be copied, pickled and saved at any time. While code is being compiled or traced, the
hooks do nothing: they cause no graph breaks, and outputs in that code are not recorded.
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

MAX_CALLS = 64
"""Maximum number of calls of one layer recorded at a step: a recurrent cell has many."""

MAX_IDLE_PASSES = 1000
"""Forward passes without an optimizer step that are too many to be gradient accumulation."""

_ROLES = {
    **dict.fromkeys(("ReLU", "ReLU6"), "relu"),
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    **dict.fromkeys(("Linear", "Bilinear", "LazyLinear"), "weighted"),
    **dict.fromkeys((f"Conv{n}d" for n in "123"), "weighted"),
    **dict.fromkeys((f"ConvTranspose{n}d" for n in "123"), "weighted"),
}
"""Role of a layer by the name of its class in ``torch.nn``."""

_UNSATURATED = {"tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}
"""Range of inputs for which an activation has a gradient, as in SageMaker Debugger."""


class ActivationHooks:
    """The hooks of one watch.

    Args:
        recorder: the recorder, whose rules define when a unit is active.
        wanted: returns whether the layer of a given name is watched.
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
        self._collector: StatisticsCollector | None = None
        self._in_backward = False
        self._has_backward_hook = False
        self._channels_first = False
        self._has_failed = False
        self._idle_passes = 0

    def enable(self, model: Any, collector: StatisticsCollector) -> None:
        """Start a new step; add hooks to the layers that have none."""
        self._collector = collector
        self._entries = []
        self._in_backward = self._has_backward_hook = False
        hooked = {hook.module for hook in self._hooks}
        for hook in self._hooks:
            hook.calls = 0
        for name, module in _layers(model):
            if module not in hooked and self._wanted(name):
                self._hooks.append(_Hook(self, name, module))

    def finish(self) -> list[PendingTensor]:
        """Return the recorded outputs and remove the hooks.

        Hooks that were never called stay: they are in compiled code, which would have to be
        recompiled without them, or in unused layers.
        """
        self._collector = None
        self._idle_passes = 0
        kept = [hook for hook in self._hooks if not hook.is_called]
        for hook in self._hooks:
            if hook.is_called:
                hook.handle.remove()
        self._hooks = kept
        entries, self._entries = self._entries, []
        return entries

    def remove(self) -> None:
        """Remove all hooks."""
        self._collector = None
        for hook in self._hooks:
            hook.handle.remove()
        self._hooks = []

    def record(self, hook: _Hook, module: Any, inputs: Any, output: Any) -> None:
        """Record an output if it belongs to the first training forward pass of the step."""
        torch = sys.modules["torch"]
        if self._collector is None or torch.jit.is_tracing():
            return
        hook.is_called = True
        recomputing = _in_backward()
        if not (torch.is_grad_enabled() and module.training) or hook.calls >= MAX_CALLS:
            return
        # Checkpointing recomputes outputs in the backward pass: they are already recorded, unless
        # the first computation ran without gradients.
        if hook.calls if recomputing else self._in_backward:
            self._count_idle(hook)
            return
        tensor = _first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return
        if getattr(module, "_is_replica", False) and not hook.is_on_own_device(tensor):
            return
        hook.calls += 1
        if not self._has_backward_hook and tensor.requires_grad and not recomputing:
            self._has_backward_hook = True
            tensor.register_hook(self._begin_backward)
        try:
            with torch.no_grad():
                self._add(hook, module, inputs, tensor)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception("watch: could not record the output of %r", hook.name)

    def _count_idle(self, hook: _Hook) -> None:
        """Warn once if hooked are forward and backward passes but no optimizer steps."""
        if hook is self._hooks[0]:
            self._idle_passes += 1
            if self._idle_passes == MAX_IDLE_PASSES:
                logger.warning(
                    "watch: nothing is logged, because after %d forward passes no optimizer that "
                    "has parameters of the model has made a step. If your loop updates weights "
                    "without a torch.optim.Optimizer, call step() on the object that writer.watch "
                    "returned after each update",
                    MAX_IDLE_PASSES,
                )

    def _begin_backward(self, gradient: Any) -> None:  # noqa: ARG002 - PyTorch's signature
        self._in_backward = True

    def _add(self, hook: _Hook, module: Any, inputs: Any, tensor: Any) -> None:
        from sm_tblog.watch.torch_statistics import inactive_share

        collector: Any = self._collector
        pending = collector.collect(tensor, hook.name)
        if pending is None:
            return
        inactive = None
        samples = 0
        active = _active(hook.role, inputs, tensor)
        if active is not None and active.ndim > 1:
            axis = 1 if self._channels_first or active.ndim > 3 else -1
            samples = active.numel() // max(active.shape[axis], 1)
            inactive = collector.fetch_number(
                inactive_share(active, axis, self._activity[hook.role])
            )
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
    """The forward hook of one layer."""

    def __init__(self, hooks: ActivationHooks, name: str, module: Any) -> None:
        self._hooks = hooks
        self.name = name
        self.module = module
        self.role = _ROLES.get(type(module).__name__, "")
        self.calls = 0
        self.is_called = False
        self.handle = module.register_forward_hook(self)

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        """Record the output, unless the code is being compiled."""
        if not is_compiling():
            self._hooks.record(self, module, inputs, output)

    def is_on_own_device(self, tensor: Any) -> bool:
        """Return whether a tensor is on the device of the original module, not of a replica."""
        first = next(self.module.parameters(), None)
        return first is None or bool(first.device == tensor.device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Become a function that accepts any arguments and returns None in a copy of the model."""
        return getattr, (nullcontext(), "__exit__")


def is_compiling() -> bool:
    """Return whether code is being compiled; the compiler treats the result as a constant."""
    compiler = getattr(sys.modules["torch"], "compiler", None)
    return bool(getattr(compiler, "is_compiling", bool)())


def _in_backward() -> bool:
    return bool(sys.modules["torch"]._C._current_graph_task_id() != -1)  # noqa: SLF001 - there is no public API


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names and modules of layers that compute something, except compiled ones."""
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
    """Return the ``activity`` of the first rule of a kind, or else its default."""
    rules = [rule for rule in recorder.engine.rules if isinstance(rule, kind)]
    return rules[0].activity if rules else kind.activity


def _first_tensor(output: Any) -> Any | None:
    """Return the first tensor in the output of a layer."""
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
    """Return which elements of an activation's output are active; None for other layers."""
    if role == "relu":
        return output > 0
    given = inputs[0] if inputs else None
    if role not in _UNSATURATED or given is None or not hasattr(given, "is_floating_point"):
        return None
    low, high = _UNSATURATED[role]
    return (given >= low) & (given <= high)
