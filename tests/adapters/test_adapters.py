"""Shared code of adapters: destinations, copies of them, and the error for missing frameworks."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from sm_tblog import InvalidTypeError, Writer
from sm_tblog.adapters import _target
from sm_tblog.adapters._target import Target

ADAPTERS = [
    path.stem
    for path in sorted(Path(_target.__file__).parent.glob("*.py"))
    if not path.stem.startswith("_")
]


def test_nothing_is_made_before_something_is_logged(tmp_path):
    target = Target(tmp_path / "run")
    target.flush()
    target.close()
    assert not target.is_open
    assert not (tmp_path / "run").exists()


def test_a_folders_writer_is_closed_and_logging_goes_on_in_another_file(tmp_path, event_files):
    target = Target(tmp_path)
    for step in range(2):
        target.writer.add_scalar("a", 1.0, step)
        target.close()
    assert len(event_files(tmp_path)) == 2


def test_a_writer_that_is_given_is_flushed_and_left_open(tmp_path, read_scalars, event_files):
    with Writer(tmp_path) as writer:
        target = Target(writer)
        assert target.writer is writer
        for step in range(2):
            target.writer.add_scalar("a", 1.0, step)
            target.close()
            assert read_scalars(tmp_path)[""]["a"][-1] == (step, 1.0)
        assert len(event_files(tmp_path)) == 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_copies_log_to_the_same_folder(again, opened, given, tmp_path, read_scalars):
    target = Target(Writer(tmp_path)) if given else Target(tmp_path)
    if opened:
        target.writer.add_scalar("a", 1.0, 0)
    other = again(target)
    assert other.is_owned == target.is_owned
    other.writer.add_scalar("b", 2.0, 1)
    other.close()
    target.close()
    assert read_scalars(tmp_path)[""]["b"] == [(1, 2.0)]


def test_a_copy_of_what_has_logged_to_the_default_folder_logs_there_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = Target()
    folder = target.writer.log_dir
    assert copy.deepcopy(target).writer.log_dir == folder
    target.close()


def test_a_deep_copy_has_the_writer_that_was_given_as_its_user_will_close_it(tmp_path):
    with Writer(tmp_path) as writer:
        assert copy.deepcopy(Target(writer)).writer is writer


@pytest.mark.parametrize("opened", [False, True])
def test_a_target_that_is_resumed_supersedes_what_its_folder_has(opened, tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("a", 0.0, step)
    target = Target(tmp_path)
    if opened:
        target.writer.add_scalar("b", 0.0, 1)
    target = target.resumed(3)
    target.writer.add_scalar("a", 1.0, 3)
    target.close()
    assert read_scalars(tmp_path)[""]["a"] == [(0, 0.0), (1, 0.0), (2, 0.0), (3, 1.0)]


def test_a_writer_that_is_given_is_not_resumed(tmp_path):
    with Writer(tmp_path) as writer:
        target = Target(writer)
        assert target.resumed(3) is target


def test_only_rank_zero_logs_unless_the_writer_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not Target(tmp_path).writer.enabled
    assert Target(tmp_path, rank_zero_only=False).writer.enabled
    assert Target(Writer(tmp_path)).writer.enabled


def test_options_reach_the_writer(tmp_path):
    target = Target(tmp_path, purge_step=3)
    assert target.writer.purge_step == 3
    target.close()


def test_what_is_neither_folder_nor_writer_is_refused(tmp_path):
    with pytest.raises(InvalidTypeError, match="expected a log directory or a Writer, got 3"):
        Target(3)
    with pytest.raises(InvalidTypeError, match="cannot be given purge_step"):
        Target(Writer(tmp_path), purge_step=3)


WITHOUT = """
import importlib, sys
adapter = sys.argv[1]

import numpy, sm_tblog
sys.path = [path for path in sys.path if "site-packages" not in path]
module = f"sm_tblog.adapters.{adapter}"
try:
    for name in importlib.import_module(module).__all__:
        getattr(sys.modules[module], name)
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_says_what_to_install_where_its_framework_is_missing(adapter):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, adapter], capture_output=True, text=True, check=True
    )
    if not done.stdout:
        pytest.skip("it needs no framework")
    assert done.stdout.startswith("MissingDependencyError ")
    assert "pip install " in done.stdout
