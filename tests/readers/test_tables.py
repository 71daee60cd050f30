"""Scalars as tables of other libraries."""

from __future__ import annotations

import numpy as np
import pytest

import sm_tblog
from sm_tblog import MissingDependencyError, Writer

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def run(tmp_path):
    with Writer(tmp_path / "run") as writer:
        for step in range(3000):
            writer.log({"loss": 1 / (step + 1), "é": float("nan"), "accuracy": step}, step)
        writer.add_scalar("double", 0.1, 7, double_precision=True)
    return sm_tblog.read(tmp_path / "run")


def assert_is_table_of(table, run):
    assert table.column_names == ["tag", "step", "wall_time", "value"]
    for tag, points in run.scalars.items():
        chosen = table.filter(pa.compute.equal(table["tag"].cast(pa.string()), tag))
        for name, column in zip(("step", "wall_time", "value"), points, strict=True):
            np.testing.assert_array_equal(chosen[name].to_numpy(), column)
    assert table.num_rows == sum(len(points.step) for points in run.scalars.values())


def test_arrow(run):
    table = run.to_arrow()
    assert_is_table_of(table, run)
    assert table.schema.field("tag").type == pa.dictionary(pa.int32(), pa.string())
    assert [str(field.type) for field in table.schema][1:] == ["int64", "double", "double"]


def test_polars(run):
    pytest.importorskip("polars")
    assert_is_table_of(run.to_polars().to_arrow(), run)


def test_pandas_has_the_same_rows(run):
    table = run.to_pandas()
    assert_is_table_of(pa.Table.from_pandas(table, preserve_index=False), run)


def test_parquet_has_a_row_group_for_each_tag(run, tmp_path):
    path = tmp_path / "run.parquet"
    run.write_parquet(path)
    assert_is_table_of(parquet.read_table(path), run)
    file = parquet.ParquetFile(path)
    assert file.num_row_groups == 4
    groups = [set(file.read_row_group(i)["tag"].to_pylist()) for i in range(4)]
    assert groups == [{"loss"}, {"é"}, {"accuracy"}, {"double"}]
    events = sum(one.stat().st_size for one in (tmp_path / "run").iterdir())
    assert path.stat().st_size < events / 3
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith("partial")] == []


def test_parquet_at_a_url(run):
    run.write_parquet("memory://tables/run.parquet")
    import fsspec

    with fsspec.open("memory://tables/run.parquet") as file:
        assert_is_table_of(parquet.read_table(file), run)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(run, tmp_path):
    with pytest.raises(FileNotFoundError):
        run.write_parquet(tmp_path / "nowhere" / "run.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(OSError, match="folder"):
        run.write_parquet(tmp_path / "folder.parquet")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder.parquet", "run"]


def test_a_run_without_scalars_is_an_empty_table(tmp_path):
    with Writer(tmp_path / "run") as writer:
        writer.add_text("notes", "text", 0)
    run = sm_tblog.read(tmp_path / "run")
    assert run.to_arrow().num_rows == 0
    assert run.to_pandas(wide=True).shape == (0, 0)
    run.write_parquet(tmp_path / "empty.parquet")
    assert parquet.read_table(tmp_path / "empty.parquet").schema == run.to_arrow().schema


@pytest.mark.parametrize(
    ("module", "call"),
    [("pyarrow", "to_arrow"), ("polars", "to_polars"), ("pandas", "to_pandas")],
)
def test_a_missing_package_is_named(run, monkeypatch, module, call):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{call} needs {module}: pip install"):
        getattr(run, call)()
