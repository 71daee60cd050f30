"""Record the outputs of a PyTorch model's layers, without forward hooks (see ``torch_calls``).

The layers are observed only while a log step is due. Of each layer, the first training forward pass
of that step is recorded: gradients are enabled, the layer is in training mode, and no backward pass
has begun since the last optimizer step. Outputs in code that is compiled or traced are not
recorded.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sm_tblog._compilation import uncompiled
from sm_tblog.rules.layers import DeadRelu, SaturatedActivation
from sm_tblog.watch.collector import PendingTensor
from sm_tblog.watch.torch_calls import apart, attach, detach, is_compiled, is_traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sm_tblog.watch.collector import StatisticsCollector
    from sm_tblog.watch.recorder import Recorder

__all__ = ["LayerOutputs"]

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


@uncompiled
class LayerOutputs:
    """Records the layer outputs for one watch.

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
        self._layers: list[_Layer] = []
        self._entries: list[PendingTensor] = []
        self._collector: StatisticsCollector | None = None
        self._in_backward = False
        self._has_backward_hook = False
        self._channels_first = False
        self._has_failed = False
        self._idle_passes = 0

    def begin(self, model: Any, collector: StatisticsCollector) -> None:
        """Record the next passes; forget what has been recorded and not been finished."""
        self.remove()
        self._collector = collector
        self._entries = []
        self._in_backward = self._has_backward_hook = False
        for name, module in _layers(model):
            if self._wanted(name):
                layer = _Layer(self, name, module)
                if attach(module, layer):
                    self._layers.append(layer)

    def pause(self) -> None:
        """Go on after an optimizer's step, with the layers that have not been recorded."""
        self._in_backward = self._has_backward_hook = False
        for layer in self._layers:
            layer.is_done = layer.calls > 0

    def finish(self) -> list[PendingTensor]:
        """Return the recorded outputs and leave the model."""
        self._idle_passes = 0
        self.remove()
        entries, self._entries = self._entries, []
        return entries

    def remove(self) -> None:
        """Leave the model."""
        self._collector = None
        for layer in self._layers:
            layer.remove()
        self._layers = []

    def record(self, layer: _Layer, module: Any, inputs: Any, output: Any) -> None:
        """Record an output if it belongs to the first training forward pass of the step."""
        torch = sys.modules["torch"]
        if self._collector is None or not (torch.is_grad_enabled() and module.training):
            return
        if layer.calls >= MAX_CALLS or is_traced():
            return
        recomputing = _in_backward()
        # Checkpointing recomputes outputs in the backward pass: they are already recorded, unless
        # the first computation ran without gradients.
        if layer.is_done or (layer.calls if recomputing else self._in_backward):
            self._count_idle(layer)
            return
        try:
            with apart():
                self._record_first(layer, module, inputs, _first_tensor(output))
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception("watch: could not record the output of %r", layer.name)

    def _record_first(self, layer: _Layer, module: Any, inputs: Any, tensor: Any) -> None:
        if tensor is None or not tensor.is_floating_point():
            return
        if module is not layer.module() and not layer.is_replica(module, tensor):
            return
        layer.calls += 1
        if not self._has_backward_hook and tensor.requires_grad and not _in_backward():
            self._has_backward_hook = True
            tensor.register_hook(self._begin_backward)
        self._add(layer, module, inputs, tensor)

    def _count_idle(self, layer: _Layer) -> None:
        """Warn once if there are forward and backward passes but no optimizer steps."""
        if layer is self._layers[0]:
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

    def _add(self, layer: _Layer, module: Any, inputs: Any, tensor: Any) -> None:
        from sm_tblog.watch.torch_statistics import inactive_share

        collector: Any = self._collector
        pending = collector.collect(tensor, layer.name)
        if pending is None:
            return
        inactive = None
        samples = 0
        active = _active(layer.role, inputs, tensor)
        if active is not None and active.ndim > 1:
            axis = 1 if self._channels_first or active.ndim > 3 else -1
            samples = active.numel() // max(active.shape[axis], 1)
            inactive = collector.fetch_number(
                inactive_share(active, axis, self._activity[layer.role])
            )
        collector.pack()
        self._entries.append(
            PendingTensor(
                "activations", layer.name, tensor.ndim, layer.role, pending, None, inactive, samples
            )
        )
        kind = type(module).__name__
        if kind.startswith(("Conv", "BatchNorm", "InstanceNorm", "GroupNorm")):
            self._channels_first = True
        elif kind.startswith(("Linear", "LayerNorm", "Embedding")):
            self._channels_first = False


class _Layer:
    """The observer of one layer."""

    def __init__(self, outputs: LayerOutputs, name: str, module: Any) -> None:
        self._outputs = outputs
        self.name = name
        self.module = weakref.ref(module)
        self.role = _ROLES.get(type(module).__name__, "")
        self.calls = 0
        self.is_done = False

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        """Record the output."""
        self._outputs.record(self, module, inputs, output)

    def is_replica(self, module: Any, tensor: Any) -> bool:
        """Return whether a module is the replica of the layer on the layer's own device."""
        if not getattr(module, "_is_replica", False):  # DataParallel's; otherwise a copy
            return False
        original = self.module()
        first = None if original is None else next(original.parameters(), None)
        return first is None or bool(first.device == tensor.device)

    def remove(self) -> None:
        """Leave the layer, if it exists."""
        module = self.module()
        if module is not None:
            detach(module, self)


def _in_backward() -> bool:
    return bool(sys.modules["torch"]._C._current_graph_task_id() != -1)  # noqa: SLF001 - there is no public API


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names and modules of layers that compute something, except compiled ones."""
    torch = sys.modules["torch"]
    if hasattr(model, "_orig_mod") or is_compiled(model):
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
    elif isinstance(output, Mapping):
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
