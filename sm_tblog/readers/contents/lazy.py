"""Sequences whose items are read and decoded on access."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from sm_tblog._errors import CorruptRecordError, InvalidValueError, TBLogError
from sm_tblog.format.records import HEADER
from sm_tblog.readers.content_index import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from sm_tblog._types import Float64Array, IndexArray, Int64Array
    from sm_tblog.readers.content_index import Places
    from sm_tblog.readers.event_reader import EventReader

__all__ = ["Contents", "LazyValues", "StoredValues", "checked"]

T = TypeVar("T")


class Contents(NamedTuple):
    """The values of one tag, in the order in which they were written.

    Attributes:
        step: the global step; int64, shape (n,).
        wall_time: seconds since the epoch; float64, shape (n,).
        value: the n values, as ``LazyValues``.
    """

    step: Int64Array
    wall_time: Float64Array
    value: LazyValues[Any]


class LazyValues(Sequence[T]):
    """A sequence whose items are read and decoded on access, each time.

    A slice, an array of indices and an array of bools select items without reading any. Iteration
    reads neighbouring items in one request. If an item cannot be decoded, accessing it raises an
    error; the other items, also the following ones of an iteration, are not affected.

    Raises:
        InvalidValueError: on access: the value is not what its tag says.
        CorruptRecordError: on access: the file has changed and does not contain the value any more.
        StoreError: on access: the file cannot be read.
    """

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> LazyValues[T]: ...

    def __getitem__(self, index: Any) -> Any:
        """Return an item, or a part of the sequence."""
        if isinstance(index, (slice, np.ndarray, list)):
            return self._take(np.arange(len(self))[index])
        position = index.__index__()
        if not -len(self) <= position < len(self):
            message = f"index {position} is out of range for {len(self)} values"
            raise IndexError(message)
        return self._at(position % len(self))

    def __iter__(self) -> Iterator[T]:
        """Iterate over the items; after an error, iteration can go on."""
        return _Items(self)

    def __reversed__(self) -> Iterator[T]:
        """Iterate from the last item to the first."""
        return iter(self[::-1])

    def __repr__(self) -> str:
        """Return the number of items."""
        return f"<{len(self):,} values, read on access>"

    @abstractmethod
    def _at(self, row: int, *, ahead: bool = False) -> T:
        """Return an item; ``ahead`` says that the following ones will be asked for next."""

    @abstractmethod
    def _take(self, rows: IndexArray) -> LazyValues[T]:
        """Return some of the items."""


class _Items(Iterator[T], Generic[T]):
    """An iterator that an error does not end."""

    def __init__(self, values: LazyValues[T]) -> None:
        self._values = values
        self._next = 0

    def __next__(self) -> T:
        if self._next >= len(self._values):
            raise StopIteration
        self._next += 1
        return self._values._at(self._next - 1, ahead=True)  # noqa: SLF001 - of this module


class StoredValues(LazyValues[T]):
    """Values in event files.

    Args:
        reader: reads the events.
        tag: the tag.
        places: where the values lie.
        decode: returns the value of a ``Summary.Value``, or of an ``Event`` if the part is -1; its
            second argument describes the value in errors.
    """

    def __init__(
        self, reader: EventReader, tag: str, places: Places, decode: Callable[[Any, str], T]
    ) -> None:
        self._reader = reader
        self._tag = tag
        self._places = places
        self._decode = decode

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._places.step)

    def _take(self, rows: IndexArray) -> StoredValues[T]:
        return StoredValues(self._reader, self._tag, self._places.take(rows), self._decode)

    def _at(self, row: int, *, ahead: bool = False) -> T:
        places = self._places
        step, part = int(places.step[row]), int(places.part[row])
        where = f"{self._tag!r} at step {step}"
        following = map(self._place, range(row + 1, len(self))) if ahead else ()
        place = self._place(row)
        try:
            event = self._reader.event(place, following)
        except CorruptRecordError as error:
            message = f"{where}: {error}"
            raise CorruptRecordError(message, error.offset) from error
        content = event if part < 0 else None
        if part >= 0 and part < len(event.summary.value):
            value = event.summary.value[part]
            content = value if self._tag == (value.tag or value.node_name) else None
        if content is None or event.step != step:
            message = f"{where}: the file has been replaced since it was read"
            raise CorruptRecordError(message, place.offset - HEADER)
        return checked(self._decode, content, where)

    def _place(self, row: int) -> Place:
        places = self._places
        return Place(int(places.file[row]), int(places.offset[row]), int(places.length[row]))


def checked(decode: Callable[[Any, str], T], content: Any, where: str) -> T:
    """Return what ``decode`` returns; raise its errors as ``InvalidValueError``.

    Args:
        decode: any function.
        content: its first argument.
        where: its second argument, with which messages begin.
    """
    try:
        return decode(content, where)
    except (TBLogError, MemoryError) as error:
        if not isinstance(error, InvalidValueError) or str(error).startswith(where):
            raise
        message = f"{where}: {error}"
        raise InvalidValueError(message) from error
    except Exception as error:  # of NumPy, protobuf, Pillow, …, for bytes of any content
        message = f"{where} cannot be decoded: {type(error).__name__}: {error}"
        raise InvalidValueError(message) from error
