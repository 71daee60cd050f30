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

import json
import re
from collections import Counter
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.profile.formats.chrome_trace import TraceReader
from sm_tblog.profile.formats.xspace import HOST_PLANE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from sm_tblog.profile.formats.xspace import Line, Plane, Space

__all__ = ["Extent", "convert_trace"]

_KERNELS = frozenset({"kernel", "Kernel"})
_COPIES = frozenset({"gpu_memcpy", "Memcpy"})
_FILLS = frozenset({"gpu_memset", "Memset"})
_ON_DEVICES = _KERNELS | _COPIES | _FILLS
_DEVICE_ANNOTATIONS = frozenset({"gpu_user_annotation", "cuda_sync", "cuda_event"})
_OPERATORS = frozenset({"cpu_op", "Operator"})
_FUNCTIONS = "python_function"
_OVERHEAD = "overhead"  # of the profiler itself, outside the threads of the process
_IGNORED = frozenset({"Trace"})  # the profiler's own span around everything

_OMITTED_ARGS = frozenset({
    *("External id", "external id", "Ev Idx", "Record function id"),
    *("Python id", "Python parent id", "Python module id", "finished", "cbid", "correlation"),
    *("device", "context", "stream", "queued"),
    *("registers per thread", "shared memory", "grid", "block", "est. achieved occupancy %"),
})  # fmt: skip
"""Arguments of events that are useless to the user or are converted to other stats."""

_MAX_VALUE_LENGTH = 1000
"""Characters. Longer values, such as the shapes of 1000 inputs, are truncated."""

_MAX_LINKS = 2_000_000
"""The maximum number of operators kept for linking kernels to them, about 100 MB."""

_VALID_TIMES = range(-(2**62), 2**62)
"""Valid times, in nanoseconds since the epoch. Any other time is an error."""

_encode = json.JSONEncoder(default=float).encode
_STEP = re.compile(r"ProfilerStep#(\d+)").fullmatch
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

    Raises:
        InvalidValueError: the file is not a trace, damaged, or truncated. The message gives the
            position.
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

    def add(self, event: dict[str, Any]) -> None:
        """Add an event of any kind."""
        phase = event.get("ph")
        if phase == "X":
            self._add_span(event)
        elif phase in ("i", "I"):
            if event.get("name") == "[memory]":
                self._add_memory(event)
        elif phase == "M":
            self._add_name(event)
        elif phase not in ("s", "t", "f"):  # arrows; the viewer draws its own from correlations
            self._unknown[str(phase)] += 1

    def finish(self) -> None:
        """Add the properties of devices, and warnings about the whole trace."""
        for plane, properties in self._devices():
            for key, value in properties.items():
                plane.stat(key, value)
        for phase, number in self._unknown.items():
            self._space.warnings.append(f"{number:,} events of the kind {phase!r} were left out")
        if self._negative:
            text = f"{self._negative:,} events had a negative duration, which was set to 0"
            self._space.warnings.append(text)

    def _devices(self) -> list[tuple[Plane, dict[str, Any]]]:
        found = self._reader.header.get("deviceProperties") or []
        return [
            (self._space.plane(f"/device:GPU:{one['id']}", one["id"]), _device_stats(one))
            for one in found
            if isinstance(one, dict) and isinstance(one.get("id"), int)
        ]

    def _add_span(self, event: dict[str, Any]) -> None:
        category = event.get("cat")
        if category in _IGNORED:
            return
        begin = self._time(event)
        duration = self._duration(event)
        if self._since_ns is not None and begin < self._since_ns:
            return
        name, args = str(event.get("name", "")), _args(event)
        if category in _ON_DEVICES:
            stats = _device_event_stats(category, args, self._operators)
            copy = _COPY(name) if category in _COPIES else None
            if copy:
                name = f"MEMCPY{copy[1]}{name[copy.end() :]}"
            self._stream(event, args).event(name, begin, duration, stats)
        elif category in _DEVICE_ANNOTATIONS:
            self._stream(event, args, "annotations").event(name, begin, duration, _shown_args(args))
        else:
            line = self._thread(event, "Python" if category == _FUNCTIONS else "")
            step = _STEP(name)
            stats = _shown_args(args)
            if "correlation" in args:
                stats["correlation_id"] = args["correlation"]
            if category in _OPERATORS:
                stats["tf_op"] = operator = _operator(name)
                link = args.get("External id", args.get("external id"))
                if link is not None and len(self._operators) < _MAX_LINKS:
                    self._operators[link] = operator
            elif step:
                name = "step"
                stats.update({"_r": 1, "step_num": int(step[1])})
            line.event(name, begin, duration, stats)

    def _add_memory(self, event: dict[str, Any]) -> None:
        begin = self._time(event)
        if self._since_ns is not None and begin < self._since_ns:
            return
        args = _args(event)
        size = _as_int(args.get("Bytes"))
        kind = {0: "cpu", 1: "cuda"}.get(args.get("Device Type", -1), "device")
        number = args.get("Device Id", -1)
        allocator = f"{kind}:{number}" if isinstance(number, int) and number >= 0 else kind
        allocated = _as_int(args.get("Total Allocated"))
        reserved = _as_int(args.get("Total Reserved"))
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
                "addr": _as_int(args.get("Addr")),
            },
        )

    def _add_name(self, event: dict[str, Any]) -> None:
        name = _args(event).get("name")
        if event.get("name") == "thread_name" and isinstance(name, str):
            self._names[_hashable(event.get("pid")), _hashable(event.get("tid"))] = name

    def _thread(self, event: dict[str, Any], suffix: str = "") -> Line:
        """Return the line of an event's thread."""
        process, thread = _hashable(event.get("pid")), _hashable(event.get("tid"))
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
        key = _hashable(device), _hashable(stream), suffix
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
            self._base = _as_int(self._reader.header.get("baseTimeNanoseconds"))
        time = self._base + self._nanoseconds(event, "ts")
        if time not in _VALID_TIMES:
            self._reader.fail(f"{time} is not a valid time in nanoseconds since the epoch")
        if self.first is None or time < self.first:
            self.first = time
        return time

    def _duration(self, event: dict[str, Any]) -> int:
        duration = self._nanoseconds(event, "dur") if "dur" in event else 0
        if duration < 0:
            self._negative += 1
        return duration

    def _nanoseconds(self, event: dict[str, Any], key: str) -> int:
        value = event.get(key)
        if isinstance(value, (int, Decimal)) and -(10**18) < value < 10**18:
            return value * 1000 if isinstance(value, int) else round(value * 1000)
        return self._reader.fail(
            f"an event needs a time {key!r} in microseconds, got {value!r:.60}"
        )


