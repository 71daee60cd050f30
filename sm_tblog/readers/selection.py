"""Which tags and points a reader keeps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from sm_tblog._types import Float64Array, Int64Array

    Tags: TypeAlias = str | Iterable[str] | Callable[[str], bool] | None
    Steps: TypeAlias = range | slice | None
    Since: TypeAlias = float | datetime | None
    Restarts: TypeAlias = Literal["marks", "steps", "raw"]

__all__ = ["Selection"]

RESTARTS = ("marks", "steps", "raw")


class Selection:
    """The tags and points that are kept.

    Args:
        tags: patterns in which ``*`` matches any text, as in a shell; a tag is kept if any
            matches. Or a function that returns whether to keep a tag.
        steps: a range, or a slice whose ends may be missing.
        since: the earliest wall time; seconds since the epoch, or a date (local time unless it has
            a time zone).
        restarts: which points a restart supersedes; see ``sm_tblog.read``.

    Raises:
        InvalidTypeError: an argument has another type.
        InvalidValueError: an argument has another value.
    """

    def __init__(
        self,
        tags: Tags = None,
        steps: Steps = None,
        since: Since = None,
        restarts: Restarts = "marks",
    ) -> None:
        if restarts not in RESTARTS:
            message = f"restarts must be 'marks', 'steps' or 'raw', got {restarts!r}"
            raise InvalidValueError(message)
        self.restarts = restarts
        self._matches = _matcher(tags)
        self._steps = _as_bounds(steps)
        self._since = _as_seconds(since)
        self.has_points = self._steps is not None or self._since is not None

    def has_tag(self, tag: str) -> bool:
        """Return whether a tag is kept."""
        return self._matches is None or self._matches(tag)

    def points(self, steps: Int64Array, wall_times: Float64Array) -> Any:
        """Return which points are kept; bool, shape (n,)."""
        keep = np.ones(len(steps), bool)
        if self._steps is not None:
            start, stop, stride = self._steps
            if start is not None:
                keep &= steps >= start
            if stop is not None:
                keep &= steps < stop
            if stride > 1:
                # In uint64, differences cannot overflow.
                base = np.int64(start or 0).view(np.uint64)
                keep &= (steps.view(np.uint64) - base) % np.uint64(stride) == 0
        if self._since is not None:
            keep &= wall_times >= self._since
        return keep


def _matcher(tags: Any) -> Callable[[str], bool] | None:
    if tags is None:
        return None
    if callable(tags):
        return lambda tag: bool(tags(tag))
    patterns: list[Any] = [tags]
    if isinstance(tags, Iterable) and not isinstance(tags, str):
        patterns = list(tags)
    for pattern in patterns:
        if not isinstance(pattern, str):
            message = f"tags must be patterns or a function, got {pattern!r:.60}"
            raise InvalidTypeError(message)
    return lambda tag: any(fnmatchcase(tag, pattern) for pattern in patterns)


def _as_bounds(steps: Any) -> tuple[int | None, int | None, int] | None:
    if steps is None:
        return None
    if not isinstance(steps, (range, slice)):
        message = f"steps must be a range or a slice, such as range(1000, 2000), got {steps!r:.60}"
        raise InvalidTypeError(message)
    for bound in (steps.start, steps.stop, steps.step):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int)):
            message = f"steps must have integer bounds, got {steps!r:.60}"
            raise InvalidTypeError(message)
        if bound is not None and not -(1 << 63) <= bound < 1 << 63:
            message = f"steps must be within int64, got {steps!r:.60}"
            raise InvalidValueError(message)
    if steps.step is not None and steps.step < 1:
        message = f"steps must be ascending, got {steps!r:.60}"
        raise InvalidValueError(message)
    return steps.start, steps.stop, steps.step or 1


def _as_seconds(since: Any) -> float | None:
    if since is None:
        return None
    if isinstance(since, datetime):
        return since.timestamp()
    if isinstance(since, bool) or not isinstance(since, (int, float)):
        message = f"since must be seconds since the epoch or a datetime, got {since!r:.60}"
        raise InvalidTypeError(message)
    return float(since)
