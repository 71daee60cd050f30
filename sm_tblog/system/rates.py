"""Counters as rates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rates"]

LEAST = 0.1
"""Seconds. The kernel counts processor time in hundredths: in less it says nothing."""


class Rates:
    """What counters grow by in a second, between two calls."""

    def __init__(self) -> None:
        self._before: Mapping[str, float] = {}
        self._then = 0.0

    def of(self, counters: Mapping[str, float]) -> dict[str, float]:
        """Return the rates since the call before, of those counters that were there then.

        There are none at the first call, nor at one that comes too soon after another.
        """
        now = time.monotonic()
        passed, before = now - self._then, self._before
        if before and passed < LEAST:
            return {}
        self._before, self._then = counters, now
        return {
            name: max(value - before[name], 0.0) / passed  # 0 for a counter that began anew
            for name, value in counters.items()
            if name in before
        }