def _device_event_stats(
    category: Any, args: Mapping[str, Any], operators: Mapping[Any, str]
) -> dict[str, Any]:
    stats = _shown_args(args)
    correlation = args.get("correlation")
    if isinstance(correlation, int):
        stats["correlation_id"] = correlation
    operator = operators.get(_hashable(args.get("External id", args.get("external id"))))
    if operator is not None:
        stats["tf_op"] = operator
    if category in _KERNELS:
        stats["kernel_details"] = (
            f"regs:{_as_int(args.get('registers per thread'))} "
            f"static_shared:{_as_int(args.get('shared memory'))} dynamic_shared:0 "
            f"grid:{_dimensions(args.get('grid'))} block:{_dimensions(args.get('block'))} "
            f"occ_pct:{_as_float(args.get('est. achieved occupancy %'))}"
        )
    elif isinstance(args.get("bytes"), int):
        stats.pop("bytes", None)
        key = "memcpy_details" if category in _COPIES else "memset_details"
        stats[key] = f"num_bytes:{args['bytes']}"
    return stats


def _device_stats(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stats of a device that the viewer uses."""
    name = str(properties.get("name", ""))
    numbers = {
        "core_count": properties.get("numSms"),
        "memory_size": properties.get("totalGlobalMem"),
        "compute_cap_major": properties.get("computeMajor"),
        "compute_cap_minor": properties.get("computeMinor"),
    }
    return {
        "gpu_device_name": name,
        "device_vendor": "AMD" if "AMD" in name or "Instinct" in name else "Nvidia",
        **{key: value for key, value in numbers.items() if isinstance(value, int)},
    }


@lru_cache(maxsize=10_000)
def _operator(name: str) -> str:
    """Return an operator's name and type in the format ``name:type`` of the viewer's tables.

    The name must not contain a colon, so ``aten::mm`` becomes ``aten__mm:mm``.
    """
    kind = re.sub(r"\W+", "_", re.split(r"::|: ", name)[-1], flags=re.ASCII).strip("_") or "op"
    scope = re.sub(r"[^\w.-]+", "__", name, flags=re.ASCII)
    return f"{scope}:{kind}"


def _shown_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments to show when the user clicks on an event."""
    return {
        key: value if isinstance(value, (int, float)) else _as_stat(value)
        for key, value in args.items()
        if key not in _OMITTED_ARGS and value not in (None, "", [])
    }


def _as_stat(value: Any) -> float | str:
    if isinstance(value, Decimal):
        return float(value)
    text = value if isinstance(value, str) else _encode(value)
    return text[:_MAX_VALUE_LENGTH]


def _args(event: Mapping[str, Any]) -> dict[str, Any]:
    args = event.get("args")
    return args if isinstance(args, dict) else {}


def _as_int(value: Any) -> int:
    """Return a number as an integer; 0 for anything else."""
    return int(value) if isinstance(value, (int, Decimal)) else 0


def _as_float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, Decimal)) else 0


def _dimensions(value: Any) -> str:
    """Return the dimensions of a grid in the viewer's format."""
    return ",".join(map(str, value)) if isinstance(value, list) and value else "1,1,1"


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, str)) else str(value)
