"""Who reads the runs: the same index by a loop, a pool and a Dask cluster, whoever is killed."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from s3_servers import free_port

import sm_tblog
from sm_tblog import MissingDependencyError, StoreError, Writer
from sm_tblog.indexing import engine, parts
from sm_tblog.readers import tables

pytest.importorskip("pyarrow")

RUNS = 12
DEADLINE = 60


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(parts, "MAX_RUNS", 1)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine") / "runs"
    for number in range(RUNS):
        with Writer(folder / f"run-{number}") as writer:
            writer.hparams({"lr": number})
            for step in range(50):
                writer.log({"loss": number / (step + 1), "acc": step}, step)
    return folder


def content(index):
    files = (path for path in Path(index.path).iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def expected(logdir, tmp_path_factory):
    return content(sm_tblog.index(logdir, tmp_path_factory.mktemp("loop")))


def test_a_pool_writes_what_a_loop_writes(logdir, tmp_path, expected):
    reports = []
    index = sm_tblog.index(
        logdir, tmp_path, workers=2, progress=lambda *numbers: reports.append(numbers)
    )
    assert content(index) == expected
    assert reports == [(done, RUNS) for done in range(1, RUNS + 1)]


def test_a_pool_goes_on_when_a_process_is_killed(logdir, tmp_path, expected):
    killed = []

    def kill(done, total):
        if not killed:
            killed.append(multiprocessing.active_children()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    assert content(sm_tblog.index(logdir, tmp_path, workers=2, progress=kill)) == expected
    assert killed


def test_a_pool_gives_up_when_its_processes_are_killed_again_and_again(
    logdir, tmp_path, expected, monkeypatch
):
    monkeypatch.setattr(engine, "convert", _die)
    with pytest.raises(StoreError, match="were killed 4 times, perhaps because memory ran out"):
        sm_tblog.index(logdir, tmp_path, workers=2)
    monkeypatch.undo()
    assert content(sm_tblog.index(logdir, tmp_path)) == expected


def _die(task):
    os.kill(os.getpid(), signal.SIGKILL)


KILLED = """
import os, signal, sys
import sm_tblog
from sm_tblog.indexing import parts

def kill(done, total):
    print(done, flush=True)
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    parts.MAX_RUNS = 1
    logdir, to, workers, scheduler = sys.argv[1:]
    sm_tblog.index(
        logdir, to, workers=int(workers), scheduler=scheduler or None, progress=kill
    )
"""


def assert_resumes(logdir, to, expected, run_script, workers=1, scheduler=""):
    done = run_script(KILLED, logdir, to, workers, scheduler)
    assert done.returncode == -signal.SIGKILL, done.stderr
    reports = []
    index = sm_tblog.index(logdir, to, progress=lambda *numbers: reports.append(numbers))
    assert reports[-1][1] <= RUNS - 3  # which are not read again
    generation = {name: data for name, data in content(index).items() if name in expected}
    assert generation == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_client_resumes(logdir, tmp_path, expected, run_script, workers):
    assert_resumes(logdir, tmp_path, expected, run_script, workers)


# Dask.


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    """Return the address of a scheduler with two workers, and a function that starts a worker."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    address = f"tcp://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:

        def start(*command):
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def start_worker():
            options = ["--no-nanny", "--nthreads", "1", "--no-dashboard"]
            return start("dask_worker", address, *options)

        port = address.rpartition(":")[2]
        start("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        workers = [start_worker(), start_worker()]
        yield address, workers


def wait_for_workers(address, count):
    import distributed

    with distributed.Client(address, timeout=DEADLINE, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=DEADLINE)


def test_a_dask_cluster_writes_what_a_loop_writes(dask_cluster, logdir, tmp_path, expected):
    wait_for_workers(dask_cluster[0], 2)
    index = sm_tblog.index(logdir, tmp_path, scheduler=dask_cluster[0])
    assert content(index) == expected


def test_a_killed_client_of_a_cluster_resumes(dask_cluster, logdir, tmp_path, expected, run_script):
    wait_for_workers(dask_cluster[0], 2)
    assert_resumes(logdir, tmp_path, expected, run_script, scheduler=dask_cluster[0])


def test_a_cluster_goes_on_when_a_worker_is_killed(dask_cluster, logdir, tmp_path, expected):
    address, workers = dask_cluster
    wait_for_workers(address, 2)

    def kill(done, total):
        if done == 1:
            workers[0].kill()

    index = sm_tblog.index(logdir, tmp_path, scheduler=address, progress=kill)
    assert content(index) == expected
    assert workers[0].wait(DEADLINE) == -signal.SIGKILL


def test_a_scheduler_that_there_is_not_is_named(logdir, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(engine, "CONNECT_TIMEOUT", 0.1)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(StoreError, match=f"cannot reach the Dask scheduler at {address}"):
        sm_tblog.index(logdir, tmp_path, scheduler=address)


def test_a_cluster_that_fails_is_named(logdir, tmp_path, monkeypatch, dask_cluster):
    wait_for_workers(dask_cluster[0], 1)
    monkeypatch.setattr(engine, "convert", divmod)
    with pytest.raises(StoreError, match=r"did not read all runs: TypeError: divmod"):
        sm_tblog.index(logdir, tmp_path, scheduler=dask_cluster[0])


def test_what_to_install_for_dask_is_said(logdir, tmp_path, monkeypatch):
    import_module = tables.import_module

    def without(name):
        if name == "distributed":
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(tables, "import_module", without)
    with pytest.raises(MissingDependencyError, match=r"distributed: pip install 'sm-tblog\[dask\]"):
        sm_tblog.index(logdir, tmp_path, scheduler="tcp://127.0.0.1:1")
