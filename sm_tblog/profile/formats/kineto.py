"""Converts traces of kineto, the recorder inside PyTorch, to planes, lines and events.

A kineto trace uses Chrome's JSON format. It has operators, annotations, Python functions and driver
calls by process and thread; kernels, copies and fills by device and stream; and allocations as
instant events. A thread becomes a line of the host plane, a stream becomes a line of its device's
plane. Every event keeps its name, time and arguments. Some get names and stats that the viewer
recognizes:

- An annotation ``ProfilerStep#7`` becomes step 7.
- An operator, such as ``aten::mm``, gets the stat ``tf_op``, which makes it appear in the viewer's
  tables. So does a kernel that the operator has launched.
- A launch and its kernel share a ``correlation_id``, by which the viewer finds the kernel's step.
- The name of a copy begins with ``MEMCPYHtoD`` or similar. An allocation is a ``MemoryAllocation``.
  It has no operator, because the viewer would count it as one of the operator's calls.

Times are exact to the nanosecond. Python functions go to separate lines: an annotation may begin in
one function and end in another, so the two do not nest. What kineto shows on a device but does not
run there, such as annotations and waits for the device, goes to a separate plane, so that it is not
counted twice.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog._errors import InvalidValueError
from sm_tblog.profile.formats.chrome_trace import TraceReader
from sm_tblog.profile.formats.kineto_stats import (
    COPIES,
    FILLS,
    KERNELS,
    args_of,
    as_int,
    device_event_stats,
    device_stats,
    hashable,
    operator_stat,
    shown_args,
)
from sm_tblog.profile.formats.xspace import HOST_PLANE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from sm_tblog.profile.formats.xspace import Line, Plane, Space

__all__ = ["Extent", "convert_trace"]

_ON_DEVICES = KERNELS | COPIES | FILLS
_DEVICE_ANNOTATIONS = frozenset({"gpu_user_annotation", "cuda_sync", "cuda_event"})
_OPERATORS = frozenset({"cpu_op", "Operator"})
_FUNCTIONS = "python_function"
_OVERHEAD = "overhead"  # of the profiler itself, outside the threads of the process
_IGNORED = frozenset({"Trace"})  # the profiler's own span around everything

_MAX_LINKS = 2_000_000
"""The maximum number of operators kept for linking kernels to them, about 100 MB."""

_VALID_TIMES = range(-(2**62), 2**62)
"""Valid times, in nanoseconds since the epoch. Events at any other time are left out."""

_MAX_KINDS = 10
"""The maximum number of unknown kinds of events that are named in warnings."""

_STEP = re.compile(r"ProfilerStep#(\d{1,18})").fullmatch
_COPY = re.compile(r"Memcpy (\w+)").match


class Extent(NamedTuple):
    """The extent of a trace.

    Attributes:
        begin_ns: the start of the first event, in nanoseconds since the epoch; 0 without events.
        events: the number of events, including those that were left out.
    """

    begin_ns: int
    events: int


def convert_trace(file: BinaryIO, name: str, space: Space, since_ns: int | None = None) -> Extent:
    """Add the contents of a trace to a session.

    Args:
        file: the trace as a binary file, optionally compressed with gzip.
        name: the name of the file, for messages.
        space: the session.
        since_ns: leave out events that begin before this time, in nanoseconds since the epoch; by
            default none.

    Events that are damaged or have no valid time are left out, with a warning in the session.

    Raises:
        InvalidValueError: the file is not a trace, or none of its events can be read. The message
            gives the position.
    """
    reader = TraceReader(file, name)
    conversion = _Conversion(reader, space, since_ns)
    for event in reader.events():
        conversion.add(event)
    conversion.finish()
    return Extent(conversion.first or 0, reader.events_read)


class _Conversion:
    """The conversion of one trace to a session."""

    def __init__(self, reader: TraceReader, space: Space, since_ns: int | None) -> None:
        self.first: int | None = None
        self._reader = reader
        self._space = space
        self._since_ns = since_ns
        self._base: int | None = None
        self._host = space.plane(HOST_PLANE)
        self._process: Any = None  # the first one; a merged trace has several
        self._threads: dict[Any, Line] = {}
        self._names: dict[Any, str] = {}
        self._streams: dict[Any, Line] = {}
        self._operators: dict[Any, str] = {}
        self._peaks: dict[str, int] = {}
        self._unknown: Counter[str] = Counter()
        self._negative = 0
        self._wrong = 0
        self._first_wrong = ""

    def add(self, event: dict[str, Any]) -> None:
        """Add an event of any kind; one with wrong values is left out and counted."""
        try:
            self._add(event)
        except Exception as error:  # noqa: BLE001 - a file may contain anything
            self._wrong += 1
            self._first_wrong = self._first_wrong or self._reader.describe(str(error))

    def _add(self, event: dict[str, Any]) -> None:
        phase = event.get("ph")
        if phase == "X":
            self._add_span(event)
        elif phase in ("i", "I"):
            if event.get("name") == "[memory]":
                self._add_memory(event)
        elif phase == "M":
            self._add_name(event)
        elif phase not in ("s", "t", "f"):  # arrows; the viewer draws its own from correlations
            kind = f"{phase!r:.20}"
            is_listed = kind in self._unknown or len(self._unknown) < _MAX_KINDS
            self._unknown[kind if is_listed else "others"] += 1

    def finish(self) -> None:
        """Add the properties of devices, and warnings about the whole trace.

        Raises:
            InvalidValueError: none of the events could be converted.
        """
        if self._first_wrong and self._wrong == self._reader.events_read:
            raise InvalidValueError(self._first_wrong)
        for plane, properties in self._devices():
            for key, value in properties.items():
                plane.stat(key, value)
        self._space.warnings += self._reader.warnings()
        for kind, number in self._unknown.items():
            self._space.warnings.append(f"{number:,} events of the kind {kind} were left out")
        if self._wrong:
            text = f"{self._wrong:,} events with wrong values were left out: {self._first_wrong}"
            self._space.warnings.append(text)
        if self._negative:
            text = f"{self._negative:,} events had a negative duration, which was set to 0"
            self._space.warnings.append(text)

    def _devices(self) -> list[tuple[Plane, dict[str, Any]]]:
        found = self._reader.header.get("deviceProperties")
        return [
            (self._space.plane(f"/device:GPU:{one['id']}", one["id"]), device_stats(one))
            for one in (found if isinstance(found, list) else [])
            if isinstance(one, dict) and isinstance(one.get("id"), int)
        ]

    def _add_span(self, event: dict[str, Any]) -> None:
        category = hashable(event.get("cat"))
        if category in _IGNORED:
            return
        begin = self._time(event)
        duration = self._duration(event)
        if self._since_ns is not None and begin < self._since_ns:
            return
        name, args = str(event.get("name", "")), args_of(event)
        if category in _ON_DEVICES:
            stats = device_event_stats(category, args, self._operators)
            copy = _COPY(name) if category in COPIES else None
            if copy:
                name = f"MEMCPY{copy[1]}{name[copy.end() :]}"
            self._stream(event, args).event(name, begin, duration, stats)
        elif category in _DEVICE_ANNOTATIONS:
            self._stream(event, args, "annotations").event(name, begin, duration, shown_args(args))
        else:
            line = self._thread(event, "Python" if category == _FUNCTIONS else "")
            step = _STEP(name)
            stats = shown_args(args)
            correlation = args.get("correlation")
            if isinstance(correlation, int):
                stats["correlation_id"] = correlation
            if category in _OPERATORS:
                stats["tf_op"] = operator = operator_stat(name)
                link = args.get("External id", args.get("external id"))
                if link is not None and len(self._operators) < _MAX_LINKS:
                    self._operators[hashable(link)] = operator
            elif step:
                name = "step"
                stats.update({"_r": 1, "step_num": int(step[1])})
            line.event(name, begin, duration, stats)

    def _add_memory(self, event: dict[str, Any]) -> None:
        begin = self._time(event)
        if self._since_ns is not None and begin < self._since_ns:
            return
        args = args_of(event)
        size = as_int(args.get("Bytes"))
        kind = {0: "cpu", 1: "cuda"}.get(hashable(args.get("Device Type", -1)), "device")
        number = args.get("Device Id", -1)
        allocator = f"{kind}:{number}" if isinstance(number, int) and number >= 0 else kind
        allocated = as_int(args.get("Total Allocated"))
        reserved = as_int(args.get("Total Reserved"))
        peak = self._peaks[allocator] = max(self._peaks.get(allocator, 0), allocated)
        self._thread(event).event(
            "MemoryAllocation" if size >= 0 else "MemoryDeallocation",
            begin,
            0,
            {
                "allocator_name": allocator,
                "bytes_allocated": allocated,
                "bytes_reserved": 0,
                "bytes_available": max(reserved - allocated, 0),
                "fragmentation": 1 - allocated / reserved if 0 < allocated <= reserved else 0.0,
                "peak_bytes_in_use": peak,
                "requested_bytes": abs(size),
                "allocation_bytes": abs(size),
                "addr": as_int(args.get("Addr")),
            },
        )

    def _add_name(self, event: dict[str, Any]) -> None:
        name = args_of(event).get("name")
        if event.get("name") == "thread_name" and isinstance(name, str):
            self._names[hashable(event.get("pid")), hashable(event.get("tid"))] = name

    def _thread(self, event: dict[str, Any], suffix: str = "") -> Line:
        """Return the line of an event's thread."""
        process, thread = hashable(event.get("pid")), hashable(event.get("tid"))
        key = process, thread, suffix
        if key not in self._threads:
            name = self._names.get((process, thread), f"thread {thread}")
            if suffix:
                name = f"{name} {suffix}"
            if isinstance(process, int) and process > 0 and self._process is None:
                self._process = process
            if event.get("cat") == _OVERHEAD:
                name = "profiler's overhead"
            elif process != self._process:
                name = f"{name} of process {process}"
            is_own = process == self._process and isinstance(thread, int) and not suffix
            self._threads[key] = self._host.line(name, thread if is_own else None)
        return self._threads[key]

    def _stream(self, event: dict[str, Any], args: Mapping[str, Any], suffix: str = "") -> Line:
        """Return the line of an event's device and stream."""
        device, stream = args.get("device", event.get("pid")), args.get("stream", event.get("tid"))
        key = hashable(device), hashable(stream), suffix
        if key not in self._streams:
            number = device if isinstance(device, int) and device >= 0 else None
            if suffix:
                plane = self._space.plane(f"/device:CUSTOM:GPU {device} {suffix}")
            else:
                plane = self._space.plane(f"/device:GPU:{device}", number)
            line = stream if isinstance(stream, int) else None
            self._streams[key] = plane.line(f"Stream #{stream}", line)
        return self._streams[key]

    def _time(self, event: dict[str, Any]) -> int:
        """Return the start of an event, in nanoseconds since the epoch."""
        if self._base is None:  # kineto writes it before the events; others may not
            self._base = as_int(self._reader.header.get("baseTimeNanoseconds"))
        time = self._base + self._nanoseconds(event, "ts")
        if time not in _VALID_TIMES:
            message = f"{time} is not a valid time in nanoseconds since the epoch"
            raise InvalidValueError(message)
        if self.first is None or time < self.first:
            self.first = time
        return time

    def _duration(self, event: dict[str, Any]) -> int:
        duration = self._nanoseconds(event, "dur") if event.get("dur") is not None else 0
        if duration < 0:
            self._negative += 1
        return duration

    def _nanoseconds(self, event: dict[str, Any], key: str) -> int:
        value = event.get(key)
        if isinstance(value, (int, Decimal)) and -(10**18) < value < 10**18:
            return value * 1000 if isinstance(value, int) else round(value * 1000)
        message = f"an event needs a time {key!r} in microseconds, got {value!r:.60}"
        raise InvalidValueError(message)
