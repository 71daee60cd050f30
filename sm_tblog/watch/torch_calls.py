"""Observe the calls of PyTorch modules without changing what the modules are to other code.

A forward hook is part of a module: ``torch.jit.script`` compiles it, copies of the model contain
it, quantization moves it to other modules, a CUDA graph refuses it. This module uses the attribute
in which ``Module.compile`` keeps a compiled ``__call__`` instead. PyTorch leaves that attribute out
of copies and pickles, TorchScript and FX pass over it, and Dynamo neither reads nor guards it.

No operation of an observer is seen by the user's dispatch and function modes: ``apart`` sets
them aside. During a trace, observers should do nothing: see ``is_traced``.
"""

from __future__ import annotations

import contextlib
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from sm_tblog._compilation import skip_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Observer = Callable[[Any, tuple[Any, ...], Any], None]

__all__ = ["apart", "attach", "detach", "is_compiled", "is_compiling", "is_traced"]

_SLOT = "_compiled_call_impl"


class _CallSlot:
    """Calls a module, and shows the module, its inputs and its output to observers.

    To TorchScript it is a function that it cannot compile, which is an attribute it leaves out.
    """

    __slots__ = ("module", "observers")

    __class__ = property(lambda self: FunctionType)  # noqa: ARG005 - the docstring says why

    def __init__(self, module: Any) -> None:
        self.module = module
        self.observers: tuple[Observer, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return self.module._call_impl(*args, **kwargs)  # noqa: SLF001 - what Module.__call__ calls
        # A module whose attributes were copied, such as a replica of DataParallel, has this slot
        # too; only the frame of its __call__ knows which module is called.
        caller = sys._getframe(1).f_locals.get("self")  # noqa: SLF001 - the only way
        is_copy = getattr(caller, "__dict__", {}).get(_SLOT) is self
        module: Any = caller if is_copy else self.module
        output = module._call_impl(*args, **kwargs)  # noqa: SLF001
        for observer in self.observers:
            observer(module, args, output)
        return output

    def __reduce__(self) -> tuple[Any, ...]:
        """Become None in a copy of a module that copies all attributes."""
        return type(None), ()


skip_frames(_CallSlot.__call__, recursively=False)


def is_compiled(module: Any) -> bool:
    """Return whether ``Module.compile`` has compiled a module."""
    return type(getattr(module, _SLOT, None)) not in (_CallSlot, type(None))


def attach(module: Any, observer: Observer) -> bool:
    """Call an observer after each call of a module; return False if the module is compiled."""
    attributes = vars(module)
    slot = attributes.get(_SLOT)
    if slot is None:
        slot = attributes[_SLOT] = _CallSlot(module)
    elif is_compiled(module):
        return False
    slot.observers += (observer,)
    return True


def detach(module: Any, observer: Observer) -> None:
    """Undo ``attach``; the module may have been compiled meanwhile."""
    attributes = vars(module)
    slot = attributes.get(_SLOT)
    if type(slot) is _CallSlot:
        slot.observers = tuple(each for each in slot.observers if each is not observer)
        if not slot.observers:
            del attributes[_SLOT]


def is_compiling() -> bool:
    """Return whether code is being compiled; the compiler treats the result as a constant."""
    import torch  # Dynamo would iterate over sys.modules, which other threads change

    compiler = getattr(torch, "compiler", None)
    return bool(getattr(compiler, "is_compiling", bool)())


def is_traced() -> bool:
    """Return whether operations are recorded or transformed instead of being part of training."""
    import torch
    from torch.utils import _python_dispatch as dispatch

    ops: Any = torch._ops  # noqa: SLF001 - the modes of a trace have no public name
    return (
        is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 - vmap, grad
        or getattr(ops, "_len_torch_dispatch_stack_pre_dispatch", int)() > 0
        or any(
            getattr(mode, "_mode_key", None) is not None  # of FX, fake or functional tensors
            for mode in dispatch._get_current_dispatch_mode_stack()  # noqa: SLF001
        )
    )


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Run operations without gradients and unseen by dispatch and function modes."""
    import torch
    from torch.utils import _python_dispatch as dispatch

    with contextlib.ExitStack() as stack:
        stack.enter_context(dispatch._disable_current_modes())  # noqa: SLF001 - there is no public name
        for _ in range(torch._C._len_torch_function_stack()):  # noqa: SLF001
            stack.enter_context(torch.overrides._pop_mode_temporarily())  # noqa: SLF001
        stack.enter_context(torch.no_grad())
        yield
