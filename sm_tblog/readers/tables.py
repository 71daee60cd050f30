"""Scalars as tables of other libraries: pandas, Arrow, Polars, Parquet.

All tables have one row for each point, grouped by tag, with the columns

- ``tag``: str; a dictionary in Arrow and Parquet, a categorical in Polars,
- ``step``: int64,
- ``wall_time``: seconds since the epoch, float64,
- ``value``: float64.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import MissingDependencyError
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from sm_tblog._types import PathLike
    from sm_tblog.readers.point_table import Scalars

__all__ = ["PARQUET_OPTIONS", "to_arrow", "to_pandas", "to_polars", "to_wide", "write_parquet"]

PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["tag"],
    "column_encoding": {
        "step": "DELTA_BINARY_PACKED",
        "wall_time": "BYTE_STREAM_SPLIT",
        "value": "BYTE_STREAM_SPLIT",
    },
}
"""With these encodings, a file is about a tenth of the size of the event files."""


def require(module: str, what: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        message = f"{what} needs {module.partition('.')[0]}: pip install 'sm-tblog[{extra}]'"
        raise MissingDependencyError(message) from error


def to_pandas(scalars: Mapping[str, Scalars]) -> pd.DataFrame:
    """Return the points as a table."""
    pd = require("pandas", "to_pandas", "pandas")
    counts = [len(points.step) for points in scalars.values()]
    return pd.DataFrame(
        {
            "tag": pd.Index(list(scalars), dtype=str).repeat(counts),
            "step": _joined((points.step for points in scalars.values()), np.int64),
            "wall_time": _joined((points.wall_time for points in scalars.values()), np.float64),
            "value": _joined((points.value for points in scalars.values()), np.float64),
        }
    )


def to_wide(scalars: Mapping[str, Scalars]) -> pd.DataFrame:
    """Return a table with one row for each step and one column for each tag.

    Of several points of a tag at one step, the last one is in the table. NaN means no point.
    """
    pd = require("pandas", "to_pandas", "pandas")
    steps = np.unique(_joined((points.step for points in scalars.values()), np.int64))
    columns = {}
    for tag, points in scalars.items():
        column = np.full(len(steps), np.nan)
        column[np.searchsorted(steps, points.step)] = points.value  # the last one wins
        columns[tag] = column
    return pd.DataFrame(columns, index=pd.Index(steps, name="step"))


def to_arrow(scalars: Mapping[str, Scalars]) -> pa.Table:
    """Return the points as an Arrow table, which shares the memory of the arrays if it can."""
    pa = require("pyarrow", "to_arrow", "parquet")
    counts = [len(points.step) for points in scalars.values()]
    codes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    tags = pa.array([tag.encode(errors="replace").decode() for tag in scalars], pa.string())
    return pa.table(
        {
            "tag": pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), tags),
            "step": _joined((points.step for points in scalars.values()), np.int64),
            "wall_time": _joined((points.wall_time for points in scalars.values()), np.float64),
            "value": _joined((points.value for points in scalars.values()), np.float64),
        }
    )


def to_polars(scalars: Mapping[str, Scalars]) -> pl.DataFrame:
    """Return the points as a Polars table."""
    polars = require("polars", "to_polars", "polars")
    require("pyarrow", "to_polars", "polars")
    table: pl.DataFrame = polars.from_arrow(to_arrow(scalars))
    return table


def write_parquet(scalars: Mapping[str, Scalars], path: PathLike) -> None:
    """Write the points to a file, one row group for each tag.

    A reader of one tag then reads nothing else. A local file is complete when it appears.
    """
    require("pyarrow", "write_parquet", "parquet")
    url = os.fsdecode(path)
    if scheme_of(url) != "file":
        import fsspec

        with fsspec.open(url, "wb") as file:
            _write_groups(scalars, file)
        return
    target = local_path(url)
    partial = target.with_name(f".{target.name}.{os.urandom(4).hex()}.partial")
    try:
        with partial.open("wb") as file:
            _write_groups(scalars, file)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _write_groups(scalars: Mapping[str, Scalars], file: Any) -> None:
    from pyarrow import parquet

    with parquet.ParquetWriter(file, to_arrow({}).schema, **PARQUET_OPTIONS) as writer:
        for tag, points in scalars.items():
            if len(points.step):
                writer.write_table(to_arrow({tag: points}), row_group_size=len(points.step))


def _joined(arrays: Iterable[Any], dtype: Any) -> Any:
    return np.concatenate([np.empty(0, dtype), *arrays])
