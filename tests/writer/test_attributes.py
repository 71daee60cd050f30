"""Attributes of torch's and tensorboardX's writers: types, assignment, the file's path."""

import copy
import os
import pickle
from pathlib import Path, PurePath

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sm_tblog import InvalidTypeError, SummaryWriter, Writer
from sm_tblog.sinks import base as sinks
from sm_tblog.sinks.event_file import EventFileSink


class UsersPath:
    """A path of a type that cannot be made from a str."""

    def __init__(self, folder, name):
        self.path = folder / name

    def __fspath__(self):
        return str(self.path)


class UsersStr(str):
    __slots__ = ()


@pytest.mark.parametrize("kind", [str, Path, PurePath, os.fsencode, UsersStr])
def test_the_log_directory_keeps_its_type(tmp_path, kind):
    given = kind(str(tmp_path / "run"))
    with Writer(given) as writer:
        for found in (writer.log_dir, writer.logdir, writer.get_logdir()):
            assert found == given
            assert type(found) is type(given)
        below = writer.child("below").log_dir
        assert os.fsdecode(below) == str(tmp_path / "run/below")
        assert isinstance(below, str) or type(below) is type(given)
        assert writer.file_writer.get_logdir() == str(tmp_path / "run")
        assert list(writer.all_writers) == [str(tmp_path / "run")]
        for other in (copy.copy(writer), pickle.loads(pickle.dumps(writer))):
            assert type(other.log_dir) is type(given)


def test_a_path_can_be_joined(tmp_path):
    with Writer(log_dir=tmp_path) as writer:
        (writer.log_dir / "model.pt").write_bytes(b"")
        assert (writer.child("a").child("b").log_dir / "x") == tmp_path / "a/b/x"


def test_a_path_of_the_users_own_type_stays_one(tmp_path):
    given = UsersPath(tmp_path, "run")
    with Writer(given) as writer:
        assert writer.log_dir is given
        assert writer.child("below").log_dir == str(tmp_path / "run/below")


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_a_tilde_is_expanded_and_the_type_kept(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Writer(kind("~/run")) as writer:
        assert writer.log_dir == kind(str(tmp_path / "run"))


def test_the_default_log_directory_is_a_str(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Writer() as writer:
        assert writer.log_dir.startswith("runs")


class Subclass(SummaryWriter):
    """Assigns whatever attributes it is given, before and after the constructor."""

    def __init__(self, log_dir, before, after):
        for name, value in before.items():
            setattr(self, name, value)
        super().__init__(log_dir, flush_secs=7)
        for name, value in after.items():
            setattr(self, name, value)


ATTRIBUTES = {
    "all_writers": None, "default_bins": [0.0, 1.0, 2.0], "enabled": "yes", "file_writer": None,
    "filename_suffix": ".x", "flush_secs": 3, "hparams": {"lr": 0.1}, "log": print,
    "log_dir": "elsewhere", "logdir": Path("elsewhere"), "max_queue": 2, "purge_step": 9,
    "step": None, "watch": True,
}  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_subclass_may_assign_an_attribute(tmp_path, read_scalars, name):
    value = ATTRIBUTES[name]
    with Subclass(tmp_path, {name: value}, {name: value}) as writer:
        assert getattr(writer, name) is value
        writer.add_scalar("loss", 1.0, 0)
        writer.add_scalars("losses", {"train": 1.0}, 0)
        writer.add_histogram("weights", [0.5, 1.5], 0)
        writer.child("below").add_scalar("loss", 1.0, 0)
        assert writer.child("below").log_dir == tmp_path / "below"
        again = pickle.loads(pickle.dumps(copy.copy(writer)))
        again.add_scalar("again", 1.0, 0)
        assert again.close()
        assert writer.stats().errors == 0
    assert set(read_scalars(tmp_path)) == {"", "losses_train", "below"}
    assert set(read_scalars(tmp_path)[""]) == {"loss", "again"}


def test_the_constructor_sets_its_attributes_as_theirs_do(tmp_path):
    before = {"log_dir": "other", "file_writer": None, "flush_secs": 1, "all_writers": None}
    with Subclass(str(tmp_path), before, {}) as writer:
        assert writer.log_dir == str(tmp_path)
        assert writer.flush_secs == 7
        assert writer.file_writer is not None
        assert next(iter(writer.all_writers.values())) is not None
    with Subclass(str(tmp_path), {"log_dir": tmp_path, "logdir": tmp_path}, {}) as writer:
        assert writer.log_dir is writer.logdir is tmp_path  # the same directory


def test_a_step_of_a_subclass(tmp_path, read_scalars):
    with Subclass(tmp_path, {"step": 5}, {}) as writer:
        writer.add_scalar("x", 1.0)
        writer.step = np.int32(6)
        assert type(writer.step) is int
        writer.add_scalar("x", 1.0)
        writer.step = {"train": 3}
        assert writer.step == {"train": 3}
        writer.step = 7
        assert writer.step == 7
        writer.step = None
        writer.add_scalar("y", 1.0)
    assert read_scalars(tmp_path)[""] == {"x": [(5, 1.0), (6, 1.0)], "y": [(0, 1.0)]}


def test_a_writer_itself_still_checks_what_is_assigned(tmp_path):
    with Writer(tmp_path) as writer:
        with pytest.raises(InvalidTypeError):
            writer.step = "six"
        with pytest.raises(AttributeError, match="enabled=False"):
            writer.enabled = False
        writer.step = 3
        writer.step = None
        assert writer.step == 0


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, (16_384, 1.0, "")),
        ({"max_queue": 10, "flush_secs": 120, "filename_suffix": ".a"}, (10, 120, ".a")),
        ({"enabled": False}, (16_384, 1.0, "")),
    ],
)
def test_settings_can_be_read(tmp_path, options, settings):
    with Writer(tmp_path, **options) as writer:
        for one in (writer, writer.child("below"), pickle.loads(pickle.dumps(writer))):
            assert (one.max_queue, one.flush_secs, one.filename_suffix) == settings


