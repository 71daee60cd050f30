"""Flatten any configuration to plain values by name.

Configurations are dicts, namespaces, dataclasses and objects of half a dozen libraries, nested
arbitrarily, with values of many types. TensorBoard supports three kinds of hyperparameters: bools,
numbers and strings. So nested values are named ``part/name``, and values of other types become
text. The attributes of an object decide how it is read, never the name of its type.
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
from sm_tblog._types import as_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Plain: TypeAlias = bool | int | float | str | None
    _Parents: TypeAlias = tuple[int, ...]  # the ids of the values around a value

__all__ = ["flatten"]

_MAX_DEPTH = 32
"""Levels of nesting beyond which a configuration is assumed to contain itself."""


def flatten(values: Any, what: str) -> dict[str, Plain]:
    """Return a configuration's values by name; nested values are named ``part/name``.

    Args:
        values: a mapping; an ``argparse.Namespace`` or ``SimpleNamespace``; a dataclass, attrs or
            pydantic object; a named tuple. Keys that are not strings become text.
        what: what the values are, for error messages.

    Returns:
        None, bools, numbers and strings unchanged. An array of any library with one element becomes
        its number; an enum member its name, or its value if it is a string; a class or function its
        name; a sequence or set text in brackets; anything else, such as a path, a date or a
        ``torch.dtype``, its ``str``.

    Raises:
        InvalidTypeError: ``values`` or one of the values is of an unsupported type.
        InvalidValueError: two names are equal or one is empty, an array does not have exactly one
            element, an integer is too large for a float64, or the nesting is too deep.
    """
    if (fields := _maybe_fields(values, what)) is None:
        message = (
            f"{what}: expected a mapping of values by name, a namespace or a dataclass object, "
            f"got {values!r:.60} ({_name(type(values))})"
        )
        raise InvalidTypeError(message)
    flat: dict[str, Plain] = {}
    for name, value in _leaves(fields, "", what, (id(values),)):
        if name in flat:
            message = f"{what}: two values are named {name!r}; rename one of them"
            raise InvalidValueError(message)
        flat[name] = value
    return flat


def _leaves(
    fields: dict[Any, Any], prefix: str, what: str, parents: _Parents
) -> Iterator[tuple[str, Plain]]:
    for key, value in fields.items():
        text = str(_plain(key, f"{what}: the key {key!r:.60}"))
        if not text:
            message = f"{what}: the name of the value {value!r:.60} is empty"
            raise InvalidValueError(message)
        name = prefix + text
        where = f"{what}: {name!r}"
        if (inner := _maybe_fields(value, where)) is None:
            yield name, _plain(value, where, parents)
        else:
            yield from _leaves(inner, f"{name}/", what, _within(value, where, parents))


def _maybe_fields(value: Any, where: str) -> dict[Any, Any] | None:
    """Return the values of a structure by key; None if the value is not a structure."""
    kind = type(value)
    if hasattr(kind, "shape"):  # a table has keys too
        return None
    try:
        if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):
            return {key: value[key] for key in value.keys()}  # noqa: SIM118 - needs no __iter__
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
    # Without argparse imported, no argparse.Namespace can exist.
    argparse = sys.modules.get("argparse")
    return (SimpleNamespace, argparse.Namespace) if argparse else (SimpleNamespace,)


def _maybe_names(kind: type) -> list[str] | None:
    """Return the names of the fields that a class declares; None if it declares none."""
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        return [field.name for field in fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    return list(kind.model_fields) if hasattr(kind, "model_fields") else None  # pydantic


def _plain(value: Any, where: str, parents: _Parents = ()) -> Plain:
    if value is None or type(value) is bool:
        return value
    if isinstance(value, str):
        return as_utf8(str.__str__(value))  # perhaps an enum member, whose own str is its name
    if isinstance(value, Enum):
        return as_utf8(value.name or str(value))  # a combination of flags has no name in 3.10
    try:
        return _converted(value, where, parents)
    except TBLogError:
        raise
    except OverflowError as error:
        message = f"{where}: the number is too large for a float64; log it as a str"
        raise InvalidValueError(message) from error
    except Exception as error:
        message = f"{where}: cannot read {_name(type(value))}: {error}"
        raise InvalidTypeError(message) from error


def _converted(value: Any, where: str, parents: _Parents) -> Plain:
    kind = type(value)
    if hasattr(kind, "shape"):
        element = _element(value, where)
        if not hasattr(type(element), "shape"):
            return _plain(element, where, parents)
        if type(element) is not kind or hasattr(kind, "__len__"):  # an array of arrays
            return _plain(element, where, _within(value, where, parents))
        if getattr(element.dtype, "kind", "") == "c":
            return str(complex(element))
        # NumPy's longdouble is its own element.
    if isinstance(value, int) and math.isfinite(value):  # raises if it is too large
        return int(value)
    if hasattr(kind, "__float__"):
        return float(value)
    return _text(value, where, parents)


def _element(array: Any, where: str) -> Any:
    """Return the only element of an array, waiting for its device.

    A moment or duration becomes text: NumPy returns a bare count for some of their units.
    """
    if math.prod(array.shape) != 1:
        message = (
            f"{where}: a value must have one element, got an array of shape {tuple(array.shape)}; "
            "pass its tolist() if it is short"
        )
        raise InvalidValueError(message)
    if getattr(array.dtype, "kind", "") in ("m", "M"):
        return str(array.reshape(()))
    return array.item() if hasattr(array, "item") else array.numpy().item()


def _text(value: Any, where: str, parents: _Parents) -> str:
    """Return a value as text that is the same in every run."""
    within = _within(value, where, parents)
    if (fields := _maybe_fields(value, where)) is not None:
        items = (
            f"{_plain(key, where)}: {_plain(inner, where, within)}" for key, inner in fields.items()
        )
        return f"{{{', '.join(items)}}}"
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (bytes, bytearray)):
        items = (str(_plain(inner, where, within)) for inner in value)
        return f"[{', '.join(sorted(items) if isinstance(value, AbstractSet) else items)}]"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    text = str(value)
    if " at 0x" in text:  # a memory address, which differs in every run
        message = (
            f"{where}: a value of type {_name(type(value))} has no stable text; pass a bool, a "
            "number or a string instead"
        )
        raise InvalidTypeError(message)
    return as_utf8(text)


def _within(value: Any, where: str, parents: _Parents) -> _Parents:
    """Return the parents of what a value contains."""
    if id(value) in parents or len(parents) > _MAX_DEPTH:
        message = (
            f"{where:.160}: nested more than {_MAX_DEPTH} levels deep; does it contain itself?"
        )
        raise InvalidValueError(message)
    return *parents, id(value)


def _name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
