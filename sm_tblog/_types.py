"""Types and small functions shared by several layers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    import numpy as np
    import numpy.typing as npt

    UInt8Array: TypeAlias = npt.NDArray[np.uint8]
    UInt32Array: TypeAlias = npt.NDArray[np.uint32]
    Int64Array: TypeAlias = npt.NDArray[np.int64]
    IndexArray: TypeAlias = npt.NDArray[np.intp]
    Float64Array: TypeAlias = npt.NDArray[np.float64]
    OnError: TypeAlias = Literal["warn", "raise"] | Callable[[Exception], object]
    Overflow: TypeAlias = Literal["block", "drop"]

Bytes = bytes | bytearray | memoryview
PathLike = str | os.PathLike[str]

MAX_TAG_LENGTH = 1 << 20
"""Characters of the longest tag. Every record repeats its tag, so a longer one is a mistake."""

__all__ = [
    "MAX_TAG_LENGTH",
    "Bytes",
    "Change",
    "PathLike",
    "Scalar",
    "Series",
    "Stats",
    "Value",
    "as_utf8",
    "too_long",
]


def too_long(tag: str) -> str:
    """Return the message on a tag of more than ``MAX_TAG_LENGTH`` characters."""
    return (
        f"a tag must have at most {MAX_TAG_LENGTH:,} characters, got {len(tag):,}: {tag[:40]!r}…; "
        "log long texts with add_text"
    )


def as_utf8(text: str) -> str:
    """Return text that UTF-8 can encode: a lone surrogate becomes a question mark.

    ``os.fsdecode`` makes such text of a name that is not UTF-8. Every text that is stored is
    treated alike, so that one tag remains one tag.
    """
    return text if text.isascii() else text.encode(errors="replace").decode()


class Series(NamedTuple):
    """The properties shared by all points of one scalar curve.

    Attributes:
        tag: the curve's name, used unchanged.
        run: the folder below the log directory, "" for the log directory itself. TensorBoard draws
            equal tags of different runs in one chart.
        tensor: write the value as a tensor that names its plugin (the TF2 style) instead of the
            shorter ``simple_value``. TensorBoard shows both in the same way.
        double: write a tensor of float64 instead of float32.
        display_name: the name that TensorBoard shows instead of the tag.
        description: Markdown, shown under the chart's information icon.
    """

    tag: str
    run: str = ""
    tensor: bool = False
    double: bool = False
    display_name: str = ""
    description: str = ""


class Scalar(NamedTuple):
    """One number that the worker thread computed, logged like any other scalar.

    Attributes:
        tag: the curve's name.
        value: the number.
    """

    tag: str
    value: float


class Value(NamedTuple):
    """One built value that is richer than a number.

    Attributes:
        run: as in ``Series``.
        step: the global step.
        wall_time: seconds since the epoch.
        data: a serialized ``Summary.Value`` message.
        tag: the tag in ``data``.
        plugin: the TensorBoard plugin that shows it, "" if ``data`` does not name one.
    """

    run: str
    step: int
    wall_time: float
    data: bytes
    tag: str
    plugin: str


@dataclass(frozen=True)
class Change:
    """A change to a side file that can be saved and applied by another process.

    Attributes:
        function: a module-level function that takes ``argument`` and the file's current content
            (None if there is no such file), and returns the new content.
        argument: the first argument of ``function``.
    """

    function: Callable[[bytes, bytes | None], bytes]
    argument: bytes

    def __call__(self, current: bytes | None) -> bytes:
        """Return the new content of the file."""
        return self.function(self.argument, current)


class Stats(NamedTuple):
    """Counters of a writer.

    Attributes:
        rows_written: the number of scalars passed to the sinks.
        values_written: the number of histograms, texts and other values passed to the sinks.
        rows_dropped: the number of scalars and values lost, because memory was used up or they
            could not be read.
        bytes_stored: bytes that the sinks' stores have accepted.
        bytes_pending: bytes that are not stored yet: data that the sinks keep because a store has
            not accepted it, and data that a remote store has not acknowledged.
        errors: the number of faults, counting every attempt.
        queue_depth: the number of scalars and values waiting for the worker thread.
        last_flush: the time when everything was last stored, in seconds since the epoch; None
            before the first time.
        last_error: the message of the last fault, "" before the first.
    """

    rows_written: int
    values_written: int
    rows_dropped: int
    bytes_stored: int
    bytes_pending: int
    errors: int
    queue_depth: int
    last_flush: float | None
    last_error: str
