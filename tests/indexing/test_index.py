"""The index: what is in it, when it is used, and what survives an interruption."""

import math
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pytest

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, StoreError, Writer, read_many
from sm_tblog.indexing import build, folder, manifest, many, parts, points
from sm_tblog.indexing.many import IndexedRun

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def log(path, number=0, steps=5, **options):
    with Writer(path, **options) as writer:
        writer.hparams({"lr": number / 10, "optimizer": "adam", "nesterov": True})
        writer.add_text("notes", "text")
        for step in range(steps):
            writer.log({"loss": number + 1 / (step + 1), "acc": math.nan if step else step}, step)
        writer.add_scalar("double", 0.1 + number, 7, double_precision=True)


@pytest.fixture
def logdir(tmp_path):
    for number in range(5):
        log(tmp_path / "runs" / f"exp/run-{number}", number)
    log(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def small_tasks(monkeypatch):
    monkeypatch.setattr(parts, "MAX_RUNS", 2)


def files_of(index):
    """Return the content of the files of a generation."""
    path = Path(index.path)
    found = manifest.maybe_read_manifest(folder.open_folder(index.path, {}))
    return {name: (path / name).read_bytes() for name in found.names}


def assert_equal_runs(runs, others):
    assert list(runs) == list(others)
    for (name, run), other in zip(runs.items(), others.values(), strict=True):
        assert run.tags == other.tags, name
        assert list(run.scalars) == list(other.scalars), name
        np.testing.assert_equal(run.scalars, other.scalars)
        assert run.damages == other.damages
        assert run.path == other.path


def kinds(runs):
    return {name: type(run).__name__ for name, run in runs.items()}


# What is in it.


def test_points_are_sorted_with_a_row_group_for_each_tag(logdir):
    index = sm_tblog.index(logdir)
    assert (len(index), index.failed) == (6, {})
    assert index.path == f"{logdir}/sm_tblog_index"
    assert repr(index) == f"<Index {index.path!r}: 6 runs>"
    file = parquet.ParquetFile(index.scalars)
    table = file.read()
    types = {"tag": "string", "run": "string", "step": "int64"}
    types |= {"wall_time": "double", "value": "double"}
    assert {field.name: str(field.type) for field in table.schema} == types
    rows = list(zip(*(table[name].to_pylist() for name in ("tag", "run", "step")), strict=True))
    assert rows == sorted(rows)
    assert file.metadata.num_row_groups == 3
    groups = [set(file.read_row_group(i)["tag"].to_pylist()) for i in range(3)]
    assert groups == [{"acc"}, {"double"}, {"loss"}]
    encodings = [file.metadata.row_group(0).column(i).encodings for i in range(5)]
    assert "DELTA_BINARY_PACKED" in encodings[2]
    assert "BYTE_STREAM_SPLIT" in encodings[4]
    run = sm_tblog.read(logdir / "exp/run-3").scalars["loss"]
    of_run = [row for row in table.to_pylist() if (row["tag"], row["run"]) == ("loss", "exp/run-3")]
    for name, column in zip(run._fields, run, strict=True):
        assert [row[name] for row in of_run] == column.tolist()


def test_long_tags_have_several_row_groups(logdir, monkeypatch):
    monkeypatch.setattr(points, "GROUP_ROWS", 4)
    monkeypatch.setattr("sm_tblog.indexing.opened.GROUP_ROWS", 4)
    index = sm_tblog.index(logdir)
    metadata = parquet.read_metadata(index.scalars)
    assert {metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)} == {4, 2}
    assert_equal_runs(read_many(logdir), read_many(logdir, index=False))


