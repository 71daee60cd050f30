"""Names of the public methods in Python's own messages, and the two names of the step.

``Writer`` consists of one class for each kind of data. Python names the class in which a function
was defined if its arguments are wrong: ``ScalarMethods.add_scalar() missing 1 required positional
argument``. ``with_public_names`` makes it ``Writer.add_scalar()``.

The step is called ``global_step`` in methods that torch's and tensorboardX's writers have, and
``step`` in the others. Every method accepts both.
"""

from __future__ import annotations

from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from sm_tblog._errors import InvalidTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["one_step", "with_public_names"]

_Class = TypeVar("_Class", bound=type)

_OTHER_NAMES = {"global_step": "step", "step": "global_step"}


def with_public_names(cls: _Class) -> _Class:
    """Name the functions of a class and its bases after the class; accept both names of a step."""
    for base in cls.__mro__[:-1]:
        for name, function in vars(base).items():
            while isinstance(function, FunctionType):
                function.__qualname__ = f"{cls.__qualname__}.{name}"
                function.__module__ = cls.__module__  # so that it can be pickled
                function = getattr(function, "__wrapped__", None)  # noqa: PLW2901 - of a decorator
    for name in dir(cls):
        function = getattr(cls, name)
        if not name.startswith("_") and isinstance(function, FunctionType):
            setattr(cls, name, _with_both_names(function))
    return cls


def one_step(method: str, first: Any, second: Any) -> Any:
    """Return the step that was passed by one of its two names, or None.

    Raises:
        InvalidTypeError: it was passed by both.
    """
    if first is not None and second is not None:
        message = f"{method}() got both global_step and step, which are the same; pass one of them"
        raise InvalidTypeError(message)
    return second if first is None else first


def _with_both_names(function: FunctionType) -> Callable[..., Any]:
    """Return a function that accepts its step by both names."""
    inner = getattr(function, "__wrapped__", function).__code__
    names = inner.co_varnames[: inner.co_argcount + inner.co_kwonlyargcount]
    found = [name for name in _OTHER_NAMES if name in names]
    if len(found) != 1:
        return function
    (name,) = found
    other = _OTHER_NAMES[name]
    position = names.index(name) if names.index(name) < inner.co_argcount else len(names)

    @wraps(function)
    def method(*args: Any, **options: Any) -> Any:
        if other in options:
            by_position = position < len(args)
            given = args[position] if by_position else options.get(name)
            step = one_step(function.__name__, given, options.pop(other))
            if by_position:
                args = (*args[:position], step, *args[position + 1 :])
            else:
                options[name] = step
        return function(*args, **options)

    return method
