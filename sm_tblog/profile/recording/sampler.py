"""What every Python thread is doing, looked at fifty times a second.

Nothing is added to the code that runs: a thread of ours looks where the others are. It has to share
the interpreter with them, so it comes later than it wants to, the more so the more they do; each
look has its real time. What is the same in neighbouring looks is drawn as one call, though it may
have been many.

A look is one call of ``faulthandler.dump_traceback``. It reads the interpreter's frames while
nothing else runs, and makes no objects of them. To walk from frame to frame in Python, as
``sys._current_frames`` suggests, lets the other threads go on in the middle: on Python 3.11.7,
under a loop of PyTorch on a busy machine, what was taken for the next frame was none any more after
some thousand looks. What is dumped goes through a pipe, which takes half the time of a file, and
which never blocks: what it has no room for is cut off.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from sm_tblog._errors import InvalidValueError
from sm_tblog.profile.formats.xspace import HOST_PLANE
from sm_tblog.profile.recording.ticker import OWN_THREADS, Ticker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog.profile.formats.xspace import Line, Space

__all__ = ["OWN_FILES", "Call", "Sampler", "add_calls"]

OWN_FILES = __file__.rpartition("profile")[0]
"""What the names of this library's files begin with."""

INTERVAL = 0.02
"""Seconds between two looks, if the interpreter is free."""

MOST_BYTES = 64 << 20
"""Memory of different stacks."""

_READ = 1 << 20
"""Bytes that a look may write, and that are read at once."""

_THREAD = re.compile(rb"hread 0x([0-9a-f]+)")
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Call(NamedTuple):
    """A call of a function that has ended; times in nanoseconds since the epoch."""

    name: str
    source: str
    begin: int
    end: int


class _Frame(NamedTuple):
    """Where a thread is: in what function, and in which line of it."""

    file: str
    name: str
    line: str

    def is_same_call(self, other: _Frame) -> bool:
        return self[:2] == other[:2]


class Sampler:
    """An engine: a sampling profiler of all threads but our own.

    Args:
        max_events: how many stacks are kept.
    """

    name = "the sampler"

    def __init__(self, max_events: int) -> None:
        self._left = max_events
        self._bytes_left = MOST_BYTES
        self._dropped = 0
        self._ticks: list[int] = []  # when each look was, in nanoseconds since the epoch
        self._stacks: dict[bytes, bytes] = {}  # each once: most looks see one that was seen before
        self._seen: dict[tuple[int, str], list[tuple[int, bytes]]] = {}  # by thread: look, stack
        self._pipe: tuple[int, int] = -1, -1
        self._ticker = Ticker(self._look, INTERVAL, "sampler")

    def start(self) -> None:
        """Begin to look.

        Raises:
            InvalidValueError: this is Windows, and a Python older than 3.12.
        """
        if not hasattr(os, "set_blocking"):
            message = "profile: python='sample' needs Python 3.12 on this system"
            raise InvalidValueError(message)
        self._pipe = source, drain = os.pipe()
        os.set_blocking(source, False)
        os.set_blocking(drain, False)
        with contextlib.suppress(ImportError, AttributeError, OSError):  # on Linux since 3.10
            import fcntl

            fcntl.fcntl(drain, fcntl.F_SETPIPE_SZ, _READ)
        self._ticker.start()

    def stop(self) -> None:
        """End."""
        self._ticker.stop()
        self._ticks.append(time.time_ns())  # until now everything was as last seen
        self._close()

    def reset_after_fork(self) -> None:
        """Close what a forked child inherits; the thread is the parent's alone."""
        self._close()

    def _close(self) -> None:
        for descriptor in self._pipe:
            os.close(descriptor)

    def export(self, space: Space) -> None:
        """Draw each thread's calls on a line of its own, beside its spans."""
        plane = space.plane(HOST_PLANE)
        for (_, name), samples in self._seen.items():
            self._draw(samples, plane.line(f"{name} (sampled)"))
        if self._dropped:
            space.warnings.append(f"{self._dropped:,} samples of stacks were left out")

    def _look(self) -> None:
        number = len(self._ticks)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        self._ticks.append(time.time_ns())
        source, drain = self._pipe
        faulthandler.dump_traceback(drain)
        try:
            data = os.read(source, _READ)
        except BlockingIOError:  # nothing was written
            return
        for stack in data.split(b"\n\n"):
            found = _THREAD.search(stack)
            ident = int(found[1], 16) if found else 0
            name = names.get(ident) or f"thread {ident}"
            if not name.startswith(OWN_THREADS):
                self._keep((ident, name), number, stack)

    def _keep(self, thread: tuple[int, str], number: int, stack: bytes) -> None:
        kept = self._stacks.get(stack)
        if not self._left or (kept is None and self._bytes_left < len(stack)):
            self._dropped += 1
            return
        if kept is None:
            kept = self._stacks[stack] = stack
            self._bytes_left -= len(stack)
        self._left -= 1
        self._seen.setdefault(thread, []).append((number, kept))

    def _draw(self, samples: list[tuple[int, bytes]], line: Line) -> None:
        ticks = self._ticks
        read: dict[bytes, list[_Frame]] = {}
        calls: list[tuple[_Frame, int]] = []  # that are open, with the time of the first look
        ended: list[Call] = []
        until = -1  # the look up to which they last
        for number, data in [*samples, (len(ticks) - 1, b"")]:
            if data not in read:
                read[data] = _stack(data)
            stack = read[data]
            same = 0
            if until == number:
                for (frame, _), now in zip(calls, stack, strict=False):
                    if not frame.is_same_call(now):
                        break
                    same += 1
            while len(calls) > same:
                frame, begun = calls.pop()
                depth = len(calls)  # a viewer that finds equal times turns them over
                begin, end = begun + depth, ticks[until] - depth
                name = f"{frame.name} ({os.path.basename(frame.file)})"  # noqa: PTH119 - not ours
                ended.append(Call(name, f"{frame.file}:{frame.line}", begin, max(begin, end)))
            calls += [(frame, ticks[number]) for frame in stack[same:]]
            until = number + 1
        add_calls(line, ended)


def _stack(data: bytes) -> list[_Frame]:
    """Return what a thread is in, the outermost first, without what is in this library."""
    found = _FRAME.findall(data.decode("utf-8", "replace"))
    frames = [_Frame(file, name, line) for file, line, name in reversed(found)]
    return [frame for frame in frames if not frame.file.startswith(OWN_FILES)]


def add_calls(line: Line, ended: Sequence[Call]) -> None:
    """Add calls of functions to a line.

    Args:
        line: of a thread.
        ended: in the order in which they ended.
    """
    for call in reversed(ended):  # of two with equal times the outer one is first
        line.event(call.name, call.begin, call.end - call.begin, {"source": call.source})