def test_the_summary_has_each_tag_of_each_run(logdir):
    table = parquet.read_table(sm_tblog.index(logdir).summary).to_pylist()
    assert [(row["tag"], row["run"]) for row in table] == sorted(
        (tag, name) for name, run in read_many(logdir, index=False).items() for tag in run.tags
    )
    (row,) = (row for row in table if (row["tag"], row["run"]) == ("loss", "exp/run-2"))
    loss = sm_tblog.read(logdir / "exp/run-2").scalars["loss"]
    assert (row["plugin"], row["count"]) == ("scalars", 5)
    assert (row["first_step"], row["last_step"]) == (0, 4)
    assert (row["first_wall_time"], row["last_wall_time"]) == tuple(loss.wall_time[[0, -1]])
    assert (row["first"], row["last"]) == tuple(loss.value[[0, -1]])
    assert (row["min"], row["max"]) == (loss.value.min(), loss.value.max())
    (row,) = (row for row in table if (row["tag"], row["run"]) == ("acc", "exp/run-2"))
    assert (row["min"], row["max"]) == (0, 0)  # without NaN
    (row,) = (row for row in table if row["run"] == "." and row["plugin"] == "text")
    assert (row["count"], row["first_step"], row["max"]) == (0, None, None)


def test_hyperparameters_are_numbers_or_text(logdir):
    table = parquet.read_table(sm_tblog.index(logdir).hparams).to_pylist()
    assert [row for row in table if row["run"] == "exp/run-3"] == [
        {"run": "exp/run-3", "name": "lr", "number": 0.3, "text": "0.3"},
        {"run": "exp/run-3", "name": "nesterov", "number": 1.0, "text": "true"},
        {"run": "exp/run-3", "name": "optimizer", "number": None, "text": "adam"},
    ]


def test_event_files_are_not_touched(logdir):
    def state():
        paths = sorted(logdir.rglob("*tfevents*"))
        return [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in paths]

    before = state()
    index = sm_tblog.index(logdir)
    assert state() == before
    assert not [path for path in Path(index.path).iterdir() if "tfevents" in path.name]
    assert list(sm_tblog.readers.read_all(logdir)) == list(read_many(logdir))


def test_a_log_directory_without_runs_has_an_index(tmp_path):
    index = sm_tblog.index(tmp_path)
    assert len(index) == 0
    assert parquet.read_table(index.scalars).num_rows == 0
    assert list(read_many(tmp_path)) == []


def test_invalid_arguments_are_refused(logdir):
    with pytest.raises(InvalidValueError, match="no file or folder"):
        sm_tblog.index(logdir / "none")
    (path,) = (logdir / "exp/run-1").glob("*.tfevents.[1-9]*")
    with pytest.raises(InvalidValueError, match="is a file"):
        sm_tblog.index(path, logdir / "to")
    for shard in (1, (1, 2, 3), ("1", 2)):
        with pytest.raises(InvalidTypeError, match="shard must be a pair"):
            sm_tblog.index(logdir, shard=shard)
    for shard in ((0, 2), (3, 2)):
        with pytest.raises(InvalidValueError, match="1 <= i <= n"):
            sm_tblog.index(logdir, shard=shard)


# When it is used.


def test_runs_come_from_a_current_index_and_are_the_same(logdir):
    sm_tblog.index(logdir)
    runs = read_many(logdir)
    assert set(kinds(runs).values()) == {"IndexedRun"}
    assert_equal_runs(runs, read_many(logdir, index=False))
    selected = {"tags": ["l*", "notes/*"], "steps": range(1, 9, 2), "since": 1.0}
    assert_equal_runs(read_many(logdir, **selected), read_many(logdir, index=False, **selected))
    assert_equal_runs(read_many(f"{logdir}/exp/*-[23]"), read_many(f"{logdir}/exp/*-[23]"))
    assert_equal_runs(read_many(logdir, check=False), read_many(logdir))
    assert list(read_many(f"{logdir}/*", check=False)) == []
    assert len(read_many(f"{logdir}/**/run-*", check=False)) == 5
    single = read_many(logdir, tags="loss")["exp/run-1"]
    assert isinstance(single, IndexedRun)
    np.testing.assert_equal(single.scalars, sm_tblog.read(single.path, tags="loss").scalars)


def test_an_index_may_be_elsewhere(logdir, tmp_path):
    index = sm_tblog.index(logdir, tmp_path / "elsewhere")
    assert not (logdir / "sm_tblog_index").exists()
    assert set(kinds(read_many(logdir)).values()) == {"Run"}
    assert set(kinds(read_many(logdir, index=index.path)).values()) == {"IndexedRun"}
    with pytest.raises(InvalidValueError, match="there is no index in"):
        read_many(logdir, index=tmp_path / "none")
    with pytest.raises(InvalidValueError, match="there is no index in"):
        read_many(logdir, check=False)
    with pytest.raises(InvalidValueError, match="check=False needs an index"):
        read_many(logdir, check=False, restarts="raw")


