"""The data of one run."""

from __future__ import annotations

import contextlib
import difflib
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.readers import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from sm_tblog._types import PathLike
    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.events import RunFiles
    from sm_tblog.readers.loader import RunLoader
    from sm_tblog.readers.point_table import Scalars

__all__ = ["DamagedFileWarning", "Run", "TagDict", "check_keep"]

T = TypeVar("T")

_MAX_SUGGESTIONS = 3


class DamagedFileWarning(UserWarning):
    """Some bytes of an event file are not part of a complete event, or could not be read.

    This may temporarily happen for the tail of a file that is being written.
    """


class UnknownTagError(KeyError):
    """There is no such tag."""

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class TagDict(dict[str, T]):
    """A dictionary by tag whose ``KeyError`` suggests tags."""

    def __missing__(self, tag: object) -> T:
        """Raise a ``KeyError`` that names similar tags."""
        near = difflib.get_close_matches(str(tag), self, _MAX_SUGGESTIONS, 0.5)
        listed = ", ".join(map(repr, near or list(self)[:_MAX_SUGGESTIONS]))
        what = "did you mean" if near else "the first are" if self else "there are none at all"
        message = f"no such tag: {tag!r}; {what} {listed}".rstrip()
        raise UnknownTagError(message)


def check_keep(keep: object) -> None:
    """Raise an error unless ``keep`` is a number of points."""
    if not isinstance(keep, int) or isinstance(keep, bool):
        message = f"keep must be an int, got {keep!r:.60}"
        raise InvalidTypeError(message)
    if keep < 0:
        message = f"keep must not be negative, got {keep}"
        raise InvalidValueError(message)


class Run:
    """The data of one run, as returned by ``sm_tblog.read``.

    Attributes:
        path: the path or URL that was read.
    """

    def __init__(self, path: str, loader: RunLoader, find: Callable[[], RunFiles]) -> None:
        self.path = path
        self._loader = loader
        self._find = find

    @property
    def tags(self) -> dict[str, str]:
        """The plugin that shows each tag, in the order in which the tags first appear.

        ``"scalars"``, ``"histograms"``, ``"images"``, ``"text"``, …; ``"tensors"`` for a tensor
        without a plugin, ``""`` if the plugin is unknown.
        """
        return TagDict(self._loader.columns.tags)

    @cached_property
    def scalars(self) -> dict[str, Scalars]:
        """The points of each scalar tag, in the order in which they were written.

        Each is a triple ``step, wall_time, value`` of arrays.
        """
        return TagDict(self._loader.columns.points.scalars())

    @property
    def damages(self) -> tuple[Damage, ...]:
        """The bytes, files and folders that could not be read."""
        return tuple(self._loader.damages)

    def refresh(self) -> dict[str, Scalars]:
        """Read what the run has grown by. Bytes that were read are not read again.

        If a file was removed or replaced by a shorter one, the run is read anew.

        Returns:
            The new points of each scalar tag that has any; after a run was read anew, all points.

        Raises:
            InvalidValueError: the run no longer exists.
            StoreError: its folder cannot be read.
        """
        before = self._loader.columns.points.parts
        is_extended = self._loader.load(self._find())
        with contextlib.suppress(AttributeError):
            del self.scalars
        if not is_extended:
            return {tag: points for tag, points in self.scalars.items() if len(points.step)}
        if self._loader.columns.points.parts == before:
            return {}
        new = self._loader.columns.points.scalars(before)
        return {tag: points for tag, points in new.items() if len(points.step)}

    def discard(self, keep: int) -> None:
        """Forget all but the last ``keep`` points of each scalar tag, to limit memory.

        Raises:
            InvalidTypeError: ``keep`` is not an int.
            InvalidValueError: ``keep`` is negative.
        """
        check_keep(keep)
        self._loader.columns.points.discard(keep)
        with contextlib.suppress(AttributeError):
            del self.scalars

    def to_pandas(self, *, wide: bool = False) -> pd.DataFrame:
        """Return the scalars as a table.

        ``pd.to_datetime(table["wall_time"], unit="s")`` returns UTC times.

        Args:
            wide: return one row for each step and one column for each tag. Of several points of a
                tag at one step, the last is returned; a tag without a point has NaN.

        Returns:
            A table with the columns ``tag`` (str), ``step`` (int64), ``wall_time`` (seconds since
            the epoch, float64) and ``value`` (float64), grouped by tag in the order of ``scalars``;
            or, if ``wide``, a table of float64 with the index ``step``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return tables.to_wide(self.scalars) if wide else tables.to_pandas(self.scalars)

    def to_arrow(self) -> pa.Table:
        """Return the scalars as an Arrow table with the columns of ``to_pandas``.

        Raises:
            MissingDependencyError: pyarrow is not installed.
        """
        return tables.to_arrow(self.scalars)

    def to_polars(self) -> pl.DataFrame:
        """Return the scalars as a Polars table with the columns of ``to_pandas``.

        Raises:
            MissingDependencyError: Polars or pyarrow is not installed.
        """
        return tables.to_polars(self.scalars)

    def write_parquet(self, path: PathLike) -> None:
        """Write the scalars to a Parquet file with the columns of ``to_pandas``.

        The file has one row group for each tag, so reading one tag reads nothing else. It takes
        about a tenth of the space of event files. A local file appears when it is complete.

        Args:
            path: a path, or a URL that fsspec supports.

        Raises:
            MissingDependencyError: pyarrow is not installed.
            OSError: the file cannot be written.
        """
        tables.write_parquet(self.scalars, path)

    def __repr__(self) -> str:
        """Return the path and the numbers of tags and scalars."""
        points = sum(len(points.step) for points in self.scalars.values())
        return f"<Run {self.path!r}: {len(self.tags):,} tags, {points:,} scalars>"
