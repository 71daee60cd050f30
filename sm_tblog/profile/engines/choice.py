"""The choice of engines for a session."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from sm_tblog._errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from typing import TypeAlias

    from sm_tblog.profile.engine import Engine

    Framework: TypeAlias = bool | Literal["auto"] | Mapping[str, Any]
    Python: TypeAlias = Literal["sample", "trace"] | None
    Memory: TypeAlias = bool | Literal["python"]

__all__ = ["choose_engines"]


def choose_engines(
    python: Python, memory: Memory, frameworks: Mapping[str, Framework], max_events: int
) -> tuple[list[Engine], list[Engine]]:
    """Return the required engines, and the optional engines of frameworks set to ``"auto"``.

    Args:
        python: how to record Python code: ``"sample"``, ``"trace"``, or None for not at all.
        memory: whether to record memory; ``"python"`` includes the memory of Python objects.
        frameworks: the settings of ``torch``, ``jax`` and ``tensorflow``: True, False, or
            ``"auto"``, which selects a framework only if the script has imported it. A mapping is
            the same as True and sets the options of the engine.
        max_events: the maximum number of events in the session's file.

    Raises:
        InvalidTypeError: an option has the wrong type.
        InvalidValueError: an option has an invalid value.
        MissingDependencyError: a required package is not installed.
    """
    _check("python", python, (None, "sample", "trace"))
    _check("memory", memory, (False, True, "python"))
    if isinstance(max_events, bool) or not isinstance(max_events, int):
        message = f"profile: max_events must be an integer, got {max_events!r:.60}"
        raise InvalidTypeError(message)
    if max_events < 1:
        message = f"profile: max_events must be 1 or more, got {max_events}"
        raise InvalidValueError(message)
    wanted: list[Engine] = []
    optional: list[Engine] = []
    for name, choice in frameworks.items():
        if isinstance(choice, Mapping):
            wanted.append(_framework_engine(name, memory=bool(memory), options=choice))
            continue
        _check(name, choice, (False, True, "auto"))
        if choice is True:
            wanted.append(_framework_engine(name, memory=bool(memory)))
        elif choice and name in sys.modules:
            optional += _engine_in_use(name, memory=bool(memory))
    if memory:
        from sm_tblog.profile.recording.memory import Memory

        wanted.append(Memory(python=memory == "python"))
    if python == "sample":
        from sm_tblog.profile.recording.sampler import Sampler

        wanted.append(Sampler(max_events))
    if python == "trace":
        from sm_tblog.profile.recording.tracer import Tracer

        wanted.append(Tracer(max_events))
    return wanted, optional


def _framework_engine(
    name: str, *, memory: bool, options: Mapping[str, Any] = MappingProxyType({})
) -> Engine:
    """Return the engine of a framework.

    Args:
        name: the name of the framework.
        memory: whether to record allocations, if the engine has that option.
        options: the options of the engine; they take precedence over ``memory``.

    Raises:
        InvalidTypeError: the engine does not have one of the options.
        MissingDependencyError: the framework is not installed.
    """
    module: Any = importlib.import_module(f"sm_tblog.profile.engines.{name}")
    make = getattr(module, f"{name}_engine")
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            message = f"profile: {name} has no option {option!r:.60}, only {', '.join(known)}"
            raise InvalidTypeError(message)
    defaults = {"memory": memory} if "memory" in known else {}
    engine: Engine = make(**{**defaults, **options})
    return engine


def _engine_in_use(name: str, *, memory: bool) -> list[Engine]:
    """Return the engine of an imported framework, unless the framework is known to be unused."""
    # If the framework's profiler is missing, the script is profiled without it.
    with contextlib.suppress(ImportError):
        engine = _framework_engine(name, memory=memory)
        if not hasattr(engine, "is_in_use") or engine.is_in_use():
            return [engine]
    return []


def _check(name: str, given: object, known: tuple[object, ...]) -> None:
    if not any(given is one or (isinstance(given, str) and given == one) for one in known):
        message = f"profile: {name} must be one of {', '.join(map(repr, known))}, got {given!r:.60}"
        raise InvalidValueError(message)