def test_runs_that_changed_are_read_from_their_event_files(logdir):
    sm_tblog.index(logdir)
    log(logdir / "exp/run-1", 9)
    log(logdir / "new")
    shutil.rmtree(logdir / "exp/run-2")
    (path,) = (logdir / "exp/run-3").glob("*.tfevents.[1-9]*")
    path.write_bytes(path.read_bytes())  # the same content at another time
    assert kinds(read_many(logdir)) == {
        ".": "IndexedRun",
        "exp/run-0": "IndexedRun",
        "exp/run-1": "Run",
        "exp/run-3": "Run",
        "exp/run-4": "IndexedRun",
        "new": "Run",
    }
    assert_equal_runs(read_many(logdir), read_many(logdir, index=False))


def test_other_restarts_are_read_from_event_files(logdir):
    with Writer(logdir / "again") as writer:
        for step in (0, 1, 2, 3, 1, 2):
            writer.add_scalar("loss", step, step)
    with Writer(logdir / "again", purge_step=2) as writer:
        writer.add_scalar("loss", 9, 2)
    with Writer(logdir / "back") as writer:
        for step in (0, 2, 1):
            writer.add_scalar("loss", step, step)
    index = sm_tblog.index(logdir)
    rows = parquet.read_table(index.scalars).to_pylist()
    assert [row["step"] for row in rows if row["run"] == "again"] == [0, 1, 1, 2]
    assert [row["step"] for row in rows if row["run"] == "back"] == [0, 1, 2]
    for restarts in ("marks", "steps", "raw"):
        some = read_many(logdir, restarts=restarts)
        assert_equal_runs(some, read_many(logdir, restarts=restarts, index=False))
    found = kinds(read_many(logdir))
    assert (found["again"], found["back"]) == ("IndexedRun", "Run")  # in another order
    assert_equal_runs(read_many(logdir, check=False), read_many(logdir, index=False))


def test_everything_else_of_an_indexed_run_is_read_from_its_event_files(logdir):
    sm_tblog.index(logdir)
    run = read_many(logdir)["."]
    if not isinstance(run, IndexedRun):
        (run,) = read_many(logdir).load(["."]).values()
    log(logdir, 5, steps=7)
    new = run.refresh()
    assert {tag: len(points.step) for tag, points in new.items()} == {
        "loss": 7,
        "acc": 7,
        "double": 1,
    }
    assert run.refresh() == {}
    np.testing.assert_equal(run.scalars, sm_tblog.read(logdir).scalars)
    assert run.tags == sm_tblog.read(logdir).tags
    run.discard(1)
    assert [len(one.step) for one in run.scalars.values()] == [1, 1, 1]


def test_damages_are_remembered_and_unreadable_runs_are_not_indexed(logdir, monkeypatch):
    damaged, unreadable = (
        next((logdir / "exp" / name).glob("*.tfevents.[1-9]*")) for name in ("run-0", "run-1")
    )
    with damaged.open("ab") as file:
        file.write(b"half a rec")
    whole = unreadable.read_bytes()
    open_file = parts.open_tree

    def broken(url, options):
        if url == str(unreadable):
            raise_it = lambda *args: (_ for _ in ()).throw(StoreError("broken"))  # noqa: E731
            source = open_file(url, options).file()._replace(open=raise_it)
            return type("Tree", (), {"file": lambda self: source})()
        return open_file(url, options)

    monkeypatch.setattr(parts, "open_tree", broken)
    index = sm_tblog.index(logdir)
    ((name, (damage,)),) = index.failed.items()
    assert (name, damage.path, damage.reason) == ("exp/run-1", str(unreadable), "broken")
    assert len(index) == 5
    monkeypatch.setattr(parts, "open_tree", open_file)
    assert unreadable.read_bytes() == whole
    runs = read_many(logdir)
    assert [name for name, kind in kinds(runs).items() if kind == "Run"] == ["exp/run-1"]
    assert runs.errors["exp/run-0"][0].size == 10
    assert sm_tblog.index(logdir).failed == {}


