"""A sampling profiler: the stacks of all Python threads, 50 times a second.

The code under profile is not instrumented: a thread of this library reads the stacks of the others.
It shares the interpreter with them, so the busier they are, the later its samples are. Each sample
has its actual time. A call that is on the stack in consecutive samples is shown as one call,
although there may have been several.

A sample is one call of ``faulthandler.dump_traceback``. It reads the interpreter's frames while no
other Python code runs, and creates no frame objects. Walking the frames in Python, starting from
``sys._current_frames``, would let other threads run in between: on Python 3.11.7, with a PyTorch
loop on a busy machine, the supposed next frame was no longer a frame after a few thousand samples.
The dump goes through a pipe, which takes half the time of a file and never blocks: a dump that does
not fit is truncated.
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
"""The prefix of the paths of this library's source files."""

INTERVAL = 0.02
"""Seconds between two samples, if the interpreter is idle."""

MAX_STACK_BYTES = 64 << 20
"""The maximum size of all distinct stacks together, in bytes."""

_MAX_DUMP_BYTES = 1 << 20
"""The maximum size of a dump in bytes: the capacity of the pipe, and the size of a read."""

_THREAD_ID = re.compile(rb"hread 0x([0-9a-f]+)")
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class Call(NamedTuple):
    """A finished function call; times are in nanoseconds since the epoch."""

    name: str
    source: str
    begin: int
    end: int


class _Frame(NamedTuple):
    """One frame of a stack: a function, and the line that it is at."""

    file: str
    name: str
    line: str

    def is_same_call(self, other: _Frame) -> bool:
        return self[:2] == other[:2]


class Sampler:
    """An engine that samples the stacks of all threads except those of this library.

    Args:
        max_events: the maximum number of stacks to keep.
    """

    name = "the sampler"

    def __init__(self, max_events: int) -> None:
        self._samples_left = max_events
        self._bytes_left = MAX_STACK_BYTES
        self._dropped = 0
        self._times: list[int] = []  # of the samples, in nanoseconds since the epoch
        self._stacks: dict[bytes, bytes] = {}  # each stored once: most repeat
        # By thread: the index of a sample in _times, and a stack.
        self._samples: dict[tuple[int, str], list[tuple[int, bytes]]] = {}
        self._pipe: tuple[int, int] = -1, -1
        self._ticker = Ticker(self._sample, INTERVAL, "sampler")

    def start(self) -> None:
        """Start sampling.

        Raises:
            InvalidValueError: the system is Windows, and Python is older than 3.12.
        """
        if not hasattr(os, "set_blocking"):
            message = "profile: python='sample' needs Python 3.12 on this system"
            raise InvalidValueError(message)
        self._pipe = source, drain = os.pipe()
        os.set_blocking(source, False)
        os.set_blocking(drain, False)
        with contextlib.suppress(ImportError, AttributeError, OSError):  # on Linux since 3.10
            import fcntl

            fcntl.fcntl(drain, fcntl.F_SETPIPE_SZ, _MAX_DUMP_BYTES)
        self._ticker.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._ticker.stop()
        self._times.append(time.time_ns())  # the calls of the last sample end here
        self._close()

    def reset_after_fork(self) -> None:
        """Close the pipe in a forked child, where the sampling thread does not exist."""
        self._close()

    def _close(self) -> None:
        for descriptor in self._pipe:
            os.close(descriptor)

    def export(self, space: Space) -> None:
        """Add the calls of each thread on a separate line next to its spans."""
        plane = space.plane(HOST_PLANE)
        for (_, name), samples in self._samples.items():
            self._add_thread(samples, plane.line(f"{name} (sampled)"))
        if self._dropped:
            space.warnings.append(f"{self._dropped:,} samples of stacks were left out")

    def _sample(self) -> None:
        number = len(self._times)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        self._times.append(time.time_ns())
        source, drain = self._pipe
        faulthandler.dump_traceback(drain)
        try:
            data = os.read(source, _MAX_DUMP_BYTES)
        except BlockingIOError:  # nothing was written
            return
        for stack in data.split(b"\n\n"):
            found = _THREAD_ID.search(stack)
            ident = int(found[1], 16) if found else 0
            name = names.get(ident) or f"thread {ident}"
            if not name.startswith(OWN_THREADS):
                self._keep_sample((ident, name), number, stack)

    def _keep_sample(self, thread: tuple[int, str], number: int, stack: bytes) -> None:
        kept = self._stacks.get(stack)
        if not self._samples_left or (kept is None and self._bytes_left < len(stack)):
            self._dropped += 1
            return
        if kept is None:
            kept = self._stacks[stack] = stack
            self._bytes_left -= len(stack)
        self._samples_left -= 1
        self._samples.setdefault(thread, []).append((number, kept))

    def _add_thread(self, samples: list[tuple[int, bytes]], line: Line) -> None:
        times = self._times
        parsed: dict[bytes, list[_Frame]] = {}
        calls: list[tuple[_Frame, int]] = []  # open, with the time of their first sample
        ended: list[Call] = []
        until = -1  # the sample at which the open calls end unless they occur in it
        for number, data in [*samples, (len(times) - 1, b"")]:
            if data not in parsed:
                parsed[data] = _parse_stack(data)
            stack = parsed[data]
            same = 0
            if until == number:
                for (frame, _), now in zip(calls, stack, strict=False):
                    if not frame.is_same_call(now):
                        break
                    same += 1
            while len(calls) > same:
                frame, started = calls.pop()
                depth = len(calls)  # added because a viewer reverses the order of equal times
                begin, end = started + depth, times[until] - depth
                name = f"{frame.name} ({os.path.basename(frame.file)})"  # noqa: PTH119 - not ours
                ended.append(Call(name, f"{frame.file}:{frame.line}", begin, max(begin, end)))
            calls += [(frame, times[number]) for frame in stack[same:]]
            until = number + 1
        add_calls(line, ended)


def _parse_stack(data: bytes) -> list[_Frame]:
    """Return a thread's frames, outermost first, without those of this library."""
    found = _FRAME.findall(data.decode("utf-8", "replace"))
    frames = [_Frame(file, name, line) for file, line, name in reversed(found)]
    return [frame for frame in frames if not frame.file.startswith(OWN_FILES)]


def add_calls(line: Line, ended: Sequence[Call]) -> None:
    """Add function calls to a line.

    Args:
        line: the line of a thread.
        ended: calls in the order in which they ended.
    """
    for call in reversed(ended):  # if times are equal, the outer call comes first
        line.event(call.name, call.begin, call.end - call.begin, {"source": call.source})
