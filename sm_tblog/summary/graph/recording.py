"""Recording a run of a PyTorch model.

A ``TorchFunctionMode`` is told of every call of a PyTorch function made by Python code, and hooks
of every module that is entered and left; a tensor is known again by its identity. What a module
computes out of sight, in an extension or in TorchScript, is one node.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.summary.graph.base import GraphBuilder, Ref, TensorSpec, flattened
from sm_tblog.summary.graph.undisturbed import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sm_tblog.summary.graph.base import Node

__all__ = ["recorded"]

_SAME_TENSOR = {"alias", "data", "detach", "requires_grad"}
"""Functions that return, as far as a graph is concerned, what they are given."""


def recorded(model: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Node]:
    """Run a module or function once and return what it did.

    Args:
        model: the module or function.
        name: the scope for all that is inside it.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        Exception: whatever the model raises.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):  # type: ignore[misc] # torch is not followed
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            del types
            return recorder.call(func, args, kwargs or {})

    args, kwargs = _copied((args, dict(kwargs)))
    with undisturbed(model, _tensors((args, kwargs))) as guard:
        recorder = _Recorder(model, name, guard)
        for path, tensor in flattened(_by_parameter(model, args, kwargs), torch.Tensor):
            recorder.add_input(path, tensor)
        with recorder.hooks(), Mode():
            result = model(*args, **kwargs)
        recorder.finish(args, kwargs, result)
    return recorder.graph.nodes()


class _Frame(NamedTuple):
    """A module that has been entered: its name in the model, its scope, and itself."""

    name: str
    scope: str
    module: Any


class _Recorder:
    """Builds the graph from what it is told.

    Args:
        model: the module or function that is about to run.
        name: the scope for all that is inside it.
        guard: called with every tensor that is about to be written to.
    """

    def __init__(self, model: Any, name: str, guard: Callable[[Any], None]) -> None:
        self.graph = GraphBuilder()
        self._guard = guard
        self._thread = threading.get_ident()
        self._origins: dict[int, tuple[weakref.ref[Any], Ref]] = {}
        self._frames = [_Frame("", self.graph.scope(name), model)]
        self._modules: dict[int, str] = {}
        self._owned: dict[int, tuple[str, str]] = {}
        if hasattr(model, "named_modules"):
            self._modules = {id(module): path for path, module in model.named_modules() if path}
            for op, owned in (
                ("Parameter", model.named_parameters()),
                ("Buffer", model.named_buffers()),
            ):
                self._owned |= {id(tensor): (op, path) for path, tensor in owned}

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Be told of every module that is entered and left."""
        from torch.nn.modules import module as hooks

        with contextlib.ExitStack() as stack:
            enter = hooks.register_module_forward_pre_hook(self._enter)
            stack.callback(enter.remove)
            leave = hooks.register_module_forward_hook(
                self._leave, with_kwargs=True, always_call=True
            )
            stack.callback(leave.remove)
            yield

    def _is_ours(self, module: Any) -> bool:
        return id(module) in self._modules and threading.get_ident() == self._thread

    def _enter(self, module: Any, _: Any) -> None:
        if self._is_ours(module):
            name = self._modules[id(module)]
            around = self._frames[-1]
            if around.name and not name.startswith(f"{around.name}."):
                around = self._frames[0]
            below = name[len(around.name) :].strip(".").replace(".", "/")
            scope = self.graph.scope(f"{around.scope}/{below}")
            self._frames.append(_Frame(name, scope, module))

    def _leave(self, module: Any, *given_and_result: Any) -> None:
        if self._is_ours(module):
            # Arguments and keyword arguments, and no keyword arguments where it has raised.
            *given, result = given_and_result
            self._add_hidden(self._frames.pop(), given, result)

    def _add_hidden(self, frame: _Frame, given: Any, result: Any) -> None:
        """Add a node for what a module has computed out of sight, if it gives any of that."""
        if any(self._known(tensor) is None for tensor in _tensors(result)):
            kind = getattr(frame.module, "original_name", type(frame.module).__name__)
            self._add(kind, frame.scope, given, result, {"module": _line(frame.module)})

    def finish(self, args: Any, kwargs: Any, result: Any) -> None:
        """Add the outputs of the model."""
        self._add_hidden(self._frames[0], (args, kwargs), result)
        for name, tensor in flattened(result, sys.modules["torch"].Tensor, "output"):
            self.graph.add("Output", name, [self._origin(tensor)], [_spec(tensor)])

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a function of PyTorch and record what it gives."""
        full = getattr(func, "__name__", "function")
        if full == "__get__":
            full = getattr(func.__self__, "__name__", "property")
        full = full.partition(".")[0]  # of an overload: add.Tensor
        name = full.strip("_")
        writes = full.endswith("_") and not full.startswith("__")
        if writes or full == "__setitem__" or full.startswith("__i") or "out" in kwargs:
            for tensor in _tensors(kwargs.get("out", args[:1])):
                self._guard(tensor)
        result = func(*args, **kwargs)
        made = args[0] if full == "__setitem__" else result
        if name in _SAME_TENSOR:
            for tensor in _tensors(made):
                self._remember(tensor, self._origin(args[0]))
        elif _tensors(made):
            attributes = {"arguments": _arguments(args, kwargs)}
            if len(self._frames) > 1:
                attributes["module"] = _line(self._frames[-1].module)
            full = f"{self._frames[-1].scope}/{name}"
            self._add(name + "_" * writes, full, (args, kwargs), made, attributes)
        return result

    def add_input(self, name: str, tensor: Any) -> None:
        """Add a node for an input of the model."""
        self._remember(tensor, self.graph.add("Input", name, (), [_spec(tensor)]))

    def _add(self, op: str, name: str, given: Any, made: Any, attributes: Any) -> None:
        tensors = _tensors(made)
        node = self.graph.add(
            op,
            name,
            [self._origin(tensor) for tensor in _tensors(given)],
            [_spec(tensor) for tensor in tensors],
            attributes,
            str(tensors[0].device),
        )
        for i, tensor in enumerate(tensors):
            self._remember(tensor, Ref(node.node, i))

    def _remember(self, tensor: Any, origin: Ref) -> None:
        self._origins[id(tensor)] = weakref.ref(tensor), origin

    def _known(self, tensor: Any) -> Ref | None:
        """Return where a tensor comes from: from a node, or from the model itself."""
        found = self._origins.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        if id(tensor) not in self._owned:
            return None
        op, path = self._owned[id(tensor)]
        name = f"{self._frames[0].scope}/{path.replace('.', '/')}"
        attributes = {"trainable": tensor.requires_grad} if op == "Parameter" else {}
        device = str(tensor.device)
        origin = self.graph.add(op, name, (), [_spec(tensor)], attributes, device)
        self._remember(tensor, origin)
        return origin

    def _origin(self, tensor: Any) -> Ref:
        """Return where a tensor comes from; from nowhere that is known, it is a constant."""
        origin = self._known(tensor)
        if origin is None:
            name = f"{self._frames[-1].scope}/constant"
            origin = self.graph.add("Constant", name, (), [_spec(tensor)])
            self._remember(tensor, origin)
        return origin


