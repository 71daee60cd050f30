"""The LightGBM adapter, compared with the values that LightGBM records."""

import copy
import gc
import pickle

import pytest

from sm_tblog import InvalidValueError, Writer

lightgbm = pytest.importorskip("lightgbm")
datasets = pytest.importorskip("sklearn.datasets")

from sm_tblog.adapters.lightgbm import (  # noqa: E402 - it needs LightGBM
    TensorBoardCallback,
    _names,
)

PARAMS = {
    "objective": "binary",
    "metric": ["binary_logloss", "auc"],
    "num_leaves": 7,
    "verbose": -1,
    "num_threads": 1,
}


@pytest.fixture
def data():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    train = lightgbm.Dataset(x[:400], y[:400], free_raw_data=False)
    eval_ = lightgbm.Dataset(x[400:], y[400:], reference=train, free_raw_data=False)
    return train, eval_


def train(data, *callbacks, rounds=5, **kwargs):
    record = {}
    model = lightgbm.train(
        PARAMS,
        data[0],
        rounds,
        valid_sets=[*data],
        valid_names=["train", "eval"],
        callbacks=[*callbacks, lightgbm.record_evaluation(record)],
        **kwargs,
    )
    return model, record


def as_curves(record, start=0):
    """The values from ``record_evaluation``, as they should be logged."""
    return {
        f"{metric}/{name}": [
            (start + i, pytest.approx(score, rel=1e-6)) for i, score in enumerate(scores)
        ]
        for name, metrics in record.items()
        for metric, scores in metrics.items()
    }


def curves(run):
    return {tag: points for tag, points in run.items() if not tag.startswith(("best", "importan"))}


def test_train_logs_what_is_recorded(data, tmp_path, read_scalars, read_hparams, load_run):
    model, record = train(data, TensorBoardCallback(tmp_path))
    run = read_scalars(tmp_path)[""]
    assert curves(run) == as_curves(record)
    assert len(run["auc/eval"]) == 5
    for kind in ("gain", "split"):
        scores = dict(zip(model.feature_name(), model.feature_importance(kind), strict=True))
        logged = {tag: points for tag, points in run.items() if f"importance/{kind}/" in tag}
        assert len(logged) > 5
        for tag, points in logged.items():
            score = scores[tag.removeprefix(f"importance/{kind}/")]
            # The returned values were converted to text with six digits and back.
            assert points == [(4, pytest.approx(score, rel=1e-5))]
    assert sorted(load_run(tmp_path).Tags()["images"]) == ["importance/gain", "importance/split"]
    values, status = read_hparams(tmp_path)
    assert values["num_leaves"] == 7
    assert values["num_iterations"] == 5
    assert status == "success"


def test_the_best_value_of_each_metric_is_logged(data, tmp_path, read_scalars):
    _, record = train(data, TensorBoardCallback(tmp_path), rounds=30)
    run = read_scalars(tmp_path)[""]
    for metric, best in (("binary_logloss", min), ("auc", max)):
        scores = record["eval"][metric]
        value = best(scores)
        at = scores.index(value)
        assert run[f"best/{metric}/eval"][-1] == (at, pytest.approx(value, rel=1e-6))


def test_the_importances_in_between_are_logged_when_asked_for(data, tmp_path, read_scalars):
    train(data, TensorBoardCallback(tmp_path, importance=["split"], importance_every=2, top=1))
    run = read_scalars(tmp_path)[""]
    points = [points for tag, points in run.items() if "importance" in tag]
    assert sorted(step for series in points for step, _ in series) == [1, 3, 4]


def test_cv_logs_means_and_deviations(tmp_path, read_scalars, load_run):
    data = lightgbm.Dataset(*datasets.load_breast_cancer(return_X_y=True))
    callback = TensorBoardCallback(tmp_path)
    table = lightgbm.cv(PARAMS, data, 4, nfold=3, callbacks=[callback], eval_train_metric=True)
    run = read_scalars(tmp_path)[""]
    assert len(curves(run)) == 8
    for name in ("train", "valid"):
        for metric in ("binary_logloss", "auc"):
            for end, column in (("", "mean"), ("-std", "stdv")):
                expected = enumerate(table[f"{name} {metric}-{column}"])
                assert run[f"{metric}/{name}{end}"] == [
                    (i, pytest.approx(value, rel=1e-6)) for i, value in expected
                ]
    assert load_run(tmp_path).Tags()["images"]


