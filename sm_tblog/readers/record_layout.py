"""Finds where the fields lie in the record of a scalar.

Only layouts that every protobuf decoder reads in the same way have one: no field occurs twice, and
all fields are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sm_tblog.readers.wire import fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog._types import UInt8Array
    from sm_tblog.readers.wire import Field

__all__ = ["Layout", "Value", "layout_of"]


class Value(NamedTuple):
    """One value of an event.

    Attributes:
        tag: its tag.
        plugin: the plugin or the kind of the value.
        number: the number, None if it is not a scalar.
    """

    tag: str
    plugin: str
    number: float | None


class Layout(NamedTuple):
    """Where the fields of a record lie, in bytes from the start of its data.

    Attributes:
        texts: start and end of the tags and the metadata.
        numbers: start and NumPy type of each value.
    """

    texts: tuple[tuple[int, int], ...]
    numbers: tuple[tuple[int, str], ...]

    def agrees(self, values: Sequence[Value], row: UInt8Array) -> bool:
        """Return whether these are the values that ``row`` holds according to this layout."""
        if len(values) != len(self.numbers):
            return False
        for value, (start, dtype) in zip(values, self.numbers, strict=True):
            found = row[start : start + np.dtype(dtype).itemsize].view(dtype).astype("<f8")
            expected = np.array([value.number], "<f8")
            if found.tobytes() != expected.tobytes() and not (np.isnan(found) & np.isnan(expected)):
                return False
        return True


def layout_of(data: bytes, width: int) -> Layout | None:
    """Return the layout of an event that is a wall time, a step and scalars, else None.

    Args:
        data: the event.
        width: bytes of the step's varint, 0 if there is no step.
    """
    try:
        top = list(fields_of(data, 0, len(data)))
        expected = [1, 2, 5] if width else [1, 5]
        if [field.number for field in top] != expected or top[-1].kind != 2:
            return None
        texts: list[tuple[int, int]] = []
        numbers: list[tuple[int, str]] = []
        for value in fields_of(data, top[-1].start, top[-1].end):
            if (value.number, value.kind) != (1, 2):
                return None
            number = _add_value(data, value, texts)
            if number is None:
                return None
            numbers.append(number)
    except ValueError:
        return None
    return Layout(tuple(texts), tuple(numbers)) if numbers else None


def _add_value(data: bytes, value: Field, texts: list[tuple[int, int]]) -> tuple[int, str] | None:
    """Return where the number of a value lies, and its type; add its texts."""
    number = None
    seen = set()
    for field in fields_of(data, value.start, value.end):
        if field.number in seen:
            return None
        seen.add(field.number)
        if field.number in (1, 9) and field.kind == 2:
            texts.append((field.start, field.end))
        elif (field.number, field.kind) == (2, 5) and number is None:
            number = field.start, "<f4"
        elif (field.number, field.kind) == (8, 2) and number is None:
            number = _number_of_tensor(data, field)
            if number is None:
                return None
        else:
            return None
    return number


_DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "<u1",
    5: "<i2",
    6: "<i1",
    9: "<i8",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
"""NumPy's name of each ``DataType`` that ``tensor_content`` holds in the same form."""


def _number_of_tensor(data: bytes, tensor: Field) -> tuple[int, str] | None:
    """Return where the only element of a tensor lies, and its type."""
    dtype = ""
    place = None
    for field in fields_of(data, tensor.start, tensor.end):
        if (field.number, field.kind) == (1, 0) and not dtype:
            dtype = _DTYPES.get(field.value, "")
        elif (field.number, field.kind) == (2, 2):
            continue  # its bytes are fixed, and protobuf decodes the template
        elif (field.number == 4 and field.kind == 2 and place is None) or (
            (field.number, dtype) in {(5, "<f4"), (6, "<f8")} and place is None
        ):
            place = field
        else:
            return None
    if place is None or not dtype or place.end - place.start != np.dtype(dtype).itemsize:
        return None
    return place.start, dtype
