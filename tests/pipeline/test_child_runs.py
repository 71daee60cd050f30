"""Writers of child runs, and files beside the event files."""

import copy
import pickle

import numpy as np
import profiles
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.pipeline import run_view
from sm_tblog.readers import read_all


def test_a_child_logs_to_a_run_below(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        child = writer.child("validation")
        child.add_scalar("a", 1.0, 0)
        child.log({"b": 2.0, "c/d": 3}, 1)
        child.add_scalar("e", 4, 2, new_style=True)
        child.child("deep/er").add_scalar("a", 5.0, 3)
        child.add_scalars("main", {"x": 6.0}, 4)
        writer.add_scalar("a", 7.0, 5)
    assert child.log_dir == tmp_path / "validation"
    assert read_scalars(tmp_path) == {
        "": {"a": [(5, 7.0)]},
        "validation": {"a": [(0, 1.0)], "b": [(1, 2.0)], "c/d": [(1, 3.0)], "e": [(2, 4.0)]},
        "validation/deep/er": {"a": [(3, 5.0)]},
        "validation/main_x": {"main": [(4, 6.0)]},
    }


def test_nothing_is_made_for_a_child_that_logs_nothing(tmp_path):
    with Writer(tmp_path) as writer:
        writer.child("validation")
        writer.add_scalar("a", 1.0)
    assert [path.is_file() for path in tmp_path.iterdir()] == [True]


def test_a_child_logs_what_is_more_than_numbers(tmp_path):
    with Writer(tmp_path) as writer:
        child = writer.child("run")
        child.add_histogram("h", [1.0, 2.0, 3.0], 1)
        child.add_text("t", "text", 2)
        child.add_embedding([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]], ["a", "b"])
        child.file_writer.add_summary(b"\x0a\x08\x0a\x01m\x15\x00\x00\x80\x3f", 7)
        child.add_custom_scalars({"c": {"d": ["Multiline", ["a"]]}})
        child.add_file("notes/a.txt", "text")
    run = EventAccumulator(str(tmp_path / "run")).Reload()
    assert {"h", "t", "m", "custom_scalars__config__"} <= set(run.Tags()["tensors"])
    assert (tmp_path / "run" / "projector_config.pbtxt").is_file()
    assert (tmp_path / "run" / "notes" / "a.txt").read_text() == "text"
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_child_has_hyperparameters_of_its_own(tmp_path, read_scalars):
    with Writer(tmp_path) as writer, writer.child("run") as child:
        writer.hparams({"a": 1}, {"loss": "min"})
        child.hparams({"b": 2}, {"loss": "max"})
        for step, loss in enumerate([1.0, 3.0, 2.0]):
            child.add_scalar("loss", loss, step)
            writer.add_scalar("loss", -loss, step)
    found = read_scalars(tmp_path)
    assert found["run"]["best/loss"] == [(0, 1.0), (1, 3.0)]
    assert found[""]["best/loss"] == [(0, -1.0), (1, -3.0)]
    for folder, name in ((tmp_path, "a"), (tmp_path / "run", "b")):
        run = EventAccumulator(str(folder)).Reload()
        content = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert name.encode() in content
        assert run.SummaryMetadata("_hparams_/session_end_info")


def test_a_child_watches_and_profiles_in_its_run(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        child = writer.child("run")
        child.watch_layers([("w", np.ones(3), np.ones(3), None)], 1)
        with child.profile(torch=False, jax=False, tensorflow=False), child.span("mine"):
            pass
    assert read_scalars(tmp_path)["run"]["gradients/w/norm"][0][0] == 1
    events = profiles.events_of(profiles.only_session(tmp_path / "run"))
    assert "mine" in {event.name for event in events}
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_closing_a_child_leaves_what_its_writer_watches(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        watch = writer.watch_rules()
        writer.child("run").close()
        assert watch._removed is not None  # the watch is still active


def test_a_tag_may_hold_one_kind_here_and_another_there(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_scalar("a", 1.0)
        writer.child("run").add_histogram("a", [1.0, 2.0])
    assert EventAccumulator(str(tmp_path / "run")).Reload().Tags()["tensors"] == ["a"]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_of_a_child_is_a_writer_to_its_folder(again, tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        child = writer.child("run")
        child.hparams({"a": 1}, {"loss": "min"})
        with again(child) as copied:
            copied.add_scalar("loss", 1.0, 0)
    assert read_scalars(tmp_path)["run"]["best/loss"] == [(0, 1.0)]


def test_closing_a_child_stores_all_and_leaves_the_files_open(tmp_path, read_scalars, event_files):
    writer = Writer(tmp_path)
    child = writer.child("run")
    for step in range(3):
        child.add_scalar("a", 1.0, step)
        assert child.close()
        assert len(read_scalars(tmp_path)["run"]["a"]) == step + 1
    writer.close()
    assert len(event_files(tmp_path)) == 1


def test_a_child_of_a_disabled_writer_does_nothing(tmp_path):
    child = Writer(tmp_path, enabled=False).child("a").child("b")
    child.add_scalar("a", 1.0)
    child.add_histogram("h", [1.0])
    child.hparams({"a": 1}, {"a": "min"})
    assert child.close()
    assert not child.enabled
    assert list(tmp_path.iterdir()) == []


def test_a_child_keeps_its_writer(tmp_path, read_scalars, event_files):
    child = Writer(tmp_path).child("run")
    for step in range(2):
        child.add_scalar("a", 1.0, step)
        child.flush()
    assert len(read_scalars(tmp_path)["run"]["a"]) == 2
    assert len(event_files(tmp_path)) == 1


@pytest.mark.parametrize("name", ["", "..", "/a", "a/../b", "."])
def test_a_child_is_below_its_writer(name, tmp_path):
    with pytest.raises(InvalidValueError, match="a path below the log directory"):
        Writer(tmp_path).child(name)


def test_a_childs_name_is_a_str(tmp_path):
    with pytest.raises(InvalidTypeError, match="a run's name must be a str"):
        Writer(tmp_path).child(3)


def test_a_file_holds_what_it_is_given(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_file("a.bin", b"\x00")
        writer.add_file("a.bin", b"\x01")
        writer.add_file("b/c.txt", "ä")
        writer.add_file("d", b"1", overwrite=False)
        writer.add_file("d", b"2", overwrite=False)
    assert (tmp_path / "a.bin").read_bytes() == b"\x01"
    assert (tmp_path / "b" / "c.txt").read_text(encoding="utf-8") == "ä"
    assert (tmp_path / "d").read_bytes() == b"1"


@pytest.mark.parametrize(("name", "data"), [(3, b""), ("a", 3), ("a", None), (b"a", b"")])
def test_a_file_has_a_name_and_bytes(name, data, tmp_path):
    with pytest.raises(InvalidTypeError, match="add_file"):
        Writer(tmp_path).add_file(name, data)


@pytest.mark.parametrize("name", ["", "../a", "/a"])
def test_a_file_is_below_the_log_folder(name, tmp_path):
    with pytest.raises(InvalidValueError):
        Writer(tmp_path).add_file(name, b"")


def test_a_child_remembers_a_limited_number_of_tags(tmp_path, monkeypatch):
    monkeypatch.setattr(run_view, "MAX_CACHED_SERIES", 10)
    with Writer(tmp_path) as writer:
        child = writer.child("run")
        for i in range(100):
            child.add_scalar(f"tag {i % 25}", 1.0, i)
        assert len(child._pipeline._series) <= 10
    assert len(read_all(tmp_path)["run"].scalars) == 25
