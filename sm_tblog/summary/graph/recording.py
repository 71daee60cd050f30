"""Record one run of a PyTorch model.

A ``TorchFunctionMode`` intercepts every call of a PyTorch function from Python code, and global
hooks intercept every module call. Tensors are recognized by identity. A computation that cannot be
intercepted, in an extension or in TorchScript, is one node for its module.
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

__all__ = ["record_run"]

_SAME_TENSOR = {"alias", "data", "detach", "requires_grad"}
"""Functions whose result is the same tensor as their input in the graph."""


def record_run(
    model: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Node]:
    """Run a module or function once; return the nodes of its graph.

    Args:
        model: the module or function.
        name: the name of the outermost scope.
        args: the positional arguments.
        kwargs: the keyword arguments.

    Raises:
        Exception: any exception that the model raises.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):  # type: ignore[misc] # imports of torch are not followed
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
    """A module whose ``forward`` is running: its name in the model, its scope, the module."""

    name: str
    scope: str
    module: Any


class _Recorder:
    """Builds the graph from intercepted calls.

    Args:
        model: the module or function that is about to run.
        name: the name of the outermost scope.
        guard: called with every tensor before it is written to.
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
        """Intercept the start and end of every module call."""
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
            parent = self._frames[-1]
            if parent.name and not name.startswith(f"{parent.name}."):
                parent = self._frames[0]
            below = name[len(parent.name) :].strip(".").replace(".", "/")
            scope = self.graph.scope(f"{parent.scope}/{below}")
            self._frames.append(_Frame(name, scope, module))

    def _leave(self, module: Any, *given_and_result: Any) -> None:
        if self._is_ours(module):
            # args, kwargs and result; without kwargs if forward has raised.
            *given, result = given_and_result
            self._add_opaque(self._frames.pop(), given, result)

    def _add_opaque(self, frame: _Frame, given: Any, result: Any) -> None:
        """Add a node for a module if a tensor of its result was not seen in an intercepted call."""
        if any(self._known_origin(tensor) is None for tensor in _tensors(result)):
            kind = getattr(frame.module, "original_name", type(frame.module).__name__)
            self._add(kind, frame.scope, given, result, {"module": _summary_of(frame.module)})

    def finish(self, args: Any, kwargs: Any, result: Any) -> None:
        """Add the outputs of the model."""
        self._add_opaque(self._frames[0], (args, kwargs), result)
        for name, tensor in flattened(result, sys.modules["torch"].Tensor, "output"):
            self.graph.add("Output", name, [self._origin(tensor)], [_spec(tensor)])

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a PyTorch function and record its result."""
        full = getattr(func, "__name__", "function")
        if full == "__get__":
            full = getattr(func.__self__, "__name__", "property")
        full = full.partition(".")[0]  # the name of an overload: add.Tensor
        name = full.strip("_")
        writes = full.endswith("_") and not full.startswith("__")
        if writes or full == "__setitem__" or full.startswith("__i") or "out" in kwargs:
            for tensor in _tensors(kwargs.get("out", args[:1])):
                self._guard(tensor)
        result = func(*args, **kwargs)
        outputs = args[0] if full == "__setitem__" else result
        if name in _SAME_TENSOR:
            for tensor in _tensors(outputs):
                self._remember(tensor, self._origin(args[0]))
        elif _tensors(outputs):
            attributes = {"arguments": _arguments(args, kwargs)}
            if len(self._frames) > 1:
                attributes["module"] = _summary_of(self._frames[-1].module)
            full = f"{self._frames[-1].scope}/{name}"
            self._add(name + "_" * writes, full, (args, kwargs), outputs, attributes)
        return result

    def add_input(self, name: str, tensor: Any) -> None:
        """Add a node for an input of the model."""
        self._remember(tensor, self.graph.add("Input", name, (), [_spec(tensor)]))

    def _add(self, op: str, name: str, given: Any, outputs: Any, attributes: Any) -> None:
        tensors = _tensors(outputs)
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

    def _known_origin(self, tensor: Any) -> Ref | None:
        """Return the origin of a tensor, a node or the model itself; None if unknown."""
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
        """Return the origin of a tensor; a tensor of unknown origin is a constant."""
        origin = self._known_origin(tensor)
        if origin is None:
            name = f"{self._frames[-1].scope}/constant"
            origin = self.graph.add("Constant", name, (), [_spec(tensor)])
            self._remember(tensor, origin)
        return origin


def _tensors(value: Any) -> list[Any]:
    return [tensor for _, tensor in flattened(value, sys.modules["torch"].Tensor)]


def _copied(value: Any) -> Any:
    """Return the value with the tensors in its containers copied."""
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
    """Return the arguments by the names of the model's parameters."""
    try:
        signature = inspect.signature(getattr(model, "forward", model))
    except ValueError:  # not a Python function
        return {"input": args, **kwargs}
    return signature.bind(*args, **kwargs).arguments


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec.of(tensor.shape, tensor.dtype)


def _summary_of(module: Any) -> str:
    """Return a module as PyTorch prints it, without its submodules."""
    kind = type(module).__name__
    try:
        return f"{kind}({module.extra_repr()})"
    except Exception:  # noqa: BLE001 - user code
        return kind


def _arguments(args: Any, kwargs: Any) -> str:
    """Return the arguments that are not tensors, formatted as in a call."""
    named = [("", value) for value in args]
    named += [(f"{key}=", value) for key, value in kwargs.items() if value is not None]
    return ", ".join(f"{key}{_formatted(value)}" for key, value in named if not _tensors(value))


def _formatted(value: Any) -> str:
    if isinstance(value, slice):
        ends = value.start, value.stop, value.step
        parts = ["" if end is None else str(end) for end in ends]
        return ":".join(parts[:2] if value.step is None else parts)
    if isinstance(value, tuple):
        return f"({', '.join(map(_formatted, value))})"
    return "..." if value is ... else str(value)
