"""Which points of a run later ones supersede.

A run that continues from a checkpoint logs some steps again. The loaders of TensorBoard differ in
what they then show; see ``docs/reading.md``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog._types import IndexArray, Int64Array
    from sm_tblog.readers.selection import Restarts

__all__ = ["order_by_tag", "rows_kept"]


def rows_kept(
    tags: Any,
    steps: Int64Array,
    starts: Sequence[tuple[int, int]],
    restarts: Restarts,
) -> Any:
    """Return which rows are not superseded; bool, shape (n,), or None for all.

    Args:
        tags: the number of each row's tag; int32, shape (n,), in the order written.
        steps: int64, shape (n,).
        starts: for each ``SessionLog.START``, the number of rows before it, and its step.
        restarts: ``"marks"``: a start supersedes all earlier rows at and after its step.
            ``"steps"``: a row supersedes the earlier rows of its tag at and after its step.
            ``"raw"``: nothing is superseded.
    """
    if restarts == "raw" or (restarts == "marks" and not starts):
        return None
    keep = np.ones(len(steps), bool)
    if restarts == "marks":
        befores, marks = np.array(sorted(starts), np.int64).T
        lowest = np.minimum.accumulate(marks[::-1])[::-1]  # of the starts from each one on
        last = int(befores[-1])
        keep[:last] = steps[:last] < np.repeat(lowest, np.diff(befores, prepend=0))
        return keep
    order, ends = order_by_tag(tags)
    ordered = steps[order]
    latest = np.empty(len(steps), bool)
    for begin, end in pairwise([0, *ends.tolist()]):
        if begin == end:
            continue
        part = ordered[begin:end]
        smallest_after = np.minimum.accumulate(part[::-1])[::-1]
        latest[begin : end - 1] = part[:-1] < smallest_after[1:]
        latest[end - 1] = True
    keep[order] = latest
    return keep


def order_by_tag(tags: Any, count: int = 0) -> tuple[IndexArray, IndexArray]:
    """Return the order that sorts rows by tag, and where each tag's rows end in it.

    Args:
        tags: the number of each row's tag; int32, shape (n,).
        count: number of tags, if more than occur.
    """
    ends = np.cumsum(np.bincount(tags, minlength=count))
    order = np.argsort(tags.astype(np.uint16), kind="stable")  # 16 bits sort in linear time
    if len(ends) > 1 << 16:
        order = order[np.argsort((tags[order] >> 16).astype(np.uint16), kind="stable")]
    return order, ends
