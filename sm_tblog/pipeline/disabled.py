"""The pipeline of a disabled writer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sm_tblog._types import Stats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sm_tblog.pipeline.batching import Item

__all__ = ["DisabledPipeline"]


class DisabledPipeline:
    """A pipeline that does nothing."""

    rows = ()
    limit = sys.maxsize

    def extend(self, rows: Iterable[Any]) -> None:
        """Do nothing."""

    def put(self, item: Item) -> None:
        """Do nothing."""

    def on_limit(self) -> None:
        """Do nothing."""

    def flush(self, timeout: float | None = None, *, force: bool = False) -> bool:  # noqa: ARG002
        """Return True: everything is stored."""
        return True

    def close(self, timeout: float | None = None) -> bool:  # noqa: ARG002
        """Return True: everything is stored."""
        return True

    def stats(self) -> Stats:
        """Return counters that are all zero."""
        return Stats(0, 0, 0, 0, 0, 0, 0, None, "")
