"""What every Python thread is doing, looked at a hundred times a second.

Nothing is added to the code that runs: a thread of ours reads where the others are. It has to share
the interpreter with them, so it comes later than it wants to, the more so the more they do; each
look has its real time. What is the same in neighbouring looks is drawn as one call, though it may
have been many.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from sm_tblog.profile.engines import HOST_PLANE
from sm_tblog.profile.ticker import OWN_THREADS, Ticker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, FrameType

    from sm_tblog.profile.xspace import Line, Space

__all__ = ["OWN_FILES", "Sampler", "add_calls"]

OWN_FILES = __file__.rpartition("profile")[0]
"""What the names of this library's files begin with."""

INTERVAL = 0.01
"""Seconds between two looks, if the interpreter is free."""


class Sampler:
    """An engine: a sampling profiler of all threads but our own.

    Args:
        max_events: how many stacks are kept.
    """

    name = "the sampler"

    def __init__(self, max_events: int) -> None:
        self._left = max_events
        self._dropped = 0
        self._ticks: list[int] = []  # when each look was, in nanoseconds since the epoch
        self._seen: dict[int, list[tuple[int, tuple[CodeType, ...]]]] = {}  # by thread: look, stack
        self._names: dict[int, str] = {}
        self._ticker = Ticker(self._look, INTERVAL, "sampler")

    def start(self) -> None:
        """Begin to look."""
        self._ticker.start()

    def stop(self) -> None:
        """Look for the last time."""
        self._ticker.stop()
        self._ticks.append(time.time_ns())  # until now everything was as last seen

    def export(self, space: Space) -> None:
        """Draw each thread's calls on a line of its own, beside its spans."""
        plane = space.plane(HOST_PLANE)
        for ident, samples in self._seen.items():
            name = self._names.get(ident, f"thread {ident}")
            self._draw(samples, plane.line(f"{name} (sampled)"))
        if self._dropped:
            space.warnings.append(f"{self._dropped:,} samples of stacks were left out")

    def _look(self) -> None:
        now = time.time_ns()
        frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
        number = len(self._ticks)
        self._ticks.append(now)
        for thread in threading.enumerate():
            if thread.ident in frames and not thread.name.startswith(OWN_THREADS):
                self._names.setdefault(thread.ident, thread.name)
                if self._left > 0:
                    self._left -= 1
                    sample = number, _stack(frames[thread.ident])
                    self._seen.setdefault(thread.ident, []).append(sample)
                else:
                    self._dropped += 1

    def _draw(self, samples: list[tuple[int, tuple[CodeType, ...]]], line: Line) -> None:
        ticks = self._ticks
        calls: list[tuple[CodeType, int]] = []  # that are open, with the time of the first look
        ended: list[tuple[CodeType, int, int]] = []
        until = -1  # the look up to which they last
        for number, stack in [*samples, (len(ticks) - 1, ())]:
            same = 0
            if until == number or not stack:
                while same < min(len(calls), len(stack)) and calls[same][0] is stack[same]:
                    same += 1
            while len(calls) > same:
                code, begun = calls.pop()
                depth = len(calls)  # a viewer that finds equal times turns them over
                ended.append((code, begun + depth, max(ticks[until] - depth, begun + depth)))
            calls += [(code, ticks[number]) for code in stack[same:]]
            until = number + 1
        add_calls(line, ended)


def _stack(frame: FrameType | None) -> tuple[CodeType, ...]:
    """Return what a thread is in, the outermost first, without what is in this library."""
    stack = []
    while frame is not None:
        if not frame.f_code.co_filename.startswith(OWN_FILES):
            stack.append(frame.f_code)
        frame = frame.f_back
    return tuple(reversed(stack))


def add_calls(line: Line, ended: Sequence[tuple[CodeType, int, int]]) -> None:
    """Add calls of functions to a line.

    Args:
        line: of a thread.
        ended: what was called, from when to when, in nanoseconds since the epoch, in the order in
            which the calls ended.
    """
    for code, begun, end in reversed(ended):  # of two with equal times the outer one is first
        name = str(getattr(code, "co_qualname", code.co_name))  # the longer one since Python 3.11
        source = f"{code.co_filename}:{code.co_firstlineno}"
        line.event(name, begun, end - begun, {"source": source})