# Updates.


def reports_of(logdir, **options):
    """Return how many runs were read, and the index."""
    reports = []
    index = sm_tblog.index(logdir, progress=lambda *numbers: reports.append(numbers), **options)
    return (reports[-1] if reports else (0, 0)), index


def test_only_what_changed_is_read_again(logdir, tmp_path, small_tasks):
    assert reports_of(logdir)[0] == (6, 6)
    before = files_of(reports_of(logdir)[1])
    assert reports_of(logdir)[0] == (0, 0)
    assert files_of(reports_of(logdir)[1]) == before
    log(logdir / "exp/run-1", 9)
    log(logdir / "a-new")
    shutil.rmtree(logdir / "exp/run-2")
    done, index = reports_of(logdir)
    assert done == (2, 2)
    # The result is the same as if everything had been read.
    assert files_of(index) == files_of(sm_tblog.index(logdir, tmp_path / "other"))
    assert_equal_runs(read_many(logdir), read_many(logdir, index=False))
    found = kinds(read_many(logdir))
    assert found.pop("exp/run-1") == "Run"  # its steps go back
    assert set(found.values()) == {"IndexedRun"}


def test_shards_read_disjoint_parts(logdir, tmp_path):
    done = [reports_of(logdir, shard=(i, 3))[0][0] for i in (1, 2, 3)]
    assert sum(done) == 6
    assert not sm_tblog.Index(f"{logdir}/sm_tblog_index").is_complete
    with pytest.raises(InvalidValueError, match="there is no index"):
        _ = sm_tblog.Index(f"{logdir}/sm_tblog_index").scalars
    assert set(kinds(read_many(logdir)).values()) == {"Run"}
    done, index = reports_of(logdir)
    assert done == (0, 0)
    assert files_of(index) == files_of(sm_tblog.index(logdir, tmp_path / "other"))
    names = {path.name for path in Path(index.path).iterdir()}
    assert names == {*files_of(index), "manifest.json"}


@pytest.mark.parametrize("failing", range(9))
def test_whatever_fails_readers_see_a_complete_generation(
    logdir, tmp_path, small_tasks, monkeypatch, failing
):
    before = files_of(sm_tblog.index(logdir))
    log(logdir / "exp/run-1", 9)
    log(logdir / "new")
    expected = read_many(logdir, index=False)
    calls = count()

    def failing_at(method):
        def call(self, *args):
            if next(calls) == failing:
                raise StoreError("no space left on device")
            return method(self, *args)

        return call

    with monkeypatch.context() as patch:
        for name in ("put", "put_file"):
            method = getattr(folder.LocalIndexFolder, name)
            patch.setattr(folder.LocalIndexFolder, name, failing_at(method))
        try:
            sm_tblog.index(logdir)
        except StoreError:
            index = sm_tblog.Index(f"{logdir}/sm_tblog_index")
            assert files_of(index) == before
        else:
            assert failing > 6  # there are seven files
    assert_equal_runs(read_many(logdir), expected)
    index = sm_tblog.index(logdir)
    assert files_of(index) == files_of(sm_tblog.index(logdir, tmp_path / "other"))


def test_an_open_index_stays_readable_until_the_second_update(logdir):
    sm_tblog.index(logdir)
    expected = {name: run.scalars for name, run in read_many(logdir, index=False).items()}
    opened = [read_many(logdir, check=False) for _ in range(2)]
    for update, runs in enumerate(opened):
        log(logdir / f"new-{update}")
        sm_tblog.index(logdir)
        np.testing.assert_equal({name: run.scalars for name, run in runs.items()}, expected)
        assert set(kinds(runs).values()) == {"Run" if update else "IndexedRun"}
    files = [path.name for path in (logdir / "sm_tblog_index").iterdir()]
    assert len(files) == 2 * 4 + 1


