"""Any configuration as plain values by name.

Configurations come as dicts, namespaces, dataclasses and the objects of half a dozen libraries,
nested at will, with values that are more than numbers and strings. TensorBoard has three kinds of
hyperparameters: bools, numbers and strings. So parts become ``part/name``, and what is none of the
three becomes text. What decides is what an object offers, never its type's name.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError, TBLogError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Plain: TypeAlias = bool | int | float | str | None

__all__ = ["flatten"]

DEEPEST = 32
"""Levels of nesting beyond which a configuration is taken to hold itself."""


def flatten(values: Any, what: str) -> dict[str, Plain]:
    """Return a configuration's values by name; those of its parts are named ``part/name``.

    Args:
        values: a mapping; ``argparse.Namespace`` or ``SimpleNamespace``; an object of a dataclass,
            of attrs or of pydantic; a named tuple. Keys that are no strings become text.
        what: named in errors.

    Returns:
        Values as they are if they are None, bools, numbers or strings. An array of any library
        with one element is its number. An enum's member is its name, or itself if it is a string;
        a class or function is its name; sequences and sets are text in brackets; anything else,
        such as a path, a date or a ``torch.dtype``, is the text that ``str`` makes of it.

    Raises:
        InvalidTypeError: ``values`` or one of them is of a kind that has no such form.
        InvalidValueError: two names are equal or one is empty, an array has not one element, an
            integer is too large for a float64, or the nesting is too deep.
    """
    if (fields := _maybe_fields(values, what)) is None:
        message = (
            f"{what}: a mapping of values by name, a namespace or a dataclass' object is needed, "
            f"got {values!r:.60} ({_name(type(values))})"
        )
        raise InvalidTypeError(message)
    flat: dict[str, Plain] = {}
    for name, value in _leaves(fields, "", what, 0):
        if name in flat:
            message = f"{what}: there are two values named {name!r}; rename one of them"
            raise InvalidValueError(message)
        flat[name] = value
    return flat


def _leaves(
    fields: dict[Any, Any], prefix: str, what: str, depth: int
) -> Iterator[tuple[str, Plain]]:
    for key, value in fields.items():
        text = str(_plain(key, f"{what}: the key {key!r:.60}"))
        if not text:
            message = f"{what}: the name of the value {value!r:.60} is empty"
            raise InvalidValueError(message)
        name = prefix + text
        where = f"{what}: {name!r}"
        if (inner := _maybe_fields(value, where)) is None:
            yield name, _plain(value, where, depth)
        else:
            _check_depth(where, depth)
            yield from _leaves(inner, f"{name}/", what, depth + 1)


def _maybe_fields(value: Any, where: str) -> dict[Any, Any] | None:
    """Return what a structure holds, by key; None if it is none."""
    kind = type(value)
    if hasattr(kind, "shape"):  # a table has keys too
        return None
    try:
        if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):
            return {key: value[key] for key in value.keys()}  # noqa: SIM118 - all that is asked for
        if hasattr(kind, "_asdict"):
            return dict(value._asdict())
        if isinstance(value, _namespaces()):
            return dict(vars(value))
        names = _maybe_names(kind)
        return None if names is None else {name: getattr(value, name) for name in names}
    except Exception as error:
        message = f"{where}: cannot read {_name(kind)}: {error}"
        raise InvalidTypeError(message) from error


def _namespaces() -> tuple[type, ...]:
    # Nobody has an argparse.Namespace who has not imported argparse.
    argparse = sys.modules.get("argparse")
    return (SimpleNamespace, argparse.Namespace) if argparse else (SimpleNamespace,)


def _maybe_names(kind: type) -> list[str] | None:
    """Return the names of the fields that a class declares; None if it is not of that kind."""
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        return [field.name for field in fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    return list(kind.model_fields) if hasattr(kind, "model_fields") else None  # pydantic


def _plain(value: Any, where: str, depth: int = 0) -> Plain:
    if value is None or type(value) in {bool, str}:
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        return str.__str__(value)  # an enum's member, perhaps, whose own str is its name
    if isinstance(value, Enum):
        return value.name
    try:
        return _converted(value, where, depth)
    except TBLogError:
        raise
    except OverflowError as error:
        message = f"{where}: the number is too large for a float64; log it as a str"
        raise InvalidValueError(message) from error
    except Exception as error:
        message = f"{where}: cannot read {_name(type(value))}: {error}"
        raise InvalidTypeError(message) from error


def _converted(value: Any, where: str, depth: int) -> Plain:
    kind = type(value)
    if hasattr(kind, "shape"):
        return _plain(_element(value, where), where, depth)
    if isinstance(value, int) and math.isfinite(value):  # raises if it is too large
        return int(value)
    if hasattr(kind, "__float__"):
        return float(value)
    return _text(value, where, depth)


def _element(array: Any, where: str) -> Any:
    """Return the only element of an array. One on a device is waited for."""
    if math.prod(array.shape) != 1:
        message = (
            f"{where}: a value has one element, got an array of shape {tuple(array.shape)}; "
            "give its tolist() if it is short"
        )
        raise InvalidValueError(message)
    return array.item() if hasattr(array, "item") else array.numpy().item()


def _text(value: Any, where: str, depth: int) -> str:
    """Return a value as text that is the same in every run."""
    _check_depth(where, depth)
    if (fields := _maybe_fields(value, where)) is not None:
        items = (
            f"{_plain(key, where)}: {_plain(inner, where, depth + 1)}"
            for key, inner in fields.items()
        )
        return f"{{{', '.join(items)}}}"
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (bytes, bytearray)):
        items = (str(_plain(inner, where, depth + 1)) for inner in value)
        return f"[{', '.join(sorted(items) if isinstance(value, AbstractSet) else items)}]"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    text = str(value)
    if " at 0x" in text:  # an address, another one in every run
        message = (
            f"{where}: an object of {_name(type(value))} has no text of its own; give a bool, a "
            "number or a string that stands for it"
        )
        raise InvalidTypeError(message)
    return text


def _check_depth(where: str, depth: int) -> None:
    if depth >= DEEPEST:
        message = f"{where:.160}: nested more than {DEEPEST} levels deep; does it hold itself?"
        raise InvalidValueError(message)


def _name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
