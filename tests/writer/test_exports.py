"""Export of scalars to JSON, as in tensorboardX, but read back from the event files."""

import json

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, StoreError, Writer


def exported(path):
    return json.loads(path.read_text(encoding="utf-8"))


def log(writer):
    for step in range(3):
        writer.add_scalars("loss/all", {"train": step / 2, "val": step / 4}, step, 100.0 + step)


def test_curves_are_those_of_tensorboardx(tmp_path):
    peer = pytest.importorskip("tensorboardX")
    found = []
    for writer in (Writer(tmp_path / "run"), peer.SummaryWriter(str(tmp_path / "run"))):
        log(writer)
        writer.export_scalars_to_json(str(tmp_path / "all.json"))
        writer.close()
        found.append(exported(tmp_path / "all.json"))
    run = f"{tmp_path}/run"
    assert found[0] == found[1]
    assert found[0][f"{run}/loss/all/val"] == [[100.0, 0, 0.0], [101.0, 1, 0.25], [102.0, 2, 0.5]]


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_every_scalar_is_exported(tmp_path, scheme):
    logdir = f"{scheme}{tmp_path}/run"
    writer = Writer(logdir, on_error="raise")
    writer.add_scalar("loss", 0.1, 1, 5.0)
    writer.add_scalar("exact", 0.1, 1, 5.0, double_precision=True)
    writer.add_scalar("bad", float("nan"), 1, 5.0)
    writer.add_scalars("one file", {"a": 0.5}, 1, 5.0, layout=True)
    writer.add_histogram("weights", np.zeros(3), 1)
    log(writer)
    writer.export_scalars_to_json(tmp_path / "all.json")
    found = exported(tmp_path / "all.json")
    assert np.isnan(found.pop(f"{logdir}/bad")[0][2])
    assert len(found.pop(f"{logdir}/loss/all/train")) == 3
    assert len(found.pop(f"{logdir}/loss/all/val")) == 3
    assert found == {
        f"{logdir}/loss": [[5.0, 1, float(np.float32(0.1))]],
        f"{logdir}/exact": [[5.0, 1, 0.1]],
        f"{logdir}/one file/a": [[5.0, 1, 0.5]],
    }
    writer.add_scalar("loss", 0.5, 2, 6.0)
    writer.export_scalars_to_json(tmp_path / "all.json")
    assert exported(tmp_path / "all.json")[f"{logdir}/loss"][1:] == [[6.0, 2, 0.5]]
    writer.close()


def test_runs_below_keep_their_names(tmp_path):
    with Writer(tmp_path / "sub" / "run") as writer:
        writer.add_scalar("loss", 1.0, 0, 5.0)
    with Writer(tmp_path) as writer:
        writer.export_scalars_to_json(tmp_path / "all.json")
    assert exported(tmp_path / "all.json") == {f"{tmp_path}/sub/run/loss": [[5.0, 0, 1.0]]}


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_writer_that_has_logged_nothing_exports_nothing(tmp_path, scheme):
    with Writer(f"{scheme}{tmp_path}/run") as writer:
        writer.export_scalars_to_json(tmp_path / "all.json")
    assert exported(tmp_path / "all.json") == {}


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_writer_without_event_files_says_so(tmp_path, scheme):
    with Writer(f"{scheme}{tmp_path}/run", sinks=["jsonl"]) as writer:
        writer.add_scalar("loss", 1.0, 0)
        with pytest.raises(InvalidValueError, match=r"event files|no file or folder"):
            writer.export_scalars_to_json(tmp_path / "all.json")
    assert not (tmp_path / "all.json").exists()


def test_a_bad_path_is_refused_at_the_call(tmp_path):
    with Writer(tmp_path / "run") as writer:
        with pytest.raises(InvalidTypeError, match="path must be a path, got None"):
            writer.export_scalars_to_json(None)
        with pytest.raises(FileNotFoundError):
            writer.export_scalars_to_json(tmp_path / "no such folder" / "all.json")


def test_nothing_is_exported_if_a_store_refuses_and_that_is_raised(tmp_path, store_at):
    def refuse(store, data):
        raise StoreError("full")

    writer = Writer(store_at(tmp_path / "run", append=refuse), on_error="raise")
    writer.add_scalar("loss", 1.0, 0)
    with pytest.raises(StoreError, match="full"):
        writer.export_scalars_to_json(tmp_path / "all.json")
    assert not (tmp_path / "all.json").exists()
    with pytest.raises(StoreError, match="full"):
        writer.close()


def test_a_disabled_writer_writes_no_file(tmp_path):
    Writer(tmp_path / "run", enabled=False).export_scalars_to_json(tmp_path / "all.json")
    assert list(tmp_path.iterdir()) == []
