"""Builders: from what a caller gives to a ``Summary.Value``, without input or output."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["builder"]


def builder(path: str) -> Callable[..., Any]:
    """Return the builder ``"module.function"`` of this package, imported when it is called.

    Builders need protobuf and the schema, and run on the worker: the caller's thread and
    ``import sm_tblog`` do not pay for them.
    """
    module, _, name = path.partition(".")

    def build(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)(*args, **kwargs)

    return build
