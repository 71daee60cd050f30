"""The Accelerate adapter, compared with Accelerate's own tracker."""

import os
import pickle
import socket
import subprocess

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, Writer

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")
tracking = pytest.importorskip("accelerate.tracking")

from sm_tblog.adapters.accelerate import TensorBoardTracker  # noqa: E402 - it needs Accelerate

CONFIG = {"lr": 0.1, "name": "first", "amp": True, "none": None}


@pytest.fixture
def accelerator():
    """``accelerator(*trackers, **kwargs)`` returns an ``Accelerator`` on the CPU."""

    def make(*trackers, **kwargs):
        return accelerate.Accelerator(cpu=True, log_with=[*trackers], **kwargs)

    yield make
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def train(accelerator):
    """A typical training loop."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    for step in range(5):
        loss = model(torch.ones(4, 2)).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.log({"loss": loss.detach(), "lr": 0.1, "epoch": step // 2}, step=step)
        accelerator.log({"pair": {"a": 1.0 * step, "b": 2.0}}, step=step)
    accelerator.log({"note": "done"}, step=5)


def test_it_logs_what_the_librarys_own_tracker_logs(tmp_path, accelerator, read_scalars):
    pytest.importorskip("tensorboard")
    theirs = tracking.TensorBoardTracker("theirs", tmp_path)
    made = accelerator(TensorBoardTracker(tmp_path / "ours"), theirs)
    made.init_trackers("project")
    train(made)
    made.end_training()
    ours = read_scalars(tmp_path / "ours")
    assert ours == read_scalars(tmp_path / "theirs")
    assert {run: set(tags) for run, tags in ours.items()} == {
        "": {"loss", "lr", "epoch"},
        "pair_a": {"pair"},
        "pair_b": {"pair"},
    }
    assert len(ours[""]["loss"]) == 5


def test_texts_are_texts(tmp_path, accelerator, load_run):
    made = accelerator(TensorBoardTracker(tmp_path))
    made.init_trackers("project")
    made.log({"note": "done"}, step=5)
    made.end_training()
    (event,) = load_run(tmp_path).Tensors("note")
    assert (event.step, event.tensor_proto.string_val[0]) == (5, b"done")


def test_the_configuration_is_the_runs_own(tmp_path, accelerator, read_hparams):
    yaml = pytest.importorskip("yaml")
    made = accelerator(TensorBoardTracker(tmp_path))
    made.init_trackers("project", config=CONFIG)
    made.end_training()
    values, status = read_hparams(tmp_path)
    assert values == {"lr": 0.1, "name": "first", "amp": True}
    assert status == "success"
    assert yaml.safe_load((tmp_path / "hparams.yml").read_text()) == CONFIG
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_configuration_that_is_no_yaml_is_logged_all_the_same(
    tmp_path, accelerator, read_hparams
):
    made = accelerator(TensorBoardTracker(tmp_path))
    made.init_trackers("project", config={"dtype": torch.float16})
    made.end_training()
    assert read_hparams(tmp_path)[0] == {"dtype": "torch.float16"}


def test_images_are_batches(tmp_path, accelerator, load_run):
    made = accelerator(TensorBoardTracker(tmp_path))
    made.init_trackers("project")
    batch = np.zeros((3, 4, 5, 3), np.uint8)
    made.get_tracker("tensorboard").log_images({"images": batch}, step=2, dataformats="NHWC")
    made.end_training()
    (image,) = load_run(tmp_path).Images("images")
    assert image.step == 2


def test_what_cannot_be_logged_is_said(tmp_path, accelerator, read_scalars, caplog):
    made = accelerator(TensorBoardTracker(tmp_path))
    made.init_trackers("project")
    made.log({"odd": [1, 2, 3], "loss": 1.0}, step=1)
    made.end_training()
    assert read_scalars(tmp_path)[""] == {"loss": [(1, 1.0)]}
    assert "'odd'" in caplog.text


def test_the_writer_is_found_by_the_librarys_name(tmp_path, accelerator, read_scalars):
    made = accelerator(TensorBoardTracker(tmp_path))
    made.init_trackers("project")
    made.get_tracker("tensorboard", unwrap=True).add_scalar("mine", 1.0, 3)
    made.end_training()
    assert read_scalars(tmp_path)[""] == {"mine": [(3, 1.0)]}


@pytest.mark.skipif(
    not hasattr(tracking, "register_tracker_class"), reason="Accelerate 1.15 can register trackers"
)
def test_it_can_be_registered(tmp_path, accelerator, read_scalars, monkeypatch):
    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", dict(tracking.LOGGER_TYPE_TO_CLASS))
    monkeypatch.setattr(
        accelerate.accelerator, "LOGGER_TYPE_TO_CLASS", tracking.LOGGER_TYPE_TO_CLASS
    )
    monkeypatch.setattr(TensorBoardTracker, "name", "sm_tblog")
    tracking.register_tracker_class(TensorBoardTracker)
    made = accelerator("sm_tblog", project_dir=tmp_path)
    made.init_trackers("project", init_kwargs={"sm_tblog": {"filename_suffix": ".mine"}})
    made.log({"loss": 1.0}, step=1)
    made.end_training()
    assert read_scalars(tmp_path)["project"] == {"loss": [(1, 1.0)]}
    assert [*(tmp_path / "project").glob("*.mine")]


def test_a_writer_that_is_given_stays_open(tmp_path, accelerator, read_scalars):
    with Writer(tmp_path) as writer:
        made = accelerator(TensorBoardTracker(writer))
        made.init_trackers("project")
        made.log({"loss": 1.0}, step=1)
        made.end_training()
        assert read_scalars(tmp_path)[""] == {"loss": [(1, 1.0)]}
        writer.add_scalar("mine", 1.0, 0)
    assert "mine" in read_scalars(tmp_path)[""]


def test_a_folder_above_belongs_to_a_folders_name(tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match="logging_dir"):
        TensorBoardTracker(writer, tmp_path)


def test_a_pickled_tracker_logs(tmp_path, accelerator, read_scalars):
    made = accelerator(pickle.loads(pickle.dumps(TensorBoardTracker(tmp_path))))
    made.init_trackers("project")
    made.log({"loss": 1.0}, step=1)
    made.end_training()
    assert read_scalars(tmp_path)[""] == {"loss": [(1, 1.0)]}


RANKS = """
import sys, torch
from accelerate import Accelerator
from sm_tblog.adapters.accelerate import TensorBoardTracker

accelerator = Accelerator(cpu=True, log_with=TensorBoardTracker(sys.argv[1]))
accelerator.init_trackers("project", config={"lr": 0.1})
loss = accelerator.gather(torch.tensor([1.0 + accelerator.process_index])).sum()
accelerator.log({"loss": loss}, step=1)
accelerator.end_training()
"""


def test_of_several_processes_the_main_one_logs(tmp_path, script, read_scalars, event_files):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = script(RANKS, tmp_path)
    processes = [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert read_scalars(tmp_path)[""] == {"loss": [(1, 3.0)]}
    assert len([path for path in event_files(tmp_path) if "hparams" not in path.name]) == 1
