"""Logging of values from a framework by their type. An error does not interrupt training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sm_tblog import TBLogError

if TYPE_CHECKING:
    from sm_tblog import Writer

__all__ = ["log_value"]

logger = logging.getLogger("sm_tblog")


def log_value(writer: Writer, tag: str, value: Any, step: Any = None, **options: Any) -> None:
    """Log a number, a text, or a mapping of numbers. Warn about and skip anything else.

    Args:
        writer: the writer to log with.
        tag: the tag of the value.
        value: a number, an array with one element, or a str; or a mapping of numbers, which becomes
            a chart with a run for each curve, as with ``add_scalars``.
        step: any integer; by default ``writer.step``.
        options: keyword arguments for ``add_scalar``, ``add_text`` or ``add_scalars``.
    """
    add: Any = writer.add_scalar
    if isinstance(value, str):
        add = writer.add_text
    elif hasattr(value, "items"):
        add = writer.add_scalars
    try:
        add(tag, value, step, **options)
    except TBLogError as error:
        logger.warning("not logged: %s", error)
