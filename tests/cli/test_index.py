"""``sm-tblog index``: the same index as the function's, and one line for whatever is wrong."""

import os
import subprocess
import sys

import pytest

import sm_tblog
from sm_tblog import Writer

pytest.importorskip("pyarrow")
pytest.importorskip("typer")


@pytest.fixture
def logdir(tmp_path):
    for name in "abc":
        with Writer(tmp_path / "runs" / name) as writer:
            writer.add_scalar("loss", 1.0, 0)
    return tmp_path / "runs"


def run(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "sm_tblog", "index", *map(str, args)],
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_index_is_written_beside_the_runs(logdir):
    done = run(logdir, "--workers", 1)
    assert (done.returncode, done.stdout) == (0, f"3 runs in {logdir}/sm_tblog_index\n")
    assert len(sm_tblog.read_many(logdir, check=False)) == 3


def test_an_index_is_written_elsewhere_by_a_pool_and_in_shards(logdir, tmp_path):
    to = tmp_path / "to"
    for shard in ("1/2", "2/2"):
        done = run(logdir, "--to", to, "--shard", shard, "--workers", 2)
        assert (done.returncode, done.stdout) == (0, f"Shard {shard} is complete in {to}\n")
    done = run(logdir, "--to", to)
    assert (done.returncode, done.stdout) == (0, f"3 runs in {to}\n")


def test_what_is_wrong_is_said_in_a_line(logdir, tmp_path):
    done = run(tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.strip().startswith("sm-tblog: there is no file or folder")
    for shard in ("1", "a/b", "1/2/3"):
        done = run(logdir, "--shard", shard)
        assert done.returncode == 2
        assert "must be I/N, such as 1/4" in done.stderr
    done = run(logdir, "--shard", "3/2")
    assert (done.returncode, "1 <= i <= n" in done.stderr) == (1, True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_a_run_that_cannot_be_read_is_named(logdir):
    (path,) = (logdir / "b").iterdir()
    path.chmod(0)
    done = run(logdir, "--workers", 1)
    assert done.returncode == 1
    assert f"not indexed: {path}" in done.stdout
