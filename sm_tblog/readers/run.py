"""The data of one run."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.readers import tables
from sm_tblog.readers.contents.embeddings import embeddings_of
from sm_tblog.readers.contents.hparams import merged_hparams
from sm_tblog.readers.contents.run_contents import RunContents
from sm_tblog.readers.tag_dict import TagDict

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from sm_tblog._types import PathLike
    from sm_tblog.readers.contents.embeddings import Embedding
    from sm_tblog.readers.contents.hparams import HParams
    from sm_tblog.readers.contents.lazy import Contents
    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.events import RunFiles
    from sm_tblog.readers.loader import RunLoader
    from sm_tblog.readers.point_table import Scalars

__all__ = ["DamagedFileWarning", "Run", "check_count"]


class DamagedFileWarning(UserWarning):
    """Some bytes of an event file are not part of a complete event, or could not be read.

    This may temporarily happen for the tail of a file that is being written.
    """


def check_count(name: str, count: object, minimum: int = 0) -> None:
    """Raise an error unless ``count``, the argument ``name``, is an int of at least ``minimum``."""
    if not isinstance(count, int) or isinstance(count, bool):
        message = f"{name} must be an int, got {count!r:.60}"
        raise InvalidTypeError(message)
    if count < minimum:
        message = f"{name} must be at least {minimum}, got {count}"
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
        return TagDict(self._loader.tags)

    @cached_property
    def scalars(self) -> dict[str, Scalars]:
        """The points of each scalar tag, in the order in which they were written.

        Each is a triple ``step, wall_time, value`` of arrays.
        """
        return TagDict(self._loader.columns.points.scalars())

    @property
    def histograms(self) -> dict[str, Contents]:
        """The histograms of each tag; each value is a ``Histogram``."""
        return self._contents.of_plugin("histograms")

    @property
    def images(self) -> dict[str, Contents]:
        """The images of each tag; each value is a tuple of ``Image``, also for one image."""
        return self._contents.of_plugin("images")

    @property
    def audio(self) -> dict[str, Contents]:
        """The sounds of each tag; each value is a tuple of ``Audio``, also for one sound."""
        return self._contents.of_plugin("audio")

    @property
    def texts(self) -> dict[str, Contents]:
        """The texts of each tag.

        Each value is a str or, for a table, an array of str objects of shape (n,) or (n, m).
        """
        return self._contents.of_plugin("text")

    @property
    def tensors(self) -> dict[str, Contents]:
        """Everything that is stored as a tensor, except scalars, by tag; each value is an array.

        This includes what other attributes return in another form. The array has the dtype that was
        written; strings are ``bytes`` objects. It may be read-only. bfloat16 and float8 need the
        package ml_dtypes; else access raises ``MissingDependencyError``.
        """
        return self._contents.tensors

    @property
    def pr_curves(self) -> dict[str, Contents]:
        """The precision-recall curves of each tag.

        Each value is an array of shape (6, thresholds), of float32 by all known writers: true
        positives, false positives, true negatives, false negatives, precision, recall.
        """
        return self._contents.of_plugin("pr_curves")

    @property
    def meshes(self) -> dict[str, Contents]:
        """The meshes of each name that was given to ``add_mesh``; each value is a ``Mesh``."""
        return self._contents.meshes

    @property
    def layouts(self) -> dict[str, Contents]:
        """The layouts of custom scalars, by tag; each value is a ``Layout`` message."""
        return self._contents.of_plugin("custom_scalars")

    @property
    def graphs(self) -> dict[str, Contents]:
        """The graphs of models; each value is a ``GraphDef`` message.

        A graph without a tag is called ``"__run_graph__"``, as in TensorBoard. Those graphs are not
        affected by ``tags``, ``steps`` and ``since``.
        """
        return self._contents.graphs

    @cached_property
    def hparams(self) -> HParams:
        """The hyperparameters and the last values of the metrics.

        The hyperparameters are not affected by ``tags``, ``steps`` and ``since``.
        """
        first, others = self._loader.hparams.hparams, self._loader.columns.hparams
        return merged_hparams(first, others, self.scalars)

    @cached_property
    def embeddings(self) -> dict[str, Embedding]:
        """The embeddings by the name in the Projector, such as ``"words:00100"``.

        They are side files of the run: the list is read on access, their data when it is used.
        """
        return TagDict(embeddings_of(self._loader.read_side, self.path))

    @cached_property
    def _contents(self) -> RunContents:
        return RunContents(self._loader.columns, self._loader.events)

    @property
    def damages(self) -> tuple[Damage, ...]:
        """The bytes, files and folders that could not be read."""
        return tuple(self._loader.damages)

    def refresh(self) -> dict[str, Scalars]:
        """Read what the run has grown by. Bytes that were read are not read again.

        If a file was removed or replaced by a shorter one, or had ended in the middle of a record
        that seemed to contain others, the run is read anew.

        Returns:
            The new points of each scalar tag that has any; after a run was read anew, all points.

        Raises:
            InvalidValueError: the run no longer exists.
            StoreError: its folder cannot be read.
        """
        before = self._loader.columns.points.parts
        is_extended = self._loader.load(self._find())
        self._forget()
        if not is_extended:
            return {tag: points for tag, points in self.scalars.items() if len(points.step)}
        if self._loader.columns.points.parts == before:
            return {}
        new = self._loader.columns.points.scalars(before)
        return {tag: points for tag, points in new.items() if len(points.step)}

    def discard(self, keep: int) -> None:
        """Forget all but the last ``keep`` points or values of each tag, to limit memory.

        Raises:
            InvalidTypeError: ``keep`` is not an int.
            InvalidValueError: ``keep`` is negative.
        """
        check_count("keep", keep)
        self._loader.columns.points.discard(keep)
        self._loader.columns.contents.discard(keep)
        self._forget()

    def _forget(self) -> None:
        """Forget what was made of the columns, which have changed."""
        for name in ("scalars", "_contents", "hparams", "embeddings"):
            self.__dict__.pop(name, None)

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
