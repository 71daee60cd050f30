"""Conversion of counters to rates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rates"]

MIN_INTERVAL = 0.1
"""Seconds. Processor time has a resolution of 10 ms, too coarse for shorter intervals."""


class Rates:
    """Computes how much counters grow per second between two calls."""

    def __init__(self) -> None:
        self._last_counters: Mapping[str, float] = {}
        self._last_time = 0.0

    def of(self, counters: Mapping[str, float]) -> dict[str, float]:
        """Return the rates since the previous call, for counters that it had, too.

        The first call returns no rates. Neither does a call less than 0.1 seconds after another.
        """
        now = time.monotonic()
        passed, before = now - self._last_time, self._last_counters
        if before and passed < MIN_INTERVAL:
            return {}
        self._last_counters, self._last_time = counters, now
        return {
            name: max(value - before[name], 0.0) / passed  # 0 if the counter was reset
            for name, value in counters.items()
            if name in before
        }