def test_the_default_bins_are_those_of_torch(tmp_path, load_run):
    torch = pytest.importorskip("torch.utils.tensorboard")
    with torch.SummaryWriter(str(tmp_path / "theirs")) as theirs, Writer(tmp_path) as ours:
        assert ours.default_bins == theirs.default_bins
        ours.add_histogram("given", [1.0, 2.0], 0, bins=ours.default_bins)
        ours.default_bins = [0.0, 1.5, 3.0]
        ours.add_histogram("assigned", [1.0, 2.0], 0)
    (event,) = load_run(tmp_path).Histograms("assigned")
    assert {1.5, 3.0} <= set(event.histogram_value.bucket_limit) <= {0.0, 1.5, 3.0}


# The event file's path.


def torch_path(writer):
    return writer.file_writer.event_writer._file_name


def tensorboardx_path(writer):
    return writer._get_file_writer().event_writer._ev_writer._file_name


def path_of_all_writers(writer):
    (file_writer,) = writer.all_writers.values()
    return file_writer.event_files()[-1]


def last_event_file(writer):
    return writer.event_files()[-1]


WAYS = [torch_path, tensorboardx_path, path_of_all_writers, last_event_file]


@pytest.mark.parametrize("way", WAYS)
def test_the_path_is_that_of_the_file_that_is_written(tmp_path, event_files, read_scalars, way):
    with SummaryWriter(tmp_path, filename_suffix=".mine") as writer:
        path = way(writer)  # before anything is logged
        assert Path(path).is_file()
        writer.add_scalar("loss", 1.0, 0)
        assert way(writer) == path
        assert path.endswith(".mine")
    assert way(writer) == path  # after it is closed
    assert event_files(tmp_path) == [Path(path)]
    assert read_scalars(tmp_path) == {"": {"loss": [(0, 1.0)]}}


def test_everything_logged_is_in_the_file(tmp_path, read_events):
    with Writer(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 0)
        assert len(read_events(writer.event_files()[0])) == 2


def test_files_started_after_a_close_are_added(tmp_path, event_files):
    writer = Writer(tmp_path)
    for step in range(3):
        writer.add_scalar("loss", 1.0, step)
        writer.close()
    assert sorted(map(Path, writer.event_files())) == event_files(tmp_path)
    assert len(writer.event_files()) == 3
    assert Path(torch_path(writer)).name == Path(writer.event_files()[-1]).name


def test_a_relative_directory_gives_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Writer("run") as writer:
        monkeypatch.chdir("/")
        assert Path(writer.event_files()[0]).parent == tmp_path / "run"


def test_a_file_url_gives_a_path(tmp_path):
    with Writer(f"file://{tmp_path}/a run") as writer:
        assert Path(writer.event_files()[0]).parent == tmp_path / "a run"


