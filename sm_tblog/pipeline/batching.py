"""Make batches: convert flat rows to columns and build items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError, SinkError
from sm_tblog._types import Scalar, Series, Value
from sm_tblog.sinks.base import Batch, Event, File

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.pipeline.faults import FaultLog
    from sm_tblog.pipeline.tag_registry import TagRegistry

__all__ = ["ENTRIES", "Item", "make_batch"]

ENTRIES = 4
"""Entries of the flat list per row: series, value, step, wall time."""


class Item(NamedTuple):
    """Something richer than a number, built by the worker thread.

    Attributes:
        run: the folder below the log directory.
        tag: the tag, as used in messages.
        step: the global step.
        wall_time: seconds since the epoch.
        nbytes: the memory in bytes that the item holds until it is built.
        build: called as ``build(tag, *args)``. Returns a ``Summary.Value`` message, or a list of
            messages, ``Scalar``, ``Value``, ``Event`` and ``File``; or a tuple of that and a
            warning, which is logged once per tag.
        args: the arguments of ``build`` after the tag.
    """

    run: str
    tag: str
    step: int
    wall_time: float
    nbytes: int
    build: Callable[..., Any]
    args: tuple[Any, ...]


def make_batch(
    rows: list[Any],
    items: Sequence[Item],
    faults: FaultLog,
    tags: TagRegistry,
    rename: Callable[[str], str] | None = None,
    on_built: Callable[[], None] = lambda: None,
) -> tuple[Batch, int]:
    """Return a batch, and the number of rows and items that had to be left out of it.

    Args:
        rows: the flat list, ``ENTRIES`` entries per row.
        items: the items to build.
        faults: receives a fault for each row or item that is left out.
        tags: the tag registry, which assigns the tags.
        rename: a function applied to every tag.
        on_built: called after each item.
    """
    if rename is not None:
        items = [item._replace(tag=rename(item.tag)) for item in items]
    built, computed, lost = _build(items, faults, on_built)
    rows += computed
    given = len(rows) // ENTRIES
    try:
        columns = _columns(rows)
    except Exception:  # noqa: BLE001 - an array library may raise anything
        rows = _readable_rows(rows, faults)
        columns = _columns(rows)
    series, codes = _encode_series(rows[0::ENTRIES])
    if rename is not None:
        series = [one._replace(tag=rename(one.tag)) for one in series]
    series = tags.assign_series(series)
    batch = Batch(
        series,
        codes,
        *columns,
        [tags.assign_value(one) for one in built if isinstance(one, Value)],
        [one for one in built if isinstance(one, Event)],
        [one for one in built if isinstance(one, File)],
    )
    return batch, given - len(codes) + lost


def _columns(rows: list[Any]) -> tuple[Any, Any, Any]:
    """Return steps, wall times and values."""
    count = len(rows) // ENTRIES
    values = np.fromiter(rows[1::ENTRIES], np.float64, count)
    steps = np.fromiter(rows[2::ENTRIES], np.int64, count)
    return steps, np.fromiter(rows[3::ENTRIES], np.float64, count), values


def _readable_rows(rows: list[Any], faults: FaultLog) -> list[Any]:
    """Return the rows that can be read, which may fail for a value on a device."""
    good: list[Any] = []
    for i in range(0, len(rows), ENTRIES):
        series, value, step, wall_time = rows[i : i + ENTRIES]
        try:
            row = series, float(value), int(np.int64(step)), float(wall_time)
        except Exception as error:  # noqa: BLE001 - an array library may raise anything
            tag = series if isinstance(series, str) else series.tag
            fault = InvalidValueError(f"{tag!r}: the value at step {step} cannot be read: {error}")
            fault.__cause__ = error
            faults.report(f"read {tag}", fault)
        else:
            good.extend(row)
    return good


def _encode_series(series: list[Any]) -> tuple[list[Series], Any]:
    """Return the distinct series, ordered by first row, and each row's index into them."""
    distinct = dict.fromkeys(series)
    if len(distinct) < 2:
        codes = np.zeros(len(series), np.intp)
    else:
        position = {one: i for i, one in enumerate(distinct)}
        codes = np.fromiter(map(position.__getitem__, series), np.intp, len(series))
    return [s if isinstance(s, Series) else Series(s) for s in distinct], codes


def _build(
    items: Sequence[Item], faults: FaultLog, on_built: Callable[[], None]
) -> tuple[list[Value | Event | File], list[Any], int]:
    """Return the built parts, the rows among them, and the number of items that failed."""
    built: list[Value | Event | File] = []
    rows: list[Any] = []
    lost = 0
    for item in items:
        try:
            made = item.build(item.tag, *item.args)
            warning = ""
            if isinstance(made, tuple) and not isinstance(made, _PARTS):
                made, warning = made
            parts = made if isinstance(made, list) else [made]
            scalars = [part for part in parts if isinstance(part, Scalar)]
            built += [_as_part(part, item) for part in parts if not isinstance(part, Scalar)]
            for tag, value in scalars:
                series = Series(tag, item.run) if item.run else tag
                rows += (series, value, item.step, item.wall_time)
        except Exception as error:  # noqa: BLE001 - builders process arbitrary user data
            fault = SinkError(f"{item.tag!r} at step {item.step} is not logged: {error}")
            fault.__cause__ = error
            faults.report(f"build {item.tag}", fault)
            lost += 1
        else:
            if warning:
                faults.warn_once(f"warning {item.tag}", f"{item.tag!r}: {warning}")
        on_built()
    return built, rows, lost


_PARTS = (Value, Event, File, Scalar)


def _as_part(part: Any, item: Item) -> Value | Event | File:
    """Return a part made by a builder; convert a message to a ``Value``."""
    if isinstance(part, Value | Event | File):
        return part
    plugin = part.metadata.plugin_data.plugin_name
    data = part.SerializeToString()
    return Value(item.run, item.step, item.wall_time, data, part.tag, plugin)
