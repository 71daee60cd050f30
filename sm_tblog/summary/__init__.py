"""Builders: convert logged data to ``Summary.Value`` messages, without I/O."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["builder"]


def builder(path: str) -> Callable[..., Any]:
    """Return the builder ``"module.function"`` of this package, imported when it is called.

    Builders need protobuf and the schema and run on the worker thread, so neither the calling
    thread nor ``import sm_tblog`` spends time on them.
    """
    module, _, name = path.partition(".")

    def build(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)(*args, **kwargs)

    return build
