"""Makes planes, lines and events of what PyTorch's profiler, kineto, has recorded.

A kineto trace is Chrome's JSON: operators, annotations, Python functions and calls of the driver by
process and thread; kernels, copies and fills by device and stream; allocations as instants. Here a
thread becomes a line of the host's plane, a stream one of its device's. Every event keeps its name,
its time and what was recorded with it; some get names and values that the viewer knows:

- An annotation ``ProfilerStep#7`` is the step 7.
- An operator, as ``aten::mm``, has the value ``tf_op``, which puts it into the viewer's tables; so
  does a kernel that it has launched.
- A launch and its kernel share a ``correlation_id``. So the viewer finds the step of a kernel.
- A copy's name begins with MEMCPYHtoD and the like; an allocation is a ``MemoryAllocation``. Which
  operator it is for is not said: the viewer would count it among the operator's calls.

Times are exact to the nanosecond. Python functions have lines of their own: an annotation begins
in one and ends in another, so that they do not nest. What kineto shows on a device but does not run
there, as annotations and waits for it, is kept in a plane of its own, lest it be counted twice.
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
_BESIDE_DEVICES = frozenset({"gpu_user_annotation", "cuda_sync", "cuda_event"})
_OPERATORS = frozenset({"cpu_op", "Operator"})
_FUNCTIONS = "python_function"
_OVERHEAD = "overhead"  # of the profiler itself, in no thread of the process
_NO_WORK = frozenset({"Trace"})  # the profiler's own span around everything

_UNSAID = frozenset({
    *("External id", "external id", "Ev Idx", "Record function id"),
    *("Python id", "Python parent id", "Python module id", "finished", "cbid", "correlation"),
    *("device", "context", "stream", "queued"),
    *("registers per thread", "shared memory", "grid", "block", "est. achieved occupancy %"),
})  # fmt: skip
"""What is recorded with events but says nothing, or is said in another way."""

_LONGEST_VALUE = 1000
"""Characters of one value that are kept; shapes of a thousand inputs have many."""

_MOST_LINKS = 2_000_000
"""Operators that are remembered for the kernels they launch, about 100 MB."""

_TIMES = range(-(2**62), 2**62)
"""Nanoseconds that are believed, before and after an origin."""

_encode = json.JSONEncoder(default=float).encode
_STEP = re.compile(r"ProfilerStep#(\d+)").fullmatch
_COPY = re.compile(r"Memcpy (\w+)").match


class Extent(NamedTuple):
    """What was in a trace.

    Attributes:
        begin_ns: when the first event begins, in nanoseconds since the epoch; 0 without events.
        events: how many there were, those that were left out included.
    """

    begin_ns: int
    events: int


def convert_trace(file: BinaryIO, name: str, space: Space, since_ns: int | None = None) -> Extent:
    """Add what is in a trace to a session.

    Args:
        file: a trace, opened for reading bytes; compressed by gzip or not.
        name: the file's, for messages.
        space: the session.
        since_ns: leave out what begins before this time, in nanoseconds since the epoch.

    Raises:
        InvalidValueError: the file is no trace, damaged, or cut off; says where.
    """
    reader = TraceReader(file, name)
    conversion = _Conversion(reader, space, since_ns)
    for event in reader.events():
        conversion.add(event)
    conversion.finish()
    return Extent(conversion.first or 0, reader.read)


class _Conversion:
    """One trace on its way into a session."""

    def __init__(self, reader: TraceReader, space: Space, since_ns: int | None) -> None:
        self.first: int | None = None
        self._reader = reader
        self._space = space
        self._since = since_ns
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
        """Add an event, whatever it is."""
        phase = event.get("ph")
        if phase == "X":
            self._add_span(event)
        elif phase in ("i", "I"):
            if event.get("name") == "[memory]":
                self._add_memory(event)
        elif phase == "M":
            self._add_name(event)
        elif phase not in ("s", "t", "f"):  # arrows, which the viewer draws by correlation
            self._unknown[str(phase)] += 1

    def finish(self) -> None:
        """Add what only the whole trace tells."""
        for plane, properties in self._devices():
            for key, value in properties.items():
                plane.stat(key, value)
        for phase, number in self._unknown.items():
            self._space.warnings.append(f"{number:,} events of the kind {phase!r} were left out")
        if self._negative:
            text = f"{self._negative:,} events that took less than no time were made to take none"
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
        if category in _NO_WORK:
            return
        begin = self._time(event)
        duration = self._duration(event)
        if self._since is not None and begin < self._since:
            return
        name, args = str(event.get("name", "")), _args(event)
        if category in _ON_DEVICES:
            stats = _device_event_stats(category, args, self._operators)
            copy = _COPY(name) if category in _COPIES else None
            if copy:
                name = f"MEMCPY{copy[1]}{name[copy.end() :]}"
            self._stream(event, args).event(name, begin, duration, stats)
        elif category in _BESIDE_DEVICES:
            self._stream(event, args, "annotations").event(name, begin, duration, _said(args))
        else:
            line = self._thread(event, "Python" if category == _FUNCTIONS else "")
            step = _STEP(name)
            stats = _said(args)
            if "correlation" in args:
                stats["correlation_id"] = args["correlation"]
            if category in _OPERATORS:
                stats["tf_op"] = operator = _operator(name)
                link = args.get("External id", args.get("external id"))
                if link is not None and len(self._operators) < _MOST_LINKS:
                    self._operators[link] = operator
            elif step:
                name = "step"
                stats.update({"_r": 1, "step_num": int(step[1])})
            line.event(name, begin, duration, stats)

    def _add_memory(self, event: dict[str, Any]) -> None:
        begin = self._time(event)
        if self._since is not None and begin < self._since:
            return
        args = _args(event)
        size = _whole(args.get("Bytes"))
        kind = {0: "cpu", 1: "cuda"}.get(args.get("Device Type", -1), "device")
        number = args.get("Device Id", -1)
        allocator = f"{kind}:{number}" if isinstance(number, int) and number >= 0 else kind
        allocated = _whole(args.get("Total Allocated"))
        reserved = _whole(args.get("Total Reserved"))
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
                "addr": _whole(args.get("Addr")),
            },
        )

    def _add_name(self, event: dict[str, Any]) -> None:
        name = _args(event).get("name")
        if event.get("name") == "thread_name" and isinstance(name, str):
            self._names[_hashable(event.get("pid")), _hashable(event.get("tid"))] = name

    def _thread(self, event: dict[str, Any], what: str = "") -> Line:
        """Return the line of the thread that an event is on."""
        process, thread = _hashable(event.get("pid")), _hashable(event.get("tid"))
        key = process, thread, what
        if key not in self._threads:
            name = self._names.get((process, thread), f"thread {thread}")
            if what:
                name = f"{name} {what}"
            if isinstance(process, int) and process > 0 and self._process is None:
                self._process = process
            if event.get("cat") == _OVERHEAD:
                name = "profiler's overhead"
            elif process != self._process:
                name = f"{name} of process {process}"
            is_own = process == self._process and isinstance(thread, int) and not what
            self._threads[key] = self._host.line(name, thread if is_own else None)
        return self._threads[key]

    def _stream(self, event: dict[str, Any], args: Mapping[str, Any], what: str = "") -> Line:
        """Return the line of the stream of a device that an event is on."""
        device, stream = args.get("device", event.get("pid")), args.get("stream", event.get("tid"))
        key = _hashable(device), _hashable(stream), what
        if key not in self._streams:
            number = device if isinstance(device, int) and device >= 0 else None
            if what:
                plane = self._space.plane(f"/device:CUSTOM:GPU {device} {what}")
            else:
                plane = self._space.plane(f"/device:GPU:{device}", number)
            line = stream if isinstance(stream, int) else None
            self._streams[key] = plane.line(f"Stream #{stream}", line)
        return self._streams[key]

    def _time(self, event: dict[str, Any]) -> int:
        """Return when an event begins, in nanoseconds since the epoch."""
        if self._base is None:  # kineto says it before the events; others need not
            self._base = _whole(self._reader.header.get("baseTimeNanoseconds"))
        time = self._base + self._nanoseconds(event, "ts")
        if time not in _TIMES:
            self._reader.fail(f"no time is {time}, in nanoseconds since the epoch")
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
            f"an event needs a time {key!r} in microseconds, not {value!r:.60}"
        )


def _device_event_stats(
    category: Any, args: Mapping[str, Any], operators: Mapping[Any, str]
) -> dict[str, Any]:
    stats = _said(args)
    correlation = args.get("correlation")
    if isinstance(correlation, int):
        stats["correlation_id"] = correlation
    operator = operators.get(_hashable(args.get("External id", args.get("external id"))))
    if operator is not None:
        stats["tf_op"] = operator
    if category in _KERNELS:
        stats["kernel_details"] = (
            f"regs:{_whole(args.get('registers per thread'))} "
            f"static_shared:{_whole(args.get('shared memory'))} dynamic_shared:0 "
            f"grid:{_sizes(args.get('grid'))} block:{_sizes(args.get('block'))} "
            f"occ_pct:{_number(args.get('est. achieved occupancy %'))}"
        )
    elif isinstance(args.get("bytes"), int):
        stats.pop("bytes", None)
        key = "memcpy_details" if category in _COPIES else "memset_details"
        stats[key] = f"num_bytes:{args['bytes']}"
    return stats


def _device_stats(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the viewer wants to know of a device."""
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
    """Return an operator's name and type as the viewer's tables take them.

    ``aten::mm`` does not parse there: a name has no colon, and behind one stands the type.
    """
    kind = re.sub(r"\W+", "_", re.split(r"::|: ", name)[-1], flags=re.ASCII).strip("_") or "op"
    scope = re.sub(r"[^\w.-]+", "__", name, flags=re.ASCII)
    return f"{scope}:{kind}"


def _said(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was recorded with an event, for whoever clicks on it."""
    return {
        key: value if isinstance(value, (int, float)) else _as_stat(value)
        for key, value in args.items()
        if key not in _UNSAID and value not in (None, "", [])
    }


def _as_stat(value: Any) -> float | str:
    if isinstance(value, Decimal):
        return float(value)
    text = value if isinstance(value, str) else _encode(value)
    return text[:_LONGEST_VALUE]


def _args(event: Mapping[str, Any]) -> dict[str, Any]:
    args = event.get("args")
    return args if isinstance(args, dict) else {}


def _whole(value: Any) -> int:
    """Return a whole number, 0 for what is none."""
    return int(value) if isinstance(value, (int, Decimal)) else 0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, Decimal)) else 0


def _sizes(value: Any) -> str:
    """Return the sizes of a grid, as the viewer takes them."""
    return ",".join(map(str, value)) if isinstance(value, list) and value else "1,1,1"


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, str)) else str(value)