def test_an_index_of_another_format_is_written_anew(logdir):
    index = sm_tblog.index(logdir)
    path = Path(index.path) / "manifest.json"
    for content in (b"", b"{", b'{"format": 0}', b"[]", b'{"format": 1, "files": {}}'):
        path.write_bytes(content)
        assert set(kinds(read_many(logdir)).values()) == {"Run"}
    assert len(sm_tblog.index(logdir)) == 6
    assert set(kinds(read_many(logdir)).values()) == {"IndexedRun"}


def test_a_part_that_another_process_removes_is_taken_from_its_generation(logdir, monkeypatch):
    write = build._write

    def overtaken(*args):
        monkeypatch.setattr(build, "_write", write)
        sm_tblog.index(logdir)  # another process completes the index and removes the parts
        return write(*args)

    monkeypatch.setattr(build, "_write", overtaken)
    assert len(sm_tblog.index(logdir)) == 6


def test_old_leftovers_are_removed(logdir, monkeypatch):
    index = sm_tblog.index(logdir)
    for name in ("scalars-old.parquet", "part-old.json.gz"):
        (Path(index.path) / name).write_bytes(b"x")
    (Path(index.path) / ".old.partial").mkdir()
    sm_tblog.index(logdir)
    assert (Path(index.path) / "scalars-old.parquet").exists()
    monkeypatch.setattr(build, "MAX_AGE", -1)
    sm_tblog.index(logdir)
    names = {path.name for path in Path(index.path).iterdir()}
    assert names == {*files_of(index), "manifest.json"}


def test_blocks_are_bounded(logdir, monkeypatch):
    sm_tblog.index(logdir)
    monkeypatch.setattr(many, "BLOCK_ROWS", 20)
    runs = read_many(logdir, tags="loss")
    sizes = [len(job.names) for job in runs._source.jobs(runs)]
    assert sizes == [4, 2]
    assert_equal_runs(runs, read_many(logdir, tags="loss", index=False))


# Elsewhere than on the local disk.

folders = (f"s3://bucket/index-{i}" for i in count())


def test_a_folder_of_fsspec(monkeypatch):
    for number in range(3):
        log(f"memory://indexed/run-{number}", number)
    index = sm_tblog.index("memory://indexed", workers=4)
    assert index.scalars.startswith("memory://indexed/sm_tblog_index/scalars-")
    assert set(kinds(read_many("memory://indexed")).values()) == {"IndexedRun"}
    assert_equal_runs(
        read_many("memory://indexed/**"), read_many("memory://indexed/**", index=False)
    )
    log("memory://indexed/run-3", 3)
    assert len(sm_tblog.index("memory://indexed")) == 4


@pytest.fixture
def moto(moto_server, fault_proxies, tmp_path, monkeypatch):
    pytest.importorskip("botocore")
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    proxy = fault_proxies(moto_server)
    proxy.server.make_bucket()
    return proxy


def test_a_bucket(moto, logdir, tmp_path):
    url = next(folders)
    client = moto.server.client()
    for path in logdir.rglob("*tfevents*"):
        key = f"{url.removeprefix('s3://bucket/')}/{path.relative_to(logdir).as_posix()}"
        client.put_object(Bucket="bucket", Key=key, Body=path.read_bytes())
    options = {"storage_options": moto.options}
    index = sm_tblog.index(url, **options)
    moto.requests.clear()
    checked = read_many(url, **options)
    checked.load()
    assert [one.operation for one in moto.requests].count("ListObjectsV2") == 1
    assert moto.count("GetObject") == 5  # manifest, runs, summary, footer, points
    moto.requests.clear()
    read_many(url, check=False, **options).load()
    assert [one.operation for one in moto.requests] == ["GetObject"] * 5
    assert_equal_runs(checked, read_many(url, index=False, **options))
    local = sm_tblog.index(logdir)
    names = [Path(one.scalars).name for one in (index, local)]
    assert names[0] != names[1]  # other entity tags
    key = index.scalars.removeprefix("s3://bucket/")
    data = client.get_object(Bucket="bucket", Key=key)["Body"].read()
    assert data == Path(local.scalars).read_bytes()
    client.delete_object(Bucket="bucket", Key=key)
    assert_equal_runs(read_many(url, **options), checked)