def test_names_of_earlier_versions_are_understood():
    assert _names("cv_agg", "valid auc") == ("valid", "auc")
    assert _names("valid_0", "my auc") == ("valid_0", "my auc")


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")  # new since 4.7
def test_estimators_log_under_the_names_that_they_give(tmp_path, read_scalars):
    x, y = datasets.load_breast_cancer(return_X_y=True)
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1)
    model.fit(x, y, eval_set=[(x, y)], callbacks=[TensorBoardCallback(tmp_path)])
    run = read_scalars(tmp_path)[""]
    expected = as_curves({name: dict(m) for name, m in model.evals_result_.items()})
    assert curves(run) == expected
    assert len(expected) == 1


def test_continued_training_continues_the_steps(data, tmp_path, read_scalars):
    callback = TensorBoardCallback(tmp_path)
    model, first = train(data, callback, rounds=3, keep_training_booster=True)
    _, second = train(data, callback, rounds=2, init_model=model)
    scores = first["eval"]["auc"] + second["eval"]["auc"]
    points = [(i, pytest.approx(score, rel=1e-6)) for i, score in enumerate(scores)]
    assert read_scalars(tmp_path)[""]["auc/eval"] == points


def test_training_from_a_checkpoint_supersedes_what_was_lost(data, tmp_path, read_scalars):
    model, first = train(data, TensorBoardCallback(tmp_path), rounds=3)
    for rounds in (2, 4):
        _, last = train(data, TensorBoardCallback(tmp_path), rounds=rounds, init_model=model)
    expected = enumerate(first["eval"]["auc"] + last["eval"]["auc"])
    assert read_scalars(tmp_path)[""]["auc/eval"] == [
        (i, pytest.approx(score, rel=1e-6)) for i, score in expected
    ]


def test_early_stopping_is_an_end_that_is_logged(data, tmp_path, read_scalars, load_run):
    stop = lightgbm.early_stopping(2, verbose=False)
    model, record = train(data, TensorBoardCallback(tmp_path), stop, rounds=300)
    gc.collect()
    rounds = len(record["eval"]["auc"])
    assert model.best_iteration < rounds < 300
    assert curves(read_scalars(tmp_path)[""]) == as_curves(record)
    assert load_run(tmp_path).Images("importance/gain")[0].step == rounds - 1


def test_closing_is_an_end_too_and_only_one(data, tmp_path, load_run, event_files, read_hparams):
    stop = lightgbm.early_stopping(2, verbose=False)
    with TensorBoardCallback(tmp_path) as callback:
        train(data, callback, stop, rounds=300)
        assert load_run(tmp_path).Tags()["images"] == []
    assert len(load_run(tmp_path).Images("importance/gain")) == 1
    assert read_hparams(tmp_path)[1] == "success"
    files = event_files(tmp_path)
    del callback
    gc.collect()
    assert event_files(tmp_path) == files
    assert len(load_run(tmp_path).Images("importance/gain")) == 1


def test_a_training_that_fails_keeps_its_rounds(data, tmp_path, read_scalars):
    def fail(env):
        if env.iteration == 2:
            raise RuntimeError("no more memory")

    fail.order = 28
    callback = TensorBoardCallback(tmp_path)
    with callback, pytest.raises(RuntimeError, match="no more memory"):
        train(data, callback, fail)
    assert [step for step, _ in read_scalars(tmp_path)[""]["auc/eval"]] == [0, 1, 2]


def test_without_data_to_evaluate_the_importances_are_logged(data, tmp_path, load_run):
    lightgbm.train(PARAMS, data[0], 2, callbacks=[TensorBoardCallback(tmp_path)])
    assert "importance/gain" in load_run(tmp_path).Tags()["images"]


def test_a_writer_that_is_given_stays_open(data, tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        train(data, TensorBoardCallback(writer), rounds=2)
        assert len(read_scalars(tmp_path)[""]["auc/eval"]) == 2
        writer.add_scalar("mine", 1.0, 0)
    assert read_scalars(tmp_path)[""]["mine"] == [(0, 1.0)]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("used", [False, True])
def test_copies_log(again, used, data, tmp_path, read_scalars):
    callback = TensorBoardCallback(tmp_path)
    if used:
        train(data, callback, rounds=1)
    _, record = train(data, again(callback), rounds=3)
    run = curves(read_scalars(tmp_path)[""])
    assert {tag: points[-3:] for tag, points in run.items()} == as_curves(record)


def test_a_parameter_without_a_text_is_left_out_and_said(data, tmp_path, read_hparams, caplog):
    class Odd:
        pass

    hparams = {"depth": 3, "odd": Odd()}
    train(data, TensorBoardCallback(tmp_path, hparams=hparams), rounds=1)
    assert read_hparams(tmp_path)[0] == {"depth": 3}
    assert "the parameter 'odd' not logged" in caplog.text


def test_of_several_processes_the_first_logs(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    train(data, TensorBoardCallback(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_unknown_importances_are_refused():
    with pytest.raises(InvalidValueError, match="some of gain, split; got 'gain'"):
        TensorBoardCallback(importance="gain")
