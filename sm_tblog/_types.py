"""The types that several layers share."""

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

__all__ = ["Bytes", "Change", "PathLike", "Scalar", "Series", "Stats", "Value"]


class Series(NamedTuple):
    """What the points of one scalar curve have in common.

    Attributes:
        tag: the name, taken as it is.
        run: the folder below the log folder, "" for the log folder itself. TensorBoard draws runs
            with equal tags in one chart.
        tensor: write the value as a tensor with the plugin named (the TF2 style) instead of the
            shorter ``simple_value``. TensorBoard shows both alike.
        double: as a tensor of float64 instead of float32.
        display_name: what TensorBoard shows instead of the tag.
        description: Markdown, shown under the chart's information mark.
    """

    tag: str
    run: str = ""
    tensor: bool = False
    double: bool = False
    display_name: str = ""
    description: str = ""


class Scalar(NamedTuple):
    """One number that the worker has computed, a row like those that callers log.

    Attributes:
        tag: the curve's name.
        value: the number.
    """

    tag: str
    value: float


class Value(NamedTuple):
    """One built value that is more than a number.

    Attributes:
        run: as in ``Series``.
        step: the global step.
        wall_time: seconds since the epoch.
        data: a serialized ``Summary.Value``.
        tag: the tag in it.
        plugin: the TensorBoard plugin that shows it, "" where only the kind of value says so.
    """

    run: str
    step: int
    wall_time: float
    data: bytes
    tag: str
    plugin: str


@dataclass(frozen=True)
class Change:
    """A change of a side file that can be written down, and made by another process.

    Attributes:
        function: one of a module's, which takes ``argument`` and what the file holds, None where
            there is no such file, and returns what it is to hold.
        argument: its first argument.
    """

    function: Callable[[bytes, bytes | None], bytes]
    argument: bytes

    def __call__(self, held: bytes | None) -> bytes:
        """Return what the file is to hold."""
        return self.function(self.argument, held)


class Stats(NamedTuple):
    """What a writer has done so far.

    Attributes:
        rows_written: scalars given to the sinks.
        values_written: histograms, texts and other values given to the sinks.
        rows_dropped: scalars and values lost: memory was used up, or they could not be read.
        bytes_stored: bytes that the sinks' stores have taken.
        bytes_pending: bytes that the sinks keep for a store that refused them.
        errors: failures, each attempt counted.
        queue_depth: scalars and values waiting for the worker.
        last_flush: when everything was last stored, in seconds since the epoch; None before.
        last_error: what the last failure said, "" before any.
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
