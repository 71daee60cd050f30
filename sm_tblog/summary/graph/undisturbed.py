"""Running a PyTorch model so that nothing shows that it ran.

It runs without gradients, in evaluation mode, as it was written where it has been compiled, and on
copies of its buffers. A parameter that is written to is copied first. Afterwards parameters,
buffers, the modules' attributes and the random generators are as they were before. What a model
changes outside of itself, or inside a list, is out of reach.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["undisturbed"]


@contextlib.contextmanager
def undisturbed(model: Any, tensors: Sequence[Any]) -> Iterator[Callable[[Any], None]]:
    """Prepare a model to be run, and undo afterwards what the run has done to it.

    Args:
        model: a module, or a function.
        tensors: its inputs.

    Yields:
        What is to be called with a tensor before it is written to.
    """
    import torch

    modules = [*model.modules()] if hasattr(model, "modules") else []
    parameters = [*model.parameters()] if modules else []
    buffers = [*model.buffers()] if modules else []
    devices = {tensor.device for tensor in (*tensors, *parameters, *buffers)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_same_generators(devices))
        stack.enter_context(_uncompiled())
        stack.enter_context(_same_modules(modules, buffers))
        yield stack.enter_context(_same_parameters(parameters))


@contextlib.contextmanager
def _same_generators(devices: set[Any]) -> Iterator[None]:
    """Leave the random generators of Python, NumPy and PyTorch, on these devices, as they are."""
    import torch

    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        for device in devices:
            if hasattr(getattr(torch, device.type, None), "set_rng_state_all"):
                stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which compiled modules run as they were written."""
    import torch

    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return contextlib.nullcontext()  # nothing has been compiled, or nothing can be done
    context: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return context


@contextlib.contextmanager
def _same_modules(modules: Sequence[Any], buffers: Sequence[Any]) -> Iterator[None]:
    """Put modules into evaluation mode, on copies of the buffers; restore all that they hold."""
    import torch

    copies = {id(buffer): buffer.clone() for buffer in buffers}
    modes = [module.training for module in modules]
    before = [
        (module, dict(vars(module)), dict(module._buffers))  # noqa: SLF001 - assignment would check
        for module in modules
        if not isinstance(module, torch.jit.ScriptModule)  # what it holds is out of reach
    ]
    try:
        for module in modules:
            module.training = False
        for module, _, own in before:
            for name, buffer in own.items():
                module._buffers[name] = copies.get(id(buffer))  # noqa: SLF001
        yield
    finally:
        for module, attributes, own in before:
            _restore(vars(module), attributes)
            _restore(module._buffers, own)  # noqa: SLF001
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _restore(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Make a dictionary what it was, without a moment in which something is missing."""
    now.update(before)
    for name in now.keys() - before.keys():
        del now[name]


@contextlib.contextmanager
def _same_parameters(parameters: Sequence[Any]) -> Iterator[Callable[[Any], None]]:
    """Restore parameters that have been written to, or given other data.

    Yields:
        What is to be called with a tensor before it is written to.
    """
    before = [(parameter, parameter.data, _memory(parameter)) for parameter in parameters]
    copies: dict[int, list[tuple[Any, Any]]] = {}

    def guard(tensor: Any) -> None:
        written = _memory(tensor)
        if written and written not in copies:
            copies[written] = [(d, d.clone()) for _, d, memory in before if memory == written]

    try:
        yield guard
    finally:
        for data, copy in itertools.chain.from_iterable(copies.values()):
            data.copy_(copy)
        for parameter, data, memory in before:
            if _memory(parameter) != memory:
                parameter.data = data


def _memory(tensor: Any) -> int:
    """Return where a tensor's values are, the same for all views of it; 0 if they are nowhere."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (NotImplementedError, RuntimeError):  # sparse, or not there yet
        return 0
