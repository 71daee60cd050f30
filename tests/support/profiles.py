"""Read sessions of the Profile tab and kineto traces, without the code under test."""

import gzip
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from sm_tblog.format.xspace import XSpace

KERNELS = {"kernel", "gpu_memcpy", "gpu_memset"}


class Found(NamedTuple):
    """One event; times in nanoseconds since the epoch."""

    plane: str
    line: str
    line_id: int
    name: str
    begin: int
    duration: int
    stats: dict

    @property
    def end(self):
        return self.begin + self.duration


def sessions(logdir):
    """Return the files of each session below a log directory, by session name."""
    found = {}
    for file in sorted(Path(logdir).glob("**/plugins/profile/*/*.xplane.pb")):
        found.setdefault(file.parent.name, []).append(file)
    return found


def only_session(logdir):
    [[file]] = sessions(logdir).values()
    return XSpace.FromString(file.read_bytes())


def plane_of(message, name):
    return next(plane for plane in message.planes if plane.name == name)


def stats_of(plane, stats):
    return {
        plane.stat_metadata[one.metadata_id].name: getattr(one, one.WhichOneof("value"))
        for one in stats
    }


def start_of(message):
    """Return the time origin of a session, in nanoseconds since the epoch."""
    plane = plane_of(message, "Task Environment")
    return stats_of(plane, plane.stats)["profile_start_time"]


def events_of(message, prefix=""):
    """Yield the events of all planes whose names start with the prefix."""
    start = start_of(message)
    for plane in message.planes:
        if plane.name.startswith(prefix):
            for line in plane.lines:
                for event in line.events:
                    assert event.offset_ps % 1000 == event.duration_ps % 1000 == 0
                    yield Found(
                        plane.name,
                        line.name,
                        line.id,
                        plane.event_metadata[event.metadata_id].name,
                        start + line.timestamp_ns + event.offset_ps // 1000,
                        event.duration_ps // 1000,
                        stats_of(plane, event.stats),
                    )


def lines_of(data):
    """Return the events of a file by line: ``(name, begin, end, stats)``, in ns since its start."""
    message = XSpace.FromString(data)
    start = start_of(message)
    lines = {}
    for found in events_of(message):
        event = found.name, found.begin - start, found.end - start, found.stats
        lines.setdefault(found.line, []).append(event)
    return lines


def raw_trace(path):
    """Return a kineto trace, decoded without loss of precision."""
    data = Path(path).read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    return json.loads(data, parse_float=Decimal)


def raw_events(trace, *categories):
    """Yield a trace's events of some categories, with ``begin`` and ``duration`` in ns."""
    base = trace.get("baseTimeNanoseconds", 0)
    for event in trace["traceEvents"]:
        if event.get("ph") == "X" and event.get("cat") in categories:
            begin, duration = (Decimal(event[key]) * 1000 for key in ("ts", "dur"))
            assert begin == int(begin)
            assert duration == int(duration)
            yield {**event, "begin": base + int(begin), "duration": int(duration)}


def sums(pairs):
    """Return the number of events and their total duration, by name."""
    found = Counter()
    for name, duration in pairs:
        found[name, "count"] += 1
        found[name, "ns"] += duration
    return found


def as_shown(name):
    """Return a session's name for a kineto name."""
    return name.replace("Memcpy ", "MEMCPY", 1) if name.startswith("Memcpy ") else name


def table_sum(data, column):
    """Return the sum of a column of a table that the viewer sends to its web page."""
    table = json.loads(data)
    table = table[0] if isinstance(table, list) else table
    index = [one["id"] for one in table["cols"]].index(column)
    return sum(row["c"][index]["v"] for row in table["rows"])
