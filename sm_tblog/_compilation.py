"""Keep ``torch.compile`` out of this library's code, so that a compiled model can log.

TorchDynamo traces every function that compiled code calls, unless it is marked. Tracing a call that
logs is useless: it has side effects on other threads. It also fails at times, because Dynamo
iterates over ``sys.modules`` while the worker thread imports a module.

A marked function runs as it is: the compiled code is split into a graph before the call and one
after it, as with ``torch.compiler.disable``. With ``fullgraph=True`` Dynamo raises an error that
contains ``REASON``. The mark adds nothing to a call. It has two parts:

1. an attribute of the function, which Dynamo checks before it traces into a call;
2. an entry in PyTorch's table of code objects, which it checks before it compiles a frame. It is
   made as soon as Dynamo is imported, before it can compile anything.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType

__all__ = ["REASON", "skip_frames", "uncompiled"]

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")

REASON = (
    "sm_tblog logs outside compiled graphs: with fullgraph=True, return the values from the "
    "compiled function and log them after the call"
)

_DYNAMO = "torch._dynamo"

_PACKAGE = str(Path(__file__).parent)

_codes: list[tuple[CodeType, bool]] = []  # those that wait for the import of Dynamo


def uncompiled(target: T) -> T:
    """Return a function or class after marking it and, of a class, all methods.

    Methods of base classes outside this library, and functions that only get a property, are left
    as they are.
    """
    for function in _functions(target):
        function._torchdynamo_disable = True  # type: ignore[attr-defined] # noqa: SLF001 - Dynamo's name
        function._torchdynamo_disable_msg = REASON  # type: ignore[attr-defined] # noqa: SLF001 - Dynamo's name
        skip_frames(function)
    return target


def skip_frames(function: F, *, recursively: bool = True) -> F:
    """Return a function after making sure that its frames are never compiled.

    Compiled code that calls it still traces into it.

    Args:
        function: the function.
        recursively: whether the frames of what it calls are not compiled either.
    """
    codes = {function.__code__, inspect.unwrap(function).__code__}
    # Not those of contextlib, which other code shares.
    own = [code for code in codes if code.co_filename.startswith(_PACKAGE)]
    _codes.extend((code, recursively) for code in own)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if _DYNAMO in sys.modules:
        _skip_codes()
    return function


def _functions(target: Any) -> Iterator[FunctionType]:
    if isinstance(target, FunctionType):
        yield target
        return
    for kind in target.__mro__:
        if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
            for member in list(vars(kind).values()):
                function = getattr(member, "fset", None) or getattr(member, "__func__", member)
                if isinstance(function, FunctionType):
                    yield function


class _Finder:
    """Waits for the import of Dynamo; finds no module itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002 - the protocol
        """Apply the marks if Dynamo is about to be imported."""
        if name == _DYNAMO:
            _skip_codes()


def _skip_codes() -> None:
    """Tell PyTorch never to compile the frames of the marked functions."""
    codes = [_codes.pop() for _ in range(len(_codes))]
    try:
        frames: Any = importlib.import_module("torch._C._dynamo.eval_frame")
        actions = frames._FrameAction  # noqa: SLF001 - there is no public name
        for code, recursively in codes:
            nested = actions.SKIP if recursively else actions.DEFAULT
            strategy = frames._FrameExecStrategy(actions.SKIP, nested)  # noqa: SLF001
            frames.set_code_exec_strategy(code, strategy)
    except (ImportError, AttributeError):  # a release of PyTorch without it: calls are traced
        return
