"""A run or side file that no store can have is refused, and costs the others nothing."""

import pytest

from sm_tblog import InvalidValueError, StoreError, Writer
from sm_tblog.storage.object_store import MAX_KEY_SIZE, ObjectStore

NAMES = ["x" * 300, "nul\0"]
SURROGATE = "half \ud800"


@pytest.mark.parametrize("name", NAMES, ids=["long", "nul"])
def test_an_impossible_run_is_refused_and_others_live(tmp_path, read_scalars, caplog, name):
    with Writer(tmp_path, max_bytes=200_000) as writer:
        for step in range(2000):
            writer.add_scalar("loss", 1.0, step)
            writer.add_scalars("curves", {name: 1.0, "fine": 2.0}, step)
            if step % 500 == 499:
                writer.flush()
        assert writer.flush()
        stats = writer.stats()
    assert stats.rows_dropped == 2000
    assert stats.bytes_pending == 0
    points = [(step, 1.0) for step in range(2000)]
    assert read_scalars(tmp_path) == {
        "": {"loss": points},
        "curves_fine": {"curves": [(step, 2.0) for step, _ in points]},
    }
    assert caplog.text.count("cannot write") == 1
    assert "choose a shorter or plainer name" in caplog.text
    assert "works again" not in caplog.text


def test_every_impossible_run_of_a_batch_is_named(tmp_path, caplog):
    with Writer(tmp_path) as writer:
        writer.add_scalars("curves", {"x" * 300: 1.0, "y" * 300: 1.0}, 0)
        assert not writer.flush()
        assert writer.flush()
    assert "curves_xxx" in caplog.text
    assert "curves_yyy" in caplog.text


def test_a_strict_writer_raises_at_the_barrier(tmp_path):
    writer = Writer(tmp_path, on_error="raise")
    writer.add_scalars("curves", {"x" * 300: 1.0}, 0)
    with pytest.raises(StoreError, match="shorter or plainer name"):
        writer.flush()
    writer.add_scalar("loss", 1.0, 0)
    assert writer.close()


def test_values_and_side_files_of_an_impossible_run_are_counted(tmp_path):
    with Writer(tmp_path) as writer:
        child = writer.child("x" * 300)
        for step in range(2):
            child.add_text("note", "text", step)
            child.add_scalar("loss", 1.0, step)
            child.add_file(f"side-{step}", b"1")
            child.flush()
        writer.add_text("note", "text", 0)
        writer.flush()
        assert writer.stats().rows_dropped == 6
        assert writer.stats().bytes_pending == 0


def test_an_impossible_side_file_holds_up_no_other(tmp_path, caplog):
    with Writer(tmp_path) as writer:
        writer.add_file("x" * 300, b"1")
        writer.add_file("fine", b"2")
        assert not writer.flush()
        assert writer.flush()
        assert writer.stats().bytes_pending == 0
    assert (tmp_path / "fine").read_bytes() == b"2"
    assert "xxx" in caplog.text


@pytest.mark.parametrize("logdir", [NAMES[1], SURROGATE], ids=["nul", "surrogate"])
def test_an_impossible_log_directory_raises_at_the_call(tmp_path, monkeypatch, logdir):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidValueError, match="no directory can be called"):
        Writer(logdir)


def test_a_key_that_is_too_long_for_a_bucket_is_refused_at_once(tmp_path):
    pytest.importorskip("botocore")
    options = {"spool": tmp_path, "endpoint_url": "http://127.0.0.1:9"}
    for name, fits in (("x" * (MAX_KEY_SIZE - 4), True), ("x" * (MAX_KEY_SIZE - 3), False)):
        store = ObjectStore("s3://bucket/run", name, **options)
        if fits:
            store._check_name(name)
        else:
            with pytest.raises(StoreError, match="the key has 1,025 bytes"):
                store.append(b"x")
    with pytest.raises(StoreError, match="not a name of an object"):
        ObjectStore("s3://bucket/half \ud800", "name", **options).put("side", b"x")
    assert list(tmp_path.iterdir()) == []
