"""Divides overlapping events into lines of properly nested ones."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["nested_rows"]

_MAX_NESTED = 32
"""The number of lines with nested events. The others have one event at a time, so that finding one
for an event is fast even if thousands of events overlap."""


def nested_rows(begins: Sequence[int], durations: Sequence[int]) -> list[list[int]]:
    """Return the events' indices, sorted and divided greedily into properly nested lists.

    Args:
        begins: the start of each event, in nanoseconds.
        durations: the duration of each event, in nanoseconds.
    """
    order = np.lexsort((-np.array(durations, np.int64), np.array(begins, np.int64)))
    nested: list[tuple[list[int], list[int]]] = []
    flat: list[list[int]] = []
    free: list[tuple[int, int]] = []  # when each flat line becomes free, and its index
    for row in order.tolist():
        begin = begins[row]
        end = begin + durations[row]
        for rows, ends in nested:
            while ends and ends[-1] <= begin:
                ends.pop()
            if not ends or end <= ends[-1]:
                rows.append(row)
                ends.append(end)
                break
        else:
            if len(nested) < _MAX_NESTED:
                nested.append(([row], [end]))
            elif free and free[0][0] <= begin:
                index = free[0][1]
                flat[index].append(row)
                heapq.heapreplace(free, (end, index))
            else:
                heapq.heappush(free, (end, len(flat)))
                flat.append([row])
    return [rows for rows, _ in nested] + flat
