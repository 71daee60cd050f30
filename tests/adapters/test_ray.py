"""The Ray Tune adapter, compared with Ray's own callback. No cluster is started."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("ray", reason="ray[tune] is not installed")
logger = pytest.importorskip("ray.tune.logger")

from sm_tblog.adapters.ray import TensorBoardLoggerCallback  # noqa: E402 - it needs Ray

PARAMS = {"lr": 0.1, "model": {"depth": 3, "name": "small"}, "none": None}


class Trial(SimpleNamespace):
    """The attributes of a trial that a callback uses."""

    def __hash__(self):
        return id(self)

    def init_local_path(self):
        pass


def run(callback, folder):
    trial = Trial(local_path=str(folder), evaluated_params=PARAMS)
    callback.log_trial_start(trial)
    for i in range(1, 4):
        result = {
            "training_iteration": i,
            "loss": 1.0 / i,
            "inner": {"score": np.float32(i), "bad": float("nan")},
            "text": "left out",
            "weights": np.arange(i + 1.0),
            "image": np.zeros((3, 4, 5), np.uint8),
            "time_total_s": 3.0,
            "pid": 7,
            "timestamp": 8,
            "config": {"lr": 0.1},
        }
        callback.log_trial_result(i, trial, result)
    callback.log_trial_end(trial)


@pytest.fixture
def own():
    pytest.importorskip("tensorboardX", reason="Ray's own callback needs tensorboardX")
    return logger.TBXLoggerCallback()


def test_it_logs_what_rays_own_callback_logs(own, tmp_path, read_scalars, load_run):
    run(TensorBoardLoggerCallback(), tmp_path / "ours")
    run(own, tmp_path / "theirs")
    ours, theirs = read_scalars(tmp_path / "ours"), read_scalars(tmp_path / "theirs")
    assert ours == theirs
    assert ours[""]["ray/tune/inner/score"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    for kind in ("images", "histograms"):
        tags = load_run(tmp_path / "ours").Tags()[kind]
        assert tags == load_run(tmp_path / "theirs").Tags()[kind]
        assert len(tags) == 1


def test_hyperparameters_are_those_that_ray_logs(own, tmp_path, read_hparams):
    run(TensorBoardLoggerCallback(), tmp_path / "ours")
    run(own, tmp_path / "theirs")
    values, status = read_hparams(tmp_path / "ours")
    assert values == {"lr": 0.1, "model/depth": 3, "model/name": "small"}
    assert status == "success"
    theirs, _ = read_hparams(tmp_path / "theirs")
    assert {name: value for name, value in theirs.items() if value != ""} == values


def test_ray_adds_no_callback_of_its_own():
    callbacks = pytest.importorskip("ray.tune.utils.callback")
    made = callbacks._create_default_callbacks([TensorBoardLoggerCallback()])
    boards = [one for one in made if isinstance(one, logger.TBXLoggerCallback)]
    assert [type(one) for one in boards] == [TensorBoardLoggerCallback]


def test_a_trial_that_is_started_again_goes_on(tmp_path, read_scalars, event_files):
    callback = TensorBoardLoggerCallback(filename_suffix=".mine")
    trial = Trial(local_path=str(tmp_path), evaluated_params={})
    for i in range(1, 3):
        callback.log_trial_start(trial)
        callback.log_trial_result(i, trial, {"training_iteration": i, "loss": 1.0})
    callback.log_trial_end(trial, failed=True)
    assert read_scalars(tmp_path)[""]["ray/tune/loss"] == [(1, 1.0), (2, 1.0)]
    assert all(path.suffix == ".mine" for path in event_files(tmp_path))