def _tensors(value: Any) -> list[Any]:
    return [tensor for _, tensor in flattened(value, sys.modules["torch"].Tensor)]


def _copied(value: Any) -> Any:
    """Return the value with copies of the tensors inside its containers."""
    if isinstance(value, sys.modules["torch"].Tensor):
        return value.detach().clone()
    if type(value) in (tuple, list):
        return type(value)(map(_copied, value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_copied, value))
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value


def _by_parameter(model: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments by the names that the model has for them."""
    try:
        signature = inspect.signature(getattr(model, "forward", model))
    except ValueError:  # a function that is not Python's
        return {"input": args, **kwargs}
    return signature.bind(*args, **kwargs).arguments


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec.of(tensor.shape, tensor.dtype)


def _line(module: Any) -> str:
    """Return a module as in the listing of a model, without the modules below it."""
    kind = type(module).__name__
    try:
        return f"{kind}({module.extra_repr()})"
    except Exception:  # noqa: BLE001 - written by anyone
        return kind


def _arguments(args: Any, kwargs: Any) -> str:
    """Return the arguments that are no tensors, as they would be written."""
    named = [("", value) for value in args]
    named += [(f"{key}=", value) for key, value in kwargs.items() if value is not None]
    return ", ".join(f"{key}{_written(value)}" for key, value in named if not _tensors(value))


def _written(value: Any) -> str:
    if isinstance(value, slice):
        ends = value.start, value.stop, value.step
        parts = ["" if end is None else str(end) for end in ends]
        return ":".join(parts[:2] if value.step is None else parts)
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))})"
    return "..." if value is ... else str(value)
