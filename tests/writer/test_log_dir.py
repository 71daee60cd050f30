"""The log directory is the one that had its name when the writer was made."""

import copy
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sm_tblog import InvalidValueError, Writer
from sm_tblog.adapters._target import Target


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """``elsewhere()`` changes the working directory, which is ``tmp_path / "home"`` at first."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    monkeypatch.chdir(home)
    return lambda: monkeypatch.chdir(other)


def log_everything(writer, step):
    writer.add_scalar("loss", 1.0, step)
    writer.add_scalars("losses", {"train": 1.0}, step)
    writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, run_name=f"trial-{step}")
    writer.add_embedding(np.eye(3), global_step=step)
    writer.add_file(f"notes-{step}.txt", b"x")
    with writer.child("validation") as child:
        child.add_scalar("loss", 1.0, step)
    assert writer.flush()


@pytest.mark.parametrize("sinks", [["events"], ["events", "jsonl"]])
def test_a_relative_log_directory_does_not_follow_chdir(elsewhere, tmp_path, sinks, caplog):
    with Writer("runs/x", sinks=sinks) as writer:
        log_everything(writer, 0)
        elsewhere()
        log_everything(writer, 1)
        assert writer.stats().errors == 0
        assert writer.log_dir == "runs/x"
    assert list((tmp_path / "other").iterdir()) == []
    names = [path.name for path in (tmp_path / "home/runs/x").iterdir()]
    assert sum("tfevents" in name for name in names) == 1
    assert "deleted" not in caplog.text


def test_nothing_needs_to_be_logged_before_chdir(elsewhere, tmp_path, read_scalars):
    with Writer("runs/x") as writer, Writer() as default:
        elsewhere()
        for one in (writer, default, copy.copy(writer), pickle.loads(pickle.dumps(writer))):
            with one:
                one.add_scalar("loss", 1.0, 0)
    runs = read_scalars(tmp_path / "home")
    assert set(runs) == {"runs/x", default.log_dir}
    assert len(list((tmp_path / "home/runs/x").iterdir())) == 3


def test_scalars_are_exported_and_profiles_named_after_chdir(elsewhere, tmp_path):
    with Writer("runs/x") as writer:
        writer.add_scalar("loss", 1.0, 0)
        with writer.profile("start"):
            pass
        elsewhere()
        writer.export_scalars_to_json(tmp_path / "scalars.json")
        with writer.profile("start"):
            pass
    assert "runs/x/loss" in (tmp_path / "scalars.json").read_text()
    sessions = (tmp_path / "home/runs/x/plugins/profile").iterdir()
    assert len({path.name for path in sessions}) == 2


def test_a_link_that_is_pointed_elsewhere_is_followed_no_more(tmp_path, read_scalars):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    link = tmp_path / "latest"
    link.symlink_to(tmp_path / "first")
    with Writer(link) as writer:
        writer.add_scalar("loss", 1.0, 0)
        assert writer.flush()
        link.unlink()
        link.symlink_to(tmp_path / "second")
        writer.add_scalar("loss", 2.0, 1)
        assert writer.flush()
    assert read_scalars(tmp_path / "first") == {"": {"loss": [(0, 1.0), (1, 2.0)]}}
    assert list((tmp_path / "second").iterdir()) == []


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Writer("~/runs/x") as writer:
        assert writer.log_dir == os.path.join(tmp_path, "runs/x")  # noqa: PTH118 - a str
        assert (tmp_path / "runs/x").is_dir()


@pytest.mark.parametrize("logdir", [Path("s3://bucket/run"), "gs:/bucket", "file:/tmp/run"])
def test_a_url_that_lost_a_slash_is_refused(logdir):
    for make in (Writer, lambda given: Target(given).writer):
        with pytest.raises(InvalidValueError, match=r"pass a str with two slashes: '\w+://"):
            make(logdir)


def test_an_adapters_writer_logs_where_it_was_to_log(elsewhere, tmp_path):
    target = Target("runs/x")
    elsewhere()
    target.writer.add_scalar("loss", 1.0, 0)
    target.close()
    assert (tmp_path / "home/runs/x").is_dir()
