"""Which engines a session has."""

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
    """Return the engines that were asked for, and those that are there because it may be helpful.

    Args:
        python: what is recorded of Python code.
        memory: what is recorded of memory.
        frameworks: ``torch``, ``jax`` and ``tensorflow``, each with True, False, or ``"auto"``:
            only if the script has imported it; or the options of its engine, which is True.
        max_events: how many events the session's file may have.

    Raises:
        InvalidTypeError: an option is of the wrong kind.
        InvalidValueError: there is no such option.
        MissingDependencyError: a package is needed and not installed.
    """
    _check("python", python, (None, "sample", "trace"))
    _check("memory", memory, (False, True, "python"))
    if isinstance(max_events, bool) or not isinstance(max_events, int):
        message = f"profile: max_events is an integer, got {max_events!r:.60}"
        raise InvalidTypeError(message)
    if max_events < 1:
        message = f"profile: max_events is 1 or more, got {max_events}"
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
            optional += _useful_engine(name, memory=bool(memory))
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
        name: the framework's.
        memory: whether to record allocations, where its profiler has a choice.
        options: the engine's; they go before ``memory``.

    Raises:
        InvalidTypeError: it has no such option.
        MissingDependencyError: it is not installed.
    """
    module: Any = importlib.import_module(f"sm_tblog.profile.engines.{name}")
    make = getattr(module, f"{name}_engine")
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            message = f"profile: {name} has the options {', '.join(known)}, and no {option!r:.60}"
            raise InvalidTypeError(message)
    by_default = {"memory": memory} if "memory" in known else {}
    engine: Engine = make(**{**by_default, **options})
    return engine


def _useful_engine(name: str, *, memory: bool) -> list[Engine]:
    """Return the engine of a framework that was imported, if the script may use it."""
    # Without the package's profiler, the script that has imported it is profiled still.
    with contextlib.suppress(ImportError):
        engine = _framework_engine(name, memory=memory)
        if not hasattr(engine, "is_in_use") or engine.is_in_use():
            return [engine]
    return []


def _check(name: str, given: object, known: tuple[object, ...]) -> None:
    if not any(given is one or (isinstance(given, str) and given == one) for one in known):
        message = f"profile: {name} is one of {', '.join(map(repr, known))}, not {given!r:.60}"
        raise InvalidValueError(message)
