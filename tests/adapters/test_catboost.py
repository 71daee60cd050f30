"""The CatBoost adapter, compared with the event files that CatBoost itself writes."""

import copy
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sm_tblog import Writer

catboost = pytest.importorskip("catboost")
datasets = pytest.importorskip("sklearn.datasets")

from sm_tblog.adapters.catboost import TensorBoardCallback  # noqa: E402 - it needs CatBoost


@pytest.fixture(scope="module")
def arrays():
    return datasets.load_breast_cancer(return_X_y=True)


@pytest.fixture
def fit(arrays, tmp_path):
    """``fit(callback, sets=1, **parameters)`` returns a model. CatBoost writes to ``own``."""
    x, y = arrays

    def fit(callback, sets=1, init_model=None, others=(), **parameters):
        settings = {"iterations": 6, "depth": 3, "verbose": 0, "thread_count": 1}
        folder = str(tmp_path / "own")
        model = catboost.CatBoostClassifier(**{**settings, "train_dir": folder, **parameters})
        parts = [(x[i * 50 : i * 50 + 50], y[i * 50 : i * 50 + 50]) for i in range(sets)]
        callbacks = [callback, *others]
        model.fit(x[300:], y[300:], eval_set=parts, init_model=init_model, callbacks=callbacks)
        return model

    return fit


def without_numbers(runs):
    """CatBoost's own tags. With several data sets, it adds a number to the tags of all but one."""
    return {
        folder: {re.sub(r":\d$", "", tag): points for tag, points in tags.items()}
        for folder, tags in runs.items()
    }


def as_expected(runs):
    return {
        folder: {
            tag: [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
            for tag, points in tags.items()
        }
        for folder, tags in without_numbers(runs).items()
    }


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"custom_metric": ["AUC", "Accuracy"], "metric_period": 4},
        {"iterations": 300, "early_stopping_rounds": 2, "learning_rate": 1.0},
        {"sets": 2, "custom_metric": ["AUC"]},
        {"sets": 3},
        {"sets": 0},
    ],
    ids=str,
)
def test_it_logs_what_catboost_writes(parameters, fit, tmp_path, read_scalars):
    with TensorBoardCallback(tmp_path / "ours") as callback:
        model = fit(callback, **parameters)
    own = read_scalars(tmp_path / "own")
    ours = read_scalars(tmp_path / "ours")
    assert ours == as_expected(own)
    assert len(ours) == 1 + parameters.get("sets", 1)
    assert len(ours["learn"]["Logloss"]) >= 3
    if "early_stopping_rounds" in parameters:
        assert model.tree_count_ < 300


def test_catboost_adds_numbers_to_all_sets_but_the_last(fit, tmp_path, read_scalars):
    fit(TensorBoardCallback(tmp_path / "ours"), sets=3)
    own = read_scalars(tmp_path / "own")
    assert {folder: [*tags] for folder, tags in own.items()} == {
        "learn": ["Logloss"],
        "test": ["Logloss:0"],
        "test1": ["Logloss:1"],
        "test2": ["Logloss"],
    }


def test_a_snapshot_goes_on_and_supersedes_what_is_done_again(fit, tmp_path, read_scalars):
    class Stop:
        def after_iteration(self, info):
            return info.iteration < 3

    class Fail:
        def after_iteration(self, info):
            if info.iteration == 5:
                raise KeyboardInterrupt
            return True

    # A snapshot of three rounds, then a run that logged five rounds and was lost.
    options = {"save_snapshot": True, "snapshot_interval": 0, "metric_period": 1}
    with TensorBoardCallback(tmp_path / "ours") as callback:
        fit(callback, others=[Stop()], **options)
    lost = {"train_dir": str(tmp_path / "lost")}
    with TensorBoardCallback(tmp_path / "ours") as callback:
        fit(callback, iterations=5, **lost)
    with TensorBoardCallback(tmp_path / "ours") as callback:
        fit(callback, **options)
    ours = read_scalars(tmp_path / "ours")
    assert [step for step, _ in ours["test"]["Logloss"]][-3:] == [3, 4, 5]
    assert (
        ours["test"]["Logloss"][-3:]
        == as_expected(read_scalars(tmp_path / "own"))["test"]["Logloss"][-3:]
    )
    assert max(step for step, _ in ours["test"]["Logloss"][:-3]) <= 2


def test_training_goes_on(fit, tmp_path):
    assert fit(TensorBoardCallback(tmp_path / "ours"), use_best_model=False).tree_count_ == 6


def test_continued_training_can_continue_the_steps(fit, tmp_path, read_scalars):
    with TensorBoardCallback(tmp_path / "ours") as callback:
        model = fit(callback, use_best_model=False)
    with TensorBoardCallback(tmp_path / "ours", first_step=model.tree_count_) as callback:
        fit(callback, init_model=model)
    assert [step for step, _ in read_scalars(tmp_path / "ours")["learn"]["Logloss"]] == [*range(12)]


def test_the_model_is_logged_when_it_is_given(fit, tmp_path, read_scalars, read_hparams, load_run):
    with TensorBoardCallback(tmp_path / "ours") as callback:
        model = fit(callback)
        callback.log_model(model)
    run = read_scalars(tmp_path / "ours")[""]
    scores = dict(zip(model.feature_names_, model.feature_importances_, strict=True))
    best = max(scores, key=scores.get)
    assert run[f"importance/feature/{best}"] == [(5, pytest.approx(scores[best], rel=1e-6))]
    assert load_run(tmp_path / "ours").Tags()["images"] == ["importance/feature"]
    values, status = read_hparams(tmp_path / "ours")
    assert values["depth"] == 3
    assert values["loss_function"] == "Logloss"
    assert status == "success"


def test_a_training_that_fails_keeps_its_rounds(fit, tmp_path, read_scalars):
    class Fail:
        def after_iteration(self, info):
            if info.iteration == 3:
                raise RuntimeError("no more memory")
            return True

    callback = TensorBoardCallback(tmp_path / "ours")
    # CatBoost leaves its thread with the exception in hand: others would be chained to it.
    with (
        ThreadPoolExecutor(1) as pool,
        callback,
        pytest.raises(Exception, match="no more memory"),
    ):
        pool.submit(fit, callback, others=[Fail()]).result()
    assert sys.exc_info() == (None, None, None)
    assert [step for step, _ in read_scalars(tmp_path / "ours")["learn"]["Logloss"]] == [0, 1, 2]


def test_of_a_writer_the_folder_is_taken(fit, tmp_path, read_scalars):
    with Writer(tmp_path / "ours") as writer:
        with TensorBoardCallback(writer) as callback:
            callback.log_model(fit(callback))
        writer.add_scalar("mine", 1.0, 0)
    runs = read_scalars(tmp_path / "ours")
    assert len(runs["learn"]["Logloss"]) == 6
    assert runs[""]["mine"] == [(0, 1.0)]


def test_a_writer_that_is_disabled_logs_nothing(fit, tmp_path):
    with TensorBoardCallback(Writer(tmp_path / "ours", enabled=False)) as callback:
        callback.log_model(fit(callback))
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_log(again, fit, tmp_path, read_scalars):
    with again(TensorBoardCallback(tmp_path / "ours")) as callback:
        fit(callback)
    assert read_scalars(tmp_path / "ours") == as_expected(read_scalars(tmp_path / "own"))


def test_of_several_processes_the_first_logs(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with TensorBoardCallback(tmp_path / "ours") as callback:
        callback.log_model(fit(callback))
    assert not (tmp_path / "ours").exists()
