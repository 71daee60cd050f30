"""Run a PyTorch model without side effects.

The model runs without gradients, in evaluation mode, uncompiled, and on copies of its buffers. A
parameter is copied before it is written to. Afterwards, the parameters, buffers, attributes of the
modules and random generators are restored. Changes outside the model, or inside a list, cannot be
undone.
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
    """Prepare a model for a run, and undo the changes of the run afterwards.

    Args:
        model: a module or function.
        tensors: the inputs.

    Yields:
        A function to call with each tensor before it is written to.
    """
    import torch

    modules = [*model.modules()] if hasattr(model, "modules") else []
    parameters = [*model.parameters()] if modules else []
    buffers = [*model.buffers()] if modules else []
    devices = {tensor.device for tensor in (*tensors, *parameters, *buffers)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_restored_generators(devices))
        stack.enter_context(_uncompiled())
        stack.enter_context(_restored_modules(modules, buffers))
        yield stack.enter_context(_restored_parameters(parameters))


@contextlib.contextmanager
def _restored_generators(devices: set[Any]) -> Iterator[None]:
    """Restore the random generators of Python, NumPy and, on the given devices, PyTorch."""
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global generator
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        for device in devices:
            if hasattr(getattr(torch, device.type, None), "set_rng_state_all"):
                stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which compiled modules run uncompiled."""
    import torch

    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return contextlib.nullcontext()  # nothing is compiled, or PyTorch has no such context
    context: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return context


@contextlib.contextmanager
def _restored_modules(modules: Sequence[Any], buffers: Sequence[Any]) -> Iterator[None]:
    """Use evaluation mode and copies of the buffers; restore all attributes afterwards."""
    import torch

    copies = {id(buffer): buffer.clone() for buffer in buffers}
    modes = [module.training for module in modules]
    before = [
        (module, dict(vars(module)), dict(module._buffers))  # noqa: SLF001 - assignment has checks
        for module in modules
        if not isinstance(module, torch.jit.ScriptModule)  # its attributes are not accessible
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
    """Restore a dictionary such that no entry is ever missing."""
    now.update(before)
    for name in now.keys() - before.keys():
        del now[name]


@contextlib.contextmanager
def _restored_parameters(parameters: Sequence[Any]) -> Iterator[Callable[[Any], None]]:
    """Restore parameters that were written to or whose data was replaced.

    Yields:
        A function to call with each tensor before it is written to.
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
    """Return the address of a tensor's storage, shared by all its views; 0 if it has none."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (NotImplementedError, RuntimeError):  # sparse, or not allocated yet
        return 0
