"""Converts recorded spans, steps and counters to events of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.profile.formats.xspace import HOST_PLANE
from sm_tblog.profile.recording.marks import CounterMark, ProfilerMark, SpanMark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sm_tblog.profile.formats.xspace import Space
    from sm_tblog.profile.recording.marks import Recording

__all__ = ["COUNTERS", "add_marks", "step_stats"]

COUNTERS = "_counters_"
"""The name of the line whose events the viewer shows as curves."""

_FIRST_STAGE = 1 << 40
"""The first id of input pipeline stages: far from the ids of event names, which start at 1."""


def step_stats(number: int) -> dict[str, str | int | float | bytes]:
    """Return the stats by which the viewer recognizes an event as a step."""
    return {"_r": 1, "step_num": number}


def add_marks(recording: Recording, space: Space) -> None:
    """Add a recording to a session.

    Args:
        recording: a recording that has ended.
        space: the session.
    """
    plane = space.plane(HOST_PLANE)
    marks = [mark for thread in recording.threads for mark in thread.rows[0::3]]
    steps_by = int if any(type(mark) is int for mark in marks) else ProfilerMark
    inputs = dict.fromkeys(mark.name for mark in marks if getattr(mark, "kind", "") == "input")
    stages = {name: _FIRST_STAGE + number for number, name in enumerate(inputs)}
    offset, begin, end = recording.offset_ns, recording.begin_ns, recording.end_ns
    for thread in recording.threads:
        line = plane.line(thread.name, thread.native_id)
        for mark, started, ended in _triples(thread.rows):
            at = started + offset
            if not begin <= at <= end:  # before the session, or while it was closing
                continue
            if type(mark) is CounterMark:
                plane.line(COUNTERS).event(mark.name, at, 0, {"value": ended})
            elif type(mark) is SpanMark:
                line.event(mark.name, at, min(ended + offset, end) - at, _stats(mark, stages))
            elif type(mark) is steps_by:
                line.event("step", at, ended - started, step_stats(int(mark)))
    if recording.dropped:
        space.warnings.append(
            f"{recording.dropped:,} spans, steps and counters were left out: the limit is "
            f"{recording.limit // 3:,} per thread"
        )


def _triples(rows: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Iterate over rows in reverse, so that of two rows with equal times the outer one comes first.

    The thread may still be adding rows; the copy contains complete rows only.
    """
    rows = rows[: len(rows) // 3 * 3]
    return zip(rows[-3::-3], rows[-2::-3], rows[-1::-3], strict=True)


def _stats(mark: SpanMark, stages: Mapping[str, int]) -> dict[str, str | int | float | bytes]:
    if mark.kind is None:
        return {}
    if mark.kind != "input":
        return {"kind": mark.kind}
    return {
        "kind": mark.kind,
        "_ipl_stage_id": stages[mark.name],
        "_ipl_stage_name": mark.name,
        "_ipl_stage_cat": "input",
    }
