"""From what waits to a batch: flat rows to columns, items to built values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError, SinkError
from sm_tblog._types import Series, Value
from sm_tblog.sinks.base import Batch, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog._faults import Faults

__all__ = ["ENTRIES", "Item", "make_batch"]

ENTRIES = 4
"""Entries of the flat list that make a row: series, value, step, wall time."""


class Item(NamedTuple):
    """Something richer than a number, to be built by the worker.

    Attributes:
        run: the folder below the log folder.
        tag: named in messages.
        step: the global step.
        wall_time: seconds since the epoch.
        nbytes: the memory that it keeps until it is built.
        build: returns a ``Summary.Value`` message, or that and a remark to be said once for the
            tag, or a list of ``Value`` and ``Event``.
        args: what ``build`` is given.
    """

    run: str
    tag: str
    step: int
    wall_time: float
    nbytes: int
    build: Callable[..., Any]
    args: tuple[Any, ...]


def make_batch(rows: list[Any], items: Sequence[Item], faults: Faults) -> tuple[Batch, int]:
    """Return a batch, and how many rows and items had to be left out of it.

    Args:
        rows: flat, ``ENTRIES`` to a row.
        items: what is to be built.
        faults: told what was left out, and why.
    """
    given = len(rows) // ENTRIES
    try:
        columns = _columns(rows)
    except Exception:  # noqa: BLE001 - any array library's
        rows = _readable(rows, faults)
        columns = _columns(rows)
    series, codes = _codes(rows[0::ENTRIES])
    values, events, lost = _build(items, faults)
    return Batch(series, codes, *columns, values, events), given - len(codes) + lost


def _columns(rows: list[Any]) -> tuple[Any, Any, Any]:
    """Return steps, wall times and values."""
    count = len(rows) // ENTRIES
    values = np.fromiter(rows[1::ENTRIES], np.float64, count)
    steps = np.fromiter(rows[2::ENTRIES], np.int64, count)
    return steps, np.fromiter(rows[3::ENTRIES], np.float64, count), values


def _readable(rows: list[Any], faults: Faults) -> list[Any]:
    """Return the rows that can be read: a value on a device may turn out not to be."""
    good: list[Any] = []
    for i in range(0, len(rows), ENTRIES):
        series, value, step, wall_time = rows[i : i + ENTRIES]
        try:
            row = series, float(value), int(np.int64(step)), float(wall_time)
        except Exception as error:  # noqa: BLE001 - any array library's
            tag = series if isinstance(series, str) else series.tag
            fault = InvalidValueError(f"{tag!r}: the value at step {step} cannot be read: {error}")
            fault.__cause__ = error
            faults.began(f"read {tag}", fault)
        else:
            good.extend(row)
    return good


def _codes(series: list[Any]) -> tuple[list[Series], Any]:
    """Return the distinct series, in the order of their first row, and each row's position."""
    distinct = dict.fromkeys(series)
    if len(distinct) < 2:
        codes = np.zeros(len(series), np.intp)
    else:
        position = {one: i for i, one in enumerate(distinct)}
        codes = np.fromiter(map(position.__getitem__, series), np.intp, len(series))
    return [s if isinstance(s, Series) else Series(s) for s in distinct], codes


def _build(items: Sequence[Item], faults: Faults) -> tuple[list[Value], list[Event], int]:
    values: list[Value] = []
    events: list[Event] = []
    lost = 0
    for item in items:
        try:
            built = item.build(*item.args)
        except Exception as error:  # noqa: BLE001 - a builder meets any user's data
            fault = SinkError(f"{item.tag!r} at step {item.step} is not logged: {error}")
            fault.__cause__ = error
            faults.began(f"build {item.tag}", fault)
            lost += 1
            continue
        if isinstance(built, list):
            values.extend(b for b in built if isinstance(b, Value))
            events.extend(b for b in built if isinstance(b, Event))
            continue
        if isinstance(built, tuple):
            built, remark = built
            if remark:
                faults.remark(f"remark {item.tag}", f"{item.tag!r}: {remark}")
        plugin = built.metadata.plugin_data.plugin_name
        data = built.SerializeToString()
        values.append(Value(item.run, item.step, item.wall_time, data, built.tag, plugin))
    return values, events, lost
