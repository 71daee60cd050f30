"""What a framework gives by name, logged by what it is; training goes on if it cannot be."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sm_tblog import TBLogError

if TYPE_CHECKING:
    from sm_tblog import Writer

__all__ = ["log_value"]

logger = logging.getLogger("sm_tblog")


def log_value(writer: Writer, tag: str, value: Any, step: Any = None, **options: Any) -> None:
    """Log a number, a text, or a mapping of numbers; leave out anything else, and say so.

    Args:
        writer: logs it.
        tag: its name.
        value: a number, an array with one element, or a str; or a mapping of numbers, a chart with
            a run for each curve, as ``add_scalars`` makes it.
        step: any integer; by default ``writer.step``.
        options: passed to ``add_scalar``, ``add_text`` or ``add_scalars``.
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