def test_a_deleted_file_is_left_out(tmp_path, event_files):
    with Writer(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 0)
        first = writer.event_files()
        Path(first[0]).unlink()
        second = writer.event_files()
        assert second != first
        assert list(map(Path, second)) == event_files(tmp_path)


def test_child_runs_have_their_own_files(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_scalars("losses", {"train": 1.0}, 0)
        child = writer.child("a").child("b")
        assert Path(child.event_files()[0]).parent == tmp_path / "a/b"
        assert Path(torch_path(child)).parent == tmp_path / "a/b"
        (curve,) = writer.child("losses_train").event_files()
        assert Path(curve).parent == tmp_path / "losses_train"
        assert [Path(path).parent for path in writer.event_files()] == [tmp_path]


def test_a_directory_that_is_a_url(tmp_path):
    with Writer(f"memory://files/{tmp_path.name}") as writer:
        (url,) = writer.event_files()
        writer.add_scalar("loss", 1.0, 0)
        assert url == torch_path(writer)
        assert url.startswith(f"memory://files/{tmp_path.name}/events.out.tfevents.")
    assert MemoryFileSystem().isfile(url)


def test_a_file_that_is_full_is_followed_by_another(tmp_path, store_at, event_files):
    is_full = property(lambda store: store._file._size > 60)
    with Writer(store_at(tmp_path, is_full=is_full)) as writer:
        for step in range(3):
            writer.add_scalar("loss", 1.0, step)
            writer.flush()
        names = [url.rpartition("/")[2] for url in writer.event_files()]
        assert names == [path.name for path in event_files(tmp_path)]
        assert len(names) >= 3
        assert torch_path(writer).endswith(names[-1])


def test_several_sinks(tmp_path):
    batches = []
    destinations = [batches.append, EventFileSink(str(tmp_path / "more")), "events", "jsonl"]
    with Writer(tmp_path / "run", sinks=destinations) as writer:
        assert [Path(path).parent.name for path in writer.event_files()] == ["more", "run"]
        assert Path(torch_path(writer)).parent.name == "more"


@pytest.mark.parametrize("options", [{"enabled": False}, {"sinks": ["jsonl"]}])
def test_a_writer_without_event_files(tmp_path, options):
    with Writer(tmp_path, **options) as writer:
        assert writer.event_files() == []
        assert torch_path(writer) == ""


def test_a_sink_of_the_users_own_may_report_files(tmp_path):
    class Reporting(sinks.FunctionSink):
        def event_files(self, run):
            return [f"bucket://{run}/file"]

    with Writer(tmp_path, sinks=[Reporting(len)]) as writer:
        assert writer.child("a").event_files() == ["bucket://a/file"]


def test_a_folder_that_refuses_the_file_gives_the_path_that_it_will_have(tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    with Writer(tmp_path / "run", on_error=lambda error: None) as writer:
        (path,) = writer.event_files()
        (tmp_path / "run").unlink()
        assert writer.flush()
        assert Path(path).is_file()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_files(tmp_path, event_files):
    with Writer(tmp_path) as writer:
        (mine,) = writer.event_files()
        receiving, sending = os.pipe()
        if os.fork() == 0:
            os.write(sending, os.fsencode("\n".join([torch_path(writer), *writer.event_files()])))
            os._exit(0)
        os.close(sending)
        with os.fdopen(receiving) as pipe:
            named, theirs = pipe.read().split("\n")
        os.wait()
        assert named == theirs != mine
        assert sorted([mine, theirs]) == [str(path) for path in event_files(tmp_path)]
        assert writer.event_files() == [mine]


def test_a_copy_has_its_own_files(tmp_path):
    with Writer(tmp_path) as writer:
        mine = writer.event_files()
        with pickle.loads(pickle.dumps(writer)) as other:
            assert set(other.event_files()).isdisjoint(mine)


def test_the_event_writer_writes(tmp_path, read_scalars):
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    event = event_pb2.Event(wall_time=12.0, step=3)
    event.summary.value.add(tag="x", simple_value=0.5)
    with SummaryWriter(tmp_path) as writer:
        event_writer = writer.file_writer.event_writer
        assert event_writer.get_logdir() == str(tmp_path)
        event_writer.add_event(event)
        event_writer.flush()
        event_writer.close()
        event_writer.reopen()
    assert read_scalars(tmp_path) == {"": {"x": [(3, 0.5)]}}
