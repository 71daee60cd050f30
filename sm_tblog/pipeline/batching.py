"""Make batches: convert flat rows to columns and build items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidValueError, SinkError
from sm_tblog._types import MAX_TAG_LENGTH, Scalar, Series, Value, too_long
from sm_tblog.arrays.convert import as_step
from sm_tblog.sinks.base import Batch, Event, File

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.pipeline.faults import FaultLog
    from sm_tblog.pipeline.tag_registry import TagRegistry

__all__ = ["ENTRIES", "Item", "claim_earlier", "make_batch"]

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
        position: the number of entries of rows that were logged before it, set by ``Buffer.put``.
    """

    run: str
    tag: str
    step: int
    wall_time: float
    nbytes: int
    build: Callable[..., Any]
    args: tuple[Any, ...]
    position: int = 0


def make_batch(
    rows: list[Any],
    items: Sequence[Item],
    faults: FaultLog,
    tags: TagRegistry,
    position: int = 0,
    on_built: Callable[[], None] = lambda: None,
) -> tuple[Batch, int]:
    """Return a batch, and the number of rows and items that had to be left out of it.

    Args:
        rows: the flat list, ``ENTRIES`` entries per row.
        items: the items to build.
        faults: receives a fault for each row or item that is left out.
        tags: the tag registry, which assigns the tags.
        position: the number of entries of rows that were logged before these.
        on_built: called after each item.
    """
    built, computed, lost = _build(items, rows[0::ENTRIES], position, faults, tags, on_built)
    if computed:
        rows = rows + computed
    given = len(rows) // ENTRIES
    try:
        columns = _columns(rows)
    except Exception:  # noqa: BLE001 - an array library may raise anything
        rows = _readable_rows(rows, faults)
        columns = _columns(rows)
    series, codes = _encode_series(rows[0::ENTRIES])
    if any(len(tag) > MAX_TAG_LENGTH for tag in map(_tag_of, series)):
        rows = _rows_with_possible_tags(rows, series, faults)
        columns = _columns(rows)
        series, codes = _encode_series(rows[0::ENTRIES])
    batch = Batch(
        tags.assign_series(series),
        codes,
        *columns,
        [one for one in built if isinstance(one, Value)],
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
        tag = _tag_of(series)
        try:
            row = series, float(value), as_step(step, tag), float(wall_time)
        except InvalidValueError as error:  # what other calls raise
            faults.report(f"step {tag}", error)
        except Exception as error:  # noqa: BLE001 - an array library may raise anything
            fault = InvalidValueError(f"{tag!r}: the value at step {step} cannot be read: {error}")
            fault.__cause__ = error
            faults.report(f"read {tag}", fault)
        else:
            good.extend(row)
    return good


def _rows_with_possible_tags(
    rows: list[Any], series: Sequence[str | Series], faults: FaultLog
) -> list[Any]:
    """Return the rows without those whose tags are too long; calls for one number check nothing."""
    refused = {one for one in series if len(_tag_of(one)) > MAX_TAG_LENGTH}
    for one in refused:
        faults.report("long tag", InvalidValueError(too_long(_tag_of(one))))
    return [
        entry
        for i in range(0, len(rows), ENTRIES)
        if rows[i] not in refused
        for entry in rows[i : i + ENTRIES]
    ]


def _tag_of(series: str | Series) -> str:
    return series if isinstance(series, str) else series.tag


def _encode_series(series: list[str | Series]) -> tuple[list[str | Series], Any]:
    """Return the distinct series, ordered by first row, and each row's index into them."""
    distinct = dict.fromkeys(series)
    if len(distinct) < 2:
        codes = np.zeros(len(series), np.intp)
    else:
        position = {one: i for i, one in enumerate(distinct)}
        codes = np.fromiter(map(position.__getitem__, series), np.intp, len(series))
    return list(distinct), codes


def _build(
    items: Sequence[Item],
    series: list[str | Series],
    position: int,
    faults: FaultLog,
    tags: TagRegistry,
    on_built: Callable[[], None],
) -> tuple[list[Value | Event | File], list[Any], int]:
    """Return the built parts, the rows among them, and the number of items that failed.

    The tags are assigned in the order of the calls, those of the batch's rows among them.

    Args:
        items: the items to build.
        series: the series of each row.
        position: as for ``make_batch``.
        faults: receives a fault for each item that fails.
        tags: assigns the tags.
        on_built: called after each item.
    """
    built: list[Value | Event | File] = []
    rows: list[Any] = []
    lost = 0
    claimed = 0
    for item in items:
        claimed = claim_earlier(series, claimed, item.position - position, tags)
        try:
            made = item.build(tags.stored_tag(item.tag), *item.args)
            warning = ""
            if isinstance(made, tuple) and not isinstance(made, _PARTS):
                made, warning = made
            parts = made if isinstance(made, list) else [made]
            scalars = [part for part in parts if isinstance(part, Scalar)]
            values = [_as_part(part, item) for part in parts if not isinstance(part, Scalar)]
            built += [tags.assign_value(v) if isinstance(v, Value) else v for v in values]
            curves = [Series(tag, item.run) if item.run else tag for tag, _ in scalars]
            tags.claim_series(curves)
            for curve, (_, value) in zip(curves, scalars, strict=True):
                rows += (curve, value, item.step, item.wall_time)
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


def claim_earlier(series: list[str | Series], start: int, end: int, tags: TagRegistry) -> int:
    """Claim the tags of the rows from ``start`` that were logged before entry ``end``.

    Returns:
        The first row of which the tag is not claimed yet.
    """
    stop = min(end // ENTRIES, len(series))
    if stop <= start:
        return start
    tags.claim_series(filter(tags.is_new, dict.fromkeys(series[start:stop])))
    return stop


_PARTS = (Value, Event, File, Scalar)


def _as_part(part: Any, item: Item) -> Value | Event | File:
    """Return a part made by a builder; convert a message to a ``Value``."""
    if isinstance(part, Value | Event | File):
        return part
    from sm_tblog.format import schema  # not at the top: only builders need protobuf

    data = part.SerializeToString()
    plugin = schema.maybe_plugin(part)
    return Value(item.run, item.step, item.wall_time, data, part.tag, plugin)
